//! Where PostgreSQL's programs are, and as whom they run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pg_embed::pg_access::PgAccess;
use pg_embed::pg_fetch::PgFetchSettings;

use super::{EmbeddedError, io};

/// Where the programs come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binaries {
    /// `SEAWALL_PG_BIN`, `pg_config --bindir`, `PATH`, the usual directories, and else a download.
    #[default]
    Search,
    /// A download, whatever the machine has.
    Download,
}

/// The programs that make an installation.
const PROGRAMS: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// Where distributions put them; `*` is one directory, newest version first.
const USUAL: [&str; 6] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/usr/local/pgsql/bin",
    "/usr/libexec/postgresql*",
];

/// An installation.
pub(super) struct Found {
    pub(super) bin: PathBuf,
}

impl Found {
    /// Whether `pg_stat_statements` can be loaded.
    pub(super) fn has_statements(&self) -> bool {
        let said = Command::new(self.bin.join("pg_config")).arg("--pkglibdir").output().ok();
        let said = said.map(|out| PathBuf::from(String::from_utf8_lossy(&out.stdout).trim().to_owned()));
        let lib = self.bin.join("../lib");
        let dirs = [said, Some(lib.join("postgresql")), Some(lib)];
        dirs.into_iter()
            .flatten()
            .any(|dir| ["so", "dylib"].iter().any(|end| dir.join(format!("pg_stat_statements.{end}")).exists()))
    }
}

/// The first program of an installation that `dir` lacks.
fn missing(dir: &Path) -> Option<&'static str> {
    PROGRAMS.into_iter().find(|name| !dir.join(name).is_file())
}

/// Finds an installation, or downloads one.
pub(super) async fn find(
    wanted: Binaries,
    fetch: &PgFetchSettings,
    run_dir: &Path,
    user: Option<&Unprivileged>,
) -> Result<Found, EmbeddedError> {
    if wanted == Binaries::Search {
        if let Some(dir) = std::env::var_os("SEAWALL_PG_BIN") {
            let bin = PathBuf::from(dir);
            return match missing(&bin) {
                None => Ok(Found { bin }),
                Some(missing) => Err(EmbeddedError::NotBinaries { dir: bin.display().to_string(), missing }),
            };
        }
        if let Some(bin) = candidates().into_iter().find(|dir| missing(dir).is_none()) {
            return Ok(Found { bin });
        }
    }
    download(fetch, run_dir, user).await
}

fn candidates() -> Vec<PathBuf> {
    let mut dirs = vec![];
    if let Ok(out) = Command::new("pg_config").arg("--bindir").output() {
        dirs.push(PathBuf::from(String::from_utf8_lossy(&out.stdout).trim().to_owned()));
    }
    if let Some(path) = std::env::var_os("PATH") {
        dirs.extend(std::env::split_paths(&path));
    }
    for pattern in USUAL {
        dirs.extend(expand(pattern));
    }
    dirs
}

/// The directories that `pattern` names, highest version first. One `*` at most, within one segment.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else { return vec![pattern.into()] };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or(("", before));
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(prefix)?;
            let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
            let dir = entry.path().join(after.trim_start_matches('/'));
            Some((digits.parse().unwrap_or_default(), dir))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, dir)| dir).collect()
}

async fn download(
    fetch: &PgFetchSettings,
    run_dir: &Path,
    user: Option<&Unprivileged>,
) -> Result<Found, EmbeddedError> {
    let failed = |reason: String| EmbeddedError::Download { mirror: fetch.host.clone(), reason };
    let access = PgAccess::new(fetch, &run_dir.join("data")).await.map_err(|e| failed(e.to_string()))?;
    access.maybe_acquire_postgres().await.map_err(|e| failed(e.to_string()))?;
    let cached = access.cache_dir.join("bin");
    if let Some(missing) = missing(&cached) {
        return Err(failed(format!("what was downloaded has no {missing}")));
    }
    if user.is_none() {
        return Ok(Found { bin: cached });
    }
    // Root's cache is closed to everybody else, and should be; the user that the server runs as gets a copy.
    let copy = run_dir.join("postgres");
    let (from, to) = (access.cache_dir.clone(), copy.clone());
    let copied = tokio::task::spawn_blocking(move || {
        ["bin", "lib", "share"].iter().try_for_each(|part| copy_tree(&from.join(part), &to.join(part)))
    });
    match copied.await {
        Ok(Ok(())) => Ok(Found { bin: copy.join("bin") }),
        Ok(Err(error)) => Err(io("copying the downloaded programs")(error)),
        Err(error) => Err(failed(error.to_string())),
    }
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The user that the server runs as where we are root.
#[derive(Clone, Debug)]
pub(super) struct Unprivileged {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Unprivileged {
    /// `None` where we aren't root and need nobody.
    pub(super) fn wanted() -> Result<Option<Self>, EmbeddedError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let has_setpriv = Command::new("setpriv").arg("--version").output().is_ok_and(|out| out.status.success());
        if !has_setpriv {
            return Err(EmbeddedError::Root("there is no setpriv to become another user with".into()));
        }
        let users = fs::read_to_string("/etc/passwd").map_err(io("reading /etc/passwd"))?;
        let find = |wanted: &str| {
            users.lines().find_map(|line| {
                let mut fields = line.split(':');
                let name = fields.next().filter(|name| *name == wanted)?;
                let uid = fields.nth(1)?.parse().ok()?;
                let gid = fields.next()?.parse().ok()?;
                Some(Self { name: name.to_owned(), uid, gid })
            })
        };
        match find("postgres").or_else(|| find("nobody")) {
            Some(user) => Ok(Some(user)),
            None => Err(EmbeddedError::Root("there is neither a user postgres nor nobody".into())),
        }
    }

    /// What runs a program as this user.
    pub(super) fn prefix(&self) -> String {
        format!("setpriv --reuid={} --regid={} --clear-groups ", self.uid, self.gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first() {
        let dir = tempfile::tempdir().expect("a directory");
        for version in ["9", "15", "17"] {
            fs::create_dir_all(dir.path().join(version).join("bin")).expect("a directory");
        }
        let found = expand(&format!("{}/*/bin", dir.path().display()));
        let versions: Vec<_> =
            found.iter().map(|d| d.parent().expect("a parent").file_name().expect("a name")).collect();
        assert_eq!(versions, ["17", "15", "9"]);
        assert!(expand("/nowhere/*/bin").is_empty());
    }
}
