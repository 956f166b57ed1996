//! What a session is set to, whatever the role's defaults say.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use seawall::postgres::{Event, Postgres};
use seawall::readthrough::origin::{Connection, Origin as _, OriginError};
use serde_json::json;

use crate::support::server::Database;
use crate::support::{Origin, query};

#[tokio::test]
async fn a_roles_defaults_do_not_shape_answers() {
    let db = Database::new("").await;
    let settings = db.settings_as("defaults").await;
    db.admin
        .batch_execute(
            "ALTER ROLE defaults SET default_transaction_isolation = 'serializable'; \
             ALTER ROLE defaults SET default_transaction_deferrable = on; \
             ALTER ROLE defaults SET TimeZone = 'America/New_York'; \
             ALTER ROLE defaults SET DateStyle = 'German'; \
             ALTER ROLE defaults SET IntervalStyle = 'sql_standard'; \
             ALTER ROLE defaults SET extra_float_digits = -10; \
             ALTER ROLE defaults SET bytea_output = 'escape'; \
             ALTER ROLE defaults SET standard_conforming_strings = off; \
             ALTER ROLE defaults SET row_security = off; \
             ALTER ROLE defaults SET statement_timeout = '200ms'",
        )
        .await
        .expect("defaults");
    let origin = Origin::new(settings);
    let text = origin
        .answer(query(
            "SELECT '2024-07-01 12:00+00'::timestamptz AS at, '2024-07-01'::date::text AS day, \
             '1 day 2 hours'::interval AS took, 0.1::float8 + 0.2 AS sum, '\\x00ff'::bytea AS raw, \
             current_setting('transaction_isolation') AS isolation, current_setting('transaction_read_only') AS ro, \
             current_setting('transaction_deferrable') AS deferrable, current_setting('row_security') AS rls, \
             current_setting('application_name') AS app, '\\n' AS backslash, pg_sleep(0.4)::text AS slept",
        ))
        .await;
    assert_eq!(
        text,
        r#"[{"at":"2024-07-01T12:00:00+00:00","day":"2024-07-01","took":"1 day 02:00:00","sum":0.30000000000000004,"#
            .to_owned()
            + r#""raw":"\\x00ff","isolation":"read committed","ro":"on","deferrable":"off","rls":"on","app":"seawall","#
            + r#""backslash":"\\n","slept":""}]"#
    );
}

#[tokio::test]
async fn the_time_zone_and_the_search_path_are_the_configured_ones() {
    let db = Database::new("CREATE SCHEMA shop; CREATE TABLE shop.item AS SELECT 1 AS id").await;
    let mut settings = db.settings();
    settings.timezone = "Asia/Tokyo".into();
    settings.search_path = Some("shop, public".into());
    let origin = Origin::new(settings);
    let text = origin.answer(query("SELECT id, '2024-07-01 12:00+00'::timestamptz AS at FROM item")).await;
    assert_eq!(text, r#"[{"id":1,"at":"2024-07-01T21:00:00+09:00"}]"#);
}

#[tokio::test]
async fn the_search_path_stays_the_one_of_the_first_connection() {
    let db = Database::new("CREATE SCHEMA a; CREATE TABLE a.t AS SELECT 'a' AS s; CREATE SCHEMA b; CREATE TABLE b.t AS SELECT 'b' AS s; GRANT USAGE ON SCHEMA a, b TO public; GRANT SELECT ON a.t, b.t TO public").await;
    let settings = db.settings_as("wanderer").await;
    db.admin.batch_execute("ALTER ROLE wanderer SET search_path = a").await.expect("a default");
    let origin = Origin::new(settings);
    let q = query("SELECT s FROM t");
    assert_eq!(origin.answer(Arc::clone(&q)).await, r#"[{"s":"a"}]"#);
    db.admin.batch_execute("ALTER ROLE wanderer SET search_path = b").await.expect("a default");
    db.terminate().await;
    assert_eq!(origin.text(&q).await, r#"[{"s":"a"}]"#);
}

#[tokio::test]
async fn the_fingerprint_is_of_the_settings_too() {
    let db = Database::new("").await;
    let print = async |timezone: &str| {
        let mut settings = db.settings();
        settings.timezone = timezone.into();
        let q = query("SELECT 1 AS a");
        Origin::new(settings).ready(&q).await;
        q.prepared().expect("prepared").fingerprint
    };
    assert_eq!(print("UTC").await, print("UTC").await);
    assert_ne!(print("UTC").await, print("Asia/Tokyo").await);
}

#[tokio::test]
async fn a_function_that_writes_breaks_the_query_and_writes_nothing() {
    let db = Database::new(
        "CREATE TABLE log (n int); \
         CREATE FUNCTION scribble() RETURNS int VOLATILE LANGUAGE sql AS 'INSERT INTO log VALUES (1) RETURNING n'",
    )
    .await;
    let origin = Origin::new(db.settings());
    let q = query("SELECT scribble() AS n");
    origin.ready(&q).await;
    let error = origin.fetch(&q, json!({})).await.expect_err("it writes");
    assert!(matches!(&error, OriginError::Broken(why) if why.contains("25006")), "{error}");
    let written: i64 = db.admin.query_one("SELECT count(*) FROM log", &[]).await.expect("a count").get(0);
    assert_eq!(written, 0);
}

#[tokio::test]
async fn the_urls_application_name_stays() {
    let db = Database::new("").await;
    let mut settings = db.settings();
    settings.url.push_str("?application_name=mine");
    let text = Origin::new(settings).answer(query("SELECT current_setting('application_name') AS a")).await;
    assert_eq!(text, r#"[{"a":"mine"}]"#);
}

#[tokio::test]
async fn waits_for_connections_are_measured() {
    let db = Database::new("").await;
    let waits = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&waits);
    let postgres = Postgres::new(db.settings(), move |event| {
        if let Event::Waited(_) = event {
            count.fetch_add(1, Ordering::AcqRel);
        }
    })
    .expect("usable settings");
    let q = query("SELECT 1 AS a");
    postgres.prepare(&q).await.expect("it answers");
    let before = waits.load(Ordering::Acquire);
    let prepared = q.prepared().expect("prepared");
    let key = prepared.fingerprint.to_le_bytes();
    let fetched =
        postgres.fetch(&q, &prepared, &key, crate::support::WITHIN, Connection::Pooled, Arc::new(|| {})).await;
    assert!(fetched.is_ok(), "{fetched:?}");
    assert_eq!(waits.load(Ordering::Acquire), before + 1);
}

#[tokio::test]
async fn statements_of_a_connection_are_bounded() {
    let db = Database::new("").await;
    let mut settings = db.settings();
    settings.pool_size = 1;
    let origin = Origin::new(settings);
    for n in 0..300 {
        let q = query(&format!("SELECT {n} AS a"));
        origin.ready(&q).await;
    }
    let count =
        query("SELECT count(*)::int AS n FROM pg_prepared_statements WHERE statement LIKE 'SELECT s, l, n, b%'");
    origin.ready(&count).await;
    let text = origin.text(&count).await;
    let n: u32 = text.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
    assert!((250..=257).contains(&n), "{n}");
}
