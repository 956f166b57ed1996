//! Partitions and inheritance: an event carries the tag of the relation that the statement named, and all of them have triggers.

use crate::support::{Shop, batch, set};

const PARTITIONED: &str = "CREATE TABLE shop.p (id int, region text) PARTITION BY LIST (region); \
    CREATE TABLE shop.p_eu PARTITION OF shop.p FOR VALUES IN ('eu'); \
    CREATE TABLE shop.p_us PARTITION OF shop.p FOR VALUES IN ('us')";

async fn partitioned() -> Shop {
    let shop = Shop::new(PARTITIONED).await;
    let mut wanted = vec![];
    for table in ["p", "p_eu", "p_us"] {
        wanted.push(shop.wanted(table, &[&["id"]]).await);
    }
    let report = shop.migrate(&wanted).await;
    assert_eq!((report.changed.len(), report.left), (3, vec![]));
    batch(&shop.writer, "INSERT INTO shop.p VALUES (1, 'eu'), (2, 'us')").await;
    shop
}

#[tokio::test]
async fn a_write_by_the_parent_is_the_parents_and_a_direct_one_the_partitions() {
    let shop = partitioned().await;
    assert_eq!(shop.tags("INSERT INTO shop.p VALUES (3, 'eu')").await, set(&["shop.p", "shop.p:id=3"]));
    assert_eq!(
        shop.tags("UPDATE shop.p SET id = 4 WHERE id = 3").await,
        set(&["shop.p", "shop.p:id=3", "shop.p:id=4"])
    );
    assert_eq!(shop.tags("INSERT INTO shop.p_eu VALUES (5, 'eu')").await, set(&["shop.p_eu", "shop.p_eu:id=5"]));
    assert_eq!(shop.tags("DELETE FROM shop.p_eu WHERE id = 5").await, set(&["shop.p_eu", "shop.p_eu:id=5"]));
}

#[tokio::test]
async fn a_row_that_moves_between_partitions_is_announced_before_and_after() {
    let shop = partitioned().await;
    let tags = shop.tags("UPDATE shop.p SET region = 'us', id = 9 WHERE id = 1").await;
    assert_eq!(tags, set(&["shop.p", "shop.p:id=1", "shop.p:id=9"]));
}

#[tokio::test]
async fn truncating_a_parent_announces_its_partitions_and_a_partition_only_itself() {
    let shop = partitioned().await;
    assert_eq!(shop.tags("TRUNCATE shop.p_eu").await, set(&["shop.p_eu", "shop.p_eu:*"]));
    assert_eq!(
        shop.tags("TRUNCATE shop.p").await,
        set(&["shop.p", "shop.p:*", "shop.p_eu", "shop.p_eu:*", "shop.p_us", "shop.p_us:*"])
    );
}

#[tokio::test]
async fn a_table_with_triggers_is_attached_and_detached_and_keeps_its_own() {
    let shop = partitioned().await;
    batch(&shop.owner, "CREATE TABLE shop.p_jp (id int, region text)").await;
    shop.announce("p_jp", &[&["id"]]).await;
    batch(&shop.owner, "ALTER TABLE shop.p ATTACH PARTITION shop.p_jp FOR VALUES IN ('jp')").await;
    assert_eq!(shop.tags("INSERT INTO shop.p_jp VALUES (1, 'jp')").await, set(&["shop.p_jp", "shop.p_jp:id=1"]));
    assert_eq!(shop.tags("INSERT INTO shop.p VALUES (2, 'jp')").await, set(&["shop.p", "shop.p:id=2"]));
    batch(&shop.owner, "ALTER TABLE shop.p DETACH PARTITION shop.p_jp").await;
    assert_eq!(shop.tags("DELETE FROM shop.p_jp WHERE id = 2").await, set(&["shop.p_jp", "shop.p_jp:id=2"]));
}

#[tokio::test]
async fn partitions_with_their_columns_in_another_order_are_announced_by_name() {
    let shop = partitioned().await;
    batch(
        &shop.owner,
        "CREATE TABLE shop.p_jp (gone int, region text, id int); ALTER TABLE shop.p_jp DROP COLUMN gone; \
         ALTER TABLE shop.p ATTACH PARTITION shop.p_jp FOR VALUES IN ('jp')",
    )
    .await;
    let tags = shop.tags("INSERT INTO shop.p VALUES (7, 'jp'); UPDATE shop.p SET id = 8 WHERE id = 7").await;
    assert_eq!(tags, set(&["shop.p", "shop.p:id=7", "shop.p:id=8"]));
}

#[tokio::test]
async fn a_write_by_an_inheritance_parent_is_the_parents_with_the_rows_of_its_children() {
    let shop = Shop::new("CREATE TABLE shop.a (id int); CREATE TABLE shop.b (extra text) INHERITS (shop.a)").await;
    shop.announce("a", &[&["id"]]).await;
    shop.announce("b", &[&["id"]]).await;
    assert_eq!(shop.tags("INSERT INTO shop.b VALUES (1, 'x')").await, set(&["shop.b", "shop.b:id=1"]));
    assert_eq!(shop.tags("UPDATE shop.a SET id = 2").await, set(&["shop.a", "shop.a:id=1", "shop.a:id=2"]));
    assert_eq!(shop.tags("DELETE FROM shop.a WHERE id = 2").await, set(&["shop.a", "shop.a:id=2"]));
    assert_eq!(shop.tags("TRUNCATE shop.a").await, set(&["shop.a", "shop.a:*", "shop.b", "shop.b:*"]));
}
