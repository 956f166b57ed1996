//! Writes: the next answer has them, and nothing else is refilled.

use std::time::Duration;

use tokio_postgres::Client;

use super::support::chaos::{Chaos, Mode};
use super::support::client::{Answer, get, post};
use super::support::database;
use super::support::eventually::eventually;
use super::support::service::{TestService, migrate, plan};

const SHOP: &str = "[invalidation]\nsource = \"log\"\n[defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\n\
    [queries.product]\nsql = \"SELECT price FROM shop.products WHERE id = :id\"\nresult = \"value\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n\
    [queries.big]\nsql = \"SELECT price FROM shop.products WHERE id = :id\"\nresult = \"value\"\nparams.id = \"int8\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n\
    [queries.defaulted]\nsql = \"SELECT price FROM shop.products WHERE id = :id\"\nresult = \"value\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\nparams.id = { default = 42 }\n\
    [queries.count]\nsql = \"SELECT count(*) FROM shop.products\"\nresult = \"value\"\n\
    [queries.category]\nsql = \"SELECT name FROM shop.categories WHERE id = 1\"\nresult = \"value\"\ntags = [\"region:eu\"]\n";

/// A service that follows the log of a database of its own, and a writer.
async fn followed(toml: &str) -> (TestService, Client) {
    let database = database().await;
    let plan = plan(&database.url, toml);
    migrate(&plan).await;
    let client = database.client().await;
    (plan.start().await, client)
}

async fn ask(service: &TestService, path: &str) -> Answer {
    get(service.queries, &format!("/v1/queries/{path}")).await
}

fn status(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or_else(|| panic!("no label: {answer:?}"))
}

async fn is_fresh(service: &TestService, path: &str) -> bool {
    let answer = ask(service, path).await;
    status(&answer).starts_with("seawall; hit; ttl=") && !status(&answer).contains("detail")
}

