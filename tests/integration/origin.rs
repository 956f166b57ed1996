//! The origin over real Postgres: parameters, pinned sessions, DDL, lost connections.

use std::time::Duration;

use super::support::client::{get, post};
use super::support::eventually::eventually;
use super::support::service::plan;
use super::support::{Gate, database};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_of_parameter_arrives_as_what_it_is() {
    let database = database().await;
    database
        .client()
        .await
        .batch_execute(
            "CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy'); CREATE DOMAIN small AS int CHECK (VALUE < 100)",
        )
        .await
        .expect("types");
    let kinds = [
        ("int2", "-7", "-7"),
        ("int4", "42", "42"),
        ("int8", "9007199254740993", "9007199254740993"),
        ("numeric", "1.50", "1.50"),
        ("float4", "1.5", "1.5"),
        ("float8", "1e300", "1e+300"),
        ("bool", "true", "true"),
        ("uuid", "A0EEBC999C0B4EF8BB6D6BB9BD380A11", "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
        ("text", "it's%20%22quoted%22%5C", "\"it's \\\"quoted\\\"\\\\\""),
        ("date", "2026-02-28", "\"2026-02-28\""),
        ("timestamp", "2026-02-28T12:30", "\"2026-02-28T12:30:00\""),
        ("timestamptz", "2026-02-28T12:30:00%2B02:00", "\"2026-02-28T10:30:00+00:00\""),
        ("jsonb", "{%22a%22:[1,%202]}", "{\"a\": [1, 2]}"),
        ("mood", "so%20so", "\"so so\""),
        ("small", "7", "7"),
        ("text[]", "[%22a%22,%22b%20c%22,null]", "[\"a\",\"b c\",null]"),
        ("int4[]", "[[1,2],[3,4]]", "[[1,2],[3,4]]"),
        ("inet", "10.0.0.1", "\"10.0.0.1\""),
    ];
    let toml = kinds
        .iter()
        .enumerate()
        .map(|(n, (kind, ..))| {
            format!("[queries.q{n}]\nsql = \"SELECT :x AS x\"\nresult = \"value\"\nparams = {{ x = \"{kind}\" }}\n")
        })
        .collect::<Vec<_>>()
        .concat();
    let service = plan(&database.url, &toml).start().await;
    for (n, (kind, given, expected)) in kinds.iter().enumerate() {
        let answer = get(service.queries, &format!("/v1/queries/q{n}?x={given}")).await;
        assert_eq!((answer.status, answer.text().replace(",\n ", ",").as_str()), (200, *expected), "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_only_postgres_can_refuse_is_the_clients_mistake() {
    let database = database().await;
    let toml = "[queries.net]\nsql = \"SELECT :x AS x\"\nresult = \"value\"\nparams = { x = \"inet\" }\n";
    let service = plan(&database.url, toml).start().await;
    let answer = get(service.queries, "/v1/queries/net?x=nonsense").await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_pinned_whatever_the_role_defaults_to() {
    let database = database().await;
    database
        .client()
        .await
        .batch_execute(
            "ALTER ROLE app IN DATABASE template_shop RESET ALL; \
             DO $$ BEGIN EXECUTE format('ALTER ROLE app IN DATABASE %I SET timezone = ''Asia/Tokyo''', current_database()); \
             EXECUTE format('ALTER ROLE app IN DATABASE %I SET datestyle = ''German''', current_database()); \
             EXECUTE format('ALTER ROLE app IN DATABASE %I SET default_transaction_isolation = ''serializable''', current_database()); \
             EXECUTE format('ALTER ROLE app IN DATABASE %I SET search_path = ''shop''', current_database()); END $$",
        )
        .await
        .expect("defaults");
    let toml = "[queries.session]\nsql = \"SELECT timestamptz '2026-01-01 00:00:00+00' AS at, current_setting('transaction_isolation') AS iso, \
                current_setting('transaction_read_only') AS ro, current_setting('application_name') AS app, current_setting('datestyle') AS ds\"\nresult = \"row\"\n\
                [queries.unqualified]\nsql = \"SELECT count(*) FROM products\"\nresult = \"value\"\n";
    let service = plan(&database.app_url, toml).start().await;
    let answer = get(service.queries, "/v1/queries/session").await.json();
    assert_eq!(answer["at"], "2026-01-01T00:00:00+00:00");
    assert_eq!(answer["iso"], "read committed");
    assert_eq!(answer["ro"], "on");
    assert_eq!(answer["app"], "seawall");
    assert!(answer["ds"].as_str().expect("text").starts_with("ISO"));
    assert_eq!(get(service.queries, "/v1/queries/unqualified").await.text(), "2000", "the role's own search_path");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_writes_and_tricks_do_not_break_out() {
    let database = database().await;
    let client = database.client().await;
    client
        .batch_execute(
            "CREATE TABLE shop.log (x int); CREATE FUNCTION shop.sneak() RETURNS int LANGUAGE plpgsql AS \
             'BEGIN INSERT INTO shop.log VALUES (1); RETURN 1; END'",
        )
        .await
        .expect("a function");
    let toml = "[queries.sneak]\nsql = \"SELECT shop.sneak() AS x\"\nresult = \"value\"\n\
                [queries.into]\nsql = \"SELECT 1 AS x INTO shop.copied\"\n";
    let service = plan(&database.url, toml).start().await;
    assert_eq!(get(service.queries, "/v1/queries/sneak").await.code(), "query_broken");
    assert_eq!(get(service.queries, "/v1/queries/into").await.code(), "query_broken");
    let written: i64 = client.query_one("SELECT count(*) FROM shop.log", &[]).await.expect("a count").get(0);
    assert_eq!(written, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_may_change_between_fills() {
    let database = database().await;
    let client = database.client().await;
    client.batch_execute("CREATE TABLE shop.t AS SELECT 1 AS id, 'a'::text AS v").await.expect("a table");
    // The second parameter makes a new key for each request: every one is a fill, on the one connection.
    let toml = "[queries.t]\nsql = \"SELECT * FROM shop.t WHERE id = :id AND :n > 0\"\nresult = \"row\"\n[postgres]\npool_size = 1\n";
    let service = plan(&database.url, toml).start().await;
    let ask = async |n: u32| get(service.queries, &format!("/v1/queries/t?id=1&n={n}")).await;
    assert_eq!(ask(1).await.text(), "{\"id\":1,\"v\":\"a\"}");
    client.batch_execute("ALTER TABLE shop.t ADD COLUMN w int DEFAULT 5").await.expect("altered");
    assert_eq!(ask(2).await.text(), "{\"id\":1,\"v\":\"a\",\"w\":5}");
    client.batch_execute("ALTER TABLE shop.t ALTER COLUMN v TYPE int USING 7").await.expect("altered");
    assert_eq!(ask(3).await.text(), "{\"id\":1,\"v\":7,\"w\":5}");
    client.batch_execute("DROP TABLE shop.t").await.expect("dropped");
    assert_eq!(ask(4).await.code(), "query_broken");
    client.batch_execute("CREATE TABLE shop.t AS SELECT 1 AS id").await.expect("a table");
    eventually("it is found again", Duration::from_secs(10), async || match ask(5).await.text() {
        found if found == "{\"id\":1}" => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_ended_between_fills_is_not_noticed() {
    let database = database().await;
    let toml = "[queries.count]\nsql = \"SELECT count(*) + :n AS n FROM shop.products\"\nresult = \"value\"\n";
    let service = plan(&database.url, toml).start().await;
    let client = database.client().await;
    // A key of its own for each round: every answer is a fill, over a connection that was open and is no more.
    for n in 0..5 {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE application_name = 'seawall' AND datname = current_database()";
        let ended = client.execute(sql, &[]).await.expect("ended");
        assert!(ended >= 1, "round {n}");
        let answer = get(service.queries, &format!("/v1/queries/count?n={n}")).await;
        assert_eq!(answer.text(), (2000 + n).to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_fill_never_cancels_its_neighbour_on_the_same_connection() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let toml = format!(
        "[postgres]\npool_size = 1\n[defaults]\nttl = \"1ms\"\njitter = 0.0\nerror_backoff = \"1ms\"\n\
         [queries.gated]\nsql = \"SELECT :n::int4 AS n FROM {} AS gate\"\nresult = \"value\"\ntimeout = \"30s\"\n\
         [queries.quick]\nsql = \"SELECT :n::int4 AS n FROM (SELECT pg_sleep(0.002) OFFSET 0) AS s\"\nresult = \"value\"\ntimeout = \"30s\"\n",
        gate.sql()
    );
    let service = plan(&database.url, &toml).start().await;
    for n in 0..50 {
        let address = service.queries;
        let abandoned = tokio::spawn(async move { get(address, &format!("/v1/queries/gated?n={n}")).await });
        gate.held(1).await;
        abandoned.abort();
        // On the only connection, right behind the cancelled statement.
        let answer = get(service.queries, &format!("/v1/queries/quick?n={n}")).await;
        assert_eq!((answer.status, answer.text()), (200, n.to_string()), "round {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_query_is_broken_alone_and_a_mended_one_comes_back() {
    let database = database().await;
    let toml = "[queries.good]\nsql = \"SELECT count(*) FROM shop.products\"\nresult = \"value\"\n\
                [queries.bad]\nsql = \"SELECT count(*) FROM shop.later\"\nresult = \"value\"\n";
    let service = plan(&database.url, toml).start().await;
    assert_eq!(get(service.queries, "/v1/queries/good").await.status, 200);
    assert_eq!(get(service.queries, "/v1/queries/bad").await.code(), "query_broken");
    assert_eq!(post(service.queries, "/v1/queries/bad", "{}").await.code(), "query_broken");
}
