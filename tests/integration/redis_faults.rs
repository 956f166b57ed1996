//! Redis fails in every way while three pods are under load: no wrong answer, no failed request, at most one statement for
//! each pod and key, and a second after it is found away nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rustix::process::Signal;
use tokio::task::JoinHandle;

use super::support::chaos::{Chaos, Mode};
use super::support::database;
use super::support::eventually::eventually;
use super::support::http::Client;
use super::support::redis::TestRedis;
use super::support::service::{TestService, migrate, plan};

const WITHIN: Duration = Duration::from_secs(20);
const PODS: usize = 3;

/// Clients of each pod.
const CLIENTS: usize = 4;

/// Keys that clients ask for at a time.
const KEYS: u32 = 50;

/// Of a call of Redis. Who waits for one that does not come waits for longer than [`SLOW`].
const TIMEOUT: &str = "timeout = \"400ms\"";

/// No request takes so long that does not wait for Redis.
const SLOW: Duration = Duration::from_millis(300);

const QUERIES: &str = "[invalidation]\nsource = \"log\"\n\
    [defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\n\
    [queries.number]\nsql = \"SELECT :id::int4 AS id, price FROM shop.products WHERE id = 1\"\nresult = \"row\"\n";

/// What clients see.
struct Load {
    /// The first of the keys that are asked for now.
    first: AtomicU32,
    /// Whether slow ones count.
    is_judged: AtomicBool,
    answers: AtomicU32,
    slow: AtomicU32,
}

/// Asks for one key after the other, without end.
async fn client(mut client: Client, load: Arc<Load>, mut n: u32) {
    loop {
        n = n.wrapping_add(7);
        let id = load.first.load(Ordering::SeqCst) + n % KEYS;
        let begun = Instant::now();
        let answer = client.get(&format!("/v1/queries/number?id={id}")).await.expect("an answer");
        assert!(answer.status == 200 && answer.text().contains(&format!("\"id\":{id},")), "{answer:?}");
        if load.is_judged.load(Ordering::SeqCst) {
            load.answers.fetch_add(1, Ordering::SeqCst);
            load.slow.fetch_add(u32::from(begun.elapsed() > SLOW), Ordering::SeqCst);
        }
    }
}

struct Cluster {
    redis: TestRedis,
    way: Chaos,
    pods: Vec<TestService>,
    load: Arc<Load>,
    clients: Vec<JoinHandle<()>>,
}

impl Cluster {
    async fn sum(&self, series: &str) -> f64 {
        join_all(self.pods.iter().map(|pod| pod.metric(series))).await.iter().sum()
    }

    async fn up(&self, pods: f64) {
        eventually("every pod sees it", WITHIN, async || match self.sum("seawall_redis_up").await {
            up if up == pods => Ok(()),
            up => Err(up),
        })
        .await;
    }

    /// Everybody asks for other keys from now on.
    fn new_keys(&self) {
        self.load.first.fetch_add(KEYS, Ordering::SeqCst);
    }

    /// Waits until so many more have been answered.
    async fn answered(&self, more: u32) {
        let from = self.load.answers.load(Ordering::SeqCst);
        eventually("clients are answered", WITHIN, async || {
            let answers = self.load.answers.load(Ordering::SeqCst) - from;
            if answers >= more { Ok(()) } else { Err(answers) }
        })
        .await;
    }

