//! What writes announce: each kind of statement, by a writer without any grant on schema `seawall`.

use crate::support::{Shop, batch, set};

const PRODUCTS: &str = "CREATE TABLE shop.products (id int PRIMARY KEY, shelf text, place int8, price numeric)";

async fn products() -> Shop {
    let shop = Shop::new(PRODUCTS).await;
    shop.announce("products", &[&["id"], &["place", "shelf"]]).await;
    batch(&shop.writer, "INSERT INTO shop.products SELECT n, 'a', n, 1 FROM generate_series(1, 10) n").await;
    shop
}

#[tokio::test]
async fn an_insert_an_update_and_a_delete_announce_the_table_and_their_rows() {
    let shop = products().await;
    assert_eq!(
        shop.tags("INSERT INTO shop.products VALUES (20, 'b', 7, 1)").await,
        set(&["shop.products", "shop.products:id=20", "shop.products:place=7,shelf=b"])
    );
    assert_eq!(
        shop.tags("UPDATE shop.products SET price = 2 WHERE id = 20").await,
        set(&["shop.products", "shop.products:id=20", "shop.products:place=7,shelf=b"])
    );
    assert_eq!(
        shop.tags("DELETE FROM shop.products WHERE id = 20").await,
        set(&["shop.products", "shop.products:id=20", "shop.products:place=7,shelf=b"])
    );
}

#[tokio::test]
async fn an_update_of_a_key_announces_the_old_and_the_new() {
    let shop = products().await;
    assert_eq!(
        shop.tags("UPDATE shop.products SET id = 30, shelf = 'z' WHERE id = 1").await,
        set(&[
            "shop.products",
            "shop.products:id=1",
            "shop.products:id=30",
            "shop.products:place=1,shelf=a",
            "shop.products:place=1,shelf=z"
        ])
    );
}

#[tokio::test]
async fn a_statement_without_rows_announces_nothing() {
    let shop = products().await;
    for sql in [
        "UPDATE shop.products SET price = 1 WHERE false",
        "DELETE FROM shop.products WHERE id = 99",
        "INSERT INTO shop.products SELECT 99, 'a', 1, 1 WHERE false",
        "INSERT INTO shop.products VALUES (1) ON CONFLICT DO NOTHING",
    ] {
        assert_eq!(shop.tags(sql).await, set(&[]), "{sql}");
    }
}

#[tokio::test]
async fn truncate_announces_every_row_also_of_what_it_cascades_to() {
    let shop = products().await;
    batch(&shop.owner, "CREATE TABLE shop.stock (product int REFERENCES shop.products ON DELETE CASCADE, n int)").await;
    shop.announce("stock", &[&["product"]]).await;
    assert_eq!(
        shop.tags("TRUNCATE shop.products CASCADE").await,
        set(&["shop.products", "shop.products:*", "shop.stock", "shop.stock:*"])
    );
    // Where there was nothing, too: it doesn't say what it took.
    assert_eq!(shop.tags("TRUNCATE shop.stock").await, set(&["shop.stock", "shop.stock:*"]));
}

#[tokio::test]
async fn a_cascade_announces_the_rows_of_the_other_table() {
    let shop = products().await;
    batch(
        &shop.owner,
        "CREATE TABLE shop.stock (product int REFERENCES shop.products ON DELETE CASCADE ON UPDATE CASCADE)",
    )
    .await;
    shop.announce("stock", &[&["product"]]).await;
    batch(&shop.writer, "INSERT INTO shop.stock VALUES (3), (3), (4)").await;
    let tags = shop.tags("DELETE FROM shop.products WHERE id = 3").await;
    assert!(tags.contains("shop.stock:product=3") && !tags.contains("shop.stock:product=4"), "{tags:?}");
    let tags = shop.tags("UPDATE shop.products SET id = 40 WHERE id = 4").await;
    assert!(tags.contains("shop.stock:product=4") && tags.contains("shop.stock:product=40"), "{tags:?}");
}

