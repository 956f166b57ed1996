//! Reads that miss no acknowledged write, and tokens of one's own writes.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::support::chaos::{Chaos, Mode};
use super::support::client::{Answer, get_with};
use super::support::eventually::eventually;
use super::support::service::{TestService, migrate, plan};
use super::support::{TestDatabase, database};

const WITHIN: Duration = Duration::from_secs(10);

const SHOP: &str = "[invalidation]\nsource = \"log\"\n[defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\ntimeout = \"1s\"\n\
    result = \"value\"\n[queries.price]\nsql = \"SELECT price FROM shop.products WHERE id = :id\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\nconsistency = \"strict\"\n\
    [queries.patient]\nsql = \"SELECT price FROM shop.products WHERE id = :id\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\ntimeout = \"60s\"\n[queries.bounded]\nsql = \"SELECT price FROM shop.products WHERE id = :id\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\nmin_refill_interval = \"1h\"\n\
    [queries.timed]\nsql = \"SELECT price, now() IS NULL AS never FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
    min_refill_interval = \"1h\"\n[queries.timed_strict]\nsql = \"SELECT price FROM shop.products WHERE id = :id AND now() IS NOT NULL\"\n\
    consistency = \"strict\"\n";

async fn followed() -> (TestService, TestDatabase) {
    let database = database().await;
    let plan = plan(&database.url, SHOP);
    migrate(&plan).await;
    (plan.start().await, database)
}

async fn ask(service: &TestService, path: &str, fields: &[(&str, &str)]) -> Answer {
    get_with(service.queries, &format!("/v1/queries/{path}"), fields).await
}

fn status(answer: &Answer) -> &str {
    answer.header("cache-status").unwrap_or_else(|| panic!("no label: {answer:?}"))
}

