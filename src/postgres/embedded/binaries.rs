//! Finds a PostgreSQL on the machine: the directory of its `initdb`, `pg_ctl` and `postgres`.
//!
//! In this order: `SEAWALL_PG_BIN`, which is an instruction and so must hold; `pg_config --bindir`; `PATH`; the usual
//! directories, newest first. A directory that is incomplete, too old, or closed to the account that would run it is
//! passed over, unless it was named.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::{Account, on_path};
use super::error::EmbeddedError;

/// Without these there is no cluster, no start and no server.
pub(super) const NEEDED: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// `xid8` and `pg_snapshot`, on which stamps rest, came with 13.
const OLDEST: u32 = 13;

/// The directory of this machine's PostgreSQL programs, if there is one that Seawall can use.
pub fn find_binaries() -> Result<Option<PathBuf>, EmbeddedError> {
    search(&Account::choose()?)
}

pub(super) fn search(account: &Account) -> Result<Option<PathBuf>, EmbeddedError> {
    if let Some(dir) = std::env::var_os("SEAWALL_PG_BIN").filter(|dir| !dir.is_empty()).map(PathBuf::from) {
        return match problem(&dir, account) {
            None => Ok(Some(dir)),
            Some(problem) => Err(EmbeddedError::NamedBinaries { dir, problem }),
        };
    }
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let candidates = bindir().into_iter().chain(on_path.unwrap_or_default()).chain(usual());
    Ok(candidates.filter(|dir| dir.join("initdb").is_file()).find(|dir| problem(dir, account).is_none()))
}

/// Why `dir` can't be used; nothing if it can.
pub(super) fn problem(dir: &Path, account: &Account) -> Option<String> {
    if !dir.is_absolute() {
        return Some("it is not an absolute path".to_owned());
    }
    let missing: Vec<_> = NEEDED.into_iter().filter(|program| !dir.join(program).is_file()).collect();
    if !missing.is_empty() {
        return Some(format!("it has no {}", missing.join(", no ")));
    }
    if !account.can_enter(&dir.join("postgres")) {
        return Some(format!("user {}, for whom PostgreSQL runs here, can't execute it", account.name()));
    }
    match version(&dir.join("postgres")) {
        Ok(version) if version < OLDEST => Some(format!("it is PostgreSQL {version}")),
        Ok(_) => None,
        Err(said) => Some(format!("`postgres --version` does not run: {said}")),
    }
}

/// The library of `pg_stat_statements` that belongs to the programs in `bin`, where it was packaged.
pub(super) fn has_statements_library(bin: &Path) -> bool {
    let named = output(bin.join("pg_config").as_os_str(), "--pkglibdir").ok().map(PathBuf::from);
    let beside = ["lib", "lib/postgresql"].map(|lib| bin.join("..").join(lib));
    named
        .into_iter()
        .chain(beside)
        .any(|lib| ["so", "dylib"].iter().any(|suffix| lib.join(format!("pg_stat_statements.{suffix}")).is_file()))
}

fn bindir() -> Option<PathBuf> {
    output(on_path("pg_config")?.as_os_str(), "--bindir").ok().map(PathBuf::from)
}

/// The major version, or what the program said instead.
fn version(postgres: &Path) -> Result<u32, String> {
    let said = output(postgres.as_os_str(), "--version")?;
    major(&said).ok_or(said)
}

/// `postgres (PostgreSQL) 15.16 (Debian 15.16-0+deb12u1)`, `postgres (PostgreSQL) 19devel`.
fn major(said: &str) -> Option<u32> {
    let number = said.split("(PostgreSQL)").nth(1)?.trim_start();
    let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..end].parse().ok()
}

fn output(program: &OsStr, argument: &str) -> Result<String, String> {
    let output =
        Command::new(program).arg(argument).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = if output.status.success() { &output.stdout } else { &output.stderr };
    let text = String::from_utf8_lossy(text).trim().to_owned();
    if output.status.success() { Ok(text) } else { Err(text) }
}

/// Where distributions put it, the newest version first.
fn usual() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (parent, prefix, rest) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/usr/libexec", "postgresql", "."),
    ] {
        let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
        let mut versions: Vec<_> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let version = name.strip_prefix(prefix)?.trim_start_matches('@');
                Some((version.parse::<u32>().unwrap_or(0), entry.path().join(rest)))
            })
            .collect();
        versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
        found.extend(versions.into_iter().map(|(_, dir)| dir));
    }
    found.push(PathBuf::from("/usr/local/pgsql/bin"));
    found
}

#[cfg(test)]
mod tests {
    use super::{major, problem};
    use crate::postgres::embedded::account::Account;
    use std::path::Path;

    #[test]
    fn the_major_version_is_read_from_what_distributions_print() {
        assert_eq!(major("postgres (PostgreSQL) 15.16 (Debian 15.16-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 19devel"), Some(19));
        assert_eq!(major("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(major("bash: not found"), None);
    }

    #[test]
    fn a_directory_without_the_programs_is_told_which_are_missing() {
        let empty = tempfile::tempdir().unwrap();
        std::fs::write(empty.path().join("initdb"), "").unwrap();
        assert_eq!(problem(empty.path(), &Account::Ourselves).unwrap(), "it has no pg_ctl, no postgres");
        assert_eq!(problem(Path::new("bin"), &Account::Ourselves).unwrap(), "it is not an absolute path");
    }
}
