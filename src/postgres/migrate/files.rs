//! The migrations: numbered SQL files, compiled in, each applied once and in order.
//!
//! A file never changes once it has been released; what it made is changed by a later file. A checksum of each is kept in
//! `seawall.migration`, so a database that was made by another text is found and left alone.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// One file.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// From 1, without gaps.
    pub version: i32,
    /// What it is about.
    pub name: &'static str,
    text: &'static str,
}

/// All of them, oldest first.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "log", text: include_str!("../../../migrations/0001_log.sql") },
    Migration { version: 2, name: "announcing", text: include_str!("../../../migrations/0002_announcing.sql") },
    Migration { version: 3, name: "definitions", text: include_str!("../../../migrations/0003_definitions.sql") },
    Migration { version: 4, name: "doorbell", text: include_str!("../../../migrations/0004_doorbell.sql") },
];

impl Migration {
    /// SHA-256 of the text, hexadecimal. How lines end doesn't count: it depends on the checkout.
    pub fn checksum(&self) -> String {
        let digest = Sha256::digest(self.text.replace("\r\n", "\n"));
        digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// The file and the record that it was applied, as one transaction.
    pub fn script(&self) -> String {
        let (version, name, checksum) = (self.version, self.name, self.checksum());
        format!(
            "BEGIN;\n{}\nINSERT INTO seawall.migration (version, name, checksum) \
             VALUES ({version}, '{name}', '{checksum}');\nCOMMIT;\n",
            self.text
        )
    }
}

/// What `seawall.migration` says: versions and checksums, in order.
pub(super) type Applied = Vec<(i32, String)>;

/// Why what is there can't be built upon.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// A later program was here.
    #[error(
        "schema seawall is at version {found}, and this program knows up to {known}: use the one that made it, or later"
    )]
    Newer {
        /// In the database.
        found: i32,
        /// Here.
        known: i32,
    },
    /// Another text was applied under this number, or one was left out.
    #[error(
        "version {0} of schema seawall was made from another text than this program's: uninstall it and migrate again"
    )]
    Other(i32),
}

/// The migrations that a database still needs where `applied` have been.
pub(super) fn pending(applied: &Applied) -> Result<&'static [Migration], Unknown> {
    for (place, (version, checksum)) in applied.iter().enumerate() {
        let Some(migration) = MIGRATIONS.get(place) else {
            let known = i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX);
            return Err(Unknown::Newer { found: *version, known });
        };
        if migration.version != *version || migration.checksum() != *checksum {
            return Err(Unknown::Other(*version));
        }
    }
    Ok(&MIGRATIONS[applied.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(count: usize) -> Applied {
        MIGRATIONS[..count].iter().map(|m| (m.version, m.checksum())).collect()
    }

    #[test]
    fn versions_have_no_gaps_and_every_file_of_the_directory_is_compiled_in() {
        let mut files: Vec<String> = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations"))
            .expect("the directory is there")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        files.sort();
        let known: Vec<String> = MIGRATIONS.iter().map(|m| format!("{:04}_{}.sql", m.version, m.name)).collect();
        assert_eq!(files, known);
        for (place, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version), Ok(place + 1));
        }
    }

    #[test]
    fn files_are_ascii_so_that_a_database_of_any_encoding_can_take_them() {
        for migration in MIGRATIONS {
            assert!(migration.text.is_ascii(), "{}", migration.name);
        }
    }

    #[test]
    fn what_is_applied_is_not_applied_again() {
        for count in 0..=MIGRATIONS.len() {
            assert_eq!(pending(&applied(count)).expect("known").len(), MIGRATIONS.len() - count);
        }
    }

    #[test]
    fn a_later_version_another_text_and_a_gap_are_refused() {
        let mut newer = applied(MIGRATIONS.len());
        let next = i32::try_from(MIGRATIONS.len()).expect("few") + 1;
        newer.push((next, "00".into()));
        assert_eq!(pending(&newer).err(), Some(Unknown::Newer { found: next, known: next - 1 }));
        let mut other = applied(1);
        other[0].1 = "00".into();
        assert_eq!(pending(&other).err(), Some(Unknown::Other(1)));
        let gap: Applied = applied(2).into_iter().skip(1).collect();
        assert_eq!(pending(&gap).err(), Some(Unknown::Other(2)));
    }

    #[test]
    fn line_endings_do_not_change_a_checksum() {
        let unix = Migration { version: 1, name: "x", text: "a\nb\n" };
        let windows = Migration { text: "a\r\nb\r\n", ..unix };
        assert_eq!(unix.checksum(), windows.checksum());
    }
}