#[tokio::test]
async fn an_upsert_announces_what_it_inserts_and_what_it_updates() {
    let shop = products().await;
    let sql = "INSERT INTO shop.products VALUES (1, 'n', 1, 1), (50, 'n', 50, 1) \
               ON CONFLICT (id) DO UPDATE SET shelf = 'u'";
    assert_eq!(
        shop.tags(sql).await,
        set(&[
            "shop.products",
            "shop.products:id=1",
            "shop.products:id=50",
            "shop.products:place=1,shelf=a",
            "shop.products:place=1,shelf=u",
            "shop.products:place=50,shelf=n"
        ])
    );
}

#[tokio::test]
async fn a_merge_announces_each_of_its_actions() {
    let shop = products().await;
    let sql = "MERGE INTO shop.products p USING (VALUES (1), (2), (60)) AS v (id) ON p.id = v.id \
               WHEN MATCHED AND v.id = 1 THEN DELETE WHEN MATCHED THEN UPDATE SET price = 9 \
               WHEN NOT MATCHED THEN INSERT VALUES (v.id, NULL, NULL, 1)";
    assert_eq!(
        shop.tags(sql).await,
        set(&[
            "shop.products",
            "shop.products:id=1",
            "shop.products:id=2",
            "shop.products:id=60",
            "shop.products:place=1,shelf=a",
            "shop.products:place=2,shelf=a"
        ])
    );
}

#[tokio::test]
async fn copy_announces_its_rows() {
    use futures_util::SinkExt as _;
    let shop = products().await;
    batch(&shop.writer, "BEGIN").await;
    let sink = shop.writer.copy_in("COPY shop.products (id) FROM STDIN").await.expect("a sink");
    let mut sink = std::pin::pin!(sink);
    sink.send(std::io::Cursor::new("70\n71\n")).await.expect("sent");
    sink.finish().await.expect("copied");
    let tags = shop.tags_within(&shop.writer, "").await;
    batch(&shop.writer, "COMMIT").await;
    assert_eq!(tags, set(&["shop.products", "shop.products:id=70", "shop.products:id=71"]));
}

#[tokio::test]
async fn a_subtransaction_that_is_rolled_back_announces_nothing_and_one_that_is_kept_the_top_level_id() {
    let shop = products().await;
    let sql = "SAVEPOINT a; UPDATE shop.products SET price = 5 WHERE id = 1; ROLLBACK TO a; \
               SAVEPOINT b; UPDATE shop.products SET price = 5 WHERE id = 2; RELEASE b";
    // Read by the id of the transaction itself: no subtransaction's.
    let tags = shop.tags(sql).await;
    assert_eq!(tags, set(&["shop.products", "shop.products:id=2", "shop.products:place=2,shelf=a"]));
    shop.forget().await;
    batch(&shop.writer, "BEGIN; UPDATE shop.products SET price = 6 WHERE id = 1; ROLLBACK").await;
    assert_eq!(shop.log().await, set(&[]));
}

#[tokio::test]
async fn up_to_64_keys_are_announced_one_by_one_and_65_as_every_row() {
    let shop = Shop::new("CREATE TABLE shop.t (id int, k int)").await;
    shop.announce("t", &[&["id"]]).await;
    let tags = shop.tags("INSERT INTO shop.t SELECT n FROM generate_series(1, 64) n").await;
    assert_eq!(tags.len(), 65, "{tags:?}");
    assert!(!tags.contains("shop.t:*"));
    let every = set(&["shop.t", "shop.t:*"]);
    assert_eq!(shop.tags("INSERT INTO shop.t SELECT n FROM generate_series(101, 165) n").await, every);
    // It is keys that count, and not rows.
    let tags = shop.tags("INSERT INTO shop.t SELECT 7 FROM generate_series(1, 4096) n").await;
    assert_eq!(tags, set(&["shop.t", "shop.t:id=7"]));
    assert_eq!(shop.tags("INSERT INTO shop.t SELECT 7 FROM generate_series(1, 4097) n").await, every);
}

#[tokio::test]
async fn a_null_key_has_no_row_tag() {
    let shop = products().await;
    assert_eq!(
        shop.tags("INSERT INTO shop.products VALUES (80, NULL, 1)").await,
        set(&["shop.products", "shop.products:id=80"])
    );
    assert_eq!(
        shop.tags("UPDATE shop.products SET shelf = 'x' WHERE id = 80").await,
        set(&["shop.products", "shop.products:id=80", "shop.products:place=1,shelf=x"])
    );
}

