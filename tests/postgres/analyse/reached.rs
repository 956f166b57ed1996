//! Which relations a query is found to read.

use seawall::catalog::verdict::Kind;

use super::{Bench, family, stated, tables, unkept_for};

const SHOP: &str = "CREATE SCHEMA shop; \
     CREATE TABLE shop.products (id int PRIMARY KEY, name text, category int, price numeric); \
     CREATE TABLE shop.categories (id int PRIMARY KEY, slug text); \
     CREATE TABLE shop.reviews (product_id int, stars int)";

#[tokio::test]
async fn every_table_is_found_wherever_it_stands_in_the_text() {
    let bench = Bench::new(SHOP).await;
    let (p, c, r) = ("shop.products", "shop.categories", "shop.reviews");
    let cases: [(&str, Vec<&str>); 17] = [
        ("SELECT 1 AS one", vec![]),
        ("SELECT id FROM shop.products", vec![p]),
        ("SELECT id FROM ONLY shop.products", vec![p]),
        ("TABLE shop.categories", vec![c]),
        ("SELECT p.id FROM shop.products p JOIN shop.categories c ON c.id = p.category", vec![c, p]),
        // The planner removes this join.
        ("SELECT p.id FROM shop.products p LEFT JOIN shop.categories c ON c.id = p.category", vec![c, p]),
        ("SELECT id FROM shop.products WHERE false", vec![p]),
        ("SELECT id FROM shop.products WHERE id IN (SELECT product_id FROM shop.reviews)", vec![p, r]),
        ("SELECT (SELECT max(stars) FROM shop.reviews) AS best", vec![r]),
        ("WITH a AS (SELECT id FROM shop.products) SELECT 1 AS one", vec![p]),
        ("WITH a AS MATERIALIZED (SELECT id FROM shop.products) SELECT * FROM a", vec![p]),
        ("SELECT id FROM shop.products UNION SELECT id FROM shop.categories", vec![c, p]),
        ("SELECT id FROM shop.products EXCEPT SELECT product_id FROM shop.reviews", vec![p, r]),
        (
            "SELECT c.id, s.n FROM shop.categories c, LATERAL (SELECT count(*) AS n FROM shop.products p \
          WHERE p.category = c.id) s",
            vec![c, p],
        ),
        (
            "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a, shop.reviews WHERE n < 3) SELECT n FROM a",
            vec![r],
        ),
        (
            "SELECT id FROM shop.products ORDER BY (SELECT slug FROM shop.categories c WHERE c.id = category) LIMIT :n",
            vec![c, p],
        ),
        (
            "SELECT exists(SELECT FROM shop.reviews HAVING count(*) > :n) AS many, :n::text AS n, row(1, 2) AS r, :m::bpchar AS m",
            vec![r],
        ),
    ];
    let declarations = cases.iter().enumerate().map(|(i, (sql, _))| stated(&format!("q{i}"), sql, &[])).collect();
    let (verdicts, _) = bench.all(declarations).await;
    for ((sql, expected), verdict) in cases.iter().zip(&verdicts) {
        assert_eq!(tables(verdict), *expected, "{sql}: {:?}", verdict.reasons);
        assert_eq!(verdict.at_best, Kind::Exact, "{sql}: {:?}", verdict.reasons);
    }
}

#[tokio::test]
async fn views_are_looked_through_and_a_materialized_one_is_what_it_holds() {
    let bench = Bench::new(
        "CREATE SCHEMA shop; CREATE TABLE shop.t (id int); CREATE TABLE shop.u (id int); \
         CREATE VIEW shop.one AS SELECT id FROM shop.t; \
         CREATE VIEW shop.two AS SELECT o.id FROM shop.one o LEFT JOIN shop.u ON u.id = o.id; \
         CREATE MATERIALIZED VIEW shop.held AS SELECT id FROM shop.u; \
         CREATE VIEW shop.three AS SELECT id FROM shop.held",
    )
    .await;
    assert_eq!(tables(&bench.one("SELECT id FROM shop.two").await), ["shop.t", "shop.u"]);
    let held = bench.one("SELECT id FROM shop.three").await;
    assert_eq!((tables(&held), held.kind()), (vec!["shop.held".to_owned()], Kind::Exact));
    assert!(family(&held).is_empty(), "it has no triggers");
    assert!(held.reasons[0].contains("REFRESH"), "{:?}", held.reasons);
}

#[tokio::test]
async fn quoted_names_and_the_search_path_lead_to_the_same_tables_as_the_query() {
    let bench = Bench::new(
        "CREATE SCHEMA \"Sh op\"; CREATE TABLE \"Sh op\".\"T\"\"1\" (\"I d\" int); CREATE TABLE public.t (id int); \
         CREATE SCHEMA first; CREATE TABLE first.t (id int)",
    )
    .await;
    assert_eq!(tables(&bench.one("SELECT \"I d\" FROM \"Sh op\".\"T\"\"1\"").await), ["Sh op.T\"1"]);
    assert_eq!(tables(&bench.one("SELECT id FROM t").await), ["public.t"]);
    let mut settings = bench.db.settings();
    settings.search_path = Some("first, public".into());
    let bench = bench.over(settings);
    assert_eq!(tables(&bench.one("SELECT id FROM t").await), ["first.t"]);
    let declared = bench.of(stated("q", "SELECT id FROM t WHERE id = :id", &[("t", "id = :id")])).await;
    assert_eq!(tables(&declared), ["first.t:id"]);
}

