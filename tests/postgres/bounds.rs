//! Answers beyond their bounds: refused, and measured before they are transferred.

use std::sync::Arc;

use seawall::catalog::{Policy, Query, ResultForm};
use seawall::readthrough::origin::OriginError;
use serde_json::json;

use crate::support::chaos::Chaos;
use crate::support::server::Database;
use crate::support::{Origin, declare, query, query_as};

#[tokio::test]
async fn seventeen_megabytes_are_refused_without_being_transferred() {
    let db = Database::new("").await;
    let proxy = Chaos::before(db.server.port);
    let mut settings = db.settings();
    settings.url = format!("postgres://postgres@127.0.0.1:{}/{}", proxy.port, db.name);
    let origin = Origin::new(settings);
    let q = query("SELECT repeat('x', 1024 * 1024) AS a FROM generate_series(1, 17)");
    origin.ready(&q).await;
    let before = proxy.received();
    let error = origin.fetch(&q, json!({})).await.expect_err("it is too large");
    let OriginError::TooLarge { bytes, limit } = error else { panic!("{error}") };
    assert_eq!(limit, 16 * 1024 * 1024);
    assert!(bytes > 17 * 1024 * 1024 && bytes < 18 * 1024 * 1024, "{bytes}");
    let received = proxy.received() - before;
    assert!(received < 4096, "{received} bytes came over");
}

#[tokio::test]
async fn bytes_are_bounded_exactly() {
    let db = Database::new("").await;
    let mut settings = db.settings();
    settings.result_max_bytes = 100;
    let origin = Origin::new(settings);
    // Two quotes around the text: 98 characters make 100 bytes.
    let q = query_as(ResultForm::Value, "SELECT repeat('x', :n) AS a");
    origin.ready(&q).await;
    let most = origin.fetch(&q, json!({ "n": 98 })).await.expect("as large as it may be");
    assert_eq!(most.body.map(|body| body.len()), Some(100));
    let error = origin.fetch(&q, json!({ "n": 99 })).await.expect_err("one more");
    assert_eq!(error, OriginError::TooLarge { bytes: 101, limit: 100 });
}

#[tokio::test]
async fn ten_thousand_and_one_rows_are_too_many() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let q = query("SELECT n FROM generate_series(1, :rows) n");
    origin.ready(&q).await;
    let all = origin.fetch(&q, json!({ "rows": 10_000 })).await.expect("as many as may be");
    assert_eq!(all.rows, 10_000);
    for rows in [10_001, 1_000_000] {
        let error = origin.fetch(&q, json!({ "rows": rows })).await.expect_err("too many");
        assert_eq!(error, OriginError::TooManyRows { limit: 10_000 });
    }
}

#[tokio::test]
async fn max_rows_is_the_querys_own() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let mut declaration = declare("SELECT n FROM generate_series(1, :rows) n");
    declaration.policy = Policy { max_rows: 3, ..Policy::default() };
    let q = Arc::new(Query::new(declaration));
    origin.ready(&q).await;
    assert_eq!(origin.fetch(&q, json!({ "rows": 3 })).await.expect("three").rows, 3);
    let error = origin.fetch(&q, json!({ "rows": 4 })).await.expect_err("four");
    assert_eq!(error, OriginError::TooManyRows { limit: 3 });
}

#[tokio::test]
async fn two_rows_are_neither_a_row_nor_a_value() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    for form in [ResultForm::Row, ResultForm::Value] {
        let q = query_as(form, "SELECT n FROM generate_series(1, 2) n");
        origin.ready(&q).await;
        assert_eq!(origin.fetch(&q, json!({})).await.expect_err("two"), OriginError::NotOneRow);
    }
}
