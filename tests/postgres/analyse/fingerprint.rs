//! The schema fingerprint: what it stays the same under, and what changes it.

use super::{Bench, stated};

const SCHEMA: &str = "CREATE SCHEMA shop; CREATE TYPE shop.size AS ENUM ('s', 'l'); CREATE TYPE shop.pair AS (a int, b text); \
     CREATE FUNCTION shop.f(i int) RETURNS int LANGUAGE sql STABLE AS 'SELECT i'; \
     CREATE TABLE shop.t (id int PRIMARY KEY, size shop.size, pair shop.pair, owner text, d int DEFAULT 1); \
     INSERT INTO shop.t SELECT g, 's'::shop.size, (1, 'x')::shop.pair, 'me' FROM generate_series(1, 100) g; \
     CREATE TABLE shop.members (who text); \
     CREATE POLICY mine ON shop.t USING (owner IN (SELECT who FROM shop.members)); ALTER TABLE shop.t ENABLE ROW LEVEL SECURITY; \
     CREATE VIEW shop.v AS SELECT id, size, pair, shop.f(id) AS f FROM shop.t; \
     CREATE MATERIALIZED VIEW shop.held AS SELECT id FROM shop.t; CREATE UNIQUE INDEX ON shop.held (id); \
     CREATE TABLE shop.p (id int) PARTITION BY RANGE (id); CREATE TABLE shop.p1 PARTITION OF shop.p FOR VALUES FROM (0) TO (10); \
     CREATE TABLE shop.loose (id int); CREATE TABLE shop.unrelated (id int); \
     CREATE FUNCTION shop.noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
     CREATE TRIGGER seawall_x AFTER INSERT ON shop.t EXECUTE FUNCTION shop.noop(); \
     CREATE ROLE fingerprint_reader; CREATE ROLE fingerprint_group; \
     CREATE POLICY theirs ON shop.p1 TO fingerprint_group USING (true)";

async fn bench(adapted: &str) -> (Bench, seawall::postgres::Analysed) {
    let bench =
        Bench::new(SCHEMA.replace("fingerprint_", &format!("fingerprint_{}_", fastrand::u64(..))).as_str()).await;
    bench.run(adapted).await;
    let mut settings = bench.db.settings();
    settings.search_path = Some("early, shop".into());
    let bench = bench.over(settings);
    let sql = "SELECT v.id, v.size, v.pair, v.f, h.id AS h, p.id AS p FROM v LEFT JOIN held h USING (id) LEFT JOIN p USING (id)";
    let (_, analysed) = bench.all(vec![stated("q", sql, &[])]).await;
    (bench, analysed)
}

#[tokio::test]
async fn it_stays_the_same_under_what_changes_no_answer() {
    // Where a policy names roles, memberships count, and those are the cluster's: another test's, too.
    let (bench, analysed) = bench("DROP POLICY theirs ON shop.p1").await;
    for sql in [
        "VACUUM",
        "VACUUM FREEZE shop.t",
        "VACUUM FULL pg_catalog.pg_class",
        "VACUUM FULL pg_catalog.pg_attribute",
        "VACUUM FULL pg_catalog.pg_proc",
        "VACUUM FULL pg_catalog.pg_rewrite",
        "VACUUM FULL pg_catalog.pg_type",
        "VACUUM FULL pg_catalog.pg_enum",
        "VACUUM FULL pg_catalog.pg_trigger",
        "VACUUM FULL pg_catalog.pg_inherits",
        "VACUUM FULL pg_catalog.pg_policy",
        "ANALYZE",
        "REINDEX TABLE shop.t",
        "REINDEX SYSTEM CONCURRENTLY_IS_NOT_FOR_SYSTEM",
        "CREATE INDEX ON shop.t (size)",
        "CREATE INDEX CONCURRENTLY late ON shop.t (owner)",
        "DROP INDEX shop.late",
        "CREATE TEMP TABLE t (id int)",
        "CREATE TEMP VIEW v AS SELECT 1 AS id",
        "CREATE TABLE shop.new (id int)",
        "ALTER TABLE shop.unrelated ADD x int",
        "INSERT INTO shop.t VALUES (1000, 's', (1, 'y'), 'me')",
        "UPDATE shop.t SET owner = 'you'",
        "DELETE FROM shop.t WHERE id = 1000",
        "INSERT INTO shop.p VALUES (1)",
        "COMMENT ON TABLE shop.t IS 'x'",
    ] {
        if sql.contains("CONCURRENTLY_IS_NOT") {
            bench.run(&format!("REINDEX SYSTEM {}", bench.db.name)).await;
        } else {
            bench.run(sql).await;
        }
        let now = bench.postgres.schema_fingerprint(&analysed.closure).await.expect("it answers");
        assert_eq!(now, analysed.fingerprint, "{sql}");
    }
}

