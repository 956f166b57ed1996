//! Transactions, standbys and slots that hold the event log's cleanup back, and those that don't.

use std::time::Duration;

use seawall::postgres::{Holder, HolderKind, Settings};

use super::{LONG, install, look, run, session};
use crate::support::WITHIN;
use crate::support::eventually::eventually;
use crate::support::server::{Database, Server};

/// Nothing is younger.
const NONE: Duration = Duration::ZERO;

/// The holder called `name` among others: other tests' transactions are on the same server, and younger.
async fn holder(settings: &Settings, retention: Duration, name: &str) -> Option<Holder> {
    let found = look(settings, &[], retention).await;
    found.holders.first.into_iter().find(|holder| holder.name == name)
}

#[tokio::test]
async fn a_transaction_that_is_older_than_the_retention_is_named_and_a_younger_one_is_not() {
    let db = Database::new("CREATE TABLE t (id int)").await;
    let settings = db.settings();
    for begin in ["BEGIN; INSERT INTO t VALUES (1)", "BEGIN ISOLATION LEVEL REPEATABLE READ; TABLE t"] {
        let sql = format!("SET application_name = 'long'; {begin}; SELECT count(*) FROM t");
        let (client, pid) = session(db.server, &db.name, &sql).await;
        let found = holder(&settings, NONE, &pid).await.expect("it is older than nothing");
        assert_eq!(found.kind, HolderKind::Session);
        assert!(found.age.is_some_and(|age| age < LONG), "{found:?}");
        let said = (found.application.as_deref(), found.state.as_deref(), found.role.as_deref());
        assert_eq!(said, (Some("long"), Some("idle in transaction"), Some("postgres")), "{begin}");
        assert_eq!(holder(&settings, LONG, &pid).await, None, "{begin}");
        run(&client, "COMMIT").await;
        assert_eq!(holder(&settings, NONE, &pid).await, None, "{begin}");
    }
}

#[tokio::test]
async fn a_transaction_without_id_and_snapshot_holds_nothing() {
    let db = Database::new("").await;
    let (_client, pid) = session(db.server, &db.name, "BEGIN; SELECT 1").await;
    assert_eq!(holder(&db.settings(), NONE, &pid).await, None);
}

#[tokio::test]
async fn of_another_database_writers_hold_the_log_back_and_readers_do_not() {
    let (db, other) = (Database::new("").await, Database::new("CREATE TABLE t (id int)").await);
    let (_writer, writing) = session(db.server, &other.name, "BEGIN; INSERT INTO t VALUES (1)").await;
    let (_reader, reading) = session(db.server, &other.name, "BEGIN ISOLATION LEVEL REPEATABLE READ; TABLE t").await;
    let found = holder(&db.settings(), NONE, &writing).await.expect("pruning waits for it");
    assert_eq!(found.database.as_deref(), Some(&*other.name));
    assert_eq!(holder(&db.settings(), NONE, &reading).await, None);
    assert!(holder(&other.settings(), NONE, &reading).await.is_some(), "in its own database it does");
}

#[tokio::test]
async fn a_role_that_sees_less_is_told_so_and_still_told_of_what_was_there_before_the_horizon() {
    let db = Database::new("CREATE TABLE t (id int); CREATE ROLE sees_less LOGIN").await;
    let mut settings = db.settings();
    install(&settings, "sees_less", &[]).await;
    settings.url = settings.url.replace("postgres@", "sees_less@");
    let (_old, old) = session(db.server, &db.name, "BEGIN; INSERT INTO t VALUES (1)").await;
    // Ids given out afterwards have ended: the horizon is beyond the first one.
    run(&db.admin, "INSERT INTO t VALUES (2)").await;
    run(&db.admin, "UPDATE seawall.epoch SET horizon = pg_current_snapshot()").await;
    let (_young, young) = session(db.server, &db.name, "BEGIN; INSERT INTO t VALUES (3)").await;
    let found = holder(&settings, LONG, &old).await.expect("it was there before");
    assert_eq!((found.age, found.state, found.role.as_deref()), (None, None, Some("postgres")));
    for retention in [NONE, LONG] {
        assert_eq!(holder(&settings, retention, &young).await, None, "{retention:?}");
    }
    let hidden = look(&settings, &[], LONG).await;
    assert!(hidden.hidden_sessions >= 3, "{hidden:?}");
    assert_eq!(hidden.role, "sees_less");

    run(&db.admin, "GRANT pg_read_all_stats TO sees_less").await;
    assert_eq!(look(&settings, &[], LONG).await.hidden_sessions, 0);
    assert!(holder(&settings, NONE, &young).await.is_some());
    assert_eq!(holder(&settings, LONG, &old).await, None, "its age is known now");
}