async fn set(client: &Client, price: u32) {
    client.batch_execute(&format!("UPDATE shop.products SET price = {price} WHERE id = 42")).await.expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_answer_has_every_write_that_was_acknowledged_before_it_was_asked_for() {
    let (service, database) = followed().await;
    let client = database.client().await;
    for price in 1..=100 {
        set(&client, price).await;
        assert_eq!(ask(&service, "price?id=42", &[]).await.text(), format!("{price}.00"));
        let validated = ask(&service, "bounded?id=42", &[("Cache-Control", "no-cache")]).await;
        assert_eq!(
            validated.text(),
            format!("{price}.00"),
            "who validates is as strict, however long the refill interval"
        );
    }
    let before = service.metric("seawall_db_queries_total{query=\"price\"}").await;
    for _ in 0..100 {
        assert!(status(&ask(&service, "price?id=42", &[]).await).starts_with("seawall; hit; ttl="));
    }
    assert_eq!(service.metric("seawall_db_queries_total{query=\"price\"}").await, before, "nothing was written");
}

/// No poll says anything of what is written to its tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_query_that_lives_by_its_ttl_goes_to_postgres_each_time() {
    let (service, database) = followed().await;
    let client = database.client().await;
    for price in 1..=20 {
        set(&client, price).await;
        let answer = ask(&service, "timed_strict?id=42", &[]).await;
        assert_eq!(answer.text(), format!("{price}.00"));
        assert!(status(&answer).contains("fwd="), "{answer:?}");
    }
    assert!(ask(&service, "timed?id=42", &[]).await.text().starts_with("{\"price\":20.00"));
    set(&client, 21).await;
    let validating = async || ask(&service, "timed?id=42", &[("Cache-Control", "no-cache")]).await;
    let answer = validating().await;
    // Who validates a bounded one has a fill within its bounds, or is told that there is none.
    assert!(
        answer.text().starts_with("{\"price\":20.00") && status(&answer).ends_with("; detail=refill-limited"),
        "{answer:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_strict_readers_share_their_probes() {
    let (service, database) = followed().await;
    ask(&service, "price?id=42", &[]).await;
    let polls = async || database.statements_like("%AS unseen%").await;
    let (before, begun) = (polls().await, Instant::now());
    let readers: Vec<_> =
        (0..2_000).map(|_| tokio::spawn(get_with(service.queries, "/v1/queries/price?id=42", &[]))).collect();
    for reader in readers {
        assert!(status(&reader.await.expect("no panic")).starts_with("seawall; hit; ttl="));
    }
    let (probes, took) = (polls().await - before, begun.elapsed());
    let most = i64::try_from(took.as_millis()).expect("short") + 10;
    assert!(probes <= most, "{probes} probes in {took:?}: over a thousand a second");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_waited_for_and_then_the_answer_has_its_write() {
    let (service, database) = followed().await;
    let client = database.client().await;
    let after = async |path: &str, token: &str| ask(&service, path, &[("Seawall-After", token)]).await;
    ask(&service, "bounded?id=42", &[]).await;
    ask(&service, "timed?id=42", &[]).await;
    let write = "WITH written AS (UPDATE shop.products SET price = 77 WHERE id = 42) SELECT seawall.token()";
    let token: String = client.query_one(write, &[]).await.expect("written").get(0);
    assert_eq!(after("bounded?id=42", &token).await.text(), "77.00");
    assert!(after("timed?id=42", &token).await.text().starts_with("{\"price\":77.00"), "also what lives by its ttl");
    let statements =
        async |query: &str| service.metric(&format!("seawall_db_queries_total{{query=\"{query}\"}}")).await;
    let before = (statements("bounded").await, statements("timed").await);
    assert!(status(&after("bounded?id=42", &token).await).starts_with("seawall; hit"), "it has it");
    assert!(status(&after("timed?id=42", &token).await).starts_with("seawall; hit"), "it has it");
    assert_eq!((statements("bounded").await, statements("timed").await), before);

    // Still running, then committed.
    client.batch_execute("BEGIN; UPDATE shop.products SET price = 78 WHERE id = 42").await.expect("open");
    let token: String = client.query_one("SELECT seawall.token()", &[]).await.expect("a token").get(0);
    let answer = after("bounded?id=42", &token).await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "after_not_visible"));
    let (address, sent) = (service.queries, token.clone());
    let waiting =
        tokio::spawn(async move { get_with(address, "/v1/queries/bounded?id=42", &[("Seawall-After", &sent)]).await });
    client.batch_execute("COMMIT").await.expect("committed");
    assert_eq!(waiting.await.expect("no panic").text(), "78.00");

    // Rolled back: over, and nothing to be had of it.
    client.batch_execute("BEGIN; UPDATE shop.products SET price = 79 WHERE id = 42").await.expect("open");
    let token: String = client.query_one("SELECT seawall.token()", &[]).await.expect("a token").get(0);
    client.batch_execute("ROLLBACK").await.expect("rolled back");
    assert_eq!(after("bounded?id=42", &token).await.text(), "78.00");
    let xid = token.rsplit_once(':').expect("a lineage").1.to_owned();
    assert_eq!(after("bounded?id=42", &xid).await.text(), "78.00", "without a lineage: the one in force");

    let before = statements("bounded").await;
    let answer = after("bounded?id=42", "9000000000000000000").await;
    assert_eq!((answer.status, answer.code().as_str()), (504, "after_not_visible"), "of the future");
    let answer = after("bounded?id=42", &format!("another/history:{xid}")).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "lineage_changed"));
    for bad in ["", "x", "-5", "a:", "99999999999999999999"] {
        assert_eq!(after("bounded?id=42", bad).await.code(), "bad_request", "{bad:?}");
    }
    assert_eq!(statements("bounded").await, before, "none of it cost a statement");
}

