//! Answers that pods share through a real Redis, and a Redis that fails in every way: no wrong answer, no failed request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use seawall::cache::entry::{Draft, Entry};
use seawall::cache::key::Key;
use seawall::clock::Clock;
use seawall::readthrough::shared::{Looked, Place, SharedTier};
use seawall::redis::{Redis, Settings};
use seawall::stamp::{Lineage, Snapshot, Stamp};
use seawall::tag::Tag;
use seawall::telemetry::metrics::Metrics;

use super::support::client::{Answer, get, get_with};
use super::support::eventually::eventually;
use super::support::redis::TestRedis;
use super::support::service::{TestService, migrate, plan};
use super::support::{TestDatabase, database};

const WITHIN: Duration = Duration::from_secs(20);

const QUERIES: &str = "[invalidation]\nsource = \"log\"\n[defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\n\
    [queries.product]\nsql = \"SELECT id, price FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n\
    [queries.strict]\nsql = \"SELECT id, price FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
    consistency = \"strict\"\n";

/// A database with the log, a Redis, and pods over both.
struct Cluster {
    database: TestDatabase,
    redis: TestRedis,
    config: String,
}

impl Cluster {
    async fn start(more: &str) -> Self {
        let (database, redis) = (database().await, TestRedis::start().await);
        let config = format!("{}{QUERIES}", redis.section(more));
        migrate(&plan(&database.url, &config)).await;
        Self { database, redis, config }
    }

    async fn pod(&self) -> TestService {
        plan(&self.database.url, &self.config).start().await
    }
}

