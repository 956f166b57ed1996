//! Logical replication: its workers fire row triggers alone, so tables that a subscription writes have them, too.

use crate::support::eventually::eventually;
use crate::support::server::Server;
use crate::support::{Shop, WITHIN, batch, connect, set};

const TABLES: &str = "CREATE TABLE shop.t (id int PRIMARY KEY, k text, price numeric); \
    CREATE TABLE shop.p (id int PRIMARY KEY) PARTITION BY RANGE (id); \
    CREATE TABLE shop.p_1 PARTITION OF shop.p FOR VALUES FROM (0) TO (100)";

/// A subscriber, and what publishes to it.
async fn subscribed() -> (Shop, tokio_postgres::Client) {
    let server: &'static Server = Box::leak(Box::new(Server::private(&["wal_level=logical"], |_| {}).await));
    let admin = server.client("postgres").await.expect("a connection");
    batch(&admin, "CREATE DATABASE publisher").await;
    let publisher = connect(server, "postgres", "publisher").await;
    batch(&publisher, "CREATE SCHEMA shop").await;
    batch(&publisher, TABLES).await;
    batch(&publisher, "INSERT INTO shop.t SELECT n, 'k', 1 FROM generate_series(1, 3) n").await;
    batch(&publisher, "CREATE PUBLICATION p FOR ALL TABLES WITH (publish_via_partition_root = true)").await;
    batch(&publisher, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await;
    let shop = Shop::within(server, "postgres".into(), admin, TABLES).await;
    let connection = format!("host=127.0.0.1 port={} user=postgres dbname=publisher", server.port);
    batch(
        &shop.admin,
        &format!("CREATE SUBSCRIPTION s CONNECTION '{connection}' PUBLICATION p WITH (create_slot = false, slot_name = 's', enabled = false)"),
    )
    .await;
    (shop, publisher)
}

#[tokio::test]
async fn what_a_subscription_applies_is_announced_by_row() {
    let (shop, publisher) = subscribed().await;
    let wanted = [
        shop.wanted("t", &[&["id"], &["id", "k"]]).await,
        shop.wanted("p", &[&["id"]]).await,
        shop.wanted("p_1", &[&["id"]]).await,
    ];
    let report = shop.migrate(&wanted).await;
    assert_eq!((report.changed.len(), report.left), (3, vec![]));
    shop.forget().await;
    batch(&shop.admin, "ALTER SUBSCRIPTION s ENABLE").await;
    let mut expected = vec!["shop.t".to_owned()];
    expected.extend((1..=3).flat_map(|n| [format!("shop.t:id={n}"), format!("shop.t:id={n},k=k")]));
    let log = async |expected: &[&str]| {
        eventually("all of it is announced", WITHIN, async || {
            let log = shop.log().await;
            if log == set(expected) { Ok(()) } else { Err(log) }
        })
        .await;
        shop.forget().await;
    };
    // The first copy.
    log(&expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    batch(&publisher, "UPDATE shop.t SET k = 'a b' WHERE id = 2").await;
    log(&["shop.t", "shop.t:id=2", "shop.t:id=2,k=k", "shop.t:id=2,k=a%20b"]).await;
    batch(&publisher, "UPDATE shop.t SET id = 9, k = NULL WHERE id = 3").await;
    log(&["shop.t", "shop.t:id=3", "shop.t:id=3,k=k", "shop.t:id=9"]).await;
    batch(&publisher, "DELETE FROM shop.t WHERE id = 1").await;
    log(&["shop.t", "shop.t:id=1", "shop.t:id=1,k=k"]).await;
    // Through a partitioned table: the clones of its trigger have its tag.
    batch(&publisher, "INSERT INTO shop.p VALUES (5)").await;
    log(&["shop.p", "shop.p:id=5"]).await;
    batch(&publisher, "TRUNCATE shop.t").await;
    log(&["shop.t", "shop.t:*"]).await;
    // More than 64 keys in one transaction.
    batch(&publisher, "INSERT INTO shop.t SELECT n FROM generate_series(1, 32) n").await;
    eventually("32 rows with a key each", WITHIN, async || match shop.log().await {
        log if log.len() == 33 => Ok(()),
        log => Err(log),
    })
    .await;
    shop.forget().await;
    batch(&publisher, "UPDATE shop.t SET k = repeat('x', 10000)").await;
    eventually("every row", WITHIN, async || match shop.log().await {
        log if log.contains("shop.t:*") => Ok(()),
        log => Err(log),
    })
    .await;
    // A key column that is gone on this side only.
    batch(&shop.owner, "ALTER TABLE shop.t RENAME k TO kk").await;
    batch(&shop.owner, "ALTER TABLE shop.t ADD COLUMN k text").await;
    batch(&shop.owner, "ALTER TABLE shop.t DROP COLUMN kk").await;
    batch(&shop.owner, "ALTER TABLE shop.t ALTER k TYPE numeric USING NULL").await;
    batch(&shop.owner, "ALTER TABLE shop.t ALTER k TYPE varchar").await;
    shop.forget().await;
    batch(&publisher, "INSERT INTO shop.t VALUES (77, 'v')").await;
    log(&["shop.t", "shop.t:*"]).await;
    batch(
        &shop.admin,
        "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    )
    .await;
}

#[tokio::test]
async fn a_table_that_is_subscribed_later_gets_its_row_trigger_with_the_next_run() {
    let (shop, _publisher) = subscribed().await;
    batch(&shop.owner, "CREATE TABLE shop.u (id int PRIMARY KEY)").await;
    shop.announce("u", &[]).await;
    assert_eq!(shop.migrate(&[shop.wanted("u", &[]).await]).await.unchanged, 1);
    let relation = shop.wanted("u", &[]).await.relation;
    batch(
        &shop.admin,
        &format!("INSERT INTO pg_subscription_rel SELECT oid, {relation}, 'r', NULL FROM pg_subscription"),
    )
    .await;
    assert_eq!(shop.migrate(&[shop.wanted("u", &[]).await]).await.changed, ["\"shop\".\"u\""]);
    assert_eq!(shop.migrate(&[shop.wanted("u", &[]).await]).await.unchanged, 1);
    // It fires in the replica role alone: elsewhere a statement is announced as one.
    let tags = shop.tags("INSERT INTO shop.u VALUES (1)").await;
    assert_eq!(tags, set(&["shop.u"]));
    batch(
        &shop.admin,
        "DELETE FROM pg_subscription_rel; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s",
    )
    .await;
}
