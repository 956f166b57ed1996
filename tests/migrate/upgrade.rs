//! Upgrades: from each earlier version, as it was dumped when it was the newest, with its data.
//!
//! A dump of each version is kept in `fixtures/`. When a version is added, write its own before it is released:
//! `cargo test --test migrate -- --ignored write_the_fixture`. A dump that was released is never written again.

use std::path::PathBuf;
use std::process::Command;

use seawall::postgres::migrate::{self, MIGRATIONS};

use crate::support::server::{Server, binaries};
use crate::support::{Shop, batch, catalog::catalog, connect, set, text, wanted};

/// Roles of the fixtures: of the cluster, so their names are apart from those of other tests.
const OWNER: &str = "fixture_owner";
const SERVICE: &str = "fixture_service";

const TABLE: &str = "CREATE SCHEMA shop; CREATE TABLE shop.products (id int PRIMARY KEY, shelf text, price numeric); \
    INSERT INTO shop.products VALUES (1, 'a', 1), (2, 'b', 2)";

fn fixture(version: i32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/migrate/fixtures/version_{version}.sql"))
}

/// A private server: roles are the cluster's, and each of these tests makes the same.
async fn server() -> &'static Server {
    let server: &'static Server = Box::leak(Box::new(Server::private(&[], |_| {}).await));
    let postgres = server.client("postgres").await.expect("a connection");
    batch(&postgres, &format!("CREATE ROLE {OWNER} LOGIN; CREATE ROLE {SERVICE} LOGIN")).await;
    server
}

async fn database(server: &Server, name: &str) -> tokio_postgres::Client {
    let postgres = server.client("postgres").await.expect("a connection");
    batch(&postgres, &format!("CREATE DATABASE {name} OWNER {OWNER} TEMPLATE template0")).await;
    connect(server, "postgres", name).await
}

