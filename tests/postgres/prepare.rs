//! What becomes of a query in Postgres's hands: its types, its columns, or the reason why it is broken.

use std::sync::Arc;

use seawall::catalog::params::ParamType;
use seawall::catalog::{Catalog, Declaration, ParamDeclaration, Query, ResultForm, Shape};
use seawall::readthrough::origin::OriginError;
use serde_json::json;

use crate::support::server::Database;
use crate::support::{Origin, declare, query, query_as, query_typed};

#[tokio::test]
async fn types_and_columns_come_from_postgres() {
    let db = Database::new(
        "CREATE TYPE size AS ENUM ('s', 'l'); ALTER TYPE size ADD VALUE 'm' BEFORE 'l'; \
         CREATE DOMAIN id AS int8; CREATE DOMAIN ids AS id[]; \
         CREATE TABLE item (id id, size size, name varchar(20), price numeric(10,2), at timestamptz, tags text[], r int4range)",
    )
    .await;
    let origin = Origin::new(db.settings());
    let q = query(
        "SELECT id, size, name, price, at, tags, r FROM item WHERE id = :id AND size = :size AND name = :name \
         AND price < :price AND at > :at AND tags && :tags AND id = ANY (:ids::ids) AND r @> :r::int4range",
    );
    origin.ready(&q).await;
    let prepared = q.prepared().expect("prepared");
    let kinds: Vec<&ParamType> = prepared.params.iter().map(|param| &param.kind).collect();
    let labels = ["s", "m", "l"].map(Into::into);
    assert_eq!(
        kinds,
        [
            &ParamType::Int8,
            &ParamType::Enum("size".into(), labels.into()),
            &ParamType::Text("text".into()),
            &ParamType::Numeric,
            &ParamType::Timestamptz,
            &ParamType::Array(Box::new(ParamType::Text("text".into()))),
            &ParamType::Array(Box::new(ParamType::Int8)),
            &ParamType::Other("int4range".into()),
        ]
    );
    let names: Vec<&str> = prepared.params.iter().map(|param| &*param.name).collect();
    assert_eq!(names, ["id", "size", "name", "price", "at", "tags", "ids", "r"]);
    let column = |name: &str, type_name: &str| (name.to_owned(), type_name.to_owned());
    let columns: Vec<_> = prepared.columns.iter().map(|c| column(&c.name, &c.type_name)).collect();
    assert_eq!(
        columns,
        [
            // The wire says a domain's base type.
            column("id", "bigint"),
            column("size", "size"),
            column("name", "character varying(20)"),
            column("price", "numeric(10,2)"),
            column("at", "timestamp with time zone"),
            column("tags", "text[]"),
            column("r", "int4range"),
        ]
    );
}

#[tokio::test]
async fn a_declared_type_overrides_what_postgres_infers() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let q = query_typed("SELECT :a AS a", &[("a", "int2")]);
    origin.ready(&q).await;
    assert_eq!(q.prepared().expect("prepared").params[0].kind, ParamType::Int2);
    let reason = origin.reason(&query_typed("SELECT :a AS a", &[("a", "in4")])).await;
    assert!(reason.contains("type \"in4\" does not exist"), "{reason}");
}

#[tokio::test]
async fn what_cannot_be_a_query_is_broken_with_its_reason() {
    let db = Database::new("CREATE TABLE item (id int, name text); CREATE TABLE reserved (__seawall_row int)").await;
    let origin = Origin::new(db.settings());
    for (sql, expected) in [
        ("SELECT 1 AS a, 2 AS a", "two columns are called \"a\""),
        ("SELECT id, id FROM item", "two columns are called \"id\""),
        ("SELECT * FROM reserved", "must not be called __seawall_row"),
        ("SELECT FROM item", "no result columns"),
        ("SELECT * FROM nowhere", "relation \"nowhere\" does not exist"),
        ("SELECT\n  nope\nFROM item", "line 2"),
        ("SELECT 1 FROM item item item", "syntax error"),
    ] {
        let reason = origin.reason(&query(sql)).await;
        assert!(reason.contains(expected), "{sql}: {reason}");
    }
    let reason = origin.reason(&query_as(ResultForm::Value, "SELECT id, name FROM item")).await;
    assert!(reason.contains("needs one column, and it has 2"), "{reason}");
}

