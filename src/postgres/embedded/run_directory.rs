//! The run directory: everything that one embedded Postgres has on disk.
//!
//! ```text
//! seawall-pg-<random>/      ours; as root others may pass through, not look in
//!   bin/initdb, bin/pg_ctl  scripts which pg-embed runs in place of the real programs
//!   command.pid             the process id of such a script while it runs
//!   data/                   the cluster; the account's
//!   data.pwfile             the password, while initdb runs; the account's
//!   initdb.log, server.log  what they say; pg-embed would lose it
//! ```
//! There is no socket: the server listens on 127.0.0.1 only, with a password that nobody else knows, so the length of
//! the directory's name doesn't matter, and other users of the machine can't connect.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::error::EmbeddedError;

/// One of our scripts. While an initdb or a start runs, `command.pid` says so to the watchdog.
const COMMAND: &str = r#"#!/bin/sh
cd @RUN@ || exit 1
if [ "$1" != stop ]; then
    trap 'exit 130' INT
    trap 'exit 143' TERM
    trap 'rm -f command.pid' EXIT
    echo $$ >command.pid || exit 1
fi
unset PGDATA PGHOST PGPORT PGOPTIONS PGUSER PGDATABASE PGSERVICE PGCTLTIMEOUT TZ LANGUAGE
LC_ALL=C
export LC_ALL
@PROGRAM@ @OPTIONS@ "$@" >>@LOG@ 2>&1
"#;

/// How much of a log's end an error shows: about a screen.
const TAIL_BYTES: u64 = 4096;

/// Paths in the run directory. Removing it is the watchdog's part.
#[derive(Clone, Debug)]
pub(super) struct RunDirectory {
    path: PathBuf,
}

