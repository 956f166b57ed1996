//! One question, one statement, over real Postgres.

use std::time::Duration;

use super::support::client::{get, raw};
use super::support::eventually::eventually;
use super::support::service::{TestService, plan};
use super::support::{Gate, TestDatabase, database};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const READERS: usize = 2_000;

/// A service with one query that waits at `gate`, and one that takes 50 ms.
async fn service(database: &TestDatabase, gate: &Gate, timeout: &str) -> TestService {
    let toml = format!(
        "[queries.gated]\nsql = \"SELECT :id::int4 AS id FROM {} AS gate\"\nresult = \"row\"\ntimeout = \"{timeout}\"\n\
         [queries.slow]\nsql = \"SELECT :id::int4 AS id FROM (SELECT pg_sleep(0.05) OFFSET 0) AS slept\"\nresult = \"row\"\n\
         [queries.endless]\nsql = \"SELECT :id::int4 AS id FROM (SELECT pg_sleep(600) OFFSET 0) AS endless\"\nresult = \"row\"\ntimeout = \"{timeout}\"\n",
        gate.sql()
    );
    plan(&database.url, &toml).start().await
}

async fn waiting(service: &TestService, n: usize) {
    eventually("readers wait", Duration::from_secs(20), async || match service.read.waiting() {
        waiting if waiting == n => Ok(()),
        waiting => Err(format!("{waiting} of {n} wait")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_at_once_for_one_cold_key_are_one_statement() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let service = service(&database, &gate, "30s").await;
    let readers: Vec<_> = (0..READERS).map(|_| tokio::spawn(get(service.queries, "/v1/queries/gated?id=7"))).collect();
    waiting(&service, READERS).await;
    gate.open().await;
    let mut led = 0;
    for reader in readers {
        let answer = reader.await.expect("no panic");
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"{\"id\":7}"[..]));
        match answer.header("cache-status") {
            Some("seawall; fwd=uri-miss; stored") => led += 1,
            other => assert_eq!(other, Some("seawall; fwd=uri-miss; stored; collapsed")),
        }
    }
    assert_eq!(led, 1);
    assert_eq!(database.statements_like("%pg_advisory%__seawall_row%").await, 1);
    assert_eq!(service.metric("seawall_shared_requests_total{query=\"gated\"}").await, (READERS - 1) as f64);
    assert_eq!(service.metric("seawall_db_queries_total{query=\"gated\"}").await, 1.0);
    assert_eq!(service.metric("seawall_waiters").await, 0.0);
    assert_eq!(service.metric("seawall_flights").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_query_without_any_gate_is_one_statement_too() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let service = service(&database, &gate, "30s").await;
    let readers: Vec<_> = (0..READERS).map(|_| tokio::spawn(get(service.queries, "/v1/queries/slow?id=1"))).collect();
    for reader in readers {
        assert_eq!(reader.await.expect("no panic").body, b"{\"id\":1}");
    }
    assert_eq!(database.statements_like("%pg_sleep($%__seawall_row%").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_client_leaves_and_everybody_else_is_answered() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let service = service(&database, &gate, "30s").await;
    let mut leader = TcpStream::connect(service.queries).await.expect("a connection");
    leader.write_all(b"GET /v1/queries/gated?id=7 HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("sent");
    waiting(&service, 1).await;
    let readers: Vec<_> = (0..50).map(|_| tokio::spawn(get(service.queries, "/v1/queries/gated?id=7"))).collect();
    waiting(&service, 51).await;
    drop(leader);
    waiting(&service, 50).await;
    gate.open().await;
    for reader in readers {
        assert_eq!(reader.await.expect("no panic").status, 200);
    }
    assert_eq!(database.statements_like("%pg_advisory%__seawall_row%").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_all_clients_are_gone_the_statement_is_cancelled_in_postgres() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let service = service(&database, &gate, "60s").await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = TcpStream::connect(service.queries).await.expect("a connection");
        client.write_all(b"GET /v1/queries/endless?id=7 HTTP/1.1\r\nHost: test\r\n\r\n").await.expect("sent");
        clients.push(client);
    }
    waiting(&service, 5).await;
    eventually("the statement runs", Duration::from_secs(5), async || {
        match database.count_active("%600%__seawall_row%").await {
            1 => Ok(()),
            n => Err(format!("{n} run")),
        }
    })
    .await;
    drop(clients);
    eventually("it is cancelled", Duration::from_secs(5), async || {
        match database.count_active("%600%__seawall_row%").await {
            0 => Ok(()),
            n => Err(format!("{n} run")),
        }
    })
    .await;
    eventually("it is counted", Duration::from_secs(5), async || {
        let cancelled = service.metric("seawall_rebuild_errors_total{query=\"endless\",reason=\"cancelled\"}").await;
        if (cancelled - 1.0).abs() < 0.1 { Ok(()) } else { Err(format!("{cancelled}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_outlives_its_timeout_is_one_504_for_all_and_cancelled_within_100_ms() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let service = service(&database, &gate, "400ms").await;
    let readers: Vec<_> = (0..200).map(|_| tokio::spawn(get(service.queries, "/v1/queries/endless?id=7"))).collect();
    for reader in readers {
        let answer = reader.await.expect("no panic");
        assert_eq!((answer.status, answer.code().as_str()), (504, "deadline"));
    }
    eventually("it is cancelled", Duration::from_millis(100), async || {
        match database.count_active("%600%__seawall_row%").await {
            0 => Ok(()),
            n => Err(format!("{n} run")),
        }
    })
    .await;
    assert_eq!(service.metric("seawall_db_queries_total{query=\"endless\"}").await, 1.0);
    assert_eq!(service.metric("seawall_waiters").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_requests_are_answered_in_order() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let service = service(&database, &gate, "30s").await;
    let mut bytes = Vec::new();
    for id in 1..=5 {
        let close = if id == 5 { "Connection: close\r\n" } else { "" };
        bytes.extend_from_slice(
            format!("GET /v1/queries/slow?id={id} HTTP/1.1\r\nHost: test\r\n{close}\r\n").as_bytes(),
        );
    }
    let answers = String::from_utf8(raw(service.queries, &bytes).await).expect("UTF-8");
    let ids: Vec<_> = (1..=5).map(|id| answers.find(&format!("{{\"id\":{id}}}")).expect("an answer each")).collect();
    assert!(ids.is_sorted(), "{answers}");
}
