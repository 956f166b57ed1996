//! Installing: once, again, by ten at once, by a role that is no superuser, and over what is there.

use seawall::postgres::lineage::{EXPRESSION_WITH_EPOCH, READS_EPOCH};
use seawall::postgres::migrate::{self, Definitions, MIGRATIONS, MigrateError, Unknown};

use crate::support::{Shop, batch, set, text};

const TABLES: &str = "CREATE TABLE shop.a (id int PRIMARY KEY, n numeric); CREATE TABLE shop.b (id int); \
    CREATE VIEW shop.v AS SELECT * FROM shop.a; CREATE MATERIALIZED VIEW shop.m AS SELECT * FROM shop.a";

#[tokio::test]
async fn a_role_that_is_no_superuser_installs_all_of_it() {
    let shop = Shop::new(TABLES).await;
    let report = shop.migrate(&[shop.wanted("a", &[&["id"]]).await, shop.wanted("b", &[]).await]).await;
    assert_eq!(report.applied, (1..=MIGRATIONS.len()).map(|n| i32::try_from(n).expect("few")).collect::<Vec<_>>());
    assert_eq!(report.changed, ["\"shop\".\"a\"", "\"shop\".\"b\""]);
    assert_eq!((report.left, report.imprecise, report.unchanged), (vec![], vec![], 0));
    assert_eq!(report.definitions, Definitions::NotAllowed);
    assert_eq!(shop.tags("INSERT INTO shop.b VALUES (1)").await, set(&["shop.b"]), "without row columns: the table");
}

#[tokio::test]
async fn a_second_run_changes_nothing() {
    let shop = Shop::new(TABLES).await;
    let wanted = [shop.wanted("a", &[&["id"]]).await, shop.wanted("b", &[]).await];
    shop.migrate(&wanted).await;
    let rows = "SELECT md5(string_agg(x, ',' ORDER BY x)) FROM (\
                SELECT oid || '/' || xmin FROM pg_trigger UNION ALL SELECT oid || '/' || xmin FROM pg_proc UNION ALL \
                SELECT oid || '/' || xmin FROM pg_class UNION ALL SELECT oid || '/' || xmin FROM pg_namespace) AS rows (x)";
    let (before, log) = (text(&shop.admin, rows).await, shop.log().await);
    let report = shop.migrate(&wanted).await;
    assert_eq!((report.applied, report.changed, report.unchanged), (vec![], vec![], 2));
    assert_eq!(text(&shop.admin, rows).await, before);
    assert_eq!(shop.log().await, log);
}

#[tokio::test]
async fn ten_that_start_at_once_install_it_once() {
    let shop = Shop::new(TABLES).await;
    let wanted = [shop.wanted("a", &[&["id"]]).await, shop.wanted("b", &[]).await];
    let settings = shop.settings(&shop.roles.owner);
    let runs = (0..10).map(|_| migrate::migrate(&settings, &shop.roles.service, &wanted));
    let reports = futures_util::future::try_join_all(runs).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(reports.iter().filter(|report| !report.applied.is_empty()).count(), 1);
    assert_eq!(reports.iter().map(|report| report.changed.len()).sum::<usize>(), 2);
    assert_eq!(reports.iter().map(|report| report.unchanged).sum::<usize>(), 18);
    let one = Shop::new(TABLES).await;
    one.migrate(&[one.wanted("a", &[&["id"]]).await, one.wanted("b", &[]).await]).await;
    assert_eq!(shop.catalog().await, one.catalog().await);
}

#[tokio::test]
async fn installing_announces_the_table_and_each_row_with_its_own_transaction() {
    let shop = Shop::new(TABLES).await;
    shop.announce("a", &[]).await;
    assert_eq!(shop.log().await, set(&["shop.a", "shop.a:*"]));
    let own = "SELECT (count(*) = 2)::text FROM seawall.event WHERE xid::text::int8 % 4294967296 IN \
               (SELECT xmin::text::int8 FROM pg_trigger WHERE tgname = 'seawall_insert')";
    assert_eq!(text(&shop.admin, own).await, "true");
    // So does what repairs a trigger, and what adds a column.
    for damage in ["DISABLE TRIGGER seawall_update", "ENABLE TRIGGER seawall_update"] {
        shop.forget().await;
        batch(&shop.owner, &format!("ALTER TABLE shop.a {damage}")).await;
        shop.announce("a", &[]).await;
        assert_eq!(shop.log().await, set(&["shop.a", "shop.a:*"]), "{damage}");
    }
    shop.forget().await;
    batch(&shop.owner, "DROP TRIGGER seawall_truncate ON shop.a").await;
    shop.announce("a", &[&["id"]]).await;
    assert_eq!(shop.log().await, set(&["shop.a", "shop.a:*"]));
    assert_eq!(shop.migrate(&[shop.wanted("a", &[]).await]).await.unchanged, 1);
}