async fn migrate_all(server: &Server, name: &str, admin: &tokio_postgres::Client) -> migrate::Report {
    let settings = seawall::postgres::Settings::new(format!("postgres://{OWNER}@127.0.0.1:{}/{name}", server.port));
    let wanted = [wanted(admin, "shop", "products", &[&["id"], &["id", "shelf"]]).await];
    migrate::migrate(&settings, SERVICE, &wanted).await.unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What a database is that never was of an earlier version.
async fn fresh(server: &Server) -> String {
    let admin = database(server, "fresh").await;
    let owner = connect(server, OWNER, "fresh").await;
    batch(&owner, TABLE).await;
    migrate_all(server, "fresh", &admin).await;
    catalog(&admin, OWNER, SERVICE).await
}

#[tokio::test]
async fn each_version_that_was_released_becomes_what_a_fresh_one_is_and_keeps_its_data() {
    let server = server().await;
    let fresh = fresh(server).await;
    for migration in MIGRATIONS {
        let name = format!("from_{}", migration.version);
        let admin = database(server, &name).await;
        let dump = std::fs::read_to_string(fixture(migration.version)).unwrap_or_else(|error| {
            panic!("version {} has no fixture: {error}; write it before it is released", migration.version)
        });
        batch(&admin, &dump).await;
        batch(&admin, "RESET ALL").await;
        let before =
            text(&admin, "SELECT string_agg(version || applied_at::text, ',' ORDER BY version) FROM seawall.migration")
                .await;
        let report = migrate_all(server, &name, &admin).await;
        assert_eq!(
            report.applied.len(),
            MIGRATIONS.len() - usize::try_from(migration.version).expect("positive"),
            "{name}"
        );
        assert_eq!(report.left, vec![], "{name}");
        assert_eq!(catalog(&admin, OWNER, SERVICE).await, fresh, "{name}");
        let after = "SELECT string_agg(version || applied_at::text, ',' ORDER BY version) FROM seawall.migration WHERE version <= ";
        assert_eq!(text(&admin, &format!("{after}{}", migration.version)).await, before, "{name}");
        // The dump's rows are of another cluster, which the upgrade has found; from here on it announces.
        let rows = "SELECT count(*)::text FROM seawall.event WHERE tag LIKE 'fixture%'";
        assert_eq!(text(&admin, rows).await, "0", "{name}");
        batch(&admin, "DELETE FROM seawall.event; UPDATE shop.products SET price = 3 WHERE id = 2").await;
        let tags = admin.query("SELECT tag FROM seawall.event", &[]).await.expect("the log");
        let tags: std::collections::BTreeSet<String> = tags.iter().map(|row| row.get(0)).collect();
        assert_eq!(tags, set(&["shop.products:id=2", "shop.products:id=2,shelf=b"]), "{name}");
    }
}

#[tokio::test]
async fn step_by_step_and_in_one_run_make_the_same_and_events_of_this_epoch_stay() {
    let server = server().await;
    let fresh = fresh(server).await;
    for first in 1..MIGRATIONS.len() {
        let name = format!("stepwise_{first}");
        let admin = database(server, &name).await;
        let owner = connect(server, OWNER, &name).await;
        batch(&owner, TABLE).await;
        for migration in &MIGRATIONS[..first] {
            batch(&owner, &migration.script()).await;
        }
        batch(&owner, "SELECT seawall.reseed(); INSERT INTO seawall.event (tag) VALUES ('kept')").await;
        let epoch = text(&admin, "SELECT id::text FROM seawall.epoch").await;
        migrate_all(server, &name, &admin).await;
        assert_eq!(catalog(&admin, OWNER, SERVICE).await, fresh, "{name}");
        assert_eq!(text(&admin, "SELECT id::text FROM seawall.epoch").await, epoch, "an upgrade is no new history");
        assert_eq!(text(&admin, "SELECT count(*)::text FROM seawall.event WHERE tag = 'kept'").await, "1");
    }
}

#[tokio::test]
async fn writers_go_on_while_it_is_installed_and_upgraded() {
    let shop = Shop::new("CREATE TABLE shop.t (id int)").await;
    let writer = async {
        for id in 0..300 {
            batch(&shop.writer, &format!("INSERT INTO shop.t VALUES ({id})")).await;
        }
    };
    let settings = shop.settings(&shop.roles.owner);
    let wanted = [shop.wanted("t", &[&["id"]]).await];
    let (report, ()) = tokio::join!(migrate::migrate(&settings, &shop.roles.service, &wanted), writer);
    assert_eq!(report.unwrap_or_else(|error| panic!("{error}")).left, vec![]);
    assert_eq!(text(&shop.admin, "SELECT count(*)::text FROM shop.t").await, "300");
    assert!(shop.log().await.contains("shop.t:*"), "those that came before it was installed");
}

/// Not a test: writes the newest version's fixture, where it has none.
#[tokio::test]
#[ignore = "writes into the source tree"]
async fn write_the_fixture() {
    let server = server().await;
    for migration in MIGRATIONS.iter().filter(|migration| !fixture(migration.version).exists()) {
        let count = usize::try_from(migration.version).expect("positive");
        let name = format!("version_{count}");
        let admin = database(server, &name).await;
        let owner = connect(server, OWNER, &name).await;
        batch(&owner, TABLE).await;
        for migration in &MIGRATIONS[..count] {
            batch(&owner, &migration.script()).await;
        }
        if count == MIGRATIONS.len() {
            migrate_all(server, &name, &admin).await;
        } else {
            batch(&owner, "SELECT seawall.reseed()").await;
        }
        batch(&owner, "INSERT INTO seawall.event (tag) VALUES ('fixture'), ('fixture:*')").await;
        let dump = Command::new(binaries().join("pg_dump"))
            .args(["-h", "127.0.0.1", "-U", "postgres", "--inserts", "-p", &server.port.to_string(), &name])
            .output()
            .expect("pg_dump runs");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let dump = String::from_utf8(dump.stdout).expect("UTF-8");
        // Commands of psql, which are not SQL.
        let lines: Vec<&str> = dump.lines().filter(|line| !line.starts_with('\\')).collect();
        std::fs::write(fixture(migration.version), lines.join("\n") + "\n").expect("the source tree is writable");
    }
}
