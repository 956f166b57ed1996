//! What a fill sends and what it brings.

use std::sync::Arc;

use seawall::catalog::ResultForm;
use seawall::stamp::{Lineage, Snapshot, Stamp};
use serde_json::json;

use crate::support::server::Database;
use crate::support::{Origin, query, query_as, query_typed};

#[tokio::test]
async fn a_fill_is_one_statement() {
    let db = Database::new("CREATE TABLE item AS SELECT n AS id FROM generate_series(1, 3) n").await;
    let origin = Origin::new(db.settings());
    let q = query("SELECT id FROM item WHERE id >= :least ORDER BY id");
    origin.ready(&q).await;
    let transactions = async || db.calls_of("BEGIN%").await + db.calls_of("COMMIT%").await;
    let before = transactions().await;
    for _ in 0..5 {
        assert_eq!(
            origin.text_of(&q, json!({ "least": 2 })).await,
            r#"[{"id":2}, 
 {"id":3}]"#
        );
    }
    assert_eq!(db.calls_of("SELECT s, l, n, b%FROM item%").await, 5);
    assert_eq!(origin.sent(), 5);
    assert_eq!(transactions().await, before, "it runs outside of transaction blocks");
    assert!(db.calls_of("SET statement_timeout%").await <= 2, "the setting seldom changes");
}

