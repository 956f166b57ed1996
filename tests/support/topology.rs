//! Several Redis that belong together: a master with replicas and sentinels, and a cluster of masters. All are processes on loopback.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::eventually::eventually;
use super::ports;
use super::redis::TestRedis;

const WITHIN: Duration = Duration::from_secs(30);

/// The name by which sentinels know the master.
pub const MASTER: &str = "the-shop";

/// A sentinel, which is killed when it is dropped.
pub struct Sentinel {
    port: u16,
    child: Child,
    _dir: TempDir,
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sentinel {
    /// One that watches the server at `port`; `quorum` of its kind decide that it is down.
    pub async fn start(port: u16, quorum: u8, more: &str) -> Self {
        let (own, dir) = (ports::free(), tempfile::tempdir().expect("a directory"));
        // It writes down what it finds out, in its own configuration.
        let file = dir.path().join("sentinel.conf");
        let text = format!(
            "port {own}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER} 127.0.0.1 {port} {quorum}\n\
             sentinel down-after-milliseconds {MASTER} 1000\nsentinel failover-timeout {MASTER} 3000\n{more}\n",
            dir.path().display()
        );
        std::fs::write(&file, text).expect("written");
        let child = Command::new("redis-sentinel")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-sentinel is there; `make tools` installs it");
        let sentinel = Self { port: own, child, _dir: dir };
        eventually("the sentinel answers", WITHIN, async || {
            std::net::TcpStream::connect(("127.0.0.1", own)).map(drop).map_err(|error| error.to_string())
        })
        .await;
        sentinel
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it answers to one command.
    pub async fn ask<T: redis::FromRedisValue>(&self, login: &str, words: &[&str]) -> Result<T, redis::RedisError> {
        let client = redis::Client::open(format!("redis://{login}127.0.0.1:{}", self.port))?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await
    }
}

/// A master, two replicas and three sentinels, with passwords: one for servers and one for sentinels.
pub struct Watched {
    pub servers: Vec<TestRedis>,
    pub sentinels: Vec<Sentinel>,
}

const SERVERS_LOGIN: &str = ":data-password@";
const SENTINELS_LOGIN: &str = ":sentinel-password@";

impl Watched {
    /// Starts them, and waits until the sentinels know everybody.
    pub async fn start() -> Self {
        let secrets =
            ["--requirepass", "data-password", "--masterauth", "data-password", "--repl-diskless-sync-delay", "0"];
        let master = TestRedis::start_with(SERVERS_LOGIN, &secrets).await;
        let port = master.port().to_string();
        let mut servers = vec![master];
        for _ in 0..2 {
            let replica = TestRedis::start_with(SERVERS_LOGIN, &secrets).await;
            replica.ask::<()>(&["REPLICAOF", "127.0.0.1", &port]).await;
            servers.push(replica);
        }
        // A sentinel looks for replicas when it starts, and every ten seconds.
        eventually("replicas follow", WITHIN, async || {
            let info: String = servers[0].ask(&["INFO", "replication"]).await;
            if info.matches("state=online").count() == 2 { Ok(()) } else { Err(info) }
        })
        .await;
        let mut sentinels = vec![];
        for _ in 0..3 {
            let more = format!(
                "requirepass sentinel-password\nsentinel sentinel-pass sentinel-password\n\
                 sentinel auth-pass {MASTER} data-password"
            );
            sentinels.push(Sentinel::start(servers[0].port(), 2, &more).await);
        }
        for sentinel in &sentinels {
            eventually("the sentinel knows everybody", WITHIN, async || {
                let words: Vec<String> =
                    sentinel.ask(SENTINELS_LOGIN, &["SENTINEL", "MASTER", MASTER]).await.map_err(|e| e.to_string())?;
                let is = |key: &str, value: &str| words.chunks(2).any(|pair| pair == [key, value]);
                if is("num-slaves", "2") && is("num-other-sentinels", "2") && is("flags", "master") {
                    Ok(())
                } else {
                    Err(words.join(" "))
                }
            })
            .await;
        }
        Self { servers, sentinels }
    }

    /// The section of a configuration, with a number for the database.
    pub fn section(&self, more: &str) -> String {
        let ports: Vec<String> = self.sentinels.iter().map(|it| format!("127.0.0.1:{}", it.port())).collect();
        let url = format!(
            "redis+sentinel://{SERVERS_LOGIN}{}/{MASTER}/2?sentinel_password=sentinel-password",
            ports.join(",")
        );
        format!("[redis]\nurl = \"{url}\"\n{more}\n")
    }

    /// The port of the server that the sentinels name.
    pub async fn master(&self) -> u16 {
        let words = ["SENTINEL", "get-master-addr-by-name", MASTER];
        let (_, port): (String, u16) = self.sentinels[0].ask(SENTINELS_LOGIN, &words).await.expect("a master");
        port
    }

    /// Waits until all sentinels name another master than the one at `port`.
    pub async fn has_another_than(&self, port: u16) {
        let words = ["SENTINEL", "get-master-addr-by-name", MASTER];
        for sentinel in &self.sentinels {
            eventually("there is another master", WITHIN, async || {
                let named = sentinel.ask::<(String, u16)>(SENTINELS_LOGIN, &words).await;
                let (_, now) = named.map_err(|error| error.to_string())?;
                if now == port { Err(now.to_string()) } else { Ok(()) }
            })
            .await;
        }
    }

    /// Has the sentinels choose another master, as for maintenance.
    pub async fn fail_over(&self) {
        eventually("a failover begins", WITHIN, async || {
            let begun = self.sentinels[0].ask::<()>(SENTINELS_LOGIN, &["SENTINEL", "FAILOVER", MASTER]).await;
            begun.map_err(|error| error.to_string())
        })
        .await;
    }
}

/// Masters that share the slots among them, and have no replicas.
pub struct Masters {
    pub servers: Vec<TestRedis>,
    ids: Vec<String>,
}

const SLOTS: usize = 16_384;

impl Masters {
    /// Starts three, and waits until they agree.
    pub async fn start() -> Self {
        let mut servers = vec![];
        for _ in 0..3 {
            let bus = ports::free().to_string();
            let more = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
            ];
            let server = TestRedis::start_with("", &more).await;
            if let Some(first) = servers.first() {
                let first: &TestRedis = first;
                let (port, bus) = (server.port().to_string(), bus.as_str());
                first.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await;
            }
            servers.push(server);
        }
        let mut ids = vec![];
        for (at, server) in servers.iter().enumerate() {
            let (first, last) = (SLOTS * at / 3, SLOTS * (at + 1) / 3 - 1);
            server.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await;
            ids.push(server.ask(&["CLUSTER", "MYID"]).await);
        }
        let masters = Self { servers, ids };
        masters.agree().await;
        masters
    }

    /// Waits until all of them know of all slots.
    pub async fn agree(&self) {
        for server in &self.servers {
            eventually("they agree", WITHIN, async || {
                let info = server.try_ask::<String>(&["CLUSTER", "INFO"]).await.map_err(|error| error.to_string())?;
                let is = |line: &str| info.lines().any(|it| it.trim() == line);
                if is("cluster_state:ok") && is("cluster_slots_ok:16384") && is("cluster_size:3") {
                    Ok(())
                } else {
                    Err(info)
                }
            })
            .await;
        }
    }

    /// The section of a configuration that knows one of them.
    pub fn section(&self, more: &str) -> String {
        format!("[redis]\nurl = \"redis+cluster://127.0.0.1:{}\"\n{more}\n", self.servers[0].port())
    }

    /// The slots in which the server that is `at` this place has answers.
    pub async fn slots_with_keys(&self, at: usize) -> Vec<u16> {
        let mut slots = vec![];
        for key in self.servers[at].values().await {
            slots.push(self.servers[at].ask(&["CLUSTER", "KEYSLOT", &key]).await);
        }
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Begins to move `slot`: from now on, who asks `from` for a key that it lacks is sent to `to`, for once.
    pub async fn begin_to_move(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        self.servers[to].ask::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &self.ids[from]]).await;
        self.servers[from].ask::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &self.ids[to]]).await;
    }

    /// Moves the keys of `slot`, and says whose it is.
    pub async fn move_on(&self, slot: u16, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.servers[to].port().to_string());
        let source = &self.servers[from];
        loop {
            let keys: Vec<String> = source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            source.ask::<String>(&words).await;
        }
        for at in [to, from] {
            self.servers[at].ask::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &self.ids[to]]).await;
        }
    }
}
