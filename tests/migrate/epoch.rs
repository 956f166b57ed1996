//! The epoch and the log's horizon: reseeding, orphans of prepared transactions, pruning, copies and restores.

use std::process::Command;

use seawall::postgres::lineage::EXPRESSION_WITH_EPOCH;

use crate::support::eventually::eventually;
use crate::support::server::{Server, binaries};
use crate::support::{Shop, WITHIN, batch, connect, set, text};

const EPOCH: &str = "SELECT id::text FROM seawall.epoch";

async fn lineage(client: &tokio_postgres::Client) -> String {
    text(client, &format!("SELECT {EXPRESSION_WITH_EPOCH}")).await
}

#[tokio::test]
async fn reseeding_is_idempotent_and_of_ten_at_once_one_seeds() {
    let shop = Shop::new("").await;
    shop.migrate(&[]).await;
    let epoch = text(&shop.admin, EPOCH).await;
    assert_eq!(text(&shop.admin, "SELECT seawall.reseed()::text").await, epoch);
    batch(&shop.admin, "DELETE FROM seawall.epoch").await;
    assert_eq!(lineage(&shop.admin).await, "NULL", "without the row nothing is certified");
    let mut pods = vec![];
    for _ in 0..10 {
        pods.push(connect(shop.server, &shop.roles.service, &shop.database).await);
    }
    let seeded =
        futures_util::future::join_all(pods.iter().map(|pod| text(pod, "SELECT seawall.reseed()::text"))).await;
    assert!(seeded.iter().all(|id| *id == seeded[0] && *id != epoch), "{seeded:?}");
    assert_eq!(text(&shop.admin, "SELECT count(*)::text FROM seawall.epoch").await, "1");
}

#[tokio::test]
async fn a_crash_empties_log_and_epoch_and_prepared_transactions_get_orphans() {
    let options = ["max_prepared_transactions=5"];
    let server: &'static Server = Box::leak(Box::new(Server::private(&options, |_| {}).await));
    let admin = server.client("postgres").await.expect("a connection");
    let mut shop = Shop::within(server, "postgres".into(), admin, "CREATE TABLE shop.t (id int)").await;
    shop.announce("t", &[&["id"]]).await;
    batch(&shop.admin, "CREATE DATABASE other").await;
    let other = connect(server, "postgres", "other").await;
    batch(&other, "CREATE TABLE t (id int); BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'elsewhere'").await;
    batch(&shop.writer, "BEGIN; INSERT INTO shop.t VALUES (1)").await;
    let xid = text(&shop.writer, "SELECT pg_current_xact_id()::text").await;
    batch(&shop.writer, "PREPARE TRANSACTION 'p'").await;
    let epoch = text(&shop.admin, EPOCH).await;
    server.crash();
    server.start();
    server.reachable().await;
    shop.admin = connect(server, "postgres", "postgres").await;
    assert_eq!(lineage(&shop.admin).await, "NULL");
    assert_eq!(shop.log().await, set(&[]));
    let service = connect(server, &shop.roles.service, "postgres").await;
    let seeded = text(&service, "SELECT seawall.reseed()::text").await;
    assert_ne!(seeded, epoch);
    assert!(lineage(&shop.admin).await.ends_with(&seeded));
    let rows = "SELECT string_agg(xid || ' ' || tag, ', ') FROM seawall.event";
    assert_eq!(text(&shop.admin, rows).await, format!("{xid} *"), "that of this database, by its own id");
    // No pruning takes it away while the transaction is pending.
    let prune = format!("SELECT seawall.prune('{seeded}', pg_current_snapshot())::text");
    assert_eq!(text(&service, &prune).await, "NULL", "the horizon can't pass it");
    assert_eq!(text(&shop.admin, rows).await, format!("{xid} *"));
    batch(&shop.admin, "COMMIT PREPARED 'p'").await;
    assert_eq!(text(&shop.admin, "SELECT count(*)::text FROM shop.t").await, "1");
}

#[tokio::test]
async fn a_transaction_prepared_after_the_crash_gets_an_orphan_of_its_own_id() {
    let server: &'static Server = Box::leak(Box::new(Server::private(&["max_prepared_transactions=5"], |_| {}).await));
    let admin = server.client("postgres").await.expect("a connection");
    let shop = Shop::within(server, "postgres".into(), admin, "CREATE TABLE shop.t (id int)").await;
    shop.announce("t", &[]).await;
    batch(&shop.admin, "DELETE FROM seawall.event; DELETE FROM seawall.epoch").await;
    // Its id is at or above the snapshot's xmax, which is one more than the latest that ended.
    batch(&shop.writer, "BEGIN; INSERT INTO shop.t VALUES (1)").await;
    let xid = text(&shop.writer, "SELECT pg_current_xact_id()::text").await;
    batch(&shop.writer, "PREPARE TRANSACTION 'p'").await;
    batch(&shop.admin, "SELECT seawall.reseed()").await;
    let rows = "SELECT string_agg(xid || ' ' || tag, ', ' ORDER BY tag) FROM seawall.event";
    assert_eq!(text(&shop.admin, rows).await, format!("{xid} *"));
    batch(&shop.admin, "COMMIT PREPARED 'p'").await;
    assert_eq!(text(&shop.admin, rows).await, format!("{xid} *, {xid} shop.t"));
}

