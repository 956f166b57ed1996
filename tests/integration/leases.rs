//! Pods that miss at once: one of them asks Postgres, whatever becomes of it.

use std::time::Duration;

use futures_util::future::join_all;
use rustix::process::Signal;
use seawall::clock::Clock;
use seawall::readthrough::shared::{Claim, Claimed, Ended, Place, Seen, SharedTier, Token};
use seawall::redis::{Redis, Settings};
use seawall::stamp::{Lineage, Snapshot};
use seawall::telemetry::metrics::Metrics;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_postgres::Client;

use super::support::client::{Answer, get};
use super::support::eventually::eventually;
use super::support::redis::TestRedis;
use super::support::service::{TestService, migrate, plan};
use super::support::{TestDatabase, database};

const WITHIN: Duration = Duration::from_secs(20);
const PODS: usize = 3;

/// Spread over all pods.
const READERS: usize = 3_000;

/// Statements, each with a lease, by which pods have their connections at hand before anything is counted.
const WARMED: f64 = PODS as f64;

const QUERIES: &str = "[invalidation]\nsource = \"log\"\n\
    [defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\nstale_while_revalidate = \"0s\"\ntimeout = \"60s\"\n\
    [queries.product]\nsql = \"SELECT id, price FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n\
    [queries.short]\nsql = \"SELECT id, price FROM shop.products WHERE id = :id\"\nresult = \"row\"\nttl = \"2s\"\n\
    [queries.wrong]\nsql = \"SELECT id, price / (:by::int4) AS share FROM shop.products WHERE id = 1\"\nresult = \"row\"\n\
    error_backoff = \"2s\"\n\
    [queries.all]\nsql = \"SELECT id, price FROM shop.products\"\n";

struct Cluster {
    database: TestDatabase,
    redis: TestRedis,
    pods: Vec<TestService>,
    client: Client,
}

impl Cluster {
    async fn start(more: &str) -> Self {
        let (database, redis) = (database().await, TestRedis::start().await);
        let config = format!("{}{QUERIES}{more}", redis.section("timeout = \"400ms\""));
        migrate(&plan(&database.url, &config)).await;
        let pods = join_all((0..PODS).map(|_| plan(&database.url, &config).start())).await;
        let client = database.client().await;
        let cluster = Self { database, redis, pods, client };
        eventually("all pods hear", WITHIN, async || match cluster.subscribers().await {
            n if n == PODS => Ok(()),
            n => Err(n),
        })
        .await;
        // With the statement prepared, so that what is held has been sent.
        for (pod, id) in cluster.pods.iter().zip(91..) {
            assert_eq!(get(pod.queries, &format!("/v1/queries/product?id={id}")).await.status, 200);
        }
        assert_eq!((cluster.leases("acquired").await, cluster.statements("product").await), (0.0, 0.0));
        cluster
    }

    async fn subscribers(&self) -> usize {
        let (_, n): (String, usize) = self.redis.ask(&["PUBSUB", "NUMSUB", "seawall:shop:notices"]).await;
        n
    }

    /// Of all pods.
    async fn sum(&self, series: &str) -> f64 {
        join_all(self.pods.iter().map(|pod| pod.metric(series))).await.iter().sum()
    }

    async fn leases(&self, outcome: &str) -> f64 {
        let all = self.sum(&format!("seawall_leases_total{{outcome=\"{outcome}\"}}")).await;
        if outcome == "acquired" { all - WARMED } else { all }
    }

    async fn statements(&self, query: &str) -> f64 {
        let all = self.sum(&format!("seawall_db_queries_total{{query=\"{query}\"}}")).await;
        if query == "product" { all - WARMED } else { all }
    }

    async fn waiting(&self, n: usize) {
        eventually("readers wait", WITHIN, async || {
            match self.pods.iter().map(|pod| pod.read.waiting()).sum::<usize>() {
                waiting if waiting == n => Ok(()),
                waiting => Err(format!("{waiting} of {n} wait")),
            }
        })
        .await;
    }

    /// Lets no statement over the shop's products end, until the transaction does.
    async fn hold(&self) -> Held {
        let client = self.database.client().await;
        client.batch_execute("BEGIN; LOCK TABLE shop.products IN ACCESS EXCLUSIVE MODE").await.expect("the lock");
        Held { client }
    }