#[tokio::test]
async fn declarations_are_held_against_the_statement() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let with = |name: &str, declaration: ParamDeclaration| {
        let params = vec![(name.into(), declaration)];
        Arc::new(Query::new(Declaration { params, ..declare("SELECT :id::int4 AS a") }))
    };
    let none = ParamDeclaration::default;
    for (name, declaration, expected) in [
        ("other", none(), "params declares other"),
        ("id", ParamDeclaration { default: Some(json!("x")), ..none() }, "the default of id is not taken"),
        (
            "id",
            ParamDeclaration { default: Some(json!(5)), max: Some(4.0), ..none() },
            "the default of id is not taken",
        ),
        ("id", ParamDeclaration { max_length: Some(3), ..none() }, "max_length is for texts, and id is int4"),
    ] {
        let reason = origin.reason(&with(name, declaration)).await;
        assert!(reason.contains(expected), "{reason}");
    }
    let number = vec![("t".into(), ParamDeclaration { min: Some(1.0), ..none() })];
    let q = Arc::new(Query::new(Declaration { params: number, ..declare("SELECT :t::text AS a") }));
    assert!(origin.reason(&q).await.contains("min and max are for numbers"));
}

#[tokio::test]
async fn a_broken_query_affects_no_other() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let named = |name: &str, sql: &str| Declaration { name: name.into(), ..declare(sql) };
    let catalog = Catalog::new(vec![
        named("a", "SELECT * FROM nowhere"),
        named("b", "SELECT 1 AS a"),
        named("c", "SELECT 1 AS a, 1 AS a"),
        named("d", "SELECT 2 AS a"),
    ]);
    origin.postgres.prepare_all(&catalog).await.expect("the database answers");
    let ready: Vec<bool> = catalog.iter().map(|q| q.prepared().is_some()).collect();
    assert_eq!(ready, [false, true, false, true]);
}

#[tokio::test]
async fn a_missing_grant_is_found_before_the_first_fill() {
    let db = Database::new("CREATE TABLE secret (id int, hidden text)").await;
    let settings = db.settings_as("stranger").await;
    let origin = Origin::new(settings);
    let q = query("SELECT hidden FROM secret WHERE id = :id");
    let reason = origin.reason(&q).await;
    assert!(reason.contains("the role may not run it: permission denied for table secret"), "{reason}");
    db.admin.batch_execute("GRANT SELECT (id) ON secret TO stranger").await.expect("a grant");
    assert!(origin.reason(&q).await.contains("permission denied"));
    db.admin.batch_execute("GRANT SELECT ON secret TO stranger").await.expect("a grant");
    origin.ready(&q).await;
}

