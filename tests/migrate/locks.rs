//! Locks: a table that others use makes nobody wait for long, and whoever is waited for is named.

use std::time::Duration;

use seawall::postgres::migrate;

use crate::support::eventually::eventually;
use crate::support::{Shop, WITHIN, batch, set, text};

#[tokio::test]
async fn a_table_that_stays_locked_is_left_with_the_name_of_who_holds_it_and_the_others_go_on() {
    let shop = Shop::new("CREATE TABLE shop.a (id int); CREATE TABLE shop.b (id int)").await;
    batch(&shop.writer, "SET application_name = 'a slow report'; BEGIN; INSERT INTO shop.a VALUES (1)").await;
    let pid = text(&shop.writer, "SELECT pg_backend_pid()::text").await;
    // The role sees whose session it is by being a member of it.
    batch(&shop.admin, &format!("GRANT {} TO {}", shop.roles.writer, shop.roles.owner)).await;
    let report = shop.migrate(&[shop.wanted("a", &[]).await, shop.wanted("b", &[]).await]).await;
    assert_eq!(report.changed, ["\"shop\".\"b\""]);
    let [left] = report.left.as_slice() else { panic!("{report:?}") };
    assert_eq!(left.table, "\"shop\".\"a\"");
    let named = [
        &*format!("pid {pid}"),
        &*format!("role {}", shop.roles.writer),
        "application a slow report",
        "idle in transaction",
        "10 tries",
    ];
    for part in named {
        assert!(left.reason.contains(part), "{part}: {}", left.reason);
    }
    batch(&shop.writer, "COMMIT").await;
    assert_eq!(shop.tags("INSERT INTO shop.a VALUES (2)").await, set(&[]), "nothing was left half done");
    assert_eq!(shop.migrate(&[shop.wanted("a", &[]).await]).await.changed, ["\"shop\".\"a\""]);
}

#[tokio::test]
async fn a_table_that_is_let_go_is_installed_then() {
    let shop = Shop::new("CREATE TABLE shop.a (id int)").await;
    batch(&shop.writer, "BEGIN; INSERT INTO shop.a VALUES (1)").await;
    let wanted = [shop.wanted("a", &[]).await];
    let settings = shop.settings(&shop.roles.owner);
    let migrating = migrate::migrate(&settings, &shop.roles.service, &wanted);
    let waiting = "SELECT count(*)::text FROM pg_locks WHERE NOT granted AND locktype = 'relation' \
                   AND relation = 'shop.a'::regclass";
    let release = async {
        eventually("it waits", WITHIN, async || match text(&shop.admin, waiting).await {
            n if n == "1" => Ok(()),
            n => Err(n),
        })
        .await;
        // Who comes behind it waits for one second at most, and then goes on although the first is still there.
        let other = shop.connect(&shop.roles.writer).await;
        batch(&other, "SET statement_timeout = '20s'; INSERT INTO shop.a VALUES (2)").await;
        batch(&shop.writer, "COMMIT").await;
    };
    let (report, ()) = tokio::join!(migrating, release);
    assert_eq!(report.unwrap_or_else(|error| panic!("{error}")).changed, ["\"shop\".\"a\""]);
}

#[tokio::test]
async fn a_migration_waits_for_the_one_that_runs() {
    let shop = Shop::new("CREATE TABLE shop.a (id int)").await;
    shop.migrate(&[]).await;
    batch(&shop.writer, "BEGIN; INSERT INTO shop.a VALUES (1)").await;
    let wanted = [shop.wanted("a", &[]).await];
    let settings = shop.settings(&shop.roles.owner);
    let turns = "SELECT count(*) FILTER (WHERE granted) || '/' || count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                 WHERE locktype = 'advisory' AND datname = current_database()";
    let release = async {
        eventually("one has its turn and one waits", WITHIN, async || match text(&shop.admin, turns).await {
            counts if counts == "1/2" => Ok(()),
            counts => Err(counts),
        })
        .await;
        batch(&shop.writer, "COMMIT").await;
    };
    let run = || migrate::migrate(&settings, &shop.roles.service, &wanted);
    let (first, second, ()) = tokio::join!(run(), run(), release);
    let changed = first.expect("it works").changed.len() + second.expect("it works").changed.len();
    assert_eq!(changed, 1);
}

#[tokio::test]
async fn a_prepared_transaction_that_holds_a_table_is_named() {
    let server = crate::support::server::Server::private(&["max_prepared_transactions=5"], |_| {}).await;
    // It ends with the process, like the shared one.
    let server: &'static _ = Box::leak(Box::new(server));
    let admin = server.client("postgres").await.expect("a connection");
    let shop = Shop::within(server, "postgres".into(), admin, "CREATE TABLE shop.a (id int)").await;
    batch(&shop.writer, "BEGIN; INSERT INTO shop.a VALUES (1); PREPARE TRANSACTION 'order 66'").await;
    let report = tokio::time::timeout(Duration::from_secs(120), shop.migrate(&[shop.wanted("a", &[]).await])).await;
    let report = report.expect("it gives up");
    assert!(report.left[0].reason.contains("prepared transaction 'order 66'"), "{report:?}");
    batch(&shop.writer, "ROLLBACK PREPARED 'order 66'").await;
}

#[tokio::test]
async fn a_write_can_be_prepared_while_pods_sleep_as_at_any_time() {
    let server = crate::support::server::Server::private(&["max_prepared_transactions=5"], |_| {}).await;
    let server: &'static _ = Box::leak(Box::new(server));
    let admin = server.client("postgres").await.expect("a connection");
    let shop = Shop::within(server, "postgres".into(), admin, "CREATE TABLE shop.a (id int)").await;
    shop.announce("a", &[&["id"]]).await;
    let sleeper = server.client(&shop.database).await.expect("a connection");
    for asleep in [false, true] {
        if asleep {
            batch(&sleeper, "SELECT pg_advisory_lock_shared(seawall.doorbell_key())").await;
        }
        batch(&shop.writer, "BEGIN; INSERT INTO shop.a VALUES (1)").await;
        let prepared = shop.writer.batch_execute("PREPARE TRANSACTION 'p'").await;
        assert!(prepared.is_ok(), "asleep: {asleep}: {prepared:?}");
        batch(&shop.writer, "COMMIT PREPARED 'p'").await;
        assert!(shop.log().await.contains("shop.a:id=1"), "asleep: {asleep}");
        shop.forget().await;
    }
}
