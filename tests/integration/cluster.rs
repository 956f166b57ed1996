//! Pods as processes of their own over one Postgres and one Redis: killed, stopped, joining, with other clocks.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::support::client::{Answer, get};
use super::support::eventually::eventually;
use super::support::http;
use super::support::pod::Pod;
use super::support::redis::TestRedis;
use super::support::service::{migrate, plan, text};
use super::support::{TestDatabase, database};

const WITHIN: Duration = Duration::from_secs(20);

/// A lease lasts a second of the 4.
const QUERIES: &str = "[invalidation]\nsource = \"log\"\n\
    [defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\nstale_while_revalidate = \"0s\"\ntimeout = \"4s\"\n\
    [queries.product]\nsql = \"SELECT id, price FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n";

const PRODUCT: &str = "/v1/queries/product?id=7";

struct Cluster {
    database: TestDatabase,
    redis: TestRedis,
    pods: Vec<Pod>,
    client: Client,
    config: String,
}

impl Cluster {
    /// So many pods, each in its environment, and each with a connection to Postgres at hand.
    async fn start(environments: &[Vec<(&str, String)>]) -> Self {
        let (database, redis) = (database().await, TestRedis::start().await);
        let config = format!("{}{QUERIES}", redis.section("timeout = \"400ms\""));
        migrate(&plan(&database.url, &config)).await;
        let config = text(&database.url, &config);
        let pods = join_all(environments.iter().map(|environment| Pod::start_in(&config, environment))).await;
        let client = database.client().await;
        for (pod, id) in pods.iter().zip(91..) {
            assert_eq!(get(pod.queries, &format!("/v1/queries/product?id={id}")).await.status, 200);
        }
        Self { database, redis, pods, client, config }
    }

    async fn of(n: usize) -> Self {
        Self::start(&vec![vec![]; n]).await
    }

    /// Lets no statement over the shop's products end, until the transaction does.
    async fn hold(&self) -> Client {
        let holder = self.database.client().await;
        holder.batch_execute("BEGIN; LOCK TABLE shop.products IN ACCESS EXCLUSIVE MODE").await.expect("the lock");
        holder
    }

    /// Waits until so many statements are held.
    async fn held(&self, n: i64) {
        eventually("statements are held", WITHIN, async || {
            let sql = "SELECT count(*) FROM pg_locks WHERE relation = 'shop.products'::regclass AND NOT granted \
                       AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
            let held: i64 = self.client.query_one(sql, &[]).await.expect("a count").get(0);
            if held == n { Ok(()) } else { Err(held) }
        })
        .await;
    }

    fn crowd(&self, pod: usize, readers: usize) -> Vec<JoinHandle<Answer>> {
        (0..readers).map(|_| tokio::spawn(get(self.pods[pod].queries, PRODUCT))).collect()
    }

    async fn waiting(&self, pod: usize, n: f64) {
        eventually("readers wait", WITHIN, async || match self.pods[pod].metric("seawall_waiters").await {
            waiting if waiting == n => Ok(()),
            waiting => Err(waiting),
        })
        .await;
    }

    /// Of all pods that there are; what they have been warmed with is not counted.
    async fn statements(&self) -> f64 {
        let counts = self.pods.iter().map(statements);
        join_all(counts).await.iter().sum::<f64>() - self.pods.len() as f64
    }

    async fn leases(&self, outcome: &str) -> f64 {
        let series = format!("seawall_leases_total{{outcome=\"{outcome}\"}}");
        join_all(self.pods.iter().map(|pod| pod.metric(&series))).await.iter().sum()
    }
}

async fn statements(pod: &Pod) -> f64 {
    pod.metric("seawall_db_queries_total{query=\"product\"}").await
}

async fn all_say(asked: Vec<JoinHandle<Answer>>, what: &str) {
    for one in asked {
        let answer = one.await.expect("no panic");
        assert!(answer.status == 200 && answer.text().contains(what), "{answer:?}");
    }
}

