//! The processes that the demo starts: each with a log in a directory of the demo's own, and none outlives it.
//!
//! A shell stands by for the case that the demo is killed. Its standard input is a pipe of which the demo holds the other
//! end; each line on it names the processes there are now. When it closes, the shell kills those and removes the directory.
//! (`PR_SET_PDEATHSIG` would take a `pre_exec`, which is unsafe, and hangs on the thread that started a process.) The
//! processes stand in groups of their own, so that Ctrl-C at a terminal is the demo's alone to answer.
//!
//! A process that has ended is waited for only here, after which its id is named no more: no other process is ever hit.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};

/// `$1` is the directory. With `keep` only the configurations go, which hold a password.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
how=remove
alive=
while read -r first rest; do how=$first; alive=$rest; done
for pid in $alive; do kill -9 "$pid"; done
if [ "$how" = keep ]; then rm -f "$1"/*.toml; else rm -rf "$1"; fi
"#;

/// How much of a log's end an error shows, in lines.
const TAIL: usize = 12;

/// Dropped, all of them are killed, and the directory is removed.
pub(super) struct Processes {
    directory: PathBuf,
    running: Vec<(String, Child)>,
    how: &'static str,
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Processes {
    pub(super) fn new() -> io::Result<Self> {
        let name = format!("seawall-demo-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&directory)?;
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", SCRIPT, "seawall-demo"]).arg(&directory).current_dir("/").process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        match shell.spawn() {
            Ok(mut shell) => {
                let pipe = shell.stdin.take();
                Ok(Self { directory, running: Vec::new(), how: "remove", shell, pipe })
            }
            Err(error) => {
                fs::remove_dir(&directory)?;
                Err(error)
            }
        }
    }

    /// For their files.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file in the directory that others can't read.
    pub(super) fn write(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.directory.join(name);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        file.write_all(text.as_bytes())?;
        Ok(path)
    }

    /// Where what `name` says is found.
    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.log"))
    }

    /// The end of that.
    pub(super) fn tail(&self, name: &str) -> String {
        let text = fs::read_to_string(self.log(name)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Starts `command` as `name`; its id.
    pub(super) fn start(&mut self, name: &str, mut command: Command) -> io::Result<u32> {
        let log: File = OpenOptions::new().append(true).create(true).open(self.log(name))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn()?;
        let id = child.id();
        self.running.push((name.to_owned(), child));
        self.tell()?;
        Ok(id)
    }

    /// How `name` ended, if it has.
    pub(super) fn ended(&mut self, name: &str) -> Option<ExitStatus> {
        let at = self.running.iter().position(|(other, _)| other == name)?;
        let status = self.running[at].1.try_wait().ok().flatten()?;
        self.running.remove(at);
        // The shell is there as long as we are.
        let _ = self.tell();
        Some(status)
    }

    /// Kills `name`, as `kill -9` does.
    pub(super) fn kill(&mut self, name: &str) -> io::Result<()> {
        if let Some(at) = self.running.iter().position(|(other, _)| other == name) {
            let (_, mut child) = self.running.remove(at);
            child.kill()?;
            child.wait()?;
            self.tell()?;
        }
        Ok(())
    }

    /// The logs stay behind, for something went wrong.
    pub(super) fn keep_logs(&mut self) {
        self.how = "keep";
        let _ = self.tell();
    }

    fn tell(&mut self) -> io::Result<()> {
        let alive: Vec<String> = self.running.iter().map(|(_, child)| child.id().to_string()).collect();
        let alive = alive.iter().fold(String::new(), |all, pid| all + " " + pid);
        let how = self.how;
        self.pipe.as_mut().map_or(Ok(()), |pipe| writeln!(pipe, "{how}{alive}"))
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            // One that has ended is a child still, until it is waited for.
            let _ = child.kill().and_then(|()| child.wait());
        }
        self.running.clear();
        let _ = self.tell();
        drop(self.pipe.take());
        let _ = self.shell.wait();
    }
}
