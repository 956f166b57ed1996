//! A pod: the program itself as a process, which can be paused, and ends with us.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::eventually::eventually;
use super::http::Client;
use super::ports;

const WITHIN: Duration = Duration::from_secs(60);

/// Says which fault a build with the feature `sabotage` has: see `seawall::sabotage`.
const SABOTAGE: &str = "SEAWALL_SABOTAGE";

/// A running pod.
pub struct Pod {
    process: Child,
    environment: Vec<(String, String)>,
    /// Of its query listener.
    pub queries: SocketAddr,
    /// Of its admin listener.
    pub admin: SocketAddr,
    directory: TempDir,
}

fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, ports::free()).into()
}

/// Runs a command of the program that ends by itself.
///
/// # Errors
/// What it says where it fails.
pub async fn run(command: &str, toml: &str) -> Result<(), String> {
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("config.toml");
    fs::write(&config, toml).expect("written");
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args([command, "--config"])
        .arg(&config)
        .output()
        .await
        .expect("the program runs");
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A series of the metrics that an admin listener gives; 0 where there is none, nothing where it gives none.
pub async fn metric(admin: &mut Client, series: &str) -> Option<f64> {
    let text = admin.get("/metrics").await.ok()?.text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    Some(value.unwrap_or(0.0))
}

fn launch(directory: &TempDir, environment: &[(String, String)]) -> Child {
    let log = fs::File::options().create(true).append(true).open(directory.path().join("log")).expect("a log");
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.args(["serve", "--config"]).arg(directory.path().join("config.toml")).env_remove(SABOTAGE);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("the program runs")
}

impl Pod {
    /// Starts it with `toml` after its own addresses, and waits until it is ready.
    pub async fn start(toml: &str, sabotage: Option<&str>) -> Self {
        let fault = sabotage.map(|fault| (SABOTAGE, fault.to_owned()));
        Self::start_in(toml, fault.as_slice()).await
    }

    /// The same in an environment with these variables.
    pub async fn start_in(toml: &str, environment: &[(&str, String)]) -> Self {
        let (queries, admin) = (free_address(), free_address());
        let directory = tempfile::tempdir().expect("a directory");
        let config = directory.path().join("config.toml");
        fs::write(&config, format!("[server]\nlisten = \"{queries}\"\nadmin_listen = \"{admin}\"\n{toml}"))
            .expect("written");
        let environment: Vec<_> = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let process = launch(&directory, &environment);
        let pod = Self { process, environment, queries, admin, directory };
        pod.is_ready().await;
        pod
    }

    async fn is_ready(&self) {
        eventually("the pod is ready", WITHIN, async || match Client::new(self.admin).get("/readyz").await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.text()),
            Err(error) => Err(format!("{error}: {}", self.log())),
        })
        .await;
    }

    /// Killed, and another takes its place and its addresses.
    pub async fn is_replaced(&mut self) {
        self.process.kill().expect("it is ours");
        self.process.wait().expect("it ends");
        self.process = launch(&self.directory, &self.environment);
        self.is_ready().await;
    }

    /// Its `/status`.
    pub async fn status(&self) -> Value {
        let answer = Client::new(self.admin).get("/status").await.expect("it answers");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// What it says of a query in its `/status`.
    pub async fn of(&self, query: &str) -> Value {
        let status = self.status().await;
        let found = status["queries"].as_array().and_then(|all| all.iter().find(|found| found["name"] == query));
        found.cloned().unwrap_or_else(|| panic!("{query} is missing in {status}"))
    }

    /// Waits until it judges a query so.
    pub async fn judges(&self, query: &str, verdict: &str, within: Duration) {
        eventually(&format!("{query} is {verdict}"), within, async || match self.of(query).await {
            found if found["verdict"] == verdict => Ok(()),
            found => Err(found),
        })
        .await;
    }

    /// A series of its metrics; 0 where there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        metric(&mut Client::new(self.admin), series).await.expect("it answers")
    }

    /// It stands still, with its connections open.
    pub fn pause(&self) {
        kill_process(Pid::from_child(&self.process), Signal::STOP).expect("it is ours");
    }

    /// It goes on.
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.process), Signal::CONT).expect("it is ours");
    }

    /// Told to stop, by SIGTERM, it ends in order.
    pub async fn terminates(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("it is ours");
        let mut ended = None;
        eventually("it ends", WITHIN, async || {
            ended = self.process.try_wait().expect("a child");
            if ended.is_some() { Ok(()) } else { Err("it runs") }
        })
        .await;
        assert!(ended.is_some_and(|status| status.success()), "{ended:?}: {}", self.log());
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
