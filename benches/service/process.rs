//! Servers as processes of their own, pinned to a core, with the CPU time and memory that the system says they use.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{bare, client, naive};

/// The server has this core to itself, but for what Postgres takes; the load comes from the other.
pub const SERVER_CPU: &str = "0";
pub const LOAD_CPU: &str = "1";

/// With a server's start, on a machine that is busy with something else.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server; dropped, it is killed.
pub struct Child {
    process: std::process::Child,
    port: u16,
    admin_port: u16,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a port");
    listener.local_addr().expect("bound").port()
}

fn pinned(program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", SERVER_CPU]).arg(program).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Keeps this process, which makes load too, off the server's core.
pub fn pin_this_process() {
    let us = std::process::id().to_string();
    let pinned = Command::new("taskset").args(["-acp", LOAD_CPU, &us]).stdout(Stdio::null()).status();
    assert!(pinned.expect("taskset").success(), "this machine has one core alone");
}

impl Child {
    /// The service as `config` has it, with the event log that its queries need.
    pub async fn seawall(config: &Path) -> Self {
        let mut migrate = Command::new(env!("CARGO_BIN_EXE_seawall"));
        migrate.args(["migrate", "--config"]).arg(config).env("PORT", "1").env("ADMIN_PORT", "2").stdout(Stdio::null());
        assert!(migrate.status().expect("the program").success(), "the log can't be installed");
        let (port, admin_port) = (free_port(), free_port());
        let process = pinned(Path::new(env!("CARGO_BIN_EXE_seawall")))
            .args(["serve", "--config"])
            .arg(config)
            .env("PORT", port.to_string())
            .env("ADMIN_PORT", admin_port.to_string())
            .spawn()
            .expect("taskset and the service");
        let service = Self { process, port, admin_port }.up().await;
        // It listens before it has reached Postgres.
        let deadline = Instant::now() + PATIENCE;
        while !client::is_ready(admin_port).await {
            assert!(Instant::now() < deadline, "the service is not ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        service
    }

    /// A server that answers everything with `body`, which it reads from `file`.
    pub async fn bare(file: &Path, body: &[u8]) -> Self {
        fs::write(file, body).expect("written");
        Self::of_ours(bare::BODY_VARIABLE, file.as_os_str()).await
    }

    /// The naive cache in front of the database at `url`.
    pub async fn naive(url: &str) -> Self {
        Self::of_ours(naive::URL_VARIABLE, url.as_ref()).await
    }

    /// A Redis that keeps nothing on disk.
    pub async fn redis() -> Self {
        let port = free_port();
        let process = pinned(Path::new("redis-server"))
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .spawn()
            .expect("taskset and redis-server");
        Self { process, port, admin_port: 0 }.up().await
    }

    /// This program, which the variable makes a server.
    async fn of_ours(variable: &str, value: &OsStr) -> Self {
        let port = free_port();
        let process = pinned(&std::env::current_exe().expect("this program"))
            .env(bare::PORT_VARIABLE, port.to_string())
            .env(variable, value)
            .spawn()
            .expect("taskset and this program");
        Self { process, port, admin_port: 0 }.up().await
    }

    async fn up(self) -> Self {
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.is_err() {
            assert!(Instant::now() < deadline, "the server on port {} does not answer", self.port);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn admin_port(&self) -> u16 {
        self.admin_port
    }

    /// CPU seconds so far, user and system.
    pub fn cpu(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).expect("Linux");
        let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks: u64 = fields[11..13].iter().map(|f| f.parse::<u64>().expect("ticks")).sum();
        ticks as f64 / 100.0
    }

    /// Proportional set size in KiB.
    pub fn memory(&self) -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process.id())).expect("Linux");
        let line = rollup.lines().find(|l| l.starts_with("Pss:")).expect("a Pss line");
        line.split_whitespace().nth(1).expect("a figure").parse().expect("KiB")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