impl RunDirectory {
    /// Makes an empty one in `parent`; without `parent` in the first of the usual temporary directories which the
    /// account can enter.
    pub(super) fn create(parent: Option<&Path>, account: &Account) -> Result<Self, EmbeddedError> {
        let usual = [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
        let parents = parent.map_or(&usual[..], |_| &[]).iter().map(PathBuf::as_path).chain(parent);
        let mut closed = None;
        for parent in parents {
            // The server's own path must not depend on our working directory.
            let parent = std::path::absolute(parent).map_err(EmbeddedError::io("could not find", parent))?;
            if account.can_enter(&parent) {
                return Self::within(&parent, account);
            }
            closed.get_or_insert(parent);
        }
        Err(EmbeddedError::Unreachable {
            path: closed.unwrap_or_default(),
            user: account.name().to_owned(),
            remedy: "choose another directory, or set TMPDIR to one that everybody can enter",
        })
    }

    fn within(parent: &Path, account: &Account) -> Result<Self, EmbeddedError> {
        let mode = if matches!(account, Account::Ourselves) { 0o700 } else { 0o711 };
        let path = parent.join(format!("seawall-pg-{}", &random_hex()?[..12]));
        DirBuilder::new().mode(mode).create(&path).map_err(EmbeddedError::io("could not make", &path))?;
        Ok(Self { path })
    }

    /// Fills it with what initdb needs to find.
    pub(super) fn prepare(&self, bin: &Path, account: &Account) -> Result<(), EmbeddedError> {
        // The mode at creation is narrowed by the umask; as root the account must be able to pass through.
        if !matches!(account, Account::Ourselves) {
            set_mode(&self.path, 0o711)?;
        }
        make_directory(&self.path.join("bin"))?;
        make_directory(&self.data())?;
        account.give(&self.data())?;
        // pg-embed writes the password into it; made here first, nobody else can read it.
        write(&self.password_file(), 0o600, "")?;
        account.give(&self.password_file())?;
        write(&self.initdb_log(), 0o600, "")?;
        write(&self.server_log(), 0o600, "")?;
        // C: the same order of texts everywhere. No sync: a cluster that no crash of the machine has to outlive.
        self.write_command("initdb", bin, account, "--locale=C --no-sync", &self.initdb_log())?;
        self.write_command("pg_ctl", bin, account, "", &self.server_log())
    }

    /// The script has what pg-embed's call lacks: the account, a directory that it can enter, no variables that bend
    /// the server, messages in English, and a file for the output.
    fn write_command(
        &self,
        program: &str,
        bin: &Path,
        account: &Account,
        options: &str,
        log: &Path,
    ) -> Result<(), EmbeddedError> {
        let prefix: String = account.prefix().iter().map(|word| quote(word) + " ").collect();
        let text = COMMAND
            .replace("@RUN@", &quote(&self.path.display().to_string()))
            .replace("@PROGRAM@", &format!("{prefix}{}", quote(&bin.join(program).display().to_string())))
            .replace("@OPTIONS@", options)
            .replace("@LOG@", &quote(&log.display().to_string()));
        // Not by our own hand: a process that another thread starts meanwhile holds our open file for a moment, and
        // Linux refuses to execute a file that is open for writing (ETXTBSY).
        let path = self.command(program);
        let written = Command::new("/bin/sh")
            .args(["-c", "umask 077 && printf '%s' \"$2\" >\"$1\" && chmod 700 \"$1\"", "sh"])
            .arg(&path)
            .arg(text)
            .stdin(Stdio::null())
            .output()
            .map_err(EmbeddedError::io("could not run", "/bin/sh"))?;
        if written.status.success() {
            return Ok(());
        }
        let problem = String::from_utf8_lossy(&written.stderr).trim().to_owned();
        Err(EmbeddedError::io("could not write", path)(std::io::Error::other(problem)))
    }

    /// Adds settings to the cluster's `postgresql.conf`, where the last one of a name wins.
    pub(super) fn configure(&self, settings: &[(String, String)]) -> Result<(), EmbeddedError> {
        let path = self.data().join("postgresql.conf");
        let mut lines = String::new();
        for (name, value) in settings {
            let quoted = value.replace('\\', "\\\\").replace('\'', "''");
            lines.extend([name, " = '", &quoted, "'\n"]);
        }
        let mut file =
            OpenOptions::new().append(true).open(&path).map_err(EmbeddedError::io("could not open", &path))?;
        file.write_all(lines.as_bytes()).map_err(EmbeddedError::io("could not write", &path))
    }

    /// The server's process id, while it has one.
    pub(super) fn postmaster_pid(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
    }

    /// The end of a log, for an error.
    pub(super) fn tail(log: &Path) -> String {
        let mut text = Vec::new();
        let read = fs::File::open(log).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            file.read_to_end(&mut text)
        });
        match read {
            Ok(0) => "(nothing; where its directory is mounted noexec, set TMPDIR to another)".to_owned(),
            Ok(_) => String::from_utf8_lossy(&text).trim().to_owned(),
            Err(error) => format!("(its log can't be read: {error})"),
        }
    }

    /// Empties the server's log, so that the next error is not the last one's.
    pub(super) fn empty_server_log(&self) -> Result<(), EmbeddedError> {
        write(&self.server_log(), 0o600, "")
    }

    /// The password's file has done its part once initdb ran.
    pub(super) fn remove_password_file(&self) -> Result<(), EmbeddedError> {
        let path = self.password_file();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(EmbeddedError::io("could not remove", path)(error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    pub(super) fn command(&self, program: &str) -> PathBuf {
        self.path.join("bin").join(program)
    }

    pub(super) fn password_file(&self) -> PathBuf {
        self.path.join("data.pwfile")
    }

    pub(super) fn initdb_log(&self) -> PathBuf {
        self.path.join("initdb.log")
    }

    pub(super) fn server_log(&self) -> PathBuf {
        self.path.join("server.log")
    }
}

/// 128 bits from the system, as hex digits: a password that needs no escaping in a URL.
pub(super) fn random_hex() -> Result<String, EmbeddedError> {
    let mut bytes = [0_u8; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(EmbeddedError::io("could not read", "/dev/urandom"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

fn make_directory(path: &Path) -> Result<(), EmbeddedError> {
    DirBuilder::new().mode(0o700).create(path).map_err(EmbeddedError::io("could not make", path))
}

fn set_mode(path: &Path, mode: u32) -> Result<(), EmbeddedError> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(EmbeddedError::io("could not open up", path))
}

fn write(path: &Path, mode: u32, text: &str) -> Result<(), EmbeddedError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(EmbeddedError::io("could not write", path))
}

/// One word for a shell, whatever is in it.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::{RunDirectory, quote, random_hex};

    #[test]
    fn a_quote_in_a_path_stays_in_its_word() {
        assert_eq!(quote("/tmp/it's"), r"'/tmp/it'\''s'");
    }

    #[test]
    fn passwords_differ_and_need_no_escaping() {
        let (one, other) = (random_hex().unwrap(), random_hex().unwrap());
        assert_ne!(one, other);
        assert!(one.len() == 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_tail_is_the_end_and_bounded() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "x".repeat(10_000) + "\nFATAL: here\n").unwrap();
        let tail = RunDirectory::tail(file.path());
        assert!(tail.len() <= 4096 && tail.ends_with("FATAL: here"), "{tail}");
    }
}
