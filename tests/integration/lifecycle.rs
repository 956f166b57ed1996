//! From start to stop: a database that is away, and a stop that lets running requests end.

use std::time::Duration;

use seawall::postgres::embedded::{Embedded, EmbeddedOptions};

use super::support::client::get;
use super::support::eventually::eventually;
use super::support::service::plan;
use super::support::{Gate, database};

const COUNT: &str = "[queries.one]\nsql = \"SELECT :n::int4 AS n\"\nresult = \"value\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_at_start_and_comes_later_needs_no_restart() {
    let postgres = Embedded::start(EmbeddedOptions::default()).await.expect("a Postgres");
    postgres.crash().await.expect("ended");
    let toml = format!("[postgres]\nreconnect_max = \"200ms\"\nconnect_timeout = \"500ms\"\n{COUNT}");
    let service = plan(&postgres.url("postgres"), &toml).start().await;
    let away = get(service.queries, "/v1/queries/one?n=1").await;
    assert_eq!((away.status, away.code().as_str()), (503, "origin_away"));
    assert!(away.header("retry-after").is_some());
    let ready = get(service.admin, "/readyz").await;
    assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("degraded")));
    assert_eq!(service.metric("seawall_degraded{reason=\"postgres\"}").await, 1.0);
    postgres.restart().await.expect("back");
    eventually("it answers", Duration::from_secs(10), async || {
        let answer = get(service.queries, "/v1/queries/one?n=1").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(get(service.admin, "/readyz").await.json()["status"], "ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_database_makes_every_older_answer_stale() {
    let postgres = Embedded::start(EmbeddedOptions::default()).await.expect("a Postgres");
    let toml = format!("[defaults]\nerror_backoff = \"1ms\"\n{COUNT}");
    let service = plan(&postgres.url("postgres"), &toml).start().await;
    let first = get(service.queries, "/v1/queries/one?n=1").await;
    assert_eq!(first.header("cache-status"), Some("seawall; fwd=uri-miss; stored"));
    postgres.crash().await.expect("ended");
    let hit = get(service.queries, "/v1/queries/one?n=1").await;
    assert!(hit.header("cache-status").expect("labelled").starts_with("seawall; hit"), "hits go on meanwhile");
    assert_eq!(get(service.queries, "/v1/queries/one?n=2").await.code(), "origin_away");
    postgres.restart().await.expect("back");
    // The first fill after the restart says that the history is another.
    eventually("it answers", Duration::from_secs(10), async || {
        let answer = get(service.queries, "/v1/queries/one?n=2").await;
        if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    let refilled = get(service.queries, "/v1/queries/one?n=1").await;
    assert_eq!(refilled.header("cache-status"), Some("seawall; fwd=stale; stored; detail=invalidated"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_turns_readiness_and_lets_running_requests_end() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let toml = format!(
        "[server]\ndrain_delay = \"0s\"\nshutdown_grace = \"20s\"\n[queries.gated]\nsql = \"SELECT 1 AS n FROM {} AS gate\"\nresult = \"value\"\ntimeout = \"30s\"\n",
        gate.sql()
    );
    let mut service = plan(&database.url, &toml).start().await;
    let address = service.queries;
    let running = tokio::spawn(async move { get(address, "/v1/queries/gated").await });
    gate.held(1).await;
    service.stop();
    eventually("readiness turns", Duration::from_secs(5), async || match get(service.admin, "/readyz").await.status {
        503 => Ok(()),
        status => Err(format!("status {status}")),
    })
    .await;
    gate.open().await;
    let answer = running.await.expect("no panic");
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    service.stopped().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