    /// So many ask, spread over the pods, and wait: one of each pod's at once, and then all others at once, so that pods find
    /// Redis while this process is not busy with making connections.
    async fn crowd(&self, path: &'static str, readers: usize) -> Vec<tokio::task::JoinHandle<Answer>> {
        let before = self.pods.iter().map(|pod| pod.read.waiting()).sum::<usize>();
        let ask = |n: usize| tokio::spawn(get(self.pods[n % PODS].queries, path));
        let mut asked: Vec<_> = (0..PODS).map(ask).collect();
        self.waiting(before + PODS).await;
        asked.extend((PODS..readers).map(ask));
        self.waiting(before + readers).await;
        asked
    }

    /// The keys of leases and marks.
    async fn left_behind(&self) -> Vec<String> {
        let keys: Vec<String> = self.redis.ask(&["KEYS", "*"]).await;
        keys.into_iter().filter(|key| !key.ends_with(":v") && !key.ends_with("probe")).collect()
    }
}

struct Held {
    client: Client,
}

impl Held {
    /// Waits until so many statements are held.
    async fn holds(&self, n: i64) {
        eventually("statements are held", WITHIN, async || {
            let sql = "SELECT count(*) FROM pg_locks WHERE relation = 'shop.products'::regclass AND NOT granted \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            let held: i64 = self.client.query_one(sql, &[]).await.expect("a count").get(0);
            if held == n { Ok(()) } else { Err(held) }
        })
        .await;
    }

    async fn lets_go(self) {
        self.client.batch_execute("COMMIT").await.expect("released");
    }
}