/// Transaction ids are the cluster's; the history that a token names is the database's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_another_database_is_refused_and_its_bare_id_promises_nothing() {
    let (service, database) = followed().await;
    let other = super::support::database().await;
    migrate(&plan(&other.url, SHOP)).await;
    let elsewhere = other.client().await;
    let write = "WITH written AS (UPDATE shop.products SET price = 11 WHERE id = 42) SELECT seawall.token()";
    let token: String = elsewhere.query_one(write, &[]).await.expect("written").get(0);
    ask(&service, "bounded?id=42", &[]).await;
    let before = service.metric("seawall_db_queries_total{query=\"bounded\"}").await;
    let answer = ask(&service, "bounded?id=42", &[("Seawall-After", &token)]).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "lineage_changed"));
    let xid = token.rsplit_once(':').expect("a lineage").1;
    let answer = ask(&service, "bounded?id=42", &[("Seawall-After", xid)]).await;
    let price: String = database
        .client()
        .await
        .query_one("SELECT price::text FROM shop.products WHERE id = 42", &[])
        .await
        .expect("a price")
        .get(0);
    assert_eq!((answer.status, answer.text()), (200, price), "what this database has");
    let fills = service.metric("seawall_db_queries_total{query=\"bounded\"}").await - before;
    assert!(fills <= 1.0, "{fills} fills");
}

/// As after a failover that loses its transaction: there its id is another one's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_whose_history_ends_while_it_is_waited_for_is_refused() {
    let (service, database) = followed().await;
    let client = database.client().await;
    ask(&service, "patient?id=42", &[]).await;
    client.batch_execute("BEGIN; UPDATE shop.products SET price = 78 WHERE id = 42").await.expect("open");
    let token: String = client.query_one("SELECT seawall.token()", &[]).await.expect("a token").get(0);
    let address = service.queries;
    let waiting =
        tokio::spawn(async move { get_with(address, "/v1/queries/patient?id=42", &[("Seawall-After", &token)]).await });
    let flushes = async || service.metric("seawall_flushes_total{reason=\"lineage\"}").await;
    let before = flushes().await;
    eventually("somebody waits", WITHIN, async || match service.metric("seawall_requests_in_flight").await {
        n if n >= 1.0 => Ok(()),
        n => Err(n),
    })
    .await;
    database.client().await.batch_execute("DELETE FROM seawall.epoch").await.expect("another epoch");
    eventually("the history is another", WITHIN, async || match flushes().await {
        n if n > before => Ok(()),
        n => Err(n),
    })
    .await;
    client.batch_execute("COMMIT").await.expect("committed");
    let answer = waiting.await.expect("no panic");
    assert_eq!((answer.status, answer.code().as_str()), (409, "lineage_changed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_postgres_is_away_a_strict_reader_is_refused_and_never_given_what_is_old() {
    let database = database().await;
    let port = database.url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port");
    let proxy = Chaos::before(port.parse().expect("a port"));
    let plan = plan(&database.url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port)), SHOP);
    migrate(&plan).await;
    let service = plan.start().await;
    assert_eq!(ask(&service, "price?id=42", &[]).await.status, 200);
    assert_eq!(ask(&service, "bounded?id=42", &[]).await.status, 200);
    proxy.set(Mode::Away).await;
    let mut refused = 0;
    let deadline = Instant::now() + Duration::from_secs(5);
    while refused < 20 {
        assert!(Instant::now() < deadline, "{refused} refusals");
        let answer = ask(&service, "price?id=42", &[]).await;
        // A poll that was under way may have answered one that came before it was sent.
        if answer.status == 503 {
            refused += 1;
        } else {
            assert_eq!((refused, answer.status), (0, 200), "{answer:?}");
        }
    }
    let begun = Instant::now();
    assert_eq!(ask(&service, "price?id=42", &[]).await.status, 503);
    assert!(begun.elapsed() < Duration::from_millis(500), "at once, not at the deadline: {:?}", begun.elapsed());
    assert_eq!(ask(&service, "bounded?id=42", &[]).await.status, 200, "the others have their windows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_log_strict_readers_go_to_postgres() {
    let database = database().await;
    let service = plan(&database.url, SHOP).start().await;
    let client = database.client().await;
    for price in 1..=5 {
        set(&client, price).await;
        let answer = ask(&service, "price?id=42", &[]).await;
        assert_eq!(answer.text(), format!("{price}.00"));
        assert!(status(&answer).contains("fwd="), "{answer:?}");
    }
}