#[tokio::test]
async fn each_type_with_row_tags_is_written_in_one_way_under_every_setting() {
    let shop = Shop::new(
        "CREATE TABLE shop.k (a int2, b int4, c int8, d bool, e uuid, f text, g varchar(40), \"h h\" text COLLATE \"C\")",
    )
    .await;
    shop.announce("k", &[&["a"], &["b"], &["c"], &["d"], &["e"], &["f"], &["g"], &["h h"]]).await;
    let sql = "INSERT INTO shop.k VALUES (-1, -2147483648, 9223372036854775807, 't', \
               'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'a b:=,%*' || chr(233) || '/~._-', '', chr(10))";
    let expected = set(&[
        "shop.k",
        "shop.k:a=-1",
        "shop.k:b=-2147483648",
        "shop.k:c=9223372036854775807",
        "shop.k:d=true",
        "shop.k:e=a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "shop.k:f=a%20b%3A%3D%2C%25%2A%C3%A9%2F~._-",
        "shop.k:g=",
        "shop.k:h%20h=%0A",
    ]);
    assert_eq!(shop.tags(sql).await, expected);
    let settings = "SET DateStyle = 'SQL, DMY'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'escape'; \
                    SET extra_float_digits = -15; SET TimeZone = 'Asia/Kathmandu'; SET xmlbinary = 'hex'; \
                    SET standard_conforming_strings = off; SET escape_string_warning = off; SET backslash_quote = on; \
                    SET quote_all_identifiers = on; SET client_encoding = 'LATIN1'; SET search_path = shop; \
                    SET plan_cache_mode = 'force_generic_plan'; SET jit = on; SET jit_above_cost = 0";
    batch(&shop.writer, settings).await;
    assert_eq!(shop.tags(sql).await, expected);
}

#[tokio::test]
async fn a_token_is_the_lineage_and_the_transaction_that_is_announced() {
    let shop = products().await;
    let admin = &shop.admin;
    batch(
        admin,
        &format!(
            "GRANT USAGE ON SCHEMA seawall TO {0}; GRANT EXECUTE ON FUNCTION seawall.token() TO {0}",
            shop.roles.writer
        ),
    )
    .await;
    batch(&shop.writer, "BEGIN; UPDATE shop.products SET price = 5 WHERE id = 1").await;
    let row = shop.writer.query_one("SELECT seawall.token(), pg_current_xact_id()::text", &[]).await.expect("a token");
    batch(&shop.writer, "COMMIT").await;
    let (token, xid): (String, String) = (row.get(0), row.get(1));
    let lineage =
        crate::support::text(admin, &format!("SELECT {}", seawall::postgres::lineage::EXPRESSION_WITH_EPOCH)).await;
    assert_eq!(token, format!("{lineage}:{xid}"));
    assert_eq!(lineage.split('/').count(), 5, "{lineage}");
    assert!(!lineage.contains(':'));
}

#[tokio::test]
async fn invalidating_by_hand_announces_the_names_and_of_a_table_every_row() {
    let shop = products().await;
    let writer = &shop.roles.writer;
    let denied = shop.writer.batch_execute("SELECT seawall.invalidate('x')").await;
    assert!(denied.is_err(), "nobody may that has no grant");
    batch(
        &shop.admin,
        &format!(
            "GRANT USAGE ON SCHEMA seawall TO {writer}; \
             GRANT EXECUTE ON FUNCTION seawall.invalidate(text[]), seawall.table_tag(text, text) TO {writer}"
        ),
    )
    .await;
    shop.forget().await;
    batch(
        &shop.writer,
        "BEGIN; SELECT seawall.invalidate('shop.products', 'region:eu', 'query:product', NULL, '', '*')",
    )
    .await;
    batch(&shop.writer, "SELECT seawall.invalidate(seawall.table_tag('sh op', 'a.b')); COMMIT").await;
    let announced =
        ["*", "query:product", "region:eu", "sh%20op.a.b", "sh%20op.a.b:*", "shop.products", "shop.products:*"];
    assert_eq!(shop.log().await, set(&announced));
}