/// Writes, and waits until the service knows.
async fn write(service: &TestService, client: &Client, sql: &str) {
    client.batch_execute(sql).await.expect(sql);
    service.catch_up(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_to_one_row_refills_its_answers_and_no_others() {
    let (service, client) = followed(SHOP).await;
    for path in ["product?id=42", "product?id=43", "count", "category"] {
        ask(&service, path).await;
    }
    write(&service, &client, "UPDATE shop.products SET price = 99.99 WHERE id = 42").await;
    for path in ["product?id=43", "category"] {
        assert!(is_fresh(&service, path).await, "{path}");
    }
    let answer = ask(&service, "product?id=42").await;
    assert_eq!((answer.text().as_str(), status(&answer)), ("99.99", "seawall; fwd=stale; stored; detail=invalidated"));
    assert!(is_fresh(&service, "product?id=42").await);
    assert_eq!(service.metric("seawall_db_queries_total{query=\"product\"}").await, 3.0);
    assert_eq!(service.metric("seawall_db_queries_total{query=\"category\"}").await, 1.0);
    assert!(!is_fresh(&service, "count").await, "the whole table");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_value_is_one_tag_whatever_the_parameter_is_typed_as_or_whether_it_is_given() {
    let (service, client) = followed(SHOP).await;
    let paths = ["product?id=42", "product?id=042", "big?id=42", "defaulted"];
    for path in paths {
        ask(&service, path).await;
        assert!(is_fresh(&service, path).await, "{path}");
    }
    write(&service, &client, "UPDATE shop.products SET price = 1.25 WHERE id = 42").await;
    for path in ["product?id=42", "big?id=42", "defaulted"] {
        let answer = ask(&service, path).await;
        assert_eq!(
            (answer.text().as_str(), status(&answer)),
            ("1.25", "seawall; fwd=stale; stored; detail=invalidated")
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_rolled_back_or_writes_no_row_refills_nothing() {
    let (service, client) = followed(SHOP).await;
    ask(&service, "product?id=42").await;
    ask(&service, "count").await;
    write(
        &service,
        &client,
        "BEGIN; UPDATE shop.products SET price = 1 WHERE id = 42; ROLLBACK; \
         UPDATE shop.products SET price = 1 WHERE id = -1; DELETE FROM shop.products WHERE false",
    )
    .await;
    assert!(is_fresh(&service, "product?id=42").await && is_fresh(&service, "count").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stays_open_harms_no_hit_and_is_known_when_it_commits() {
    let (service, client) = followed(SHOP).await;
    ask(&service, "product?id=42").await;
    ask(&service, "product?id=43").await;
    client.batch_execute("BEGIN; UPDATE shop.products SET price = 7.5 WHERE id = 42").await.expect("open");
    let database = service.read.ledger().cursor().expect("followed");
    // Others write meanwhile, and their writes are known; the open one's is not, and need not be.
    for n in 0..20 {
        let other = super::support::connect(&url_of(&client).await).await;
        write(&service, &other, &format!("UPDATE shop.products SET price = {n} WHERE id = 43")).await;
        assert!(is_fresh(&service, "product?id=42").await);
        assert_eq!(ask(&service, "product?id=43").await.text().parse::<f64>().expect("a price"), f64::from(n));
        assert!(is_fresh(&service, "product?id=43").await, "a stamp that lists the open transaction is as good");
    }
    assert!(service.read.ledger().cursor().expect("followed").covers(&database));
    write(&service, &client, "COMMIT").await;
    assert_eq!(ask(&service, "product?id=42").await.text(), "7.50");
}

async fn url_of(client: &Client) -> String {
    let sql = "SELECT current_database()::text";
    let name: String = client.query_one(sql, &[]).await.expect("a name").get(0);
    super::support::url(&name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_is_killed_between_two_writes_misses_nothing_and_flushes_nothing() {
    let (service, client) = followed(SHOP).await;
    for path in ["product?id=42", "product?id=43"] {
        ask(&service, path).await;
    }
    let killed = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                  WHERE datname = current_database() AND application_name = 'seawall listener'";
    for price in 1..=5 {
        assert_eq!(client.query_one(killed, &[]).await.expect("killed").get::<_, i64>(0), 1);
        write(&service, &client, &format!("UPDATE shop.products SET price = {price} WHERE id = 42")).await;
        assert_eq!(ask(&service, "product?id=42").await.text(), format!("{price}.00"));
    }
    assert!(is_fresh(&service, "product?id=43").await);
    assert!(service.metric("seawall_listener_reconnects_total").await >= 5.0);
    for reason in ["gap", "flood", "lineage", "schema", "notify_lost"] {
        assert_eq!(service.metric(&format!("seawall_flushes_total{{reason=\"{reason}\"}}")).await, 0.0, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_hand_a_key_a_query_a_name_or_everything_is_invalidated_through_the_log() {
    let (service, client) = followed(SHOP).await;
    let fill = async || {
        for path in ["product?id=42", "product?id=43", "category"] {
            ask(&service, path).await;
        }
    };
    let fresh = async || {
        let mut fresh = vec![];
        for path in ["product?id=42", "product?id=43", "category"] {
            fresh.push(is_fresh(&service, path).await);
        }
        fresh
    };
    fill().await;
    for (body, after) in [
        (r#"{"query": "product", "params": {"id": "42"}}"#, [false, true, true]),
        (r#"{"query": "product"}"#, [false, false, true]),
        (r#"{"tags": ["region:eu", "none such"]}"#, [true, true, false]),
        (r#"{"tags": ["shop.products"], "mode": "purge"}"#, [false, false, true]),
        (r#"{"all": true}"#, [false, false, false]),
    ] {
        let answer = post(service.admin, "/v1/invalidate", body).await;
        assert_eq!((answer.status, answer.json()["pods"].as_str()), (200, Some("all")), "{body}: {answer:?}");
        assert_eq!(fresh().await, after, "{body}");
        fill().await;
    }
    write(&service, &client, "SELECT seawall.invalidate('region:eu', 'shop.products:id=43')").await;
    assert_eq!(fresh().await, [true, false, false]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_invalidation_names_what_is_wrong_and_invalidates_nothing() {
    let (service, _client) = followed(SHOP).await;
    ask(&service, "product?id=42").await;
    for (body, code, part) in [
        ("", "bad_parameter", "no JSON object"),
        ("[]", "bad_parameter", "no JSON object"),
        ("{}", "bad_parameter", "one of tags, query and all"),
        (r#"{"tags": []}"#, "bad_parameter", "1 to 1000"),
        (r#"{"tags": ["a"], "all": true}"#, "bad_parameter", "one of tags, query and all"),
        (r#"{"tags": [""]}"#, "bad_parameter", "tags[0]"),
        (r#"{"tags": ["!a"]}"#, "bad_parameter", "begins with !"),
        (r#"{"all": false}"#, "bad_parameter", "not true"),
        (r#"{"all": true, "mode": "delete"}"#, "bad_parameter", "purge"),
        (r#"{"all": true, "tagz": 1}"#, "bad_parameter", "tagz"),
        (r#"{"query": "nope"}"#, "unknown_query", "/v1/queries"),
        (r#"{"query": "product", "params": {"id": "x"}}"#, "bad_parameter", "id"),
    ] {
        let answer = post(service.admin, "/v1/invalidate", body).await;
        assert_eq!(answer.code(), code, "{body}: {answer:?}");
        assert!(answer.text().contains(part), "{body}: {answer:?}");
    }
    assert_eq!(get(service.admin, "/v1/invalidate").await.code(), "method_not_allowed");
    assert!(is_fresh(&service, "product?id=42").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_schema_queries_live_by_their_ttl_until_it_is_installed() {
    let database = database().await;
    let service = plan(&database.url, SHOP).start().await;
    let client = database.client().await;
    assert_eq!(get(service.admin, "/readyz").await.json()["status"], "degraded");
    assert_eq!(service.metric("seawall_degraded{reason=\"no_events\"}").await, 1.0);
    ask(&service, "product?id=42").await;
    client.batch_execute("UPDATE shop.products SET price = 1 WHERE id = 42").await.expect("written");
    assert!(is_fresh(&service, "product?id=42").await, "nobody says otherwise");
    let answer = post(service.admin, "/v1/invalidate", r#"{"tags": ["query:product"]}"#).await;
    assert_eq!(answer.json()["pods"], "this", "{answer:?}");
    assert_eq!(ask(&service, "product?id=42").await.text(), "1.00");
    client.batch_execute("UPDATE shop.products SET price = 2 WHERE id = 42").await.expect("written");

    migrate(&plan(&database.url, SHOP)).await;
    eventually("the log is followed", Duration::from_secs(20), async || {
        match get(service.admin, "/readyz").await.text() {
            ready if ready.contains("\"ok\"") => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(ask(&service, "product?id=42").await.text(), "2.00", "what was read before has another lineage");
    write(&service, &client, "UPDATE shop.products SET price = 3 WHERE id = 42").await;
    assert_eq!(ask(&service, "product?id=42").await.text(), "3.00");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_definition_refills_and_judges_anew() {
    let toml = SHOP.replace("[queries.count]", "[queries.cheap]\nsql = \"SELECT count(*) FROM cheap\"\nresult = \"value\"\nmax_lag = \"200ms\"\n[queries.count]");
    let database = database().await;
    let client = database.client().await;
    client.batch_execute("CREATE VIEW cheap AS SELECT * FROM shop.products WHERE price < 10").await.expect("a view");
    let plan = plan(&database.url, &toml);
    migrate(&plan).await;
    // As where nobody may create event triggers: polls find it.
    client
        .batch_execute("DO $$ DECLARE t name; BEGIN FOR t IN SELECT evtname FROM pg_event_trigger LOOP EXECUTE format('DROP EVENT TRIGGER %I', t); END LOOP; END $$")
        .await
        .expect("dropped");
    let service = plan.start().await;
    let before = ask(&service, "cheap").await.text();
    assert!(is_fresh(&service, "cheap").await);
    client
        .batch_execute("CREATE OR REPLACE VIEW cheap AS SELECT * FROM shop.products WHERE price < 1000")
        .await
        .expect("replaced");
    eventually("the new view's answer is given", Duration::from_secs(20), async || {
        let answer = ask(&service, "cheap").await;
        if answer.text() == before { Err(status(&answer).to_owned()) } else { Ok(()) }
    })
    .await;
    assert!(service.metric("seawall_flushes_total{reason=\"schema\"}").await >= 1.0);
    eventually("it counts as fresh", Duration::from_secs(20), async || {
        if is_fresh(&service, "cheap").await { Ok(()) } else { Err("not fresh") }
    })
    .await;
    client.batch_execute("ALTER TABLE shop.products DISABLE TRIGGER ALL").await.expect("disabled");
    eventually("the verdict follows", Duration::from_secs(20), async || {
        let verdict = service.metric("seawall_query_verdict{query=\"cheap\",verdict=\"ttl-only\"}").await;
        if verdict == 1.0 { Ok(()) } else { Err("still exact") }
    })
    .await;
    eventually("readiness says so", Duration::from_secs(20), async || {
        match get(service.admin, "/readyz").await.text() {
            ready if ready.contains("degraded") && ready.contains("query cheap") => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_answer_is_new_before_anybody_asks_for_it_again() {
    let toml = SHOP.replace("[queries.product]\n", "[queries.product]\nproactive_refresh = true\n");
    let (service, client) = followed(&toml).await;
    for path in ["product?id=42", "product?id=43", "big?id=42"] {
        ask(&service, path).await;
        assert!(is_fresh(&service, path).await && is_fresh(&service, path).await);
    }
    client.batch_execute("UPDATE shop.products SET price = 99.99 WHERE id = 42").await.expect("written");
    eventually("it is refreshed", Duration::from_secs(20), async || {
        let rebuilt = service.metric("seawall_rebuilds_total{query=\"product\",reason=\"invalidated\"}").await;
        if rebuilt == 1.0 && service.read.flying() == 0 { Ok(()) } else { Err(rebuilt) }
    })
    .await;
    assert!(is_fresh(&service, "product?id=42").await, "nobody had to wait");
    assert_eq!(ask(&service, "product?id=42").await.text(), "99.99");
    assert_eq!(service.metric("seawall_db_queries_total{query=\"product\"}").await, 3.0, "two fills and the refresh");
    assert!(!is_fresh(&service, "big?id=42").await, "a query that doesn't ask for it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notification_of_somebody_elses_trigger_is_an_invalidation_too() {
    let (service, client) = followed(SHOP).await;
    ask(&service, "product?id=42").await;
    ask(&service, "product?id=43").await;
    client.batch_execute("SELECT pg_notify('seawall', 'shop.products:id=42 %zz region:eu')").await.expect("notified");
    eventually("it is applied", Duration::from_secs(20), async || {
        let applied = service.metric("seawall_invalidations_total{source=\"notify\"}").await;
        if applied >= 3.0 { Ok(()) } else { Err(applied) }
    })
    .await;
    assert!(!is_fresh(&service, "product?id=42").await);
    assert!(is_fresh(&service, "product?id=43").await);
    // The listener's next connection can't know what it missed.
    client
        .batch_execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'seawall listener'")
        .await
        .expect("killed");
    eventually("everything is flushed", Duration::from_secs(20), async || {
        let flushed = service.metric("seawall_flushes_total{reason=\"notify_lost\"}").await;
        if flushed >= 1.0 { Ok(()) } else { Err(flushed) }
    })
    .await;
    assert!(!is_fresh(&service, "product?id=43").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_falls_silent_makes_blind_and_what_was_missed_is_known_when_it_is_back() {
    let database = database().await;
    let port = database.url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port");
    let proxy = Chaos::before(port.parse().expect("a port"));
    let listen = database.url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port));
    let toml = format!(
        "[postgres]\nlisten_url = \"{listen}\"\nreconnect_max = \"100ms\"\n{}\n[queries.served]\nsql = \"SELECT stock FROM shop.products WHERE id = :id\"\n\
         result = \"value\"\ndepends = {{ \"shop.products\" = \"id = :id\" }}\non_blind = \"serve\"\nclient_ttl = \"30s\"\n",
        SHOP.replace("[defaults]", "[defaults]\nmax_lag = \"300ms\"")
    );
    let plan = plan(&database.url, &toml);
    migrate(&plan).await;
    let service = plan.start().await;
    let client = database.client().await;
    for path in ["product?id=42", "product?id=43", "served?id=42"] {
        ask(&service, path).await;
        assert!(is_fresh(&service, path).await, "{path}");
    }
    assert_eq!(ask(&service, "served?id=42").await.header("cache-control"), Some("max-age=30"));

    proxy.set(Mode::BlackHole).await;
    client.batch_execute("UPDATE shop.products SET price = 5, stock = 5 WHERE id = 42").await.expect("written");
    let label = async |path: &str, label: &str| {
        eventually(label, Duration::from_secs(20), async || {
            let answer = ask(&service, path).await;
            if status(&answer).ends_with(label) { Ok(answer) } else { Err(status(&answer).to_owned()) }
        })
        .await
    };
    assert_eq!(label("product?id=42", "fwd=stale; stored; detail=blind").await.text(), "5.00", "Postgres is asked");
    let served = label("served?id=42", "hit; detail=blind").await;
    assert_eq!(served.header("cache-control"), Some("no-cache"), "nobody downstream may keep it");
    assert_eq!(service.metric("seawall_blind").await, 1.0);
    eventually("it is reported", Duration::from_secs(20), async || {
        let degraded = service.metric("seawall_degraded{reason=\"event_stream\"}").await;
        if degraded == 1.0 { Ok(()) } else { Err(degraded) }
    })
    .await;

    proxy.set(Mode::Pass).await;
    service.catch_up(&client).await;
    assert!(is_fresh(&service, "product?id=43").await, "nobody wrote to it, and nothing was flushed");
    assert_eq!(ask(&service, "served?id=42").await.text(), "5", "what was missed is known");
    assert_eq!(service.metric("seawall_blind").await, 0.0);
}
