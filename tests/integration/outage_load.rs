//! What a test of an outage stands on: a Postgres of its own behind a proxy, a service, and steady readers who write
//! down what they were told and when.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use seawall::postgres::embedded::{Embedded, EmbeddedOptions};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::support::chaos::Chaos;
use super::support::client::get;
use super::support::connect;
use super::support::eventually::eventually;
use super::support::service::{TestService, plan};

/// Longer than anything here takes on a slow machine.
pub const WITHIN: Duration = Duration::from_secs(30);

/// Connections of the service.
pub const POOL: usize = 8;

/// What one request was told.
#[derive(Clone, Debug)]
pub struct Told {
    pub query: &'static str,
    pub asked: Instant,
    pub took: Duration,
    pub status: u16,
    /// `Cache-Status` without the name of the cache; for a problem, its code.
    pub how: String,
    pub body: String,
}

impl Told {
    /// Whether `how` is `pattern`, where `#` stands for digits.
    pub fn is(&self, pattern: &str) -> bool {
        let mut digits = String::new();
        for c in self.how.chars() {
            match c {
                '0'..='9' if digits.ends_with('#') => {}
                '0'..='9' => digits.push('#'),
                other => digits.push(other),
            }
        }
        digits == pattern
    }
}

/// A Postgres of the test's own, a proxy before it, and a service over that.
pub struct Stage {
    pub postgres: Embedded,
    pub proxy: Chaos,
    pub service: TestService,
}

impl Stage {
    /// With table `t`, whose one row has `v = 0`, and the service that `toml` describes.
    pub async fn set(toml: &str) -> Self {
        let postgres = Embedded::start(EmbeddedOptions::default()).await.expect("tests need a PostgreSQL");
        let admin = connect(&postgres.url("postgres")).await;
        admin.batch_execute("CREATE TABLE t AS SELECT 0 AS v").await.expect("a table");
        let proxy = Chaos::before(postgres.port());
        let url = postgres.url("postgres").replace(&format!(":{}/", postgres.port()), &format!(":{}/", proxy.port));
        let service = plan(&url, toml).start().await;
        Self { postgres, proxy, service }
    }

    /// From now on this is the value.
    pub async fn write(&self, v: u32) {
        let admin = connect(&self.postgres.url("postgres")).await;
        admin.batch_execute(&format!("UPDATE t SET v = {v}")).await.expect("written");
    }

    /// Stops Postgres as its operator would.
    pub async fn stop(&self) {
        let pid = i32::try_from(self.postgres.postmaster_pid()).ok().and_then(Pid::from_raw).expect("it runs");
        kill_process(pid, Signal::INT).expect("it is ours");
        eventually("the server is gone", WITHIN, async || {
            let file = self.postgres.data_dir().join("postmaster.pid");
            if file.exists() { Err("its pid file is there") } else { Ok(()) }
        })
        .await;
    }

    /// Whatever is counted while requests are under way is zero again, and no connection is left over.
    pub async fn nothing_is_left_behind(&self) {
        for gauge in ["seawall_flights", "seawall_waiters", "seawall_requests_in_flight"] {
            self.gauge_is(gauge, 0.0).await;
        }
        self.gauge_is("seawall_pool_connections{state=\"busy\"}", 0.0).await;
        self.gauge_is("seawall_origin_breaker", 0.0).await;
        eventually("no connection is left over", WITHIN, async || match self.proxy.open() {
            0..=POOL => Ok(()),
            open => Err(open),
        })
        .await;
    }

    /// Waits until `series` has this value.
    pub async fn gauge_is(&self, series: &str, value: f64) {
        eventually(series, WITHIN, async || match self.service.metric(series).await {
            v if v == value => Ok(()),
            other => Err(other),
        })
        .await;
    }
}

/// Readers who ask at a steady pace until they are stopped.
pub struct Readers {
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Vec<Told>>>,
    running: Vec<JoinHandle<()>>,
}

impl Readers {
    /// `each` readers of each query, one of whom asks every `pace`. In a path, `{n}` is another number each time.
    pub fn start(service: &TestService, queries: &[(&'static str, &'static str)], each: usize, pace: Duration) -> Self {
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(vec![])));
        let readers = queries.iter().flat_map(|query| std::iter::repeat_n(*query, each));
        let running = readers
            .map(|(query, path)| {
                let address = service.queries;
                let (stop, told) = (Arc::clone(&stop), Arc::clone(&told));
                tokio::spawn(async move {
                    let mut ticks = interval(pace);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    while !stop.load(Ordering::Acquire) {
                        ticks.tick().await;
                        let answer = ask(address, query, path).await;
                        told.lock().expect("not poisoned").push(answer);
                    }
                })
            })
            .collect();
        Self { stop, told, running }
    }

    /// What was told so far.
    pub fn told(&self) -> Vec<Told> {
        self.told.lock().expect("not poisoned").clone()
    }

    /// Waits until each query of `queries` is answered with `body`.
    pub async fn are_told(&self, queries: &[&str], body: &str) {
        let since = self.told().len();
        eventually("the new value is seen", WITHIN, async || {
            let told = self.told();
            let news = |query: &&str| told[since..].iter().any(|t| t.query == *query && t.body == body);
            let missing: Vec<_> = queries.iter().filter(|query| !news(query)).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{missing:?}; last: {:?}", told.last())) }
        })
        .await;
    }

    /// Everything that was told, once everybody has stopped.
    pub async fn stopped(self) -> Vec<Told> {
        self.stop.store(true, Ordering::Release);
        for reader in self.running {
            reader.await.expect("every request has an answer");
        }
        let mut told = std::mem::take(&mut *self.told.lock().expect("not poisoned"));
        told.sort_by_key(|told| told.asked);
        told
    }
}

/// One request.
pub async fn ask(address: SocketAddr, query: &'static str, path: &str) -> Told {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let path = path.replace("{n}", &NUMBER.fetch_add(1, Ordering::Relaxed).to_string());
    let asked = Instant::now();
    let answer = get(address, &path).await;
    let took = asked.elapsed();
    let how = match answer.header("cache-status") {
        Some(how) => how.strip_prefix("seawall; ").expect("our name").to_owned(),
        None => answer.code(),
    };
    Told { query, asked, took, status: answer.status, how, body: answer.text() }
}
