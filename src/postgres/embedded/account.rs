//! For whom PostgreSQL runs: ourselves, or, since it refuses root, an unprivileged user when we are root.
//!
//! As root each of its commands goes through `setpriv`. The user is `postgres` where there is one, else `nobody`; its
//! ids come from `/etc/passwd`, since asking the name service would take C and `unsafe`.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::EmbeddedError;

/// Who owns the cluster and runs the server.
#[derive(Clone, Debug)]
pub(super) enum Account {
    /// We do.
    Ourselves,
    /// We are root; this user does.
    Other {
        /// For messages.
        name: String,
        uid: u32,
        gid: u32,
        /// The tool that drops the privileges.
        setpriv: PathBuf,
    },
}

impl Account {
    /// Whom this process may run PostgreSQL for.
    pub(super) fn choose() -> Result<Self, EmbeddedError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let (name, uid, gid) = ["postgres", "nobody"]
            .iter()
            .find_map(|name| ids_of(&passwd, name))
            .ok_or(EmbeddedError::Root { problem: "neither user postgres nor user nobody is in /etc/passwd" })?;
        let setpriv = on_path("setpriv").ok_or(EmbeddedError::Root { problem: "setpriv is not in PATH" })?;
        Ok(Self::Other { name, uid, gid, setpriv })
    }

    /// What goes before a command line so that it runs for this account; empty for ourselves.
    pub(super) fn prefix(&self) -> Vec<String> {
        match self {
            Self::Ourselves => Vec::new(),
            Self::Other { uid, gid, setpriv, .. } => vec![
                setpriv.display().to_string(),
                format!("--reuid={uid}"),
                format!("--regid={gid}"),
                "--clear-groups".to_owned(),
                "--".to_owned(),
            ],
        }
    }

    /// Makes `path` the account's own.
    pub(super) fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid, .. } => {
                chown(path, Some(*uid), Some(*gid)).map_err(EmbeddedError::io("could not give away", path))
            }
        }
    }

    /// Whether the account can enter the directory `path`, or execute the file.
    pub(super) fn can_enter(&self, path: &Path) -> bool {
        let Self::Other { .. } = self else { return path.exists() };
        let prefix = self.prefix();
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).args(["/bin/sh", "-c", "test -x \"$1\"", "sh"]).arg(path).current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// For messages.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Ourselves => "ourselves",
            Self::Other { name, .. } => name,
        }
    }
}

/// The first executable `program` in `PATH`.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn ids_of(passwd: &str, name: &str) -> Option<(String, u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        // A user postgres that is root under another name is refused as root is.
        (uid != 0).then(|| (name.to_owned(), uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::ids_of;

    #[test]
    fn ids_come_from_the_line_of_that_very_user() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgresql:x:7:8::/:\npostgres:x:101:104:a,b:/var:/bin/bash\n";
        assert_eq!(ids_of(passwd, "postgres"), Some(("postgres".to_owned(), 101, 104)));
        assert_eq!(ids_of(passwd, "nobody"), None);
        assert_eq!(ids_of(passwd, "root"), None, "root is nobody to run PostgreSQL for");
        assert_eq!(ids_of("postgres:x:broken", "postgres"), None);
    }
}
