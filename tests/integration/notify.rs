//! Notifications of the operator's own triggers as the only source: nothing of Seawall's is in the database.

use std::time::Duration;

use tokio_postgres::Client;

use super::support::client::{Answer, get, post};
use super::support::database;
use super::support::eventually::eventually;
use super::support::service::{TestService, migrate, plan};

const QUERIES: &str = "[defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\n\
    [queries.product]\nsql = \"SELECT price FROM shop.products WHERE id = :id\"\nresult = \"value\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n\
    [queries.count]\nsql = \"SELECT sum(price) FROM shop.products\"\nresult = \"value\"\n\
    [queries.category]\nsql = \"SELECT name FROM shop.categories WHERE id = 1\"\nresult = \"value\"\ntags = [\"region:eu\"]\n";

/// The trigger of the documentation.
fn own_trigger() -> String {
    let page = include_str!("../../docs/operations.md");
    let begin = page.find("CREATE FUNCTION shop.product_written()").expect("the trigger that users can paste");
    let end = begin + page[begin..].find("```").expect("the end of its block");
    page[begin..end].to_owned()
}

async fn ask(service: &TestService, path: &str) -> Answer {
    get(service.queries, &format!("/v1/queries/{path}")).await
}

fn label(answer: &Answer) -> String {
    answer.header("cache-status").unwrap_or_else(|| panic!("no label: {answer:?}")).to_owned()
}

async fn is_fresh(service: &TestService, path: &str) -> bool {
    let label = label(&ask(service, path).await);
    label.starts_with("seawall; hit; ttl=") && !label.contains("detail")
}

/// Runs `sql`, and waits until the service has applied what it notifies of.
async fn notify(service: &TestService, client: &Client, sql: &str) {
    notify_of(service, client, sql, 1.0).await;
}

/// Runs `sql`, and waits until the service has applied so many tags, of which it notifies.
async fn notify_of(service: &TestService, client: &Client, sql: &str, tags: f64) {
    let heard = async || service.metric("seawall_invalidations_total{source=\"notify\"}").await;
    let before = heard().await;
    client.batch_execute(sql).await.expect(sql);
    eventually("it is heard", Duration::from_secs(20), async || {
        let now = heard().await;
        if now >= before + tags { Ok(()) } else { Err(now - before) }
    })
    .await;
}

