//! Changed definitions: announced where event triggers are allowed, and only those that can change an answer.

use std::collections::BTreeSet;

use seawall::postgres::migrate::{self, Definitions};

use crate::support::{Shop, batch, set};

async fn announcing() -> Shop {
    let shop = Shop::new("CREATE TABLE shop.t (id int PRIMARY KEY, n int)").await;
    let report = migrate::migrate(&shop.settings("postgres"), &shop.roles.service, &[]).await;
    assert_eq!(report.unwrap_or_else(|error| panic!("{error}")).definitions, Definitions::Installed);
    shop
}

async fn announced(shop: &Shop, sql: &str) -> BTreeSet<String> {
    shop.forget().await;
    batch(&shop.owner, sql).await;
    shop.log().await
}

#[tokio::test]
async fn what_can_change_an_answer_is_announced_as_everything() {
    let shop = announcing().await;
    for sql in [
        "CREATE VIEW shop.v AS SELECT id FROM shop.t",
        "CREATE OR REPLACE VIEW shop.v AS SELECT id + 1 - 1 AS id FROM shop.t",
        "CREATE TYPE shop.mood AS ENUM ('sad')",
        "ALTER TYPE shop.mood RENAME VALUE 'sad' TO 'glad'",
        "CREATE FUNCTION shop.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "CREATE MATERIALIZED VIEW shop.m AS SELECT * FROM shop.t",
        "REFRESH MATERIALIZED VIEW shop.m",
        "CREATE POLICY p ON shop.t USING (true)",
        "ALTER TABLE shop.t ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE shop.t DISABLE TRIGGER USER",
        "CREATE TABLE shop.parted (id int) PARTITION BY LIST (id)",
        "CREATE TABLE shop.part (id int)",
        "ALTER TABLE shop.parted ATTACH PARTITION shop.part FOR VALUES IN (1)",
        "ALTER TABLE shop.parted DETACH PARTITION shop.part",
        "DROP POLICY p ON shop.t",
        "DROP VIEW shop.v",
        "DROP FUNCTION shop.f()",
        "ALTER TABLE shop.t ADD COLUMN x int",
        "ALTER TABLE shop.t DROP COLUMN x",
        "DROP TABLE shop.part",
    ] {
        assert_eq!(announced(&shop, sql).await, set(&["*"]), "{sql}");
    }
    // In the replica role, too.
    shop.forget().await;
    batch(&shop.admin, "SET session_replication_role = replica; DROP MATERIALIZED VIEW shop.m").await;
    assert_eq!(shop.log().await, set(&["*"]));
}

#[tokio::test]
async fn temporary_objects_indexes_statistics_grants_and_comments_are_not() {
    let shop = announcing().await;
    batch(&shop.admin, &format!("GRANT TEMPORARY ON DATABASE {} TO {}", shop.database, shop.roles.owner)).await;
    for sql in [
        "CREATE TEMP TABLE tt (id serial PRIMARY KEY, n int DEFAULT 1)",
        "CREATE INDEX ON tt (n)",
        "ALTER TABLE tt ADD COLUMN x text",
        "CREATE TEMP VIEW tv AS SELECT id FROM tt",
        "CREATE FUNCTION pg_temp.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE TRIGGER x AFTER INSERT ON tt EXECUTE FUNCTION pg_temp.f()",
        "DROP TRIGGER x ON tt",
        "ALTER TABLE tt DROP COLUMN x",
        "DROP VIEW tv; DROP TABLE tt",
        "CREATE TEMP TABLE gone ON COMMIT DROP AS SELECT * FROM shop.t",
        "SELECT * INTO TEMP another FROM shop.t; DISCARD TEMP",
        "CREATE INDEX t_n ON shop.t (n)",
        "ALTER INDEX shop.t_n SET (fillfactor = 90)",
        "REINDEX INDEX shop.t_n",
        "DROP INDEX shop.t_n",
        "CREATE STATISTICS shop.s ON id, n FROM shop.t",
        "DROP STATISTICS shop.s",
        "COMMENT ON TABLE shop.t IS 'x'",
        "GRANT SELECT ON shop.t TO PUBLIC",
        "REVOKE SELECT ON shop.t FROM PUBLIC",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO PUBLIC",
        "ANALYZE shop.t",
        "VACUUM shop.t",
    ] {
        assert_eq!(announced(&shop, sql).await, set(&[]), "{sql}");
    }
}

#[tokio::test]
async fn a_log_that_is_gone_keeps_nobody_from_changing_definitions() {
    let shop = announcing().await;
    batch(&shop.admin, "DROP TABLE seawall.event").await;
    batch(&shop.owner, "CREATE TABLE shop.new (id int); DROP TABLE shop.new").await;
    migrate::uninstall(&shop.settings("postgres")).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn they_are_repaired_where_allowed_and_the_rest_is_done_where_not() {
    let shop = announcing().await;
    let run = async |role: &str| {
        let report = migrate::migrate(&shop.settings(role), &shop.roles.service, &[]).await;
        report.unwrap_or_else(|error| panic!("{error}")).definitions
    };
    assert_eq!(run("postgres").await, Definitions::Announced);
    batch(&shop.admin, "ALTER EVENT TRIGGER seawall_defined DISABLE").await;
    assert_eq!(run("postgres").await, Definitions::Installed);
    batch(&shop.admin, "DROP EVENT TRIGGER seawall_dropped").await;
    shop.forget().await;
    assert_eq!(run("postgres").await, Definitions::Installed);
    assert_eq!(shop.log().await, set(&["*"]), "installing is an event");
}