#[tokio::test]
async fn a_prepared_transaction_is_named_by_its_gid() {
    let server = Server::private(&["max_prepared_transactions=5"], |_| {}).await;
    let settings = Settings::new(server.url("postgres"));
    let admin = server.client("postgres").await.expect("a connection");
    run(&admin, "CREATE TABLE t (id int); BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'left behind'").await;
    let found = holder(&settings, NONE, "left behind").await.expect("it is older than nothing");
    assert_eq!((found.kind, found.role.as_deref()), (HolderKind::Prepared, Some("postgres")));
    assert!(found.age.is_some(), "{found:?}");
    assert_eq!(holder(&settings, LONG, "left behind").await, None);
    run(&admin, "ROLLBACK PREPARED 'left behind'").await;
    assert_eq!(holder(&settings, NONE, "left behind").await, None);
    assert_eq!(look(&settings, &[], LONG).await.max_prepared_transactions, 5);
    assert_eq!(look(&Database::new("").await.settings(), &[], LONG).await.max_prepared_transactions, 0);
}

#[tokio::test]
async fn a_standbys_slot_is_named_once_its_snapshot_is_older_than_the_horizon() {
    let server = Server::private(&["wal_level=logical", "max_wal_senders=4"], |_| {}).await;
    let settings = Settings::new(server.url("postgres"));
    let admin = server.client("postgres").await.expect("a connection");
    run(&admin, "CREATE TABLE t (id int)").await;
    run(&admin, "SELECT pg_create_physical_replication_slot('standby', true)").await;
    // It keeps rows of the catalogs alone, however old it grows.
    run(&admin, "SELECT pg_create_logical_replication_slot('logical', 'test_decoding')").await;
    install(&settings, "postgres", &[]).await;
    let standby = server.standby().await;
    let follower = standby.client("postgres").await.expect("a connection");
    for setting in ["hot_standby_feedback = on", "primary_slot_name = 'standby'", "wal_receiver_status_interval = '1s'"]
    {
        run(&follower, &format!("ALTER SYSTEM SET {setting}")).await;
    }
    run(&follower, "SELECT pg_reload_conf()").await;
    let (query, _) = session(&standby, "postgres", "BEGIN ISOLATION LEVEL REPEATABLE READ; TABLE t").await;
    eventually("the standby reports its snapshot", WITHIN, async || {
        let sql = "SELECT coalesce(xmin::text, 'none') FROM pg_replication_slots WHERE slot_name = 'standby'";
        let xmin: String = admin.query_one(sql, &[]).await.expect("the slot").get(0);
        if xmin == "none" { Err(xmin) } else { Ok(()) }
    })
    .await;
    assert_eq!(holder(&settings, NONE, "standby").await, None, "it keeps up");
    run(&admin, "INSERT INTO t VALUES (1)").await;
    run(&admin, "UPDATE seawall.epoch SET horizon = pg_current_snapshot()").await;
    let found = holder(&settings, LONG, "standby").await.expect("its query was there before");
    assert_eq!((found.kind, found.state.as_deref(), found.age), (HolderKind::Slot, Some("active"), None));
    drop((query, follower));
    standby.stop();
    eventually("the slot is left", WITHIN, async || {
        let found = holder(&settings, LONG, "standby").await;
        if found.as_ref().and_then(|slot| slot.state.as_deref()) == Some("inactive") { Ok(()) } else { Err(found) }
    })
    .await;
    // Where the horizon says nothing, one that nobody uses will not move by itself.
    run(&admin, "DELETE FROM seawall.epoch").await;
    assert!(holder(&settings, LONG, "standby").await.is_some());
    assert_eq!(holder(&settings, NONE, "logical").await, None);
}