#[tokio::test]
async fn row_columns_are_added_and_never_removed() {
    let shop = Shop::new("CREATE TABLE shop.t (a int, b int, c int)").await;
    shop.announce("t", &[&["a"]]).await;
    shop.announce("t", &[&["b", "c"]]).await;
    shop.announce("t", &[]).await;
    let expected = set(&["shop.t", "shop.t:a=1", "shop.t:b=2,c=3"]);
    assert_eq!(shop.tags("INSERT INTO shop.t VALUES (1, 2, 3)").await, expected);
    // One that is gone would make every write one to each row, and nobody can rely on it.
    batch(&shop.owner, "ALTER TABLE shop.t DROP COLUMN c, ALTER a TYPE int8").await;
    shop.announce("t", &[]).await;
    assert_eq!(shop.tags("INSERT INTO shop.t VALUES (1, 2)").await, set(&["shop.t", "shop.t:a=1"]));
    let functions = "SELECT count(*)::text FROM pg_proc WHERE proname LIKE 'written%'";
    assert_eq!(text(&shop.admin, functions).await, "1", "those of before are dropped");
}

#[tokio::test]
async fn a_renamed_table_gets_its_new_tag_and_announces_both() {
    let shop = Shop::new("CREATE TABLE shop.t (id int)").await;
    shop.announce("t", &[&["id"]]).await;
    batch(&shop.owner, "ALTER TABLE shop.t RENAME TO u").await;
    assert_eq!(
        shop.tags("INSERT INTO shop.u VALUES (1)").await,
        set(&["shop.t", "shop.t:id=1"]),
        "the tag is constant"
    );
    shop.forget().await;
    shop.announce("u", &[]).await;
    assert_eq!(shop.log().await, set(&["shop.t", "shop.t:*", "shop.u", "shop.u:*"]));
    assert_eq!(shop.tags("INSERT INTO shop.u VALUES (1)").await, set(&["shop.u", "shop.u:id=1"]));
}

#[tokio::test]
async fn what_can_have_no_triggers_is_named_with_its_reason_and_the_others_go_on() {
    let shop = Shop::new(TABLES).await;
    batch(&shop.admin, "CREATE TABLE shop.foreigners (id int)").await;
    let mut gone = shop.wanted("b", &[]).await;
    gone.relation = 1;
    let mut renamed = shop.wanted("b", &[]).await;
    renamed.name = "c".into();
    let wanted = [
        shop.wanted("v", &[]).await,
        shop.wanted("m", &[]).await,
        gone,
        renamed,
        shop.wanted("foreigners", &[]).await,
        shop.wanted("a", &[&["id"], &["n"], &["nothing"]]).await,
    ];
    let report = shop.migrate(&wanted).await;
    let left: Vec<(&str, &str)> = report.left.iter().map(|left| (&*left.table, &*left.reason)).collect();
    let expected = [
        ("\"shop\".\"v\"", "view"),
        ("\"shop\".\"m\"", "materialized view"),
        ("\"shop\".\"b\"", "not there"),
        ("\"shop\".\"c\"", "it is called shop.b"),
        ("\"shop\".\"foreigners\"", "42501"),
    ];
    assert_eq!(left.len(), expected.len(), "{left:?}");
    for (table, reason) in expected {
        assert!(left.iter().any(|(t, r)| *t == table && r.contains(reason)), "{table}: {reason}: {left:?}");
    }
    assert_eq!(report.changed, ["\"shop\".\"a\""]);
    let imprecise: Vec<&str> = report.imprecise.iter().map(|left| &*left.reason).collect();
    assert_eq!(imprecise.len(), 2, "{imprecise:?}");
    assert!(imprecise[0].contains("column n") && imprecise[1].contains("no column nothing"), "{imprecise:?}");
    assert_eq!(shop.tags("INSERT INTO shop.a VALUES (1)").await, set(&["shop.a", "shop.a:id=1"]));
}

