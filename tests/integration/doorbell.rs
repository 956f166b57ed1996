//! The doorbell: who sleeps is woken by every commit, and costs next to nothing meanwhile.

use std::time::Duration;

use tokio_postgres::Client;

use super::support::client::get;
use super::support::eventually::eventually;
use seawall::postgres::migrate::{Ring, set_ring};

use super::support::service::{Plan, TestService, migrate, plan};
use super::support::{TestDatabase, database};

/// Safety polls are a quarter of an hour apart: a wake-up that is lost is not made up for within any test.
const TOML: &str = "[invalidation]\nsource = \"log\"\n[defaults]\nmax_lag = \"1h\"\n[queries.product]\n\
    sql = \"SELECT price FROM shop.products WHERE id = :id\"\nresult = \"value\"\ndepends = { \"shop.products\" = \"id = :id\" }\n";

fn planned(database: &TestDatabase) -> Plan {
    plan(&database.url, TOML)
}

async fn sleepers(client: &Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted \
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    client.query_one(sql, &[]).await.expect("a count").get(0)
}

async fn pods_sleeping(client: &Client, pods: i64) {
    eventually("the pods sleep", Duration::from_secs(20), async || match sleepers(client).await {
        n if n == pods => Ok(()),
        n => Err(n),
    })
    .await;
}

/// The notifications that came: those that woke it for something to read, and all.
async fn rings(service: &TestService) -> (f64, f64) {
    let needed = service.metric("seawall_doorbells_total{needed=\"true\"}").await;
    (needed, needed + service.metric("seawall_doorbells_total{needed=\"false\"}").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sleeps_asks_next_to_nothing_and_nobody_is_rung_while_all_are_awake() {
    let database = database().await;
    let client = database.client().await;
    migrate(&planned(&database)).await;
    let service = planned(&database).start().await;
    pods_sleeping(&client, 1).await;
    let polls = async || database.statements_like("%AS unseen%").await;
    let before = polls().await;
    client.batch_execute("SELECT pg_sleep(2)").await.expect("a pause");
    assert!(polls().await - before <= 1, "as good as none while it sleeps: {}", polls().await - before);

    // Awake, and kept so: notifications would have to pass a session that listens, too.
    let write = "UPDATE shop.products SET price = price + 1 WHERE id = 1";
    client.batch_execute(write).await.expect("written");
    pods_sleeping(&client, 0).await;
    let (_, before) = rings(&service).await;
    for _ in 0..200 {
        client.batch_execute(write).await.expect("written");
    }
    service.catch_up(&client).await;
    let (needed, all) = rings(&service).await;
    assert!(needed <= 2.0 && all - before <= 4.0, "200 commits found it awake: {all} rings, {needed} of them needed");
    pods_sleeping(&client, 1).await;
    assert_eq!(get(service.queries, "/v1/queries/product?id=1").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_is_cancelled_leaves_no_lock_behind() {
    let database = database().await;
    migrate(&planned(&database)).await;
    let (writer, watcher) = (database.client().await, database.client().await);
    let cancel = writer.cancel_token();
    let mut rng = fastrand::Rng::with_seed(5);
    let (mut cancelled, mut tries) = (0, 0);
    while cancelled < 1_000 {
        tries += 1;
        assert!(tries < 50_000, "{cancelled} were cancelled: too few to tell");
        let statement = tokio::spawn({
            let token = cancel.clone();
            let spins = rng.u32(0..1_000);
            async move {
                for _ in 0..spins {
                    tokio::task::yield_now().await;
                }
                let _ = token.cancel_query(tokio_postgres::NoTls).await;
            }
        });
        let update = "UPDATE shop.products SET price = price + 1 WHERE id <= 200";
        cancelled += i32::from(writer.batch_execute(update).await.is_err());
        statement.await.expect("no panic");
    }
    assert_eq!(sleepers(&watcher).await, 0);
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
    // One that comes late hits this.
    let mut left = writer.query_one(held, &[]).await;
    for _ in 0..10 {
        if left.is_err() {
            left = writer.query_one(held, &[]).await;
        }
    }
    assert_eq!(left.expect("asked").get::<_, i64>(0), 0, "{cancelled} were cancelled");
    println!("{cancelled} of {tries} were cancelled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_and_the_channel_can_be_moved_while_pods_sleep_and_sessions_write() {
    let database = database().await;
    let plan = planned(&database);
    migrate(&plan).await;
    let url = plan.config.postgres.url.as_ref().expect("given").expose().to_owned();
    let settings = seawall::app::postgres_settings(&plan.config, &url);
    let service = plan.start().await;
    let (writer, watcher) = (database.client().await, database.client().await);
    let write = "UPDATE shop.products SET price = price + 1 WHERE id = 1";
    writer.batch_execute(write).await.expect("it has planned its ring");
    pods_sleeping(&watcher, 1).await;
    let ring = Ring { key: -42, channel: "it's another".into() };
    assert!(set_ring(&settings, &ring).await.expect("moved"));
    assert!(!set_ring(&settings, &ring).await.expect("looked at"), "once is enough");
    let sleeps_by_it = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted \
                        AND ((classid::int8 << 32) | objid::int8) = -42";
    eventually("it sleeps by the new lock", Duration::from_secs(20), async || {
        let pods: i64 = watcher.query_one(sleeps_by_it, &[]).await.expect("a count").get(0);
        if pods == 1 { Ok(()) } else { Err(pods) }
    })
    .await;
    let (_, before) = rings(&service).await;
    writer.batch_execute(write).await.expect("written");
    eventually("a session that had planned by the old one rings by the new", Duration::from_secs(20), async || {
        let (_, all) = rings(&service).await;
        if all > before { Ok(()) } else { Err(all) }
    })
    .await;
}
