//! What an operator declares beside what Postgres says.

use seawall::catalog::depends::{Depends, RelationName, Rows};
use seawall::catalog::verdict::Kind;
use seawall::catalog::{Catalog, Declaration};

use super::{Bench, stated, tables, unkept_for};

#[tokio::test]
async fn a_declaration_adds_tables_and_takes_none_away() {
    let bench = Bench::new("CREATE TABLE a (id int); CREATE TABLE b (id int); CREATE VIEW v AS SELECT id FROM b").await;
    let sql = "SELECT id FROM a WHERE id = :id";
    assert_eq!(tables(&bench.of(stated("q", sql, &[("b", "true")])).await), ["public.a", "public.b"]);
    assert_eq!(tables(&bench.of(stated("q", sql, &[("v", "true")])).await), ["public.a", "public.b"]);
    let both = bench.of(stated("q", sql, &[("a", "id = :id"), ("PUBLIC.B", "true")])).await;
    assert_eq!((tables(&both), both.at_best), (vec!["public.a:id".to_owned(), "public.b".to_owned()], Kind::Exact));
    let none = Declaration { depends: Some(vec![]), ..stated("q", sql, &[]) };
    assert_eq!(tables(&bench.of(none).await), ["public.a"]);
}

#[tokio::test]
async fn several_tables_each_have_their_rows() {
    let bench = Bench::new("CREATE TABLE a (id int, r int); CREATE TABLE b (id int, r int)").await;
    let sql = "SELECT a.id, b.r FROM a JOIN b ON b.id = a.id WHERE a.id = :id AND a.r = :r";
    let verdict = bench.of(stated("q", sql, &[("a", "r = :r and id = :id"), ("b", "id = :id")])).await;
    assert_eq!(tables(&verdict), ["public.a:id,r", "public.b:id"]);
    assert!(verdict.reasons.is_empty(), "{:?}", verdict.reasons);
}

#[tokio::test]
async fn a_table_that_is_not_there_is_ttl_only_until_it_is() {
    let bench = Bench::new("CREATE TABLE a (id int)").await;
    let later =
        Depends { relation: RelationName { schema: Some("public".into()), name: "La ter".into() }, rows: Rows::Whole };
    let declaration = Declaration { depends: Some(vec![later]), ..stated("q", "SELECT id FROM a", &[]) };
    let (verdicts, analysed) = bench.all(vec![declaration.clone()]).await;
    unkept_for(&verdicts[0], "depends names public.La ter, and there is no such table");
    bench.run("CREATE TABLE \"La ter\" ()").await;
    let now = bench.postgres.schema_fingerprint(&analysed.closure).await.expect("it answers");
    assert_ne!(now, analysed.fingerprint, "it is looked at again");
    assert_eq!(tables(&bench.of(declaration).await), ["public.La ter", "public.a"]);
}

#[tokio::test]
async fn a_query_that_is_not_prepared_has_no_verdict_and_another_shape_loses_it() {
    let bench = Bench::new("CREATE TABLE a (id int)").await;
    let catalog = Catalog::new(vec![stated("q", "SELECT id FROM a", &[])]);
    let query = catalog.get("q").expect("it is there");
    bench.postgres.analyse_all(&catalog).await.expect("it answers");
    assert!(query.verdict().is_none());
    bench.postgres.prepare_all(&catalog).await.expect("it answers");
    bench.postgres.analyse_all(&catalog).await.expect("it answers");
    assert!(query.verdict().is_some());
    bench.run("ALTER TABLE a ALTER id TYPE int8").await;
    bench.postgres.prepare_all(&catalog).await.expect("it answers");
    assert!(query.verdict().is_none(), "it was found for other columns");
}
