//! Files that a configuration is made of, looked at by their content.
//!
//! By content and not by events of the file system: an atomic rename, a write in place, a link that leads elsewhere (as a
//! mounted ConfigMap's `..data` does when it changes) and a network's file system all look the same this way. A change is taken
//! once two looks in a row have seen the same, so that a file that is being written is not taken half; what was tried once is
//! not tried again until it changes.

use std::path::PathBuf;
use std::time::Duration;

use xxhash_rust::xxh3::Xxh3;

/// Between two looks: a change is in force after two of them, and looking is reading some kilobytes.
pub(super) const LOOKS: Duration = Duration::from_millis(500);

/// What a look has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// What was taken or tried last.
    Same,
    /// Something else, which may still be on its way.
    Moving,
    /// Something else, twice. From here on it counts as tried.
    Settled,
}

/// Watches some files.
pub(super) struct Watch {
    path: PathBuf,
    also: Vec<PathBuf>,
    tried: u128,
    last: u128,
}

impl Watch {
    /// What the files hold now counts as tried.
    pub(super) fn new(path: PathBuf, also: Vec<PathBuf>) -> Self {
        let mut watch = Self { path, also, tried: 0, last: 0 };
        watch.tried = watch.content();
        watch.last = watch.tried;
        watch
    }

    /// Watches these beside the first from now on. What they hold counts as tried.
    pub(super) fn also(&mut self, also: Vec<PathBuf>) {
        if self.also != also {
            self.also = also;
            self.tried = self.content();
            self.last = self.tried;
        }
    }

    /// Looks once.
    pub(super) fn look(&mut self) -> Seen {
        let now = self.content();
        let before = std::mem::replace(&mut self.last, now);
        if now == self.tried {
            Seen::Same
        } else if now == before {
            self.tried = now;
            Seen::Settled
        } else {
            Seen::Moving
        }
    }

    /// A digest of all of them. One that can't be read is none, and different from an empty one.
    fn content(&self) -> u128 {
        let mut hasher = Xxh3::new();
        for path in std::iter::once(&self.path).chain(&self.also) {
            match std::fs::read(path) {
                Ok(bytes) => {
                    hasher.update(&(bytes.len() as u64).to_le_bytes());
                    hasher.update(&bytes);
                }
                Err(_) => hasher.update(&u64::MAX.to_le_bytes()),
            }
        }
        hasher.digest128()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_taken_when_it_stands_still_and_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, part) = (dir.path().join("config.toml"), dir.path().join("query.sql"));
        fs::write(&path, "one").expect("written");
        fs::write(&part, "part").expect("written");
        let mut watch = Watch::new(path.clone(), vec![part.clone()]);
        assert_eq!(watch.look(), Seen::Same);
        // Byte by byte: never taken before it stands still.
        for end in 1..=3 {
            fs::write(&path, &"two"[..end]).expect("written");
            assert_eq!(watch.look(), Seen::Moving);
        }
        assert_eq!([watch.look(), watch.look(), watch.look()], [Seen::Settled, Seen::Same, Seen::Same]);
        // There and back between two looks, or seen once: nothing to take.
        fs::write(&path, "three").expect("written");
        assert_eq!(watch.look(), Seen::Moving);
        fs::write(&path, "two").expect("written");
        assert_eq!(watch.look(), Seen::Same);
        fs::write(&part, "other").expect("written");
        assert_eq!([watch.look(), watch.look()], [Seen::Moving, Seen::Settled], "a part is watched like the whole");
        fs::remove_file(&part).expect("removed");
        assert_eq!([watch.look(), watch.look()], [Seen::Moving, Seen::Settled], "that it is gone is a change");
        fs::write(&part, "").expect("written");
        assert_eq!([watch.look(), watch.look()], [Seen::Moving, Seen::Settled], "an empty one is not none");
    }

    #[test]
    #[cfg(unix)]
    fn a_rename_and_a_link_that_leads_elsewhere_are_changes_of_content() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        // As a mounted ConfigMap: config.toml -> ..data/config.toml, ..data -> ..1
        for (version, text) in [("..1", "one"), ("..2", "two")] {
            fs::create_dir(at(version)).expect("made");
            fs::write(at(version).join("config.toml"), text).expect("written");
        }
        symlink("..1", at("..data")).expect("linked");
        symlink("..data/config.toml", at("config.toml")).expect("linked");
        let mut watch = Watch::new(at("config.toml"), vec![]);
        symlink("..2", at("..data_tmp")).expect("linked");
        fs::rename(at("..data_tmp"), at("..data")).expect("renamed");
        assert_eq!([watch.look(), watch.look(), watch.look()], [Seen::Moving, Seen::Settled, Seen::Same]);
        fs::write(at("new"), "three").expect("written");
        fs::rename(at("new"), at("config.toml")).expect("renamed");
        assert_eq!([watch.look(), watch.look()], [Seen::Moving, Seen::Settled]);
    }
}
