//! The event log itself: what much writing and long transactions do to it.

use std::time::Duration;

use super::support::client::get;
use super::support::eventually::eventually;
use super::support::service::{migrate, plan};
use super::support::{connect, database};

const TOML: &str = "[invalidation]\nsource = \"log\"\nretention = \"2s\"\n[queries.product]\nsql = \"SELECT price FROM shop.products WHERE id = :id\"\n\
    result = \"value\"\ndepends = { \"shop.products\" = \"id = :id\" }\n";

/// Rows through the log in all; `SEAWALL_LOG_ROWS` for long.
fn rows() -> usize {
    std::env::var("SEAWALL_LOG_ROWS").ok().and_then(|rows| rows.parse().ok()).unwrap_or(100_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_pruned_levels_off() {
    let database = database().await;
    let plan = plan(&database.url, TOML);
    migrate(&plan).await;
    let service = plan.start().await;
    let client = database.client().await;
    let sql =
        "SELECT seawall.invalidate(VARIADIC ARRAY(SELECT 'row:' || $1 || ':' || n FROM generate_series(1, 500) AS n))";
    let statement = client.prepare(sql).await.expect("prepared");
    // By default once a minute, in which this test would be over.
    client.batch_execute("ALTER SYSTEM SET autovacuum_naptime = '1s'").await.expect("set");
    client.batch_execute("SELECT pg_reload_conf()").await.expect("reloaded");
    let size = async || -> i64 {
        let sql = "SELECT pg_total_relation_size('seawall.event')";
        client.query_one(sql, &[]).await.expect("a size").get(0)
    };
    let batches = rows() / 500;
    let mut halfway = 0;
    for batch in 0..batches {
        client.execute(&statement, &[&batch.to_string()]).await.expect("announced");
        if batch == batches / 2 {
            halfway = size().await;
        }
    }
    let at_last = size().await;
    eprintln!("{} rows: {halfway} bytes halfway, {at_last} at last", rows());
    // In the short run the retention has hardly begun to matter.
    assert!(rows() < 1_000_000 || at_last < halfway * 3 / 2, "{halfway} bytes halfway, {at_last} at last");
    service.catch_up(&client).await;
    // A canary a second is all that is written from here on.
    eventually("the log is as good as empty", Duration::from_secs(60), async || {
        let left: i64 = client.query_one("SELECT count(*) FROM seawall.event", &[]).await.expect("a count").get(0);
        if left < 100 { Ok(()) } else { Err(left) }
    })
    .await;
    let flushed = service.metric("seawall_flushes_total{reason=\"gap\"}").await;
    assert_eq!(flushed, 0.0, "nobody who reads along misses what is pruned");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stays_open_makes_no_poll_dearer() {
    let database = database().await;
    let plan = plan(&database.url, TOML);
    migrate(&plan).await;
    let service = plan.start().await;
    let (open, client) = (database.client().await, database.client().await);
    let update = |id: usize| format!("UPDATE shop.products SET price = price + 1 WHERE id = {id}");
    open.batch_execute(&format!("BEGIN; {}", update(1))).await.expect("open");
    get(service.queries, "/v1/queries/product?id=2").await;
    // Blocks that polls have touched, and polls, since the last reading.
    let reading = async || {
        let sql = "SELECT sum(shared_blks_hit + shared_blks_read)::float8, sum(calls)::float8 FROM pg_stat_statements s \
                   JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database() AND query LIKE '%AS unseen%'";
        let row = connect(&database.url).await.query_one(sql, &[]).await.expect("counted");
        (row.get::<_, f64>(0), row.get::<_, f64>(1))
    };
    let polls = async |n: f64| {
        let before = reading().await;
        eventually("polls go on", Duration::from_secs(60), async || {
            let now = reading().await;
            if now.1 - before.1 >= n { Ok(()) } else { Err(now.1 - before.1) }
        })
        .await;
        let now = reading().await;
        (now.0 - before.0) / (now.1 - before.1)
    };
    let at_first = polls(50.0).await;
    for n in 0..2_000 {
        client.batch_execute(&update(3 + n % 500)).await.expect("written");
    }
    service.catch_up(&client).await;
    let later = polls(50.0).await;
    assert!(later <= at_first * 1.5 + 10.0, "{at_first} blocks a poll at first, {later} later");
    assert!(
        get(service.queries, "/v1/queries/product?id=2")
            .await
            .header("cache-status")
            .is_some_and(|s| s.contains("hit; ttl"))
    );
    open.batch_execute("COMMIT").await.expect("committed");
}
