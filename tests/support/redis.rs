//! A real Redis of a test's own, on a free port: killed, paused, started again, and asked.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

use super::eventually::eventually;
use super::ports;

const WITHIN: Duration = Duration::from_secs(20);

/// Dropped, it is killed.
pub struct TestRedis {
    port: u16,
    dir: TempDir,
    child: Child,
    login: &'static str,
    more: Vec<String>,
}

impl TestRedis {
    /// Starts one, empty and without persistence, and waits until it answers.
    pub async fn start() -> Self {
        Self::start_with("", &[]).await
    }

    /// The same with `more` options; the harness says `login` to it, which ends with @ or is empty.
    pub async fn start_with(login: &'static str, more: &[&str]) -> Self {
        let more: Vec<String> = more.iter().map(|&word| word.to_owned()).collect();
        let (port, dir) = (ports::free(), tempfile::tempdir().expect("a directory"));
        let child = spawn(port, &dir, &more);
        let redis = Self { port, dir, child, login, more };
        redis.answers().await;
        redis
    }

    async fn answers(&self) {
        eventually("Redis answers", WITHIN, async || {
            let mut connection = self.try_client().await.map_err(|error| error.to_string())?;
            redis::cmd("PING").query_async::<String>(&mut connection).await.map_err(|error| error.to_string())
        })
        .await;
    }

    /// Where it listens, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The section of a configuration; `more` follows.
    pub fn section(&self, more: &str) -> String {
        format!("[redis]\nurl = \"{}\"\n{more}\n", self.url())
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("redis://{}127.0.0.1:{}", self.login, self.port)
    }

    async fn try_client(&self) -> Result<MultiplexedConnection, redis::RedisError> {
        // A machine that is busy with the tests may take its time.
        let patience =
            redis::AsyncConnectionConfig::new().set_connection_timeout(Some(WITHIN)).set_response_timeout(Some(WITHIN));
        redis::Client::open(self.url())?.get_multiplexed_async_connection_with_config(&patience).await
    }

    /// What it answers to one command.
    pub async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).await.unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// What it answers to one command, if it takes it.
    pub async fn try_ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Result<T, redis::RedisError> {
        let mut connection = self.try_client().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await
    }

    /// Its keys with shared answers.
    pub async fn values(&self) -> Vec<String> {
        self.ask(&["KEYS", "seawall:*:v"]).await
    }

    /// Kills it, and all that it knew.
    pub fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Writes down what it holds, for [`TestRedis::roll_back`].
    pub async fn dump(&self) {
        self.ask::<()>(&["SAVE"]).await;
    }

    /// Killed, and started again with what it held when that was written down.
    pub async fn roll_back(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.dir, &self.more);
        self.answers().await;
    }

    /// Starts it again, empty, where it was.
    pub async fn restart(&mut self) {
        let _ = std::fs::remove_file(self.dir.path().join("dump.rdb"));
        self.child = spawn(self.port, &self.dir, &self.more);
        self.answers().await;
    }

    /// Stops or continues its process: it accepts connections, by the kernel, and answers nobody.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid")).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it is there");
    }
}

fn spawn(port: u16, dir: &TempDir, more: &[String]) -> Child {
    Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(dir.path())
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server is there; `make tools` installs it")
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
