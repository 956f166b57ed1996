//! An expiry that nobody notices: steady clients, a refresh that is held, and what they are told meanwhile.

use std::time::Duration;

use super::support::client::{Answer, get, request};
use super::support::eventually::eventually;
use super::support::service::{TestService, plan};
use super::support::{Gate, TestDatabase, database};

const CLIENTS: usize = 200;

/// A query whose value is that of a table, and whose statements wait at `gate` once it is closed.
async fn service(database: &TestDatabase, gate: &Gate, keys: &str) -> TestService {
    database.client().await.batch_execute("CREATE TABLE told AS SELECT 'old'::text AS value").await.expect("a table");
    let toml = format!(
        "[queries.told]\nsql = \"SELECT value FROM told, {} AS gate\"\nresult = \"value\"\njitter = 0.0\nearly_refresh = 0\n\
         ttl = \"50ms\"\nstale_while_revalidate = \"10m\"\ntimeout = \"60s\"\n{keys}",
        gate.sql()
    );
    plan(&database.url, &toml).start().await
}

async fn told(service: &TestService) -> Answer {
    get(service.queries, "/v1/queries/told").await
}

fn status(answer: &Answer) -> &str {
    answer.header("cache-status").expect("labelled")
}

/// Asks until the answer is past its lifetime, and so has begun its refresh.
async fn expired(service: &TestService) {
    eventually("the answer is stale", Duration::from_secs(10), async || match told(service).await {
        answer if status(&answer).ends_with("; detail=stale-while-revalidate") => Ok(()),
        answer => Err(status(&answer).to_owned()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_are_answered_at_once_from_the_old_value_while_one_statement_waits() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    gate.open().await;
    let service = service(&database, &gate, "").await;
    assert_eq!(told(&service).await.text(), "\"old\"");
    let before = database.statements_like("%FROM told%").await;
    database.client().await.batch_execute("UPDATE told SET value = 'new'").await.expect("a write");
    gate.close().await;
    expired(&service).await;
    gate.held(1).await;

    // The refresh is held closed, so whatever is answered now was answered at once.
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(get(service.queries, "/v1/queries/told"))).collect();
    for client in clients {
        let answer = client.await.expect("no panic");
        assert_eq!((answer.status, answer.text().as_str()), (200, "\"old\""));
        assert!(status(&answer).starts_with("seawall; hit; ttl="), "{answer:?}");
        assert!(status(&answer).ends_with("; detail=stale-while-revalidate"), "{answer:?}");
    }
    gate.held(1).await;
    assert_eq!((service.read.flying(), service.read.waiting()), (1, 0));

    gate.open().await;
    eventually("the refresh has landed", Duration::from_secs(10), async || match service.read.flying() {
        0 => Ok(()),
        n => Err(format!("{n} fly")),
    })
    .await;
    assert_eq!(database.statements_like("%FROM told%").await, before + 1, "one statement for the expiry");
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(get(service.queries, "/v1/queries/told"))).collect();
    for client in clients {
        assert_eq!(client.await.expect("no panic").text(), "\"new\"");
    }
    let of = |outcome: &str| format!("seawall_requests_total{{outcome=\"{outcome}\",query=\"told\"}}");
    assert!(service.metric(&of("stale")).await >= CLIENTS as f64);
    assert_eq!(service.metric(&of("miss")).await, 1.0);
    assert_eq!(service.metric(&of("collapsed")).await, 0.0, "nobody waited");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_rebuild_keeps_those_who_wait_for_it_no_longer_than_wait_at_most() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    gate.open().await;
    let service = service(&database, &gate, "wait_at_most = \"30ms\"\n").await;
    assert_eq!(told(&service).await.text(), "\"old\"");
    // A client that bounds the age wants no stale answer, so it waits for the rebuild: for as long as the query says.
    gate.close().await;
    expired(&service).await;
    let bounded = [("Cache-Control", "max-age=3600")];
    let answer = request(service.queries, "GET", "/v1/queries/told", &bounded, b"").await;
    assert_eq!((answer.status, status(&answer)), (200, "seawall; fwd=stale; collapsed; detail=wait-at-most"));
    gate.held(1).await;
    gate.open().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_cancels_a_refresh_that_nobody_waits_for() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    gate.open().await;
    let service = service(&database, &gate, "").await;
    told(&service).await;
    gate.close().await;
    expired(&service).await;
    gate.held(1).await;
    service.stopped().await;
    gate.held(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_directives_are_honoured_within_the_querys_bounds() {
    let database = database().await;
    let one = "sql = \"SELECT :n::int4 AS n\"\nresult = \"value\"\nttl = \"1h\"\njitter = 0\n";
    let toml = format!(
        "[queries.bounded]\n{one}min_refill_interval = \"1h\"\n[queries.quick]\n{one}min_refill_interval = \"0s\"\n\
         [queries.deaf]\n{one}request_cache_control = \"ignore\"\n[queries.kept]\n{one}client_ttl = \"30s\"\n\
         [queries.brief]\n{one}client_ttl = \"2h\"\n"
    );
    let service = plan(&database.url, &toml).start().await;
    let ask = async |query: &str, directive: &str| {
        let path = format!("/v1/queries/{query}?n=1");
        request(service.queries, "GET", &path, &[("Cache-Control", directive)], b"").await
    };
    let not_cached = ask("bounded", "only-if-cached").await;
    assert_eq!((not_cached.status, not_cached.code().as_str()), (504, "not_cached"));
    for query in ["bounded", "quick", "deaf"] {
        assert_eq!(status(&ask(query, "no-cache").await), "seawall; fwd=uri-miss; stored", "{query}");
    }
    for directive in ["no-cache", "max-age=0", "no-cache, max-stale"] {
        let limited = ask("bounded", directive).await;
        assert!(status(&limited).starts_with("seawall; hit; ttl=3"), "{limited:?}");
        assert!(status(&limited).ends_with("; detail=refill-limited"), "{limited:?}");
        assert_eq!(status(&ask("quick", directive).await), "seawall; fwd=request; stored");
        assert!(status(&ask("deaf", directive).await).starts_with("seawall; hit; ttl=3"));
    }
    assert!(status(&ask("bounded", "only-if-cached").await).starts_with("seawall; hit; ttl=3"));
    assert!(status(&ask("bounded", "max-age=3600").await).starts_with("seawall; hit; ttl=3"));
    let bypassed = service.metric("seawall_requests_total{outcome=\"bypass\",query=\"quick\"}").await;
    assert_eq!(bypassed, 3.0);
    // What clients and CDNs may do with it.
    assert_eq!(ask("bounded", "x").await.header("cache-control"), Some("no-cache"));
    let kept = ask("kept", "x").await;
    assert_eq!(kept.header("cache-control"), Some("max-age=30"));
    let brief = ask("brief", "x").await;
    let age: u64 = brief.header("age").expect("its age").parse().expect("seconds");
    let most: u64 = brief
        .header("cache-control")
        .and_then(|v| v.strip_prefix("max-age="))
        .expect("a bound")
        .parse()
        .expect("seconds");
    assert!((3_500..=3_600).contains(&(most - age)), "never beyond its lifetime: {brief:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_drains_it_is_unready_and_goes_on_serving_new_connections() {
    let database = database().await;
    let toml = "[server]\ndrain_delay = \"10m\"\n[queries.one]\nsql = \"SELECT 1 AS n\"\nresult = \"value\"\n";
    let mut service = plan(&database.url, toml).start().await;
    service.stop();
    eventually("readiness turns", Duration::from_secs(5), async || match get(service.admin, "/readyz").await {
        answer if (answer.status, answer.json()["status"].as_str()) == (503, Some("draining")) => Ok(()),
        answer => Err(answer),
    })
    .await;
    assert_eq!(get(service.queries, "/readyz").await.status, 503, "on both listeners");
    assert_eq!(get(service.queries, "/livez").await.status, 200);
    assert_eq!(get(service.queries, "/v1/queries/one").await.text(), "1");
}