#[tokio::test]
async fn a_query_that_fails_on_nulls_is_not_broken_for_it() {
    let db = Database::new(
        "CREATE DOMAIN there AS int NOT NULL; \
         CREATE FUNCTION strictly(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS \
         'BEGIN IF $1 IS NULL THEN RAISE ''null''; END IF; RETURN $1; END'",
    )
    .await;
    let origin = Origin::new(db.settings());
    let q = query("SELECT strictly(:a) AS a, :b::there AS b");
    origin.ready(&q).await;
    assert_eq!(origin.text_of(&q, json!({ "a": 1, "b": 2 })).await, r#"[{"a":1,"b":2}]"#);
}

#[tokio::test]
async fn operators_are_warned_of_what_works_and_may_not_be_meant() {
    let db = Database::new("CREATE TABLE item (id int8, price numeric(10,2), n int)").await;
    let origin = Origin::new(db.settings());
    let warnings = async |sql: &str| {
        let q = query(sql);
        origin.ready(&q).await;
        q.prepared().expect("prepared").warnings.clone()
    };
    let all = warnings("SELECT id, price, n FROM item LIMIT 3").await;
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(all[0].starts_with("column id is bigint") && all[1].starts_with("column price is numeric(10,2)"));
    assert!(all[2].starts_with("LIMIT without ORDER BY"));
    assert!(warnings("SELECT n, id::text AS id FROM item ORDER BY n LIMIT 3").await.is_empty());
}

#[tokio::test]
async fn an_enums_new_label_is_known_after_preparing_anew() {
    let db = Database::new("CREATE TYPE color AS ENUM ('red')").await;
    let mut settings = db.settings();
    settings.pool_size = 1;
    let origin = Origin::new(settings);
    let q = query("SELECT :c::color AS c");
    origin.ready(&q).await;
    db.admin.batch_execute("ALTER TYPE color ADD VALUE 'blue'").await.expect("a label");
    origin.ready(&q).await;
    let ParamType::Enum(_, labels) = &q.prepared().expect("prepared").params[0].kind else { panic!("an enum") };
    assert_eq!(labels.iter().map(|label| &**label).collect::<Vec<_>>(), ["red", "blue"]);
    assert_eq!(origin.text_of(&q, json!({ "c": "blue" })).await, r#"[{"c":"blue"}]"#);
}

#[tokio::test]
async fn an_unchanged_shape_stays_the_very_same() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let q = query("SELECT :a::int AS a");
    origin.ready(&q).await;
    let first = q.prepared().expect("prepared");
    origin.ready(&q).await;
    assert!(Arc::ptr_eq(&first, &q.prepared().expect("prepared")));
}

#[tokio::test]
async fn ddl_between_fills_prepares_anew() {
    let db = Database::new("CREATE TABLE item AS SELECT 1 AS id, 'one' AS name").await;
    let origin = Origin::new(db.settings());
    let all = query("SELECT * FROM item WHERE id = :id");
    origin.ready(&all).await;
    assert_eq!(origin.text_of(&all, json!({ "id": 1 })).await, r#"[{"id":1,"name":"one"}]"#);
    let before = all.prepared().expect("prepared");

    db.admin.batch_execute("ALTER TABLE item ALTER COLUMN id TYPE text").await.expect("ddl");
    assert_eq!(origin.text_of(&all, json!({ "id": 1 })).await, r#"[{"id":"1","name":"one"}]"#);
    let after = all.prepared().expect("still prepared");
    assert_ne!(before.fingerprint, after.fingerprint);
    assert_eq!(after.params[0].kind, ParamType::Text("text".into()));

    db.admin.batch_execute("ALTER TABLE item ADD COLUMN price int DEFAULT 3").await.expect("ddl");
    assert_eq!(origin.text_of(&all, json!({ "id": "1" })).await, r#"[{"id":"1","name":"one","price":3}]"#);

    db.admin.batch_execute("ALTER TABLE item RENAME TO article").await.expect("ddl");
    let error = origin.fetch(&all, json!({ "id": "1" })).await.expect_err("the table is gone");
    assert!(matches!(&error, OriginError::Broken(why) if why.contains("item")), "{error}");
    assert!(matches!(&**all.shape(), Shape::Broken(_)));

    db.admin.batch_execute("ALTER TABLE article RENAME TO item").await.expect("ddl");
    origin.ready(&all).await;
    assert_eq!(all.prepared().expect("prepared").columns.len(), 3);
}

#[tokio::test]
async fn a_value_whose_only_column_was_renamed_is_found_under_its_new_name() {
    let db = Database::new("CREATE TABLE item AS SELECT 1 AS id").await;
    let origin = Origin::new(db.settings());
    let q = query_as(ResultForm::Value, "SELECT * FROM item");
    assert_eq!(origin.answer(Arc::clone(&q)).await, "1");
    let before = q.prepared().expect("prepared").fingerprint;
    db.admin.batch_execute("ALTER TABLE item RENAME COLUMN id TO number").await.expect("ddl");
    assert_eq!(origin.text(&q).await, "1");
    assert_ne!(before, q.prepared().expect("prepared").fingerprint);
}

#[tokio::test]
async fn a_session_that_lost_its_statements_prepares_them_anew() {
    let db =
        Database::new("CREATE FUNCTION forget() RETURNS int LANGUAGE plpgsql AS 'BEGIN DEALLOCATE ALL; RETURN 1; END'")
            .await;
    let mut settings = db.settings();
    settings.pool_size = 1;
    let origin = Origin::new(settings);
    let (q, forget) = (query("SELECT 5 AS a"), query("SELECT forget() AS a"));
    origin.ready(&q).await;
    origin.ready(&forget).await;
    assert_eq!(origin.text(&forget).await, r#"[{"a":1}]"#);
    assert_eq!(origin.text(&q).await, r#"[{"a":5}]"#);
}

#[tokio::test]
async fn a_locked_table_is_not_a_broken_query() {
    let db = Database::new("CREATE TABLE item (id int); CREATE TABLE other (id int)").await;
    let origin = Origin::new(db.settings());
    let mut holder = db.server.client(&db.name).await.expect("a connection");
    let lock = holder.transaction().await.expect("it begins");
    lock.batch_execute("LOCK TABLE item IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
    let named = |name: &str, sql: &str| Declaration { name: name.into(), ..declare(sql) };
    let catalog = Catalog::new(vec![named("a", "SELECT id FROM item"), named("b", "SELECT id FROM other")]);
    let error = origin.postgres.prepare_all(&catalog).await.expect_err("it is locked");
    assert_eq!(error, OriginError::Timeout);
    assert!(matches!(&**catalog.get("a").expect("declared").shape(), Shape::Pending));
    assert!(catalog.get("b").expect("declared").prepared().is_some());
    lock.rollback().await.expect("it ends");
    origin.postgres.prepare_all(&catalog).await.expect("it is free");
}
