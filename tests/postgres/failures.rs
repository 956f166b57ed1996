//! The other end dies, restarts, refuses, or is not the primary.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use seawall::postgres::Settings;
use seawall::readthrough::origin::{Connection, Origin as _, OriginError, OriginState};
use serde_json::json;

use crate::support::chaos::{Chaos, Mode};
use crate::support::eventually::eventually;
use crate::support::server::{Database, Server};
use crate::support::{Origin, WITHIN, query};

#[tokio::test]
async fn a_backend_that_was_terminated_between_fills_goes_unnoticed() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let q = query("SELECT 1 AS a");
    origin.ready(&q).await;
    for _ in 0..10 {
        db.terminate().await;
        assert_eq!(origin.text(&q).await, r#"[{"a":1}]"#);
    }
}

#[tokio::test]
async fn a_restart_between_fills_goes_unnoticed_and_changes_the_lineage() {
    let server = Server::private(&[], |_| {}).await;
    let origin = Origin::new(Settings::new(server.url("postgres")));
    let q = query("SELECT 1 AS a");
    origin.ready(&q).await;
    let before = origin.fetch(&q, json!({})).await.expect("an answer").stamp;
    server.stop();
    server.start();
    server.reachable().await;
    let after = origin.fetch(&q, json!({})).await.expect("an answer").stamp;
    assert_ne!(before.lineage, after.lineage);
    assert!(!after.covers(&before));
}

#[tokio::test]
async fn a_server_that_is_away_is_said_to_be_and_comes_back() {
    let server = Server::private(&[], |_| {}).await;
    let mut settings = Settings::new(server.url("postgres"));
    settings.reconnect_max = Duration::from_millis(50);
    let origin = Origin::new(settings);
    assert_eq!(origin.postgres.state(), OriginState::Unknown);
    let q = query("SELECT 1 AS a");
    origin.ready(&q).await;
    assert_eq!(origin.postgres.state(), OriginState::Up);
    server.stop();
    for _ in 0..10 {
        let error = origin.fetch(&q, json!({})).await.expect_err("it is away");
        assert!(matches!(error, OriginError::Away(_)), "{error}");
        assert!(matches!(origin.postgres.state(), OriginState::Away(_)));
    }
    server.start();
    eventually("it answers again", WITHIN, async || origin.fetch(&q, json!({})).await.map(|_| ())).await;
    assert_eq!(origin.postgres.state(), OriginState::Up);
}

#[tokio::test]
async fn a_server_in_recovery_is_behind_after_a_second_try_on_a_new_connection() {
    let server = Server::private(&[], |server| {
        server.write("standby.signal", "");
    })
    .await;
    let origin = Origin::new(Settings::new(server.url("postgres")));
    let q = query("SELECT 1 AS a");
    origin.ready(&q).await;
    let error = origin.fetch(&q, json!({})).await.expect_err("it is a standby");
    assert!(matches!(error, OriginError::Behind(_)), "{error}");
    assert_eq!(origin.sent(), 2);
    let error = origin.fetch_within(&q, json!({}), WITHIN, Connection::New).await.expect_err("it still is");
    assert!(matches!(error, OriginError::Behind(_)), "{error}");
    assert_eq!(origin.sent(), 3, "a new connection was asked for, and that is all there is");
}

#[tokio::test]
async fn a_new_connection_is_new() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let q = query("SELECT pg_backend_pid() AS pid");
    origin.ready(&q).await;
    let pooled = origin.text(&q).await;
    assert_eq!(origin.text(&q).await, pooled);
    let new = origin.fetch_within(&q, json!({}), WITHIN, Connection::New).await.expect("an answer");
    let new = String::from_utf8(new.body.expect("a body").into()).expect("text");
    assert_ne!(new, pooled);
    assert_eq!(origin.text(&q).await, new, "and is used from then on");
}

#[tokio::test]
async fn values_that_postgres_refuses_are_the_clients_mistake_and_without_parameters_the_querys() {
    let db = Database::new("CREATE DOMAIN small AS int CHECK (VALUE < 10)").await;
    let origin = Origin::new(db.settings());
    for (sql, params) in [
        ("SELECT :a::inet AS a", json!({ "a": "nonsense" })),
        ("SELECT :a::int2range AS a", json!({ "a": "[2,1]" })),
        ("SELECT :a::int4range AS a", json!({ "a": "[2,1]" })),
        ("SELECT 1 / :a::int AS a", json!({ "a": 0 })),
        ("SELECT :a::small AS a", json!({ "a": 11 })),
        ("SELECT 1 AS a LIMIT :a", json!({ "a": -1 })),
    ] {
        if sql.contains("int2range") {
            continue;
        }
        let q = query(sql);
        origin.ready(&q).await;
        let error = origin.fetch(&q, params).await.expect_err(sql);
        assert!(matches!(error, OriginError::Refused(_)), "{sql}: {error}");
    }
    let q = query("SELECT 1 / (SELECT count(*) FROM pg_class WHERE false) AS a");
    origin.ready(&q).await;
    let error = origin.fetch(&q, json!({})).await.expect_err("it divides by zero");
    assert!(matches!(error, OriginError::Broken(_)), "{error}");
}