#[tokio::test]
async fn pruning_forgets_what_ended_before_and_moves_the_horizon_only_forwards() {
    let shop = Shop::new("CREATE TABLE shop.t (id int)").await;
    shop.announce("t", &[&["id"]]).await;
    let service = shop.connect(&shop.roles.service).await;
    let snapshot = |client| text(client, "SELECT pg_current_snapshot()::text");
    let prune = async |epoch: &str, horizon: &str| {
        text(&service, &format!("SELECT seawall.prune({epoch}, '{horizon}')::text")).await
    };
    let (own, horizon) = ("(SELECT id FROM seawall.epoch)", "SELECT horizon::text FROM seawall.epoch");
    // A long runner holds the horizon back, and what came after it began stays.
    batch(&shop.writer, "BEGIN; INSERT INTO shop.t VALUES (1)").await;
    let old = snapshot(&shop.admin).await;
    batch(&shop.admin, "INSERT INTO shop.t VALUES (2)").await;
    let held = snapshot(&shop.admin).await;
    prune(own, &held).await;
    assert!(shop.log().await.contains("shop.t:id=2"), "it is not older than all that runs");
    batch(&shop.writer, "COMMIT").await;
    let new = snapshot(&shop.admin).await;
    let before = text(&shop.admin, "SELECT count(*)::text FROM seawall.event").await;
    assert_eq!(prune("gen_random_uuid()", &new).await, "NULL", "another epoch");
    assert_eq!(prune("NULL", &new).await, "NULL");
    assert_eq!(text(&shop.admin, "SELECT count(*)::text FROM seawall.event").await, before);
    assert_eq!(prune(own, &new).await, before);
    assert_eq!(text(&shop.admin, horizon).await, new);
    assert_eq!(shop.log().await, set(&[]));
    batch(&shop.writer, "INSERT INTO shop.t VALUES (3)").await;
    assert_eq!(prune(own, &new).await, "NULL", "the same again");
    assert_eq!(prune(own, &old).await, "NULL", "an older one");
    assert_eq!(prune(own, "9000000000:9000000000:").await, "NULL", "one of the future");
    assert_eq!(text(&shop.admin, horizon).await, new);
    assert_eq!(shop.log().await, set(&["shop.t", "shop.t:id=3"]));
}

#[tokio::test]
async fn of_two_that_prune_at_once_the_older_does_not_move_the_horizon_back() {
    let shop = Shop::new("CREATE TABLE shop.t (id int)").await;
    shop.announce("t", &[]).await;
    let (a, b) = (shop.connect(&shop.roles.service).await, shop.connect(&shop.roles.service).await);
    let older = text(&a, "SELECT pg_current_snapshot()::text").await;
    batch(&shop.writer, "INSERT INTO shop.t VALUES (1)").await;
    batch(&shop.admin, "SELECT pg_current_xact_id()").await;
    let newer = text(&b, "SELECT pg_current_snapshot()::text").await;
    let prune = |snapshot: &str| format!("SELECT seawall.prune((SELECT id FROM seawall.epoch), '{snapshot}')::text");
    // The newer one has pruned and not committed; the older one waits for the row, and then finds that it is late.
    batch(&b, "BEGIN").await;
    assert_ne!(text(&b, &prune(&newer)).await, "NULL");
    let second = prune(&older);
    let late = text(&a, &second);
    let commit = async {
        let waiting = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                       AND datname = current_database()";
        eventually("the second waits", WITHIN, async || match text(&shop.admin, waiting).await {
            n if n == "1" => Ok(()),
            n => Err(n),
        })
        .await;
        batch(&b, "COMMIT").await;
    };
    let (late, ()) = tokio::join!(late, commit);
    assert_eq!(late, "NULL");
    assert_eq!(text(&shop.admin, "SELECT horizon::text FROM seawall.epoch").await, newer);
}

