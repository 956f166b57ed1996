//! Triggers and statements that notify, and a queue that somebody doesn't read.

use super::{LONG, install, look, run, session};
use crate::support::WITHIN;
use crate::support::eventually::eventually;
use crate::support::server::{Database, Server};

/// A function of this body, called by a trigger of the same name on `table`.
fn trigger(name: &str, table: &str, body: &str) -> String {
    format!(
        "CREATE FUNCTION shop.{name}() RETURNS trigger LANGUAGE plpgsql AS $body$ BEGIN {body} RETURN NULL; END $body$; \
         CREATE TRIGGER {name} AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION shop.{name}();"
    )
}

const TELLS: &str = "PERFORM pg_notify('changes', NEW.id::text);";

/// Table and trigger of each that was found.
fn named(found: &seawall::postgres::Surroundings) -> Vec<(&str, &str)> {
    found.notifying.first.iter().map(|t| (&*t.table, &*t.trigger)).collect()
}

#[tokio::test]
async fn triggers_that_notify_are_found_and_those_on_tables_of_queries_come_first() {
    let db = Database::new("CREATE SCHEMA shop; CREATE TABLE shop.a (id int); CREATE TABLE shop.b (id int)").await;
    run(&db.admin, &[trigger("beside", "shop.a", TELLS), trigger("tell", "shop.b", TELLS)].concat()).await;
    let found = look(&db.settings(), &["shop.b"], LONG).await;
    assert_eq!(named(&found), [("shop.b", "tell"), ("shop.a", "beside")]);
    let [on_read, beside] = &found.notifying.first[..] else { panic!("{found:?}") };
    assert_eq!((&*on_read.function, on_read.is_read, beside.is_read), ("shop.tell", true, false));
    assert_eq!(found.notifying.more, 0);
}

#[tokio::test]
async fn mentions_disabled_triggers_and_functions_without_one_are_not_found() {
    let db = Database::new("CREATE SCHEMA shop; CREATE TABLE shop.a (id int)").await;
    let mention = "-- PERFORM pg_notify('changes', '');\n/* NOTIFY changes; */ RAISE DEBUG 'no pg_notify('''') here';";
    let unused =
        "CREATE FUNCTION shop.unused() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NOTIFY a; RETURN NULL; END';";
    run(&db.admin, &[&trigger("mention", "shop.a", mention), &trigger("off", "shop.a", TELLS), unused].concat()).await;
    run(&db.admin, "ALTER TABLE shop.a DISABLE TRIGGER off").await;
    assert_eq!(named(&look(&db.settings(), &["shop.a"], LONG).await), []);
    // The same trigger, enabled in any way, is.
    for how in ["ENABLE", "ENABLE ALWAYS", "ENABLE REPLICA"] {
        run(&db.admin, &format!("ALTER TABLE shop.a {how} TRIGGER off")).await;
        assert_eq!(named(&look(&db.settings(), &["shop.a"], LONG).await), [("shop.a", "off")], "{how}");
    }
}

#[tokio::test]
async fn seawalls_own_triggers_are_not_found() {
    let db = Database::new("CREATE SCHEMA shop; CREATE TABLE shop.a (id int)").await;
    install(&db.settings(), "postgres", &["shop.a"]).await;
    let own = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'seawall%'";
    assert_eq!(db.admin.query_one(own, &[]).await.expect("a count").get::<_, i64>(0), 4);
    assert_eq!(named(&look(&db.settings(), &["shop.a"], LONG).await), []);
    run(&db.admin, &trigger("tell", "shop.a", TELLS)).await;
    assert_eq!(named(&look(&db.settings(), &["shop.a"], LONG).await), [("shop.a", "tell")]);
}

#[tokio::test]
async fn a_partitioned_tables_trigger_is_one_and_contribs_is_known() {
    let db = Database::new(
        "CREATE EXTENSION tcn; CREATE SCHEMA shop; CREATE TABLE shop.parted (id int PRIMARY KEY) PARTITION BY LIST (id); \
         CREATE TABLE shop.parted_1 PARTITION OF shop.parted FOR VALUES IN (1); CREATE TABLE shop.c (id int PRIMARY KEY); \
         CREATE TRIGGER tcn AFTER UPDATE ON shop.c FOR EACH ROW EXECUTE FUNCTION triggered_change_notification()",
    )
    .await;
    run(&db.admin, &trigger("tell", "shop.parted", TELLS)).await;
    // The partition alone is read; what its writes fire is its parent's.
    let found = look(&db.settings(), &["shop.parted_1"], LONG).await;
    assert_eq!(named(&found), [("shop.parted", "tell"), ("shop.c", "tcn")]);
    assert!(found.notifying.first[0].is_read, "{found:?}");
}