#[tokio::test]
async fn it_changes_with_each_definition_that_can_change_an_answer() {
    let (bench, analysed) = bench("").await;
    let mut former = analysed.fingerprint;
    let group: String = bench
        .db
        .admin
        .query_one("SELECT polroles[1]::regrole::text FROM pg_policy WHERE polname = 'theirs'", &[])
        .await
        .expect("it is there")
        .get(0);
    let reader = group.replace("_group", "_reader");
    let grant = format!("GRANT {group} TO {reader}");
    for sql in [
        "ALTER TYPE shop.size RENAME VALUE 's' TO 'small'",
        "ALTER TYPE shop.size ADD VALUE 'xl'",
        "ALTER TYPE shop.pair RENAME ATTRIBUTE a TO c",
        "CREATE OR REPLACE VIEW shop.v AS SELECT id + 1 AS id, size, pair, shop.f(id) AS f FROM shop.t",
        "CREATE OR REPLACE FUNCTION shop.f(i int) RETURNS int LANGUAGE sql STABLE AS 'SELECT i + 1'",
        "REFRESH MATERIALIZED VIEW shop.held",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY shop.held",
        "ALTER TABLE shop.p ATTACH PARTITION shop.loose FOR VALUES FROM (10) TO (20)",
        "ALTER TABLE shop.p DETACH PARTITION shop.loose",
        "CREATE TABLE shop.p2 PARTITION OF shop.p DEFAULT",
        "DROP TABLE shop.p2",
        "ALTER TABLE shop.t DISABLE TRIGGER seawall_x; INSERT INTO shop.t VALUES (2000); ALTER TABLE shop.t ENABLE TRIGGER seawall_x",
        "DROP TRIGGER seawall_x ON shop.t",
        "CREATE TRIGGER mine AFTER INSERT ON shop.t EXECUTE FUNCTION shop.noop()",
        "CREATE POLICY more ON shop.t USING (id > 3)",
        "DROP POLICY more ON shop.t",
        "ALTER POLICY mine ON shop.t USING (true)",
        "ALTER TABLE shop.t DISABLE ROW LEVEL SECURITY",
        "CREATE SCHEMA early; CREATE TABLE early.v (id int)",
        "DROP TABLE early.v",
        "CREATE FUNCTION early.f(i int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE shop.t ADD late int DEFAULT 5",
        "ALTER TABLE shop.t ALTER d SET DEFAULT 2",
        "ALTER TABLE shop.t RENAME d TO e",
        "ALTER TABLE shop.members RENAME TO them",
        "ALTER TABLE shop.t SET SCHEMA early",
        "TRUNCATE early.t",
        "VACUUM FULL early.t",
        "REVOKE SELECT ON early.t FROM PUBLIC; GRANT SELECT ON early.t TO PUBLIC",
        "CREATE TABLE early.heir () INHERITS (early.t)",
        grant.as_str(),
    ] {
        // The oids of the closure stay; what comes to it is found by those that were there.
        bench.run(sql).await;
        let now = bench.postgres.schema_fingerprint(&analysed.closure).await.expect("it answers");
        assert_ne!(now, former, "{sql}");
        former = now;
    }
}
