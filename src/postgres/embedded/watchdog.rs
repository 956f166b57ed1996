//! The watchdog: a shell that outlives us and clears away what we leave.
//!
//! Its standard input is a pipe of which we hold the only other end. However we end (a clean stop, a panic, `kill -9`),
//! that end closes, and the watchdog stops the server and removes the run directory. A clean stop and a failed start go
//! the same way: there is one undertaker, so the way that is seldom walked is the way that is always walked.
//!
//! It stands in a process group of its own and is deaf to the signals of a terminal, so that Ctrl-C, which reaches the
//! whole foreground group, leaves it to its work. The pipe is close-on-exec, as all of std's are; a server that had
//! inherited it would keep the watchdog waiting for ever, which `tests/embedded.rs` would notice.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::error::EmbeddedError;

/// `$1` is the run directory.
///
/// We may be gone in the midst of an `initdb` or a `pg_ctl start`, which go on without us. So it waits for the command
/// whose script says that it runs (`command.pid`), and stops the server as soon as there is one: a `postmaster.pid` with a
/// positive number (initdb's own single-user server writes a negative one).
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
while read -r _; do :; done
cd / || exit 1
tries=0
while [ "$tries" -lt 600 ]; do
    command=
    read -r command 2>/dev/null <"$1/command.pid"
    postmaster=
    read -r postmaster 2>/dev/null <"$1/data/postmaster.pid"
    case $postmaster in
    '' | *[!0-9]*) ;;
    *) "$1/bin/pg_ctl" stop -w -t 20 -m immediate -D "$1/data" && break ;;
    esac
    { [ -e "$1/command.pid" ] && kill -0 "$command" 2>/dev/null; } || break
    sleep 0.1
    tries=$((tries + 1))
done
rm -rf "$1"
"#;

/// Holds the pipe. Dropping it has the run directory cleared away and waits until that is done.
pub(super) struct Watchdog {
    run: PathBuf,
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Sets the watchdog on the run directory `run`, which need not hold anything yet.
    pub(super) fn set(run: &Path) -> Result<Self, EmbeddedError> {
        let mut shell =
            script(run).stdin(Stdio::piped()).spawn().map_err(EmbeddedError::io("could not run", "/bin/sh"))?;
        let pipe = shell.stdin.take();
        Ok(Self { run: run.to_owned(), shell, pipe })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let waited = self.shell.wait();
        if self.run.exists() {
            tracing::debug!(?waited, "the watchdog had been killed; its work is done here");
            let again = script(&self.run).stdin(Stdio::null()).status();
            if self.run.exists() {
                tracing::warn!(run = %self.run.display(), ?again, "the embedded PostgreSQL's directory remains");
            }
        }
    }
}

fn script(run: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", SCRIPT, "seawall-watchdog"]).arg(run).current_dir("/").process_group(0);
    // Not ours: whoever reads our output waits for its end, and must not wait for the watchdog.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}