#[tokio::test]
async fn a_family_is_everything_whose_writes_can_touch_the_rows() {
    let bench = Bench::new(
        "CREATE TABLE p (id int, at int) PARTITION BY RANGE (at); \
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10) PARTITION BY LIST (id); \
         CREATE TABLE p11 PARTITION OF p1 DEFAULT; CREATE TABLE p2 PARTITION OF p DEFAULT; \
         CREATE TABLE a (id int); CREATE TABLE b (id int); CREATE TABLE c () INHERITS (a, b); CREATE TABLE d () INHERITS (c)",
    )
    .await;
    let all = ["public.p", "public.p1", "public.p11", "public.p2"];
    assert_eq!(family(&bench.one("SELECT id FROM p").await), all);
    assert_eq!(family(&bench.one("SELECT id FROM p11").await), ["public.p", "public.p1", "public.p11"]);
    // An UPDATE of b changes rows of c, which are rows of a.
    let inherited = ["public.a", "public.b", "public.c", "public.d"];
    assert_eq!(family(&bench.one("SELECT id FROM a").await), inherited);
    assert_eq!(family(&bench.one("SELECT id FROM d").await), inherited);
}

#[tokio::test]
async fn policies_bring_the_tables_that_they_ask() {
    let bench = Bench::new(
        "CREATE TABLE t (id int, owner text); CREATE TABLE members (who text); CREATE TABLE written (id int); \
         CREATE POLICY readers ON t FOR SELECT USING (owner IN (SELECT who FROM members)); \
         CREATE POLICY writers ON t FOR INSERT WITH CHECK (id IN (SELECT id FROM written))",
    )
    .await;
    assert_eq!(tables(&bench.one("SELECT id FROM t").await), ["public.t"], "the policy is not in force");
    bench.run("ALTER TABLE t ENABLE ROW LEVEL SECURITY").await;
    assert_eq!(tables(&bench.one("SELECT id FROM t").await), ["public.members", "public.t"]);
    bench
        .run("CREATE VIEW v AS SELECT id FROM t; CREATE POLICY late ON t USING (id < extract(epoch FROM now()))")
        .await;
    let verdict = bench.one("SELECT id FROM v").await;
    unkept_for(&verdict, "now()");
}

#[tokio::test]
async fn what_announces_nothing_is_ttl_only() {
    let bench = Bench::new(
        "CREATE EXTENSION file_fdw; CREATE SERVER s FOREIGN DATA WRAPPER file_fdw; \
         CREATE FOREIGN TABLE f (a text) SERVER s OPTIONS (filename '/dev/null'); \
         CREATE TABLE p (a text) PARTITION BY LIST (a); CREATE SEQUENCE n; CREATE SCHEMA seawall; CREATE TABLE seawall.x (a int); \
         CREATE FOREIGN TABLE pf PARTITION OF p DEFAULT SERVER s OPTIONS (filename '/dev/null')",
    )
    .await;
    for (sql, word) in [
        ("SELECT a FROM f", "public.f, a foreign table"),
        ("SELECT a FROM p", "public.pf, of the family"),
        ("SELECT last_value FROM n", "a sequence"),
        ("SELECT relname FROM pg_class", "pg_catalog.pg_class, which is Postgres's own"),
        ("SELECT table_name FROM information_schema.tables", "information_schema.tables"),
        ("SELECT a FROM seawall.x", "Seawall's own"),
    ] {
        unkept_for(&bench.one(sql).await, word);
    }
}

#[tokio::test]
async fn without_the_right_to_temporary_tables_it_is_ttl_only_and_not_broken() {
    let bench = Bench::new("CREATE TABLE t (id int)").await;
    let settings = bench.db.settings_as("untrusted_with_temp").await;
    bench
        .run(&format!(
            "REVOKE TEMP ON DATABASE {} FROM PUBLIC; GRANT SELECT ON t TO untrusted_with_temp",
            bench.db.name
        ))
        .await;
    let database = bench.db.name.clone();
    let bench = bench.over(settings);
    let grant = format!("GRANT TEMPORARY ON DATABASE \"{database}\" TO \"untrusted_with_temp\"");
    unkept_for(&bench.one("SELECT id FROM t").await, &grant);
    bench.run(&grant).await;
    assert_eq!(tables(&bench.one("SELECT id FROM t").await), ["public.t"]);
}

#[tokio::test]
async fn the_analysis_leaves_nothing_behind() {
    let bench = Bench::new("CREATE TABLE t (id int)").await;
    bench.one("SELECT id FROM t WHERE id = :id").await;
    let left = "SELECT (SELECT count(*) FROM pg_class WHERE relname = 'seawall_analysed') \
                + (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%')";
    let left: i64 = bench.db.admin.query_one(left, &[]).await.expect("it counts").get(0);
    assert_eq!(left, 0);
}
