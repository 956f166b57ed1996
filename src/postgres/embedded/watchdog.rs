//! What cleans up after this process, whatever ends it.
//!
//! A shell waits at the end of a pipe that this process holds open. However this process ends, SIGKILL included, the
//! pipe closes with it; the shell then stops the server and removes its directory. It has a process group of its own, so
//! that Ctrl-C on the terminal doesn't end it first. Rust's pipes are close-on-exec, so no other child holds it open.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the name of every directory starts with that the watchdog may remove.
pub(super) const PREFIX: &str = "seawall-postgres-";

const SCRIPT: &str = "trap '' HUP INT TERM; cat >/dev/null; \
    if [ -x \"$1\" ] && [ -f \"$2/data/postmaster.pid\" ]; then \"$1\" stop -m immediate -w -D \"$2/data\" >/dev/null 2>&1; fi; \
    rm -rf \"$2\"";

/// The shell, until it has done its work.
pub(super) struct Watchdog(Option<Child>);

impl Watchdog {
    /// Watches over the server in `run_dir`.
    pub(super) fn start(run_dir: &Path, pg_ctl: &Path) -> io::Result<Self> {
        debug_assert!(run_dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX)));
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "seawall-watchdog"])
            .arg(pg_ctl)
            .arg(run_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self(Some(child)))
    }

    /// Whether it has been let go.
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_none()
    }

    /// Lets it do its work, and waits for the end of it.
    pub(super) async fn finish(&mut self) {
        if let Some(child) = self.0.take() {
            // The work is a short shell's; a thread waits for it, and a failure to wait is a panic there.
            let _ = tokio::task::spawn_blocking(move || end(child)).await;
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(child) = self.0.take() {
            end(child);
        }
    }
}

fn end(mut child: Child) {
    drop(child.stdin.take());
    if let Err(error) = child.wait() {
        tracing::warn!(%error, "the watchdog of the private Postgres could not be waited for");
    }
}
