//! This test binary, started by itself: a process that may be killed, with an environment of its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStdout, Command, Stdio};

use seawall::postgres::embedded::{Binaries, Embedded, EmbeddedOptions};

/// What a child says to its parent begins so; libtest says other things on the same pipe.
const OK: &str = "child> ";
const ERROR: &str = "child! ";

/// In its own process group, as a program in the foreground of a terminal is.
pub(crate) struct Child {
    process: std::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Starts a child in `role`.
pub(crate) fn spawn(role: &str, variables: &[(&str, &OsStr)]) -> Child {
    Child::of(Command::new(std::env::current_exe().unwrap()), role, variables)
}

impl Child {
    /// Of a command that ends in this test binary.
    pub(crate) fn of(mut command: Command, role: &str, variables: &[(&str, &OsStr)]) -> Self {
        command.args(["--exact", "child::child", "--ignored", "--nocapture"]);
        command.env("SEAWALL_TEST_ROLE", role).envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// The next thing that it says: an answer, or the error of its start.
    pub(crate) fn says(&mut self) -> Result<String, String> {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if let Some(said) = line.strip_prefix(OK) {
                return Ok(said.to_owned());
            }
            if let Some(said) = line.strip_prefix(ERROR) {
                return Err(said.to_owned());
            }
        }
        panic!("the child ended without a word")
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn kill_9(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Child {
    /// It ends when its standard input does.
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "not a test: what the tests start as a process of its own"]
fn child() {
    let Ok(role) = std::env::var("SEAWALL_TEST_ROLE") else { return };
    let options = EmbeddedOptions {
        parent: std::env::var_os("SEAWALL_TEST_PARENT").map(PathBuf::from),
        binaries: if role == "download" { Binaries::Download } else { Binaries::Search },
        ..EmbeddedOptions::default()
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()).unwrap();
        let embedded = match Embedded::start(options).await {
            Ok(embedded) => embedded,
            Err(error) => return println!("\n{ERROR}{}", error.to_string().replace('\n', " | ")),
        };
        println!("\n{OK}{}", embedded.postmaster_pid());
        if role == "interrupted" {
            interrupt.recv().await.unwrap();
            super::connect(&embedded.url("postgres")).await.query_one("SELECT 1", &[]).await.unwrap();
            embedded.stop().await.unwrap();
            println!("\n{OK}the server answers, and has stopped");
        } else {
            tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await.unwrap();
        }
    });
}
