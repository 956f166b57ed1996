//! What pods cost Postgres and Redis that nobody asks anything and nobody writes for.

use std::time::Duration;

use futures_util::future::join_all;
use tokio_postgres::Client;

use super::support::client::get;
use super::support::database;
use super::support::eventually::eventually;
use super::support::redis::TestRedis;
use super::support::service::{migrate, plan};

const SHOP: &str = "[invalidation]\nsource = \"log\"\n[queries.product]\nsql = \"SELECT id, name FROM shop.products WHERE id = :id\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n";

/// Over so long, statements are counted.
const SECONDS: i64 = 4;

/// Statements in this database, settings and transactions included, but for this test's own.
async fn statements(client: &Client) -> i64 {
    let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
               WHERE d.datname = current_database() AND query NOT LIKE '%pg_stat_statements%' AND query NOT LIKE '%pg_sleep%'";
    client.query_one(sql, &[]).await.expect("a count").get(0)
}

/// What Redis has been asked, but for this test's own questions.
async fn commands(redis: &TestRedis) -> i64 {
    let stats: String = redis.ask(&["INFO", "stats"]).await;
    let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.and_then(|n| n.trim().parse().ok()).expect("a count")
}

/// Statements and commands.
async fn cost_a_second(pods: usize) -> (i64, i64) {
    let (database, redis) = (database().await, TestRedis::start().await);
    let client = database.client().await;
    let config = format!("{}{SHOP}", redis.section(""));
    migrate(&plan(&database.url, &config)).await;
    let services = join_all((0..pods).map(|_| plan(&database.url, &config).start())).await;
    // Each of them has asked and been answered.
    for (service, id) in services.iter().zip(1..) {
        assert_eq!(get(service.queries, &format!("/v1/queries/product?id={id}")).await.status, 200);
    }
    let asleep = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted \
                  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    eventually("all pods sleep", Duration::from_secs(30), async || {
        let n: i64 = client.query_one(asleep, &[]).await.expect("a count").get(0);
        if n == i64::try_from(pods).expect("few") { Ok(()) } else { Err(n) }
    })
    .await;
    let (before, asked) = (statements(&client).await, commands(&redis).await);
    client.batch_execute(&format!("SELECT pg_sleep({SECONDS})")).await.expect("a pause");
    let sent = statements(&client).await - before;
    let asked = commands(&redis).await - asked;
    assert!(sent > 0 && asked > 0, "they were counted: safety polls at least, and this question");
    drop(services);
    (sent / SECONDS, asked / SECONDS)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_pod_sends_under_five_statements_and_five_commands_a_second() {
    let (sent, asked) = cost_a_second(1).await;
    assert!(sent < 5 && asked < 5, "{sent} and {asked} a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_idle_pods_send_under_fifty_statements_and_fifty_commands_a_second() {
    let (sent, asked) = cost_a_second(10).await;
    assert!(sent < 50 && asked < 50, "{sent} and {asked} a second");
}