#[tokio::test]
async fn the_service_may_read_and_call_its_functions_and_nothing_else() {
    let shop = Shop::new(TABLES).await;
    let service = shop.connect(&shop.roles.service).await;
    assert_eq!(text(&service, &format!("SELECT ({READS_EPOCH})::text")).await, "false", "nothing is installed");
    shop.migrate(&[]).await;
    assert_eq!(text(&service, &format!("SELECT ({READS_EPOCH})::text")).await, "true");
    assert_eq!(text(&shop.writer, &format!("SELECT ({READS_EPOCH})::text")).await, "false");
    assert_ne!(text(&service, &format!("SELECT {EXPRESSION_WITH_EPOCH}")).await, "NULL");
    for sql in [
        "SELECT count(*) FROM seawall.event, seawall.epoch, seawall.migration",
        "SELECT seawall.reseed()",
        "SELECT seawall.prune((SELECT id FROM seawall.epoch), pg_current_snapshot())",
        "SELECT seawall.invalidate('x', 'y')",
        "SELECT seawall.token()",
    ] {
        batch(&service, sql).await;
    }
    for sql in [
        "INSERT INTO seawall.event (tag) VALUES ('x')",
        "DELETE FROM seawall.event",
        "UPDATE seawall.epoch SET id = id",
        "SELECT seawall.announce('{x}')",
        "CREATE TABLE seawall.mine ()",
        "SELECT * FROM shop.a",
    ] {
        let error = service.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("42501"), "{sql}: {error:?}");
    }
    // A grant that was taken is given back.
    batch(&shop.owner, &format!("REVOKE EXECUTE ON FUNCTION seawall.reseed() FROM {}", shop.roles.service)).await;
    shop.migrate(&[]).await;
    batch(&service, "SELECT seawall.reseed()").await;
}

#[tokio::test]
async fn a_schema_that_was_made_for_the_role_is_used_and_anothers_is_not() {
    let shop = Shop::new("").await;
    let (owner, database) = (&shop.roles.owner, &shop.database);
    batch(&shop.admin, &format!("REVOKE CREATE ON DATABASE {database} FROM {owner}")).await;
    let settings = shop.settings(owner);
    let migrate = || migrate::migrate(&settings, &shop.roles.service, &[]);
    let denied = migrate().await.expect_err("it may create no schema").to_string();
    assert!(denied.contains("migration 1") && denied.contains("42501"), "{denied}");
    batch(&shop.admin, "CREATE SCHEMA seawall").await;
    let error = migrate().await.expect_err("the schema is the superuser's");
    assert!(matches!(&error, MigrateError::Owner(role) if role == "postgres"), "{error}");
    batch(&shop.admin, &format!("ALTER SCHEMA seawall OWNER TO {owner}; CREATE TABLE seawall.mine ()")).await;
    assert!(matches!(migrate().await, Err(MigrateError::Occupied)));
    batch(&shop.admin, "DROP TABLE seawall.mine").await;
    assert_eq!(migrate().await.unwrap_or_else(|error| panic!("{error}")).applied.len(), MIGRATIONS.len());
}

#[tokio::test]
async fn a_later_version_and_another_text_are_left_alone() {
    let shop = Shop::new("").await;
    shop.migrate(&[]).await;
    let settings = shop.settings(&shop.roles.owner);
    let next = i32::try_from(MIGRATIONS.len()).expect("few") + 1;
    batch(&shop.owner, &format!("INSERT INTO seawall.migration VALUES ({next}, 'later', 'x')")).await;
    let error = migrate::migrate(&settings, &shop.roles.service, &[]).await.expect_err("it is newer");
    assert!(matches!(error, MigrateError::Unknown(Unknown::Newer { found, .. }) if found == next), "{error}");
    batch(&shop.owner, &format!("DELETE FROM seawall.migration WHERE version = {next}")).await;
    batch(&shop.owner, "UPDATE seawall.migration SET checksum = 'x' WHERE version = 2").await;
    let error = migrate::migrate(&settings, &shop.roles.service, &[]).await.expect_err("it is another");
    assert!(matches!(error, MigrateError::Unknown(Unknown::Other(2))), "{error}");
}

#[tokio::test]
async fn a_log_that_would_survive_a_crash_half_is_reported() {
    let shop = Shop::new("").await;
    shop.migrate(&[]).await;
    batch(&shop.owner, "ALTER TABLE seawall.epoch SET LOGGED").await;
    let settings = shop.settings(&shop.roles.owner);
    let error = migrate::migrate(&settings, &shop.roles.service, &[]).await.expect_err("in doubt").to_string();
    assert!(error.contains("ALTER TABLE seawall.epoch SET UNLOGGED"), "{error}");
    batch(&shop.owner, "ALTER TABLE seawall.epoch SET UNLOGGED").await;
    shop.migrate(&[]).await;
}

#[tokio::test]
async fn the_log_takes_no_lock_that_writers_wait_for_when_it_is_vacuumed() {
    let shop = Shop::new("").await;
    shop.migrate(&[]).await;
    let options =
        text(&shop.admin, "SELECT reloptions::text FROM pg_class WHERE oid = 'seawall.event'::regclass").await;
    assert!(options.contains("vacuum_truncate=false"), "{options}");
    let expected = "SELECT string_agg(relname || relpersistence::text, ' ' ORDER BY relname) FROM pg_class \
                    WHERE relnamespace = 'seawall'::regnamespace AND relkind = 'r'";
    assert_eq!(text(&shop.admin, expected).await, "epochu eventu migrationp");
}