async fn all_say(asked: Vec<tokio::task::JoinHandle<Answer>>, what: &str) {
    for one in asked {
        let answer = one.await.expect("no panic");
        assert!(answer.status == 200 && answer.text().contains(what), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_at_once_over_three_pods_are_one_statement_cold_and_after_a_write_and_after_the_end() {
    let cluster = Cluster::start("").await;
    let held = cluster.hold().await;
    let asked = cluster.crowd("/v1/queries/product?id=7", READERS).await;
    held.holds(1).await;
    held.lets_go().await;
    all_say(asked, "\"id\":7").await;
    assert_eq!(cluster.statements("product").await, 1.0);
    assert_eq!((cluster.leases("acquired").await, cluster.leases("waited").await), (1.0, 2.0));
    assert_eq!(cluster.sum("seawall_requests_total{outcome=\"redis_hit\",query=\"product\"}").await, 2_000.0);

    // One write, which every pod has heard of.
    cluster.client.batch_execute("UPDATE shop.products SET price = 7.77 WHERE id = 7").await.expect("written");
    join_all(cluster.pods.iter().map(|pod| pod.catch_up(&cluster.client))).await;
    let held = cluster.hold().await;
    let asked = cluster.crowd("/v1/queries/product?id=7", READERS).await;
    held.holds(1).await;
    held.lets_go().await;
    all_say(asked, "7.77").await;
    assert_eq!(cluster.statements("product").await, 2.0, "one after it");

    // A short life that ends in all pods at once.
    let held = cluster.hold().await;
    let asked = cluster.crowd("/v1/queries/short?id=7", PODS).await;
    held.lets_go().await;
    all_say(asked, "7.77").await;
    eventually("its life is over", WITHIN, async || {
        let values = cluster.redis.values().await.len();
        if values == 1 + PODS { Ok(()) } else { Err(values) }
    })
    .await;
    let before = cluster.statements("short").await;
    let held = cluster.hold().await;
    let asked = cluster.crowd("/v1/queries/short?id=7", READERS).await;
    held.holds(1).await;
    held.lets_go().await;
    all_say(asked, "7.77").await;
    assert_eq!(cluster.statements("short").await - before, 1.0);
    assert_eq!(cluster.left_behind().await, Vec::<String>::new(), "leases end with their fills");
    assert_eq!((cluster.leases("taken_over").await, cluster.leases("skipped").await), (0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_needs_a_write_that_the_holder_may_lack_takes_the_second_lease_r3() {
    let cluster = Cluster::start("").await;
    let held = cluster.hold().await;
    // The statement of this one has its snapshot, or is about to take it; nobody can tell.
    let old = tokio::spawn(get(cluster.pods[0].queries, "/v1/queries/product?id=7"));
    held.holds(1).await;
    // A write by somebody whom the lock does not stop: the tag alone.
    cluster.client.batch_execute("SELECT seawall.invalidate('shop.products')").await.expect("announced");
    join_all(cluster.pods.iter().map(|pod| pod.catch_up(&cluster.client))).await;
    let asked = cluster.crowd("/v1/queries/product?id=7", 300).await;
    // One more, for all who came after the write; and no third, whoever comes now.
    held.holds(2).await;
    let more = cluster.crowd("/v1/queries/product?id=7", 300).await;
    held.lets_go().await;
    for answers in [asked, more] {
        all_say(answers, "\"id\":7").await;
    }
    assert_eq!(old.await.expect("no panic").status, 200);
    assert_eq!(cluster.statements("product").await, 2.0);
    assert_eq!((cluster.leases("acquired").await, cluster.leases("skipped").await), (2.0, 0.0));
    assert_eq!(cluster.left_behind().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_of_the_question_is_every_pods_for_its_backoff_and_no_longer() {
    let cluster = Cluster::start("").await;
    let path = "/v1/queries/wrong?by=0";
    let held = cluster.hold().await;
    let asked = cluster.crowd(path, 30).await;
    held.holds(1).await;
    held.lets_go().await;
    for one in asked {
        let answer = one.await.expect("no panic");
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{answer:?}");
    }
    assert_eq!(cluster.statements("wrong").await, 1.0);
    // Not within the lease's time and not at its end does anybody ask again: the mark is there.
    for pod in &cluster.pods {
        assert_eq!(get(pod.queries, path).await.status, 400);
    }
    assert_eq!(cluster.statements("wrong").await, 1.0);
    let marks = cluster.left_behind().await;
    assert!(marks.len() == 1 && marks[0].ends_with(":m"), "{marks:?}");
    let word: String = cluster.redis.ask(&["GET", &marks[0]]).await;
    assert_eq!(word, "refused", "a class, and no word of the database's");
    eventually("its backoff is over", WITHIN, async || match cluster.left_behind().await {
        marks if marks.is_empty() => Ok(()),
        marks => Err(marks),
    })
    .await;
    eventually("it is asked again", WITHIN, async || {
        join_all(cluster.pods.iter().map(|pod| get(pod.queries, path))).await;
        match cluster.statements("wrong").await {
            2.0 => Ok(()),
            n => Err(n),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_holders_clients_are_gone_one_of_the_others_takes_over_at_once() {
    let cluster = Cluster::start("").await;
    let held = cluster.hold().await;
    let mut leaver = TcpStream::connect(cluster.pods[0].queries).await.expect("a connection");
    leaver.write_all(b"GET /v1/queries/product?id=7 HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("sent");
    held.holds(1).await;
    let others: Vec<_> =
        (0..100).map(|n| tokio::spawn(get(cluster.pods[1 + n % 2].queries, "/v1/queries/product?id=7"))).collect();
    cluster.waiting(101).await;
    drop(leaver);
    // Its statement is cancelled, and another's is sent.
    cluster.waiting(100).await;
    eventually("it has taken over", WITHIN, async || match cluster.leases("taken_over").await {
        1.0 => Ok(()),
        n => Err(n),
    })
    .await;
    held.holds(1).await;
    held.lets_go().await;
    all_say(others, "\"id\":7").await;
    assert_eq!(cluster.statements("product").await, 2.0);
    assert_eq!((cluster.leases("waited").await, cluster.leases("skipped").await), (1.0, 0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_an_answer_that_is_too_large_to_be_shared() {
    let cluster = Cluster::start("[cache]\nentry_max_bytes = \"1KiB\"\n").await;
    let asked = join_all(cluster.pods.iter().map(|pod| get(pod.queries, "/v1/queries/all"))).await;
    assert!(asked.iter().all(|answer| answer.status == 200 && answer.body.len() > 1024));
    let marked = cluster.left_behind().await;
    assert!(marked.len() == 1 && marked[0].ends_with(":m"), "{marked:?}");
    let before = (cluster.leases("acquired").await, cluster.leases("taken_over").await);
    let skipped = cluster.leases("skipped").await;
    let held = cluster.hold().await;
    let asked = cluster.crowd("/v1/queries/all", 30).await;
    held.holds(3).await;
    held.lets_go().await;
    all_say(asked, "\"id\":7").await;
    assert_eq!((cluster.leases("acquired").await, cluster.leases("taken_over").await), before);
    assert_eq!(cluster.leases("skipped").await - skipped, 3.0, "each for itself, and all at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_redis_answers_nobody_each_pod_asks_once_and_says_why() {
    let cluster = Cluster::start("").await;
    cluster.redis.signal(Signal::STOP);
    let held = cluster.hold().await;
    let asked = cluster.crowd("/v1/queries/product?id=7", 300).await;
    held.holds(3).await;
    held.lets_go().await;
    all_say(asked, "\"id\":7").await;
    cluster.redis.signal(Signal::CONT);
    assert_eq!(cluster.statements("product").await, 3.0);
    assert_eq!(cluster.leases("skipped").await, 3.0);
    let fallbacks = async |reason: &str| {
        cluster.sum(&format!("seawall_db_fallbacks_total{{query=\"product\",reason=\"{reason}\"}}")).await
    };
    assert_eq!((fallbacks("redis_down").await, fallbacks("miss").await), (300.0, WARMED));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notices_that_nobody_hears_cost_a_moment_and_no_statement() {
    let cluster = Cluster::start("").await;
    let held = cluster.hold().await;
    let asked = cluster.crowd("/v1/queries/product?id=7", 300).await;
    held.holds(1).await;
    cluster.redis.ask::<i64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    held.lets_go().await;
    all_say(asked, "\"id\":7").await;
    assert_eq!(cluster.statements("product").await, 1.0);
    eventually("they hear again", WITHIN, async || match cluster.subscribers().await {
        PODS => Ok(()),
        n => Err(n),
    })
    .await;
}

/// A tier of a process of its own.
fn tier(server: &TestRedis) -> Redis {
    let settings = Settings {
        url: server.url(),
        namespace: "test".into(),
        pool_size: 2,
        timeout: Duration::from_millis(400),
        entry_max_bytes: 1 << 20,
        tls_root_cert: None,
    };
    Redis::new(&settings, Clock::system(), Arc::new(Metrics::new())).expect("a URL")
}

fn claim(token: u128, second: bool) -> Claim {
    let cursor = Some(Snapshot::parse("5:9:5,7").expect("well-formed"));
    Claim { token: Token(token), seen: Seen::default(), cursor, life: Duration::from_secs(60), second }
}

async fn no_lease(server: &TestRedis) {
    eventually("no lease is left", WITHIN, async || match server.ask::<Vec<String>>(&["KEYS", "*"]).await {
        keys if keys.is_empty() => Ok(()),
        keys => Err(keys),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_its_claims_alone_and_a_claim_that_nobody_waits_for_any_more_is_given_back() {
    let server = TestRedis::start().await;
    let (one, other) = (tier(&server), tier(&server));
    let place = Place { lineage: Lineage::new("l"), schema: 2, key: seawall::cache::key::Key::new(b"k") };
    let leased = |claimed: Result<Claimed, _>| match claimed.expect("Redis answers") {
        Claimed::Leased(lease) => lease,
        other => panic!("{other:?}"),
    };
    let holders = |claimed: Result<Claimed, _>| match claimed.expect("Redis answers") {
        Claimed::Held(holders) => holders,
        other => panic!("{other:?}"),
    };

    let first = leased(one.claim(&place, claim(1, false)).await);
    let held = holders(other.claim(&place, claim(2, false)).await);
    assert_eq!((held.len(), held[0].token), (1, Token(1)));
    assert_eq!(held[0].cursor, Some(Snapshot::parse("5:9:5,7").expect("well-formed")));
    assert!(held[0].left <= Duration::from_secs(60) && held[0].left > Duration::from_secs(30));
    let second = leased(other.claim(&place, claim(2, true)).await);
    assert_eq!(holders(one.claim(&place, claim(3, true)).await).len(), 2);

    // Renewed and given back by its token alone.
    assert_eq!(other.renew(&place, Token(3), Duration::from_secs(90)).await, Ok(false));
    assert_eq!(one.renew(&place, Token(1), Duration::from_secs(90)).await, Ok(true));
    let held = holders(one.claim(&place, claim(3, true)).await);
    assert!(held[0].left > Duration::from_secs(60) && held[1].left <= Duration::from_secs(60));
    let news = other.news(&place);
    first.end(Ended::Free);
    tokio::time::timeout(WITHIN, news).await.expect("it is told, or looks again");
    eventually("it is given back", WITHIN, async || match other.claim(&place, claim(4, true)).await {
        Ok(Claimed::Leased(lease)) => {
            lease.is_over();
            Ok(())
        }
        other => Err(format!("{other:?}")),
    })
    .await;
    // The fourth has it now, and whoever had it before can't take it away.
    assert_eq!(one.renew(&place, Token(1), Duration::from_secs(90)).await, Ok(false));
    assert_eq!(holders(one.claim(&place, claim(5, true)).await)[0].token, Token(4));
    drop(second);
    server.ask::<()>(&["FLUSHALL"]).await;

    // Asked, and left before the answer.
    for token in 10..60 {
        let asked = one.claim(&place, claim(token, true));
        drop(asked);
    }
    no_lease(&server).await;

    // What has no end is nobody's.
    let lease = leased(one.claim(&place, claim(70, false)).await);
    let keys: Vec<String> = server.ask(&["KEYS", "*"]).await;
    lease.is_over();
    server.ask::<()>(&["SET", &keys[0], "somebody else's"]).await;
    drop(leased(one.claim(&place, claim(71, false)).await));
    no_lease(&server).await;
}