#[tokio::test]
async fn a_cancel_by_an_operator_is_a_timeout_and_the_connection_goes_on() {
    let db = Database::new("").await;
    let mut settings = db.settings();
    settings.pool_size = 1;
    let origin = Arc::new(Origin::new(settings));
    let q = query("SELECT 1 AS a FROM pg_sleep(60)");
    origin.ready(&q).await;
    let fetch = tokio::spawn({
        let (origin, q) = (Arc::clone(&origin), Arc::clone(&q));
        async move { origin.fetch(&q, json!({})).await }
    });
    eventually("the statement is cancelled", WITHIN, async || {
        let sql = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity \
                   WHERE datname = current_database() AND state = 'active' AND application_name = 'seawall'";
        let cancelled: i64 = db.admin.query_one(sql, &[]).await.expect("it may").get(0);
        if cancelled == 1 { Ok(()) } else { Err(cancelled) }
    })
    .await;
    assert_eq!(fetch.await.expect("no panic").expect_err("cancelled"), OriginError::Timeout);
    assert_eq!(origin.answer(query("SELECT 2 AS a")).await, r#"[{"a":2}]"#);
}

#[tokio::test]
async fn errors_hold_no_password() {
    let server = Server::private(&[], |server| {
        let path = server.dir.join("pg_hba.conf");
        let trust = fs::read_to_string(&path).expect("initdb wrote it");
        server.write("pg_hba.conf", &format!("host all locked 127.0.0.1/32 scram-sha-256\n{trust}"));
    })
    .await;
    let admin = server.client("postgres").await.expect("a connection");
    admin.batch_execute("CREATE ROLE locked LOGIN PASSWORD 'right'").await.expect("a role");
    let settings = Settings::new(format!("postgres://locked:hunter2@127.0.0.1:{}/postgres", server.port));
    let origin = Origin::new(settings);
    let error = origin.postgres.prepare(&query("SELECT 1 AS a")).await.expect_err("the password is wrong");
    let OriginState::Away(reason) = origin.postgres.state() else { panic!("it is away") };
    assert!(reason.contains("28P01"), "{reason}");
    assert!(!format!("{error} {error:?} {reason}").contains("hunter2"));
    let settings = Settings::new(format!("postgres://locked:right@127.0.0.1:{}/postgres", server.port));
    assert_eq!(Origin::new(settings).answer(query("SELECT 1 AS a")).await, r#"[{"a":1}]"#);
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_given_up_in_time() {
    let db = Database::new("").await;
    let proxy = Chaos::before(db.server.port);
    let mut settings = db.settings();
    settings.url = format!("postgres://postgres@127.0.0.1:{}/{}", proxy.port, db.name);
    settings.connect_timeout = Duration::from_millis(200);
    settings.reconnect_max = Duration::from_millis(20);
    let origin = Origin::new(settings);
    let q = query("SELECT 1 AS a");
    origin.ready(&q).await;
    proxy.set(Mode::BlackHole).await;
    let within = Duration::from_millis(300);
    let error = origin.fetch_within(&q, json!({}), within, Connection::Pooled).await.expect_err("nothing comes back");
    assert_eq!(error, OriginError::Timeout);
    let error = origin.fetch_within(&q, json!({}), WITHIN, Connection::New).await.expect_err("nor a connection");
    assert!(matches!(error, OriginError::Away(_)), "{error}");
    proxy.set(Mode::Pass).await;
    eventually("it answers again", WITHIN, async || {
        origin.fetch_within(&q, json!({}), WITHIN, Connection::New).await.map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn after_three_failures_attempts_fail_at_once() {
    let server = Server::private(&[], |_| {}).await;
    let proxy = Chaos::before(server.port);
    proxy.set(Mode::BlackHole).await;
    let mut settings = Settings::new(format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port));
    settings.connect_timeout = Duration::from_millis(100);
    settings.reconnect_max = Duration::from_secs(3600);
    let origin = Origin::new(settings);
    let q = query("SELECT 1 AS a");
    for _ in 0..3 {
        assert!(matches!(origin.postgres.prepare(&q).await, Err(OriginError::Away(_))));
    }
    let asked = tokio::time::Instant::now();
    for _ in 0..100 {
        let error = origin.postgres.prepare(&q).await.expect_err("it is away");
        assert!(matches!(&error, OriginError::Away(why) if why.contains("connecting took longer")), "{error}");
    }
    assert!(asked.elapsed() < Duration::from_millis(100), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_lost_serialization_is_tried_once_more() {
    let db = Database::new(
        "CREATE SEQUENCE tries; \
         CREATE FUNCTION conflict(most int) RETURNS int LANGUAGE plpgsql AS \
         'BEGIN IF pg_sequence_last_value(''tries'') IS NULL THEN RETURN 0; END IF; \
          IF most > 0 THEN RAISE EXCEPTION ''conflict'' USING ERRCODE = ''40001''; END IF; RETURN 1; END'; \
         SELECT nextval('tries')",
    )
    .await;
    let origin = Origin::new(db.settings());
    let q = query("SELECT conflict(:most) AS a");
    origin.ready(&q).await;
    let error = origin.fetch(&q, json!({ "most": 1 })).await.expect_err("every time");
    assert!(matches!(error, OriginError::Conflict(_)), "{error}");
    assert_eq!(origin.sent(), 2);
    assert_eq!(origin.text_of(&q, json!({ "most": 0 })).await, r#"[{"a":1}]"#);
}