    /// Each pod has asked Postgres at most once for each of the keys, and for new ones nobody waits for Redis.
    async fn goes_on(&self, what: &str, statements: f64) {
        let begun = Instant::now();
        self.load.is_judged.store(true, Ordering::SeqCst);
        // Cold keys, so that each would look there.
        self.new_keys();
        self.answered(2_000).await;
        self.load.is_judged.store(false, Ordering::SeqCst);
        let (answers, slow) = (self.load.answers.swap(0, Ordering::SeqCst), self.load.slow.swap(0, Ordering::SeqCst));
        assert!(f64::from(slow) <= 0.01 * f64::from(answers), "{what}: {slow} of {answers} in {:?}", begun.elapsed());
        let asked = self.sum("seawall_db_queries_total{query=\"number\"}").await - statements;
        let most = 2.0 * f64::from(KEYS) * PODS as f64;
        assert!(asked <= most, "{what}: {asked} statements for two times {KEYS} keys and {PODS} pods");
        assert!(self.clients.iter().all(|client| !client.is_finished()), "{what}: a request failed");
    }
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Paused,
    BlackHole,
    Full,
    Replica,
    Garbage,
    Flushed,
    RolledBack,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::Killed,
        Self::Paused,
        Self::BlackHole,
        Self::Full,
        Self::Replica,
        Self::Garbage,
        Self::Flushed,
        Self::RolledBack,
    ];

    async fn begins(self, cluster: &mut Cluster) {
        let redis = &mut cluster.redis;
        match self {
            Self::Killed => redis.kill(),
            Self::Paused => redis.signal(Signal::STOP),
            Self::BlackHole => cluster.way.set(Mode::BlackHole).await,
            Self::Full => redis.ask(&["CONFIG", "SET", "maxmemory", "1"]).await,
            Self::Replica => redis.ask(&["REPLICAOF", "127.0.0.1", "1"]).await,
            Self::Garbage => {
                for key in redis.values().await {
                    redis.ask::<()>(&["SET", &key, "garbage", "PX", "60000"]).await;
                }
            }
            Self::Flushed => redis.ask(&["FLUSHALL"]).await,
            Self::RolledBack => redis.roll_back().await,
        }
    }

    /// Whether pods find it away, where it lasts.
    fn lasts(self) -> bool {
        !matches!(self, Self::Garbage | Self::Flushed | Self::RolledBack)
    }

    async fn ends(self, cluster: &mut Cluster) {
        let redis = &mut cluster.redis;
        match self {
            Self::Killed => redis.restart().await,
            Self::Paused => redis.signal(Signal::CONT),
            Self::BlackHole => cluster.way.set(Mode::Pass).await,
            Self::Full => redis.ask(&["CONFIG", "SET", "maxmemory", "0"]).await,
            Self::Replica => redis.ask(&["REPLICAOF", "NO", "ONE"]).await,
            Self::Garbage | Self::Flushed | Self::RolledBack => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_becomes_of_redis_under_load_nobody_waits_for_it_for_long_and_every_answer_is_right() {
    let (database, redis) = (database().await, TestRedis::start().await);
    let port = redis.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let way = Chaos::before(port);
    let section = format!("[redis]\nurl = \"redis://127.0.0.1:{}\"\n{TIMEOUT}\n", way.port);
    let config = format!("{section}{QUERIES}");
    migrate(&plan(&database.url, &config)).await;
    let pods = join_all((0..PODS).map(|_| plan(&database.url, &config).start())).await;
    let load = Arc::new(Load {
        first: AtomicU32::new(0),
        is_judged: AtomicBool::new(false),
        answers: AtomicU32::new(0),
        slow: AtomicU32::new(0),
    });
    let clients = pods.iter().flat_map(|pod| (0..CLIENTS).map(|_| Client::new(pod.queries)));
    let clients = clients.zip(0..).map(|(one, n)| tokio::spawn(client(one, Arc::clone(&load), n))).collect();
    let mut cluster = Cluster { redis, way, pods, load, clients };
    eventually("there is something to come back", WITHIN, async || match cluster.redis.values().await.len() {
        n if n >= KEYS as usize => Ok(()),
        n => Err(n),
    })
    .await;
    cluster.redis.dump().await;
    for fault in Fault::ALL {
        let statements = cluster.sum("seawall_db_queries_total{query=\"number\"}").await;
        cluster.new_keys();
        fault.begins(&mut cluster).await;
        if fault.lasts() {
            cluster.up(0.0).await;
        }
        cluster.goes_on(&format!("{fault:?}"), statements).await;
        fault.ends(&mut cluster).await;
        cluster.up(PODS as f64).await;
        // And it is shared again: what one asks, the others don't.
        let (before, taken) = (statements_of(&cluster).await, hits(&cluster).await);
        cluster.new_keys();
        eventually("answers are taken from other pods", WITHIN, async || match hits(&cluster).await - taken {
            n if n >= 2.0 * f64::from(KEYS) => Ok(()),
            n => Err((fault, n)),
        })
        .await;
        assert!(statements_of(&cluster).await - before <= 2.0 * f64::from(KEYS), "{fault:?}");
    }
    cluster.clients.iter().for_each(JoinHandle::abort);
}

async fn statements_of(cluster: &Cluster) -> f64 {
    cluster.sum("seawall_db_queries_total{query=\"number\"}").await
}

async fn hits(cluster: &Cluster) -> f64 {
    cluster.sum("seawall_shared_values_total{outcome=\"hit\"}").await
}