/// A service that goes by `source`, over a database in which `sql` has been run.
async fn listening(source: &str, sql: &str) -> (TestService, Client) {
    let database = database().await;
    database.client().await.batch_execute(sql).await.expect(sql);
    let plan = plan(&database.url, &format!("[invalidation]\nsource = \"{source}\"\n{QUERIES}"));
    if source == "log" {
        migrate(&plan).await;
    }
    let client = database.client().await;
    (plan.start().await, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_users_own_trigger_refills_what_it_names_and_nothing_else_with_either_source() {
    for source in ["notify", "log"] {
        let (service, client) = listening(source, &own_trigger()).await;
        for path in ["product?id=42", "product?id=43", "count", "category"] {
            ask(&service, path).await;
            assert!(is_fresh(&service, path).await, "{source}: {path}");
        }
        notify(&service, &client, "UPDATE shop.products SET price = 99.99 WHERE id = 42").await;
        for path in ["product?id=43", "category"] {
            assert!(is_fresh(&service, path).await, "{source}: {path}");
        }
        let answer = ask(&service, "product?id=42").await;
        assert_eq!(
            (answer.text(), label(&answer)),
            ("99.99".into(), "seawall; fwd=stale; stored; detail=invalidated".into())
        );
        assert!(label(&ask(&service, "count").await).contains("invalidated"), "{source}: the table was written to");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_is_killed_between_two_writes_flushes_and_nothing_is_stale() {
    let (service, client) = listening("notify", &own_trigger()).await;
    for path in ["product?id=1", "product?id=2", "category"] {
        ask(&service, path).await;
    }
    notify(&service, &client, "UPDATE shop.products SET price = 1 WHERE id = 1").await;
    assert_eq!(ask(&service, "product?id=1").await.text(), "1.00");
    let reconnects = service.metric("seawall_listener_reconnects_total").await;
    // In one statement, so that it is written before anybody listens again.
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'seawall listener' \
               AND datname = current_database()";
    client
        .batch_execute(&format!("BEGIN; {sql}; UPDATE shop.products SET price = 2 WHERE id = 2; COMMIT"))
        .await
        .expect("killed");
    eventually("it listens again", Duration::from_secs(20), async || {
        let flushed = service.metric("seawall_flushes_total{reason=\"notify_lost\"}").await;
        let again = service.metric("seawall_listener_reconnects_total").await;
        if again > reconnects && flushed >= 1.0 { Ok(()) } else { Err((again, flushed)) }
    })
    .await;
    assert_eq!(ask(&service, "product?id=2").await.text(), "2.00", "the write that nobody heard of");
    assert!(!label(&ask(&service, "category").await).contains("hit"), "everything is refilled");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_may_be_anything_and_is_counted() {
    let (service, client) = listening("notify", "").await;
    ask(&service, "category").await;
    let long = "x".repeat(7_999);
    // What is sent, the tags in it (a name without a colon is also that of all its rows), and the parts that can't be read.
    let payloads: [(&str, f64, f64); 7] = [
        ("", 0.0, 1.0),
        (&long, 2.0, 0.0),
        ("\u{1}\u{7f}\u{feff} \u{80}", 4.0, 0.0),
        ("shop.unheard_of:id=1 nobody's", 4.0, 0.0),
        ("%", 2.0, 1.0),
        ("50% %zz a%4 xid=x xid=1 xid=2", 6.0, 5.0),
        ("%00%FF", 2.0, 0.0),
    ];
    let malformed = async || service.metric("seawall_malformed_notifications_total").await;
    let heard = async || service.metric("seawall_invalidations_total{source=\"notify\"}").await;
    let first = heard().await;
    for (payload, tags, wrong) in payloads {
        let before = malformed().await;
        // Behind it, on the same channel: what is heard in order has been read.
        let quoted = payload.replace('\'', "''");
        let sql = format!("SELECT pg_notify('seawall', '{quoted}'); SELECT pg_notify('seawall', 'after')");
        notify_of(&service, &client, &sql, tags + 2.0).await;
        assert_eq!(malformed().await - before, wrong, "{payload:?}");
    }
    assert!(is_fresh(&service, "category").await, "none of them names it");
    notify_of(&service, &client, "SELECT pg_notify('seawall', 'other%20thing region:eu')", 3.0).await;
    let sent: f64 = payloads.iter().map(|(_, tags, _)| tags + 2.0).sum();
    assert_eq!(heard().await - first, sent + 3.0, "and nothing is counted twice");
    assert!(!is_fresh(&service, "category").await, "one of several tags");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_named_refills_only_what_lacks_it() {
    let (service, client) = listening("notify", "").await;
    client.batch_execute("BEGIN; UPDATE shop.products SET price = 7 WHERE id = 7").await.expect("written");
    let xid: String = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("an id").get(0);
    client.batch_execute("COMMIT").await.expect("committed");
    assert_eq!(ask(&service, "product?id=7").await.text(), "7.00");
    // The next poll's snapshot is later than the answer's: without the claim it would be a barrier.
    notify(&service, &client, &format!("SELECT pg_notify('seawall', 'shop.products:id=7 xid={xid}')")).await;
    assert!(is_fresh(&service, "product?id=7").await, "it has that write");
    notify(&service, &client, "SELECT pg_notify('seawall', 'shop.products:id=7')").await;
    assert!(!is_fresh(&service, "product?id=7").await, "nothing is claimed");
    ask(&service, "product?id=7").await;
    notify(&service, &client, "SELECT pg_notify('seawall', 'shop.products:id=7 xid=999999999999')").await;
    assert!(!is_fresh(&service, "product?id=7").await, "no such transaction: it is not believed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_hand_every_pod_that_listens_is_told() {
    let database = database().await;
    let toml = format!("[invalidation]\nsource = \"notify\"\n{QUERIES}");
    let (one, other) = (plan(&database.url, &toml).start().await, plan(&database.url, &toml).start().await);
    for mode in ["expire", "purge"] {
        for service in [&one, &other] {
            ask(service, "category").await;
            assert!(is_fresh(service, "category").await);
        }
        let body = format!("{{\"tags\": [\"region:eu\"], \"mode\": \"{mode}\"}}");
        let told = post(one.admin, "/v1/invalidate", &body).await;
        assert_eq!(told.status, 200, "{}", told.text());
        assert!(told.text().contains("\"pods\":\"all\""), "{}", told.text());
        let first = label(&ask(&one, "category").await);
        let forgotten = if mode == "purge" {
            "seawall; fwd=uri-miss; stored"
        } else {
            "seawall; fwd=stale; stored; detail=invalidated"
        };
        assert_eq!(first, forgotten, "at once where it was asked for");
        eventually("the other hears", Duration::from_secs(20), async || {
            let label = label(&ask(&other, "category").await);
            if label == forgotten { Ok(()) } else { Err(label) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_installed_and_nobody_reads_strictly_from_memory() {
    let (service, client) = listening("notify", "").await;
    ask(&service, "product?id=1").await;
    assert!(is_fresh(&service, "product?id=1").await);
    let verdicts = get(service.admin, "/metrics").await.text();
    assert!(verdicts.contains("seawall_query_verdict{query=\"product\",verdict=\"declared\"} 1"), "{verdicts}");
    let schema: bool = client.query_one("SELECT to_regnamespace('seawall') IS NULL", &[]).await.expect("asked").get(0);
    assert!(schema, "no schema");
    let ready = get(service.admin, "/readyz").await.text();
    assert!(!ready.contains("degraded"), "{ready}");
    // A commit is visible before its notification is sent: memory can't vouch for it.
    client.batch_execute("UPDATE shop.products SET price = 5 WHERE id = 1").await.expect("written");
    let xid: String = client.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("an id").get(0);
    let answer =
        super::support::client::get_with(service.queries, "/v1/queries/product?id=1", &[("seawall-after", &xid)]).await;
    assert_eq!(answer.text(), "5.00", "{answer:?}");
}