#[tokio::test]
async fn twenty_triggers_are_named_and_the_others_counted() {
    let db = Database::new("CREATE SCHEMA shop").await;
    run(&db.admin, "CREATE TABLE shop.t1 (id int)").await;
    run(&db.admin, &trigger("tell", "shop.t1", TELLS)).await;
    let mut expected = 1;
    for until in [20, 21] {
        while expected < until {
            expected += 1;
            let table = format!("shop.t{expected}");
            run(
                &db.admin,
                &format!(
                    "CREATE TABLE {table} (id int); \
                     CREATE TRIGGER tell AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION shop.tell()"
                ),
            )
            .await;
        }
        let found = look(&db.settings(), &[], LONG).await;
        assert_eq!((found.notifying.first.len(), found.notifying.more), (20, until - 20));
    }
}

#[tokio::test]
async fn calls_are_told_where_the_server_counts_them_and_written_rows_always() {
    let db = Database::new("CREATE SCHEMA shop; CREATE TABLE shop.a (id int)").await;
    run(&db.admin, &trigger("tell", "shop.a", TELLS)).await;
    run(&db.admin, "INSERT INTO shop.a VALUES (1), (2)").await;
    let settings = db.settings();
    let seen = async |calls: Option<u64>, written: u64| {
        eventually("statistics have come", WITHIN, async || {
            let found = look(&settings, &[], LONG).await;
            let trigger = &found.notifying.first[0];
            if (trigger.calls, trigger.written) == (calls, written) { Ok(()) } else { Err(found) }
        })
        .await;
    };
    seen(None, 2).await;
    run(&db.admin, "SET track_functions = 'pl'").await;
    run(&db.admin, "INSERT INTO shop.a VALUES (1), (2), (3)").await;
    seen(Some(3), 5).await;
}

#[tokio::test]
async fn a_thousand_statements_that_notify_are_told_and_one_less_is_not() {
    let db = Database::new("").await;
    let settings = db.settings();
    run(&db.admin, &"NOTIFY changes;".repeat(400)).await;
    run(&db.admin, &"SELECT pg_notify('changes', '');".repeat(599)).await;
    assert_eq!(look(&settings, &[], LONG).await.notified, None);
    run(&db.admin, "SELECT pg_catalog.pg_notify('changes', '')").await;
    let notified = look(&settings, &[], LONG).await.notified.expect("they are told");
    assert_eq!(notified.calls, 1000);
    assert!(notified.per_second >= 1.0, "{notified:?}");
    // Without the extension, or the right to read it, there is nothing to go by.
    run(&db.admin, "DROP EXTENSION pg_stat_statements").await;
    assert_eq!(look(&settings, &[], LONG).await.notified, None);
}

#[tokio::test]
async fn an_extension_that_is_not_loaded_is_no_trouble() {
    let server = Server::private(&[], |_| {}).await;
    let admin = server.client("postgres").await.expect("a connection");
    run(&admin, "CREATE EXTENSION pg_stat_statements").await;
    let settings = seawall::postgres::Settings::new(server.url("postgres"));
    assert_eq!(look(&settings, &[], LONG).await.notified, None);
}

/// Notifications that fill a page each.
fn pages(count: u32) -> String {
    format!("SELECT count(pg_notify('changes', rpad(n::text, 7900, 'x'))) FROM generate_series(1, {count}) AS n")
}

#[tokio::test]
async fn a_queue_that_a_listener_in_a_transaction_does_not_read_names_it() {
    let server = Server::private(&[], |_| {}).await;
    let settings = seawall::postgres::Settings::new(server.url("postgres"));
    let writer = server.client("postgres").await.expect("a connection");
    // Read by who listens, or by nobody since nobody does, it is empty.
    let (reader, _) = session(&server, "postgres", "LISTEN changes").await;
    run(&writer, &pages(1200)).await;
    eventually("the listener has read", WITHIN, async || {
        let usage: f64 = writer.query_one("SELECT pg_notification_queue_usage()", &[]).await.expect("it says").get(0);
        if usage == 0.0 { Ok(()) } else { Err(usage) }
    })
    .await;
    assert_eq!(look(&settings, &[], LONG).await.queue, None);

    let (sleepy, pid) = session(&server, "template1", "SET application_name = 'sleepy'; LISTEN changes").await;
    run(&sleepy, "BEGIN; SELECT 'a secret of the listener'").await;
    // A thousandth of 1,048,575 pages is 1,048 and a half.
    run(&writer, &pages(1040)).await;
    assert_eq!(look(&settings, &[], LONG).await.queue, None, "just below the threshold");
    run(&writer, &pages(20)).await;
    let found = look(&settings, &[], LONG).await;
    let queue = found.queue.as_ref().expect("just above it");
    assert!(queue.usage > 0.001 && queue.usage < 0.0011, "{queue:?}");
    let [culprit] = &queue.sessions[..] else { panic!("{queue:?}") };
    assert_eq!((culprit.pid.to_string(), &*culprit.application, &*culprit.database), (pid, "sleepy", "template1"));
    assert_eq!(culprit.state, "idle in transaction");
    assert!(culprit.age.is_some() && !format!("{found:?}").contains("secret"), "{found:?}");

    run(&sleepy, "COMMIT").await;
    eventually("it is read", WITHIN, async || match look(&settings, &[], LONG).await.queue {
        None => Ok(()),
        queue => Err(queue),
    })
    .await;
    drop(reader);
}