#[tokio::test]
async fn a_copied_database_has_no_lineage_until_it_is_reseeded_and_then_another_and_an_empty_log() {
    let shop = Shop::new("CREATE TABLE shop.t (id int)").await;
    shop.announce("t", &[&["id"]]).await;
    batch(&shop.writer, "INSERT INTO shop.t VALUES (1)").await;
    let (epoch, name) = (text(&shop.admin, EPOCH).await, shop.database.clone());
    let (server, service) = (shop.server, shop.roles.service.clone());
    drop(shop);
    let postgres = server.client("postgres").await.expect("a connection");
    eventually("nobody is in the template", WITHIN, async || {
        postgres.batch_execute(&format!("CREATE DATABASE {name}_copy TEMPLATE {name}")).await
    })
    .await;
    let copy = connect(server, "postgres", &format!("{name}_copy")).await;
    assert_eq!(text(&copy, EPOCH).await, epoch, "it came along");
    assert_ne!(text(&copy, "SELECT count(*)::text FROM seawall.event").await, "0", "and so did the log");
    assert_eq!(lineage(&copy).await, "NULL");
    // A writer that runs meanwhile announces to the new epoch.
    let writer = connect(server, "postgres", &format!("{name}_copy")).await;
    batch(&writer, "BEGIN; INSERT INTO shop.t VALUES (2)").await;
    let pod = connect(server, &service, &format!("{name}_copy")).await;
    let seeded = text(&pod, "SELECT seawall.reseed()::text").await;
    assert_ne!(seeded, epoch);
    assert!(lineage(&copy).await.ends_with(&seeded));
    batch(&writer, "COMMIT").await;
    let tags = "SELECT string_agg(tag, ' ' ORDER BY tag) FROM seawall.event";
    assert_eq!(text(&copy, tags).await, "shop.t:id=2");
    assert_eq!(text(&pod, "SELECT seawall.reseed()::text").await, seeded);
    assert_eq!(text(&copy, tags).await, "shop.t:id=2", "once is enough");
}

#[tokio::test]
async fn a_dump_is_restored_with_its_triggers_and_becomes_an_epoch_of_its_own() {
    let shop = Shop::new("CREATE TABLE shop.t (id int)").await;
    shop.announce("t", &[&["id"]]).await;
    batch(&shop.writer, "INSERT INTO shop.t VALUES (1)").await;
    for (number, extra) in
        [&[][..], &["--no-unlogged-table-data"], &["--inserts", "--disable-triggers"]].into_iter().enumerate()
    {
        let name = format!("{}_restored_{number}", shop.database);
        batch(&shop.admin, &format!("CREATE DATABASE {name} TEMPLATE template0")).await;
        let port = shop.server.port.to_string();
        let connection = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
        let dump = Command::new(binaries().join("pg_dump"))
            .args(connection)
            .args(extra)
            .args(["-n", "shop", "-n", "seawall", &shop.database])
            .output()
            .expect("pg_dump runs");
        assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &dump.stdout).expect("written");
        let restore = Command::new(binaries().join("psql"))
            .args(connection)
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &name, "-f"])
            .arg(file.path())
            .output()
            .expect("psql runs");
        assert!(restore.status.success(), "{}", String::from_utf8_lossy(&restore.stderr));
        let restored = connect(shop.server, "postgres", &name).await;
        assert_eq!(lineage(&restored).await, "NULL", "{extra:?}");
        batch(&restored, "SELECT seawall.reseed(); INSERT INTO shop.t VALUES (7)").await;
        assert_ne!(text(&restored, EPOCH).await, text(&shop.admin, EPOCH).await, "{extra:?}");
        let tags = "SELECT string_agg(tag, ' ' ORDER BY tag) FROM seawall.event";
        assert_eq!(text(&restored, tags).await, "shop.t:id=7", "{extra:?}: the old rows are another history's");
        let settings = seawall::postgres::Settings::new(format!(
            "postgres://{}@127.0.0.1:{}/{name}",
            shop.roles.owner, shop.server.port
        ));
        let wanted = [crate::support::wanted(&restored, "shop", "t", &[&["id"]]).await];
        let report = seawall::postgres::migrate::migrate(&settings, &shop.roles.service, &wanted).await;
        let report = report.unwrap_or_else(|error| panic!("{extra:?}: {error}"));
        assert_eq!((report.applied, report.changed, report.unchanged), (vec![], vec![], 1), "{extra:?}");
    }
}

#[tokio::test]
async fn on_a_standby_the_functions_do_nothing_and_there_is_no_lineage() {
    let server = Server::private(&["max_wal_senders=4", "wal_level=replica"], |_| {}).await;
    let server: &'static Server = Box::leak(Box::new(server));
    let admin = server.client("postgres").await.expect("a connection");
    let primary = Shop::within(server, "postgres".into(), admin, "").await;
    primary.migrate(&[]).await;
    let standby = server.standby().await;
    let client = standby.client("postgres").await.expect("a connection");
    assert_eq!(text(&client, "SELECT pg_is_in_recovery()::text").await, "true");
    // UNLOGGED tables can't be read there, so the expression must not come to it.
    assert_eq!(lineage(&client).await, "NULL");
    assert_eq!(text(&client, "SELECT seawall.reseed()::text").await, "NULL");
    assert_eq!(text(&client, "SELECT seawall.prune(gen_random_uuid(), pg_current_snapshot())::text").await, "NULL");
    batch(&client, "SELECT seawall.invalidate('x')").await;
    // Promoted, it has an empty log and no epoch, until it is seeded.
    batch(&client, "SELECT pg_promote(true)").await;
    assert_eq!(lineage(&client).await, "NULL");
    batch(&client, "SELECT seawall.reseed()").await;
    assert_ne!(lineage(&client).await, lineage(&primary.admin).await);
    assert_ne!(lineage(&client).await, "NULL");
}