async fn product(pod: &TestService, id: u32) -> Answer {
    let answer = get(pod.queries, &format!("/v1/queries/product?id={id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn label(answer: &Answer) -> &str {
    answer.header("cache-status").expect("a label")
}

async fn statements(pod: &TestService) -> f64 {
    pod.metric("seawall_db_queries_total{query=\"product\"}").await
}

async fn shared(pod: &TestService, outcome: &str) -> f64 {
    pod.metric(&format!("seawall_shared_values_total{{outcome=\"{outcome}\"}}")).await
}

async fn published(pod: &TestService, n: f64) {
    eventually("it is shared", WITHIN, async || match shared(pod, "published").await {
        now if now == n => Ok(()),
        now => Err(now),
    })
    .await;
}

async fn up(pod: &TestService, wanted: f64) {
    eventually("it is seen", WITHIN, async || match pod.metric("seawall_redis_up").await {
        now if now == wanted => Ok(()),
        now => Err(now),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_pod_has_filled_costs_the_next_no_statement() {
    let cluster = Cluster::start("").await;
    let first = cluster.pod().await;
    let filled = product(&first, 7).await;
    assert_eq!(label(&filled), "seawall; fwd=uri-miss; stored");
    published(&first, 1.0).await;

    // A pod that has never asked Postgres anything: its first poll certifies what is shared.
    let second = cluster.pod().await;
    let taken = product(&second, 7).await;
    assert!(label(&taken).starts_with("seawall; hit; ttl=3"), "{taken:?}");
    assert!(label(&taken).ends_with("; detail=redis"), "{taken:?}");
    assert_eq!((&taken.body, taken.header("etag")), (&filled.body, filled.header("etag")));
    assert!(!label(&product(&second, 7).await).contains("redis"), "from memory from now on");
    assert_eq!(statements(&second).await, 0.0);
    for (series, n) in [
        ("seawall_requests_total{outcome=\"redis_hit\",query=\"product\"}", 1.0),
        ("seawall_requests_total{outcome=\"hit\",query=\"product\"}", 1.0),
        ("seawall_request_duration_seconds_count{query=\"product\",served=\"redis\"}", 1.0),
        ("seawall_rebuilds_total{query=\"product\",reason=\"miss\"}", 0.0),
        ("seawall_refresh_duration_seconds_count{query=\"product\"}", 0.0),
        ("seawall_db_fallbacks_total{query=\"product\",reason=\"miss\"}", 0.0),
        ("seawall_shared_values_total{outcome=\"hit\"}", 1.0),
    ] {
        assert_eq!(second.metric(series).await, n, "{series}");
    }
    // What nobody has filled is a miss, and counted as one.
    product(&second, 8).await;
    assert_eq!(second.metric("seawall_db_fallbacks_total{query=\"product\",reason=\"miss\"}").await, 1.0);
    assert_eq!((shared(&second, "miss").await, statements(&second).await), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lacks_a_write_is_not_taken_and_what_has_it_is_by_every_pod_r2_r4() {
    let cluster = Cluster::start("").await;
    let (first, second) = (cluster.pod().await, cluster.pod().await);
    product(&first, 7).await;
    published(&first, 1.0).await;
    let client = cluster.database.client().await;
    client.batch_execute("UPDATE shop.products SET price = 7.77 WHERE id = 7").await.expect("written");
    second.catch_up(&client).await;
    let answer = product(&second, 7).await;
    assert!(answer.text().contains("7.77") && label(&answer).contains("uri-miss"), "{answer:?}");
    assert_eq!(shared(&second, "outdated").await, 1.0);
    published(&second, 1.0).await;
    first.catch_up(&client).await;
    let answer = product(&first, 7).await;
    assert!(answer.text().contains("7.77") && label(&answer).ends_with("detail=redis"), "{answer:?}");
    assert_eq!((statements(&first).await, statements(&second).await), (1.0, 1.0), "one after the write, over both");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wants_every_acknowledged_write_takes_what_has_it_and_nothing_else_r3() {
    let cluster = Cluster::start("").await;
    let (first, second) = (cluster.pod().await, cluster.pod().await);
    let client = cluster.database.client().await;
    let validated = async |path: &str| {
        let answer = get_with(second.queries, &format!("/v1/queries/{path}"), &[("Cache-Control", "no-cache")]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    for (n, query) in ["product", "strict"].into_iter().enumerate() {
        for price in 1..=20 {
            let filled = get(first.queries, &format!("/v1/queries/{query}?id=7")).await;
            assert_eq!(filled.status, 200, "{filled:?}");
            // Acknowledged, and perhaps not known to the second pod yet.
            let price = format!("{}.{price:02}", n + 1);
            let write = format!("UPDATE shop.products SET price = {price} WHERE id = 7");
            client.batch_execute(&write).await.expect("written");
            assert!(validated(&format!("{query}?id=7")).await.text().contains(&price));
        }
    }
    // Where it has it, no statement is due.
    let before = statements(&second).await;
    let filled = product(&first, 8).await;
    eventually("it is shared", WITHIN, async || match cluster.redis.values().await.len() {
        3 => Ok(()),
        n => Err(n),
    })
    .await;
    let taken = validated("product?id=8").await;
    assert_eq!((&taken.body, statements(&second).await), (&filled.body, before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_and_comes_back_empty_costs_statements_and_no_answer() {
    let mut cluster = Cluster::start("").await;
    let (first, second) = (cluster.pod().await, cluster.pod().await);
    product(&first, 1).await;
    published(&first, 1.0).await;
    cluster.redis.kill();
    for pod in [&first, &second] {
        for id in 1..=20 {
            product(pod, id).await;
        }
        up(pod, 0.0).await;
        let ready = get(pod.admin, "/readyz").await;
        assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("degraded")));
        assert_eq!(pod.metric("seawall_degraded{reason=\"redis\"}").await, 1.0);
        assert_eq!(statements(pod).await, 20.0, "at most one for each pod and key");
        assert!(shared(pod, "failed").await >= 1.0);
    }
    cluster.redis.restart().await;
    for pod in [&first, &second] {
        up(pod, 1.0).await;
        assert_eq!(get(pod.admin, "/readyz").await.json()["status"], "ok");
    }
    let before = shared(&first, "published").await;
    product(&first, 21).await;
    published(&first, before + 1.0).await;
    assert!(label(&product(&second, 21).await).ends_with("detail=redis"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_answers_nobody_is_waited_for_once_and_by_nobody_later() {
    let cluster = Cluster::start("timeout = \"300ms\"").await;
    let pod = cluster.pod().await;
    product(&pod, 1).await;
    published(&pod, 1.0).await;
    cluster.redis.signal(Signal::STOP);
    // All at once, so that all wait for it, and all are let go together.
    let asked: Vec<_> = (2..=41)
        .map(|id| {
            let address = pod.queries;
            tokio::spawn(async move { get(address, &format!("/v1/queries/product?id={id}")).await.status })
        })
        .collect();
    for one in asked {
        assert_eq!(one.await.expect("no panic"), 200);
    }
    up(&pod, 0.0).await;
    let failed = shared(&pod, "failed").await;
    for id in 42..=81 {
        product(&pod, id).await;
    }
    // A look and a publication each, and none of them came as far as Redis.
    eventually("all have ended", WITHIN, async || match shared(&pod, "failed").await - failed {
        80.0 => Ok(()),
        n => Err(n),
    })
    .await;
    let calls = "seawall_redis_duration_seconds_count{call=\"take\"}";
    assert_eq!(pod.metric(calls).await, 1.0, "only the first was answered");
    assert_eq!(statements(&pod).await, 81.0);
    cluster.redis.signal(Signal::CONT);
    up(&pod, 1.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_strangers_keys_and_flushes_are_nothing_that_is_shared() {
    let cluster = Cluster::start("").await;
    let first = cluster.pod().await;
    for id in 1..=5 {
        product(&first, id).await;
    }
    published(&first, 5.0).await;
    let keys = cluster.redis.values().await;
    assert_eq!(keys.len(), 5);
    let good: Vec<u8> = cluster.redis.ask(&["GET", &keys[0]]).await;
    assert!(good.starts_with(b"sw1 "));
    for (key, garbage) in keys.iter().zip(["", "garbage", "sw1 9:\n", "sw1 00000000000000000009:9\nx"]) {
        cluster.redis.ask::<()>(&["SET", key, garbage, "PX", "60000"]).await;
    }
    // An answer to another question.
    cluster.redis.ask::<()>(&["COPY", &keys[4], &keys[3], "REPLACE"]).await;
    let second = cluster.pod().await;
    for id in 1..=5 {
        let answer = product(&second, id).await;
        assert_eq!(answer.json()["id"], id);
    }
    assert_eq!((shared(&second, "malformed").await, shared(&second, "hit").await), (4.0, 1.0));
    // What can't be read makes room for what can.
    published(&second, 4.0).await;
    cluster.redis.ask::<()>(&["FLUSHALL"]).await;
    product(&second, 6).await;
    assert_eq!(shared(&second, "miss").await, 1.0);
    // A key of another type is refused, and nobody waits for that.
    published(&second, 5.0).await;
    let [key] = &cluster.redis.values().await[..] else { panic!("one") };
    cluster.redis.ask::<()>(&["DEL", key]).await;
    cluster.redis.ask::<()>(&["LPUSH", key, "x"]).await;
    let third = cluster.pod().await;
    assert_eq!(product(&third, 6).await.json()["id"], 6);
    assert!(shared(&third, "failed").await >= 1.0);
    assert_eq!((shared(&third, "hit").await, statements(&third).await), (0.0, 1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_redis_and_a_replica_take_nothing_and_are_left_alone_until_they_do() {
    let cluster = Cluster::start("").await;
    let pod = cluster.pod().await;
    for (first, breaks, mends) in [
        (1, &["CONFIG", "SET", "maxmemory", "1"][..], &["CONFIG", "SET", "maxmemory", "0"][..]),
        (101, &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]),
    ] {
        cluster.redis.ask::<()>(breaks).await;
        let before = statements(&pod).await;
        for id in first..first + 30 {
            product(&pod, id).await;
        }
        up(&pod, 0.0).await;
        assert_eq!(statements(&pod).await, before + 30.0);
        cluster.redis.ask::<()>(mends).await;
        up(&pod, 1.0).await;
        let published_before = shared(&pod, "published").await;
        product(&pod, first + 30).await;
        published(&pod, published_before + 1.0).await;
    }
}

/// An entry that nothing but its stamp tells from others.
fn entry(snapshot: &str) -> Arc<Entry> {
    let snapshot = Snapshot::parse(snapshot).expect("well-formed");
    Arc::new(Entry::new(Draft {
        route: 0,
        body: Some(snapshot.to_string().into_bytes().into()),
        stamp: Stamp { lineage: Lineage::new("l"), snapshot },
        tags: Arc::new([Tag::everything()]),
        basis: 2,
        max_lag: Duration::MAX,
        filled: Clock::system().now(),
        took: Duration::from_millis(1),
        lifetime: Duration::from_secs(60),
        early_refresh: 1.0,
        certified: 0,
        etag_seed: 0,
        uses: None,
    }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_replaced_only_by_one_that_covers_it_r4() {
    let server = TestRedis::start().await;
    let metrics = Arc::new(Metrics::new());
    let settings = Settings {
        url: server.url(),
        tls_root_cert: None,
        namespace: "test".into(),
        pool_size: 2,
        timeout: Duration::from_millis(400),
        entry_max_bytes: 1 << 20,
    };
    let tier = Redis::new(&settings, Clock::system(), Arc::clone(&metrics)).expect("a URL");
    let place = Place { lineage: Lineage::new("l"), schema: 2, key: Key::new(b"k") };
    let count = |outcome: &str| {
        let series = format!("seawall_shared_values_total{{outcome=\"{outcome}\"}}");
        super::support::service::value(&metrics.text(), &series).expect("a series")
    };
    // Beyond 2^53, where doubles are not exact.
    let n = |x: u64| (1 << 60) + x;
    let text = |xmin: u64, xmax: u64, xip: &[u64]| {
        let xip: Vec<String> = xip.iter().map(|x| n(*x).to_string()).collect();
        format!("{}:{}:{}", n(xmin), n(xmax), xip.join(","))
    };
    // More running transactions than the script reads at first.
    let many: Vec<u64> = (0..500).map(|x| 10 + 2 * x).collect();
    let steps = [
        (text(5, 9, &[5, 7]), "published", true),
        (text(5, 8, &[5, 7]), "superseded", false),
        (text(5, 9, &[5, 7]), "published", true),
        (text(5, 9, &[5]), "published", true),
        (text(5, 9, &[5, 7]), "superseded", false),
        (text(5, 10, &[5]), "published", true),
        (text(5, 11, &[5, 6]), "incomparable", false),
        (text(5, 10, &[6]), "incomparable", false),
        (text(11, 11, &[]), "published", true),
        (text(10, 2000, &many), "incomparable", false),
        (text(12, 2000, &many[1..]), "published", true),
        (text(14, 2000, &many[2..]), "published", true),
        (text(12, 2000, &many[1..]), "superseded", false),
        (text(14, 3000, &many[2..]), "published", true),
    ];
    let mut there = String::new();
    for (at, (snapshot, outcome, replaces)) in steps.into_iter().enumerate() {
        let before = count(outcome);
        tier.publish(place.clone(), &entry(&snapshot), None);
        eventually("it has ended", WITHIN, async || match count(outcome) - before {
            1.0 => Ok(()),
            _ => Err((at, outcome, metrics.text())),
        })
        .await;
        if replaces {
            there = snapshot;
        }
        let value = tier.take(&place).await.expect("Redis answers").value.expect("one is there");
        assert_eq!(value.body.as_deref(), Some(there.as_bytes()), "step {at}");
        assert!(value.left <= Duration::from_secs(60) && value.left > Duration::from_secs(30));
    }
    let elsewhere = [
        Place { lineage: Lineage::new("m"), ..place.clone() },
        Place { schema: 3, ..place.clone() },
        Place { key: Key::new(b"kk"), ..place.clone() },
    ];
    for other in elsewhere {
        assert_eq!(tier.take(&other).await, Ok(Looked::default()), "{other:?}");
    }

    // Only what Redis 6.0 knows, whatever else the one here does.
    let known = [
        "auth",
        "client|setinfo",
        "client|setname",
        "client",
        "config|set",
        "del",
        "exec",
        "get",
        "getrange",
        "hello",
        "multi",
        "ping",
        "pexpire",
        "publish",
        "pttl",
        "select",
        "set",
        "subscribe",
        "evalsha",
        "script|load",
        "info",
    ];
    let stats: String = server.ask(&["INFO", "commandstats"]).await;
    let used: BTreeSet<&str> =
        stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")?.split(':').next()).collect();
    assert!(used.contains("evalsha") && used.contains("pttl"), "{used:?}");
    assert!(used.iter().all(|name| known.contains(name)), "{used:?}");
}
