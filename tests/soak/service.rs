//! The program itself, as a process, with its memory and its metrics.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::eventually::eventually;
use super::http::{Answer, Client, Request};

const WITHIN: Duration = Duration::from_secs(30);

pub struct Service {
    process: Child,
    pub queries: SocketAddr,
    admin: SocketAddr,
    dir: TempDir,
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("bound")
}

impl Service {
    /// Starts it with `toml` after its own addresses, and waits until it is ready.
    pub async fn start(toml: &str) -> Self {
        let (queries, admin) = (free_address(), free_address());
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join("config.toml");
        let text = format!(
            "[server]\nlisten = \"{queries}\"\nadmin_listen = \"{admin}\"\n{toml}\n[invalidation]\nsource = \"none\"\n"
        );
        fs::write(&config, text).expect("written");
        let log = fs::File::create(dir.path().join("log")).expect("a log");
        let process = Command::new(env!("CARGO_BIN_EXE_seawall"))
            .args(["serve", "--config"])
            .arg(&config)
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program runs");
        let service = Self { process, queries, admin, dir };
        eventually("it is ready", WITHIN, async || {
            if tokio::net::TcpStream::connect(service.admin).await.is_err() {
                return Err("nobody listens".to_owned());
            }
            let ready = service.get("/readyz").await;
            let text = String::from_utf8_lossy(&ready.body).into_owned();
            if text.contains("\"ok\"") { Ok(()) } else { Err(text) }
        })
        .await;
        service
    }

    /// Of the admin listener.
    pub async fn get(&self, path: &str) -> Answer {
        Client::new(self.admin).ask(&Request::get(path.to_owned()), WITHIN).await
    }

    pub async fn metrics(&self) -> Scrape {
        Scrape(String::from_utf8(self.get("/metrics").await.body).expect("text"))
    }

    /// What it has logged as errors.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until `series` is `value`.
    pub async fn becomes(&self, series: &str, value: f64) {
        eventually(series, WITHIN, async || match self.metrics().await.value(series) {
            v if v == value => Ok(()),
            other => Err(other),
        })
        .await;
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `/metrics`, once.
pub struct Scrape(String);

impl Scrape {
    pub fn value(&self, series: &str) -> f64 {
        let found = self.0.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
        found.unwrap_or_else(|| panic!("no series {series} in\n{}", self.0))
    }

    /// All series of `name` with this label, added up.
    pub fn sum(&self, name: &str, label: &str) -> f64 {
        let series = self.0.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
        series.filter(|line| line.contains(label)).filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Requests of `query` with `outcome`, as the service counted them.
    pub fn requests(&self, query: &str, outcome: &str) -> u64 {
        let series = format!("seawall_requests_total{{outcome=\"{outcome}\",query=\"{query}\"}} ");
        let found = self.0.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok());
        found.unwrap_or_else(|| panic!("no series {series} in\n{}", self.0))
    }
}
