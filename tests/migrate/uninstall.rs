//! Uninstalling: triggers first, then the schema, and nothing of anybody else's.

use seawall::postgres::migrate;

use crate::support::{Shop, batch, text};

const THINGS: &str = "SELECT ((SELECT count(*) FROM pg_namespace WHERE nspname = 'seawall') \
    + (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'seawall%') \
    + (SELECT count(*) FROM pg_event_trigger WHERE evtname LIKE 'seawall%'))::text";

async fn installed() -> Shop {
    let shop = Shop::new(
        "CREATE TABLE shop.a (id int); CREATE TABLE shop.p (id int) PARTITION BY LIST (id); \
         CREATE TABLE shop.\"it's\" PARTITION OF shop.p FOR VALUES IN (1)",
    )
    .await;
    for table in ["a", "p", "it's"] {
        shop.announce(table, &[&["id"]]).await;
    }
    shop
}

#[tokio::test]
async fn it_leaves_nothing_and_writes_go_on() {
    let shop = installed().await;
    let settings = shop.settings(&shop.roles.owner);
    let report = migrate::uninstall(&settings).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!((report.changed.len(), report.left), (3, vec![]));
    assert_eq!(text(&shop.admin, THINGS).await, "0");
    batch(&shop.writer, "INSERT INTO shop.a VALUES (1); INSERT INTO shop.p VALUES (1); TRUNCATE shop.p").await;
    // Again, and then anew, in another epoch.
    assert_eq!(migrate::uninstall(&settings).await.unwrap_or_else(|error| panic!("{error}")).changed.len(), 0);
    shop.announce("a", &[]).await;
}

#[tokio::test]
async fn a_superuser_takes_the_event_triggers_away_too() {
    let shop = installed().await;
    let settings = shop.settings("postgres");
    migrate::migrate(&settings, &shop.roles.service, &[]).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(text(&shop.admin, "SELECT count(*)::text FROM pg_event_trigger").await, "2");
    migrate::uninstall(&settings).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(text(&shop.admin, THINGS).await, "0");
}

#[tokio::test]
async fn the_schema_stays_while_a_table_keeps_its_triggers() {
    let shop = installed().await;
    batch(&shop.writer, "BEGIN; INSERT INTO shop.a VALUES (1)").await;
    let settings = shop.settings(&shop.roles.owner);
    let report = migrate::uninstall(&settings).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.left.len(), 1, "{report:?}");
    assert_eq!(report.left[0].table, "\"shop\".\"a\"");
    batch(&shop.writer, "INSERT INTO shop.a VALUES (2); COMMIT").await;
    assert!(shop.log().await.contains("shop.a:id=2"), "what stays goes on working");
}

#[tokio::test]
async fn what_others_built_upon_it_is_not_taken_along() {
    let shop = installed().await;
    batch(&shop.owner, "CREATE VIEW shop.mine AS SELECT * FROM seawall.event").await;
    let settings = shop.settings(&shop.roles.owner);
    let error = migrate::uninstall(&settings).await.expect_err("a view needs the log").to_string();
    assert!(error.contains("shop.mine") && error.contains("2BP01"), "{error}");
    batch(&shop.owner, "SELECT * FROM shop.mine; DROP VIEW shop.mine").await;
    migrate::uninstall(&settings).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(text(&shop.admin, THINGS).await, "0");
}