/// A pod says so from then on.
async fn says(pod: &Pod, what: &str) {
    eventually(&format!("it says {what}"), WITHIN, async || match get(pod.queries, PRODUCT).await.text() {
        text if text.contains(what) => Ok(()),
        text => Err(text),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_killed_costs_one_more_statement_and_no_other_pods_request() {
    let mut cluster = Cluster::of(3).await;
    let holder = cluster.hold().await;
    let mut doomed = http::Client::new(cluster.pods[0].queries);
    let doomed = tokio::spawn(async move { doomed.get(PRODUCT).await });
    cluster.held(1).await;
    let asked = [cluster.crowd(1, 100), cluster.crowd(2, 100)];
    cluster.waiting(1, 100.0).await;
    cluster.waiting(2, 100.0).await;
    assert_eq!(cluster.leases("skipped").await, 0.0);
    // SIGKILL. What Postgres runs for it is held, and runs on.
    drop(cluster.pods.remove(0));
    cluster.held(2).await;
    holder.batch_execute("COMMIT").await.expect("released");
    for answers in asked {
        all_say(answers, "\"id\":7").await;
    }
    doomed.await.expect("no panic").expect_err("its pod is gone");
    assert_eq!(cluster.statements().await, 1.0, "one more in all");
    let counts = [cluster.leases("taken_over").await, cluster.leases("waited").await, cluster.leases("skipped").await];
    assert_eq!(counts, [1.0, 1.0, 0.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_is_stopped_for_longer_than_its_lease_does_no_harm_when_it_goes_on() {
    let cluster = Cluster::of(2).await;
    let holder = cluster.hold().await;
    let first = cluster.crowd(0, 1);
    cluster.held(1).await;
    cluster.pods[0].pause();
    let second = cluster.crowd(1, 10);
    cluster.held(2).await;
    holder.batch_execute("COMMIT").await.expect("released");
    all_say(second, "\"id\":7").await;
    assert_eq!(cluster.pods[1].metric("seawall_leases_total{outcome=\"taken_over\"}").await, 1.0);
    // What the first has on its way lacks this.
    cluster.client.batch_execute("UPDATE shop.products SET price = 7.77 WHERE id = 7").await.expect("written");
    says(&cluster.pods[1], "7.77").await;
    let published = "seawall_shared_values_total{outcome=\"published\"}";
    eventually("it is shared", WITHIN, async || match cluster.pods[1].metric(published).await {
        3.0 => Ok(()),
        n => Err(n),
    })
    .await;
    cluster.pods[0].resume();
    for one in first {
        // Asked before the write, so either will do. Its deadline is over.
        assert!(matches!(one.await.expect("no panic").status, 200 | 504));
    }
    says(&cluster.pods[0], "7.77").await;
    // Nobody has put the old one back.
    let fresh = Pod::start(&cluster.config, None).await;
    let answer = get(fresh.queries, PRODUCT).await;
    assert!(answer.text().contains("7.77"), "{answer:?}");
    assert!(answer.header("cache-status").is_some_and(|status| status.ends_with("detail=redis")), "{answer:?}");
    assert_eq!(statements(&fresh).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_joins_under_load_asks_nothing_for_what_the_others_share() {
    let cluster = Cluster::of(3).await;
    let path = |id: u32| format!("/v1/queries/product?id={id}");
    for id in 1..=40 {
        get(cluster.pods[0].queries, &path(id)).await;
    }
    let load: Vec<_> = cluster
        .pods
        .iter()
        .map(|pod| {
            let mut client = http::Client::new(pod.queries);
            tokio::spawn(async move {
                for id in (1..=40).cycle() {
                    let answer = client.get(&format!("/v1/queries/product?id={id}")).await.expect("an answer");
                    assert_eq!(answer.status, 200);
                }
            })
        })
        .collect();
    // And writes to what the newcomer is not asked for.
    let writer = cluster.database.client().await;
    let writes = tokio::spawn(async move {
        for price in 1_u32.. {
            let sql = format!("UPDATE shop.products SET price = {price} % 100 WHERE id BETWEEN 21 AND 40");
            writer.batch_execute(&sql).await.expect("written");
        }
    });
    let fourth = Pod::start(&cluster.config, None).await;
    for id in 1..=20 {
        let answer = get(fourth.queries, &path(id)).await;
        assert!(answer.header("cache-status").is_some_and(|status| status.ends_with("detail=redis")), "{answer:?}");
    }
    assert_eq!(statements(&fourth).await, 0.0);
    writes.abort();
    for one in load {
        assert!(!one.is_finished(), "no request failed");
        one.abort();
    }
}

/// What makes a process believe that its clock is so far off. Time that only goes on is as it is.
fn clock_off_by(offset: &str) -> Vec<(&'static str, String)> {
    let libraries = glob("/usr/lib", "faketime/libfaketimeMT.so.1");
    let library = libraries.first().expect("libfaketime is there; `make tools` installs it").display().to_string();
    vec![
        ("LD_PRELOAD", library),
        ("FAKETIME", offset.to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_DONT_RESET", "1".to_owned()),
    ]
}

/// `name` in a directory of `root`.
fn glob(root: &str, name: &str) -> Vec<PathBuf> {
    let directories = std::fs::read_dir(root).expect("a directory").filter_map(Result::ok);
    directories.map(|directory| directory.path().join(name)).filter(|path| path.exists()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_whose_clocks_are_an_hour_apart_share_as_others_do() {
    let cluster = Cluster::start(&[clock_off_by("+1h"), vec![], clock_off_by("-1h")]).await;
    let dates = join_all(cluster.pods.iter().map(|pod| get(pod.queries, PRODUCT))).await;
    let dates: Vec<_> = dates.iter().map(|answer| answer.header("date").expect("a date")[17..19].to_owned()).collect();
    assert!(dates[0] != dates[1] && dates[1] != dates[2], "{dates:?}: they do tell other times");

    cluster.client.batch_execute("UPDATE shop.products SET price = 7.77 WHERE id = 7").await.expect("written");
    for pod in &cluster.pods {
        says(pod, "7.77").await;
    }
    assert_eq!(cluster.statements().await, 2.0, "one for all pods, and one after the write");
    for round in 1..=3_u32 {
        let price = format!("8.0{round}");
        let holder = cluster.hold().await;
        let write = format!("UPDATE shop.products SET price = {price} WHERE id = 7; COMMIT");
        holder.batch_execute(&write).await.expect("written");
        for pod in &cluster.pods {
            says(pod, &price).await;
        }
        assert_eq!(cluster.statements().await, 2.0 + f64::from(round));
    }
    // What is left of a lifetime is the same everywhere, though it was filled elsewhere.
    for pod in &cluster.pods {
        let answer = get(pod.queries, PRODUCT).await;
        let left = answer.header("cache-status").and_then(|status| status.strip_prefix("seawall; hit; ttl="));
        let left: u32 = left.and_then(|left| left.split(';').next()?.parse().ok()).expect("a hit");
        assert!((3_500..=3_600).contains(&left), "{answer:?}");
    }
    assert!(!cluster.redis.values().await.is_empty());
}