#[tokio::test]
async fn the_forms_are_array_object_and_value() {
    let db = Database::new("CREATE TABLE item AS SELECT 7 AS id, 'seven' AS name").await;
    let origin = Origin::new(db.settings());
    let sql = "SELECT id, name FROM item WHERE id = :id";
    let (rows, row) = (query(sql), query_as(ResultForm::Row, sql));
    let value = query_as(ResultForm::Value, "SELECT name AS \"the \"\"name\"\"\" FROM item WHERE id = :id");
    for q in [&rows, &row, &value] {
        origin.ready(q).await;
    }
    assert_eq!(origin.text_of(&rows, json!({ "id": 7 })).await, r#"[{"id":7,"name":"seven"}]"#);
    assert_eq!(origin.text_of(&row, json!({ "id": 7 })).await, r#"{"id":7,"name":"seven"}"#);
    assert_eq!(origin.text_of(&value, json!({ "id": 7 })).await, r#""seven""#);
    let none = |q: Arc<_>| {
        let origin = &origin;
        async move { origin.fetch(&q, json!({ "id": 8 })).await.expect("no row is an answer") }
    };
    assert_eq!(none(rows).await.body.as_deref(), Some(&b"[]"[..]));
    let (row, value) = (none(row).await, none(value).await);
    assert_eq!((row.body, row.rows, value.body, value.rows), (None, 0, None, 0));
    let null = query_as(ResultForm::Value, "SELECT NULL::int AS a");
    assert_eq!(origin.answer(null).await, "null");
}

#[tokio::test]
async fn parameters_of_every_type_are_bound_as_canonical_text() {
    let db = Database::new(
        "CREATE TYPE color AS ENUM ('red', 'green'); CREATE DOMAIN price AS numeric CHECK (VALUE >= 0); \
         CREATE DOMAIN prices AS price[]; CREATE EXTENSION citext",
    )
    .await;
    let origin = Origin::new(db.settings());
    let cases = [
        ("bool", json!(true), "true"),
        ("int2", json!(-3), "-3"),
        ("int4", json!(42), "42"),
        ("int8", json!(9_007_199_254_740_993_i64), "9007199254740993"),
        ("numeric", json!("1.50"), "1.50"),
        ("float4", json!(1.5), "1.5"),
        ("float8", json!(-0.25), "-0.25"),
        ("uuid", json!("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"), "\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\""),
        ("text", json!("it's \\ \"q\" :x $1 \u{20ac}"), r#""it's \\ \"q\" :x $1 €""#),
        ("varchar(3)", json!("abc"), "\"abc\""),
        ("citext", json!("Ab"), "\"Ab\""),
        ("date", json!("2024-02-29"), "\"2024-02-29\""),
        ("timestamp", json!("2024-02-29T12:00:00"), "\"2024-02-29T12:00:00\""),
        ("timestamptz", json!("2024-02-29T12:00:00+02:00"), "\"2024-02-29T10:00:00+00:00\""),
        ("json", json!({ "a": [1, null] }), r#"{"a":[1,null]}"#),
        ("jsonb", json!({ "b": 1 }), r#"{"b": 1}"#),
        ("color", json!("green"), "\"green\""),
        ("price", json!("2.5"), "2.5"),
        ("prices", json!([1, 2]), "[1,2]"),
        ("int4[]", json!([1, 2, 3]), "[1,2,3]"),
        ("text[]", json!(["a,b", "c\"d\\", ""]), r#"["a,b","c\"d\\",""]"#),
        ("color[]", json!(["red", "green"]), r#"["red","green"]"#),
        ("uuid[]", json!(["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]), r#"["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]"#),
        ("inet", json!("10.0.0.1"), "\"10.0.0.1\""),
        ("interval", json!("1 day"), "\"1 day\""),
        ("bytea", json!("\\x00ff"), "\"\\\\x00ff\""),
    ];
    for (kind, value, expected) in cases {
        let q = query_typed("SELECT :v AS v", &[("v", kind)]);
        origin.ready(&q).await;
        assert_eq!(origin.text_of(&q, json!({ "v": value })).await, format!("[{{\"v\":{expected}}}]"), "{kind}");
    }
    assert_eq!(db.calls_of("%10.0.0.1%").await, 0, "values are not in the text of statements");
}

#[tokio::test]
async fn an_absent_parameter_is_its_default_or_null() {
    use seawall::catalog::{ParamDeclaration, Query};
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let mut declaration = crate::support::declare("SELECT :a::int AS a, :b::text AS b");
    declaration.params = vec![
        ("a".into(), ParamDeclaration { default: Some(json!(5)), ..ParamDeclaration::default() }),
        ("b".into(), ParamDeclaration { required: Some(false), ..ParamDeclaration::default() }),
    ];
    let q = Arc::new(Query::new(declaration));
    assert_eq!(origin.answer(q).await, r#"[{"a":5,"b":null}]"#);
}

#[tokio::test]
async fn order_by_survives_aggregation() {
    let db = Database::new("CREATE TABLE item AS SELECT n AS id FROM generate_series(1, 5000) n; ANALYZE item").await;
    let origin = Origin::new(db.settings());
    let text = origin.answer(query("SELECT id FROM item ORDER BY (id * 7919) % 5003 DESC")).await;
    let got: Vec<serde_json::Value> = serde_json::from_str(&text).expect("JSON");
    let mut expected: Vec<i64> = (1..=5000).collect();
    expected.sort_by_key(|id| -((id * 7919) % 5003));
    let got: Vec<i64> = got.iter().map(|row| row["id"].as_i64().expect("a number")).collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn comments_and_semicolons_at_the_end_do_no_harm() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    for sql in ["SELECT 1 AS a -- x", "SELECT 1 AS a; -- x", "SELECT 1 AS a /* x */ ;", "SELECT 1 AS a --"] {
        assert_eq!(origin.answer(query(sql)).await, r#"[{"a":1}]"#, "{sql}");
    }
}

#[tokio::test]
async fn the_stamp_is_the_snapshot_that_the_rows_were_read_under() {
    let db = Database::new("CREATE TABLE item (id int)").await;
    let origin = Origin::new(db.settings());
    let q = query("SELECT id FROM item ORDER BY id");
    origin.ready(&q).await;
    let mut writer = db.server.client(&db.name).await.expect("a connection");
    let open = writer.transaction().await.expect("it begins");
    open.execute("INSERT INTO item VALUES (1)", &[]).await.expect("it inserts");
    let xid: String = open.query_one("SELECT pg_current_xact_id()::text", &[]).await.expect("it has one").get(0);
    let xid: u64 = xid.parse().expect("a number");
    let before = origin.fetch(&q, json!({})).await.expect("an answer");
    assert_eq!(before.body.as_deref(), Some(&b"[]"[..]));
    assert!(!before.stamp.snapshot.sees(xid));
    open.commit().await.expect("it commits");
    let after = origin.fetch(&q, json!({})).await.expect("an answer");
    assert_eq!(after.body.as_deref(), Some(&br#"[{"id":1}]"#[..]));
    assert!(after.stamp.snapshot.sees(xid));
    assert!(after.stamp.covers(&before.stamp) && !before.stamp.covers(&after.stamp));
    let parts: Vec<&str> = after.stamp.lineage.as_str().split('/').collect();
    let expected = db
        .admin
        .query_one(
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
             (SELECT oid::text FROM pg_database WHERE datname = current_database())",
            &[],
        )
        .await
        .expect("a row");
    assert_eq!(parts.len(), 4, "{parts:?}");
    assert_eq!((parts[0], parts[1], parts[2]), (expected.get(0), "00000001", expected.get(1)));
    let elsewhere = Stamp { lineage: Lineage::new("x"), snapshot: Snapshot::parse("9999999:9999999:").expect("one") };
    assert!(!elsewhere.covers(&after.stamp));
}

#[tokio::test]
async fn lineages_differ_between_databases_and_not_between_time_zones() {
    let (one, other) = (Database::new("").await, Database::new("").await);
    let stamp = async |settings| {
        let origin = Origin::new(settings);
        let q = query("SELECT 1 AS a");
        origin.ready(&q).await;
        origin.fetch(&q, json!({})).await.expect("an answer").stamp.lineage
    };
    let mut elsewhere = one.settings();
    elsewhere.timezone = "Asia/Tokyo".into();
    let here = stamp(one.settings()).await;
    assert_eq!(here, stamp(elsewhere).await);
    assert_ne!(here, stamp(other.settings()).await);
}
