//! No write fails because of us, whatever it is, whoever makes it, and whatever has become of the table.

use crate::support::{Shop, batch, set, text};

const KEYED: &str = "CREATE TABLE shop.t (id int, k text, n int)";

async fn keyed() -> Shop {
    let shop = Shop::new(KEYED).await;
    shop.announce("t", &[&["id"], &["id", "k"]]).await;
    shop
}

#[tokio::test]
async fn a_value_of_200_bytes_has_a_row_tag_and_a_longer_one_is_every_row() {
    let shop = Shop::new(KEYED).await;
    shop.announce("t", &[&["k"]]).await;
    let insert = |value: &str| format!("INSERT INTO shop.t (k) VALUES ({value})");
    let expected = set(&["shop.t", &format!("shop.t:k={}", "x".repeat(200))]);
    assert_eq!(shop.tags(&insert("repeat('x', 200)")).await, expected);
    // Bytes count, as they are before they are encoded.
    let expected = set(&["shop.t", &format!("shop.t:k={}", "%C3%A9".repeat(100))]);
    assert_eq!(shop.tags(&insert("repeat(chr(233), 100)")).await, expected);
    let every = set(&["shop.t", "shop.t:*"]);
    assert_eq!(shop.tags(&insert("repeat('x', 201)")).await, every);
    assert_eq!(shop.tags(&insert("repeat(chr(233), 101)")).await, every);
    // 10 kB that compress, 10 kB that don't, 2 MB.
    assert_eq!(shop.tags(&insert("repeat('x', 10000)")).await, every);
    let random = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 320) n)";
    assert_eq!(shop.tags(&insert(random)).await, every);
    assert_eq!(shop.tags(&insert("repeat('x', 2000000)")).await, every);
    assert_eq!(
        shop.tags("UPDATE shop.t SET k = 'y' WHERE octet_length(k) = 10000").await,
        set(&["shop.t", "shop.t:*", "shop.t:k=y"]),
        "the old value"
    );
}

#[tokio::test]
async fn the_longest_names_and_values_together_still_fit_the_log() {
    let (schema, table) = ("\u{1F600}".repeat(15), "é".repeat(31));
    let columns: Vec<String> = (0..8).map(|n| format!("{n}{}", "é".repeat(31))).collect();
    let shop = Shop::new("").await;
    let defined: Vec<String> = columns.iter().map(|name| format!("\"{name}\" text")).collect();
    batch(
        &shop.owner,
        &format!(
            "CREATE SCHEMA \"{schema}\"; GRANT USAGE ON SCHEMA \"{schema}\" TO {0}; \
             CREATE TABLE \"{schema}\".\"{table}\" ({1}); GRANT ALL ON \"{schema}\".\"{table}\" TO {0}",
            shop.roles.writer,
            defined.join(", ")
        ),
    )
    .await;
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let (one, two) = (columns[..1].to_vec(), columns[..2].to_vec());
    let wanted = crate::support::wanted(&shop.admin, &schema, &table, &[&one, &two, &columns]).await;
    let report = shop.migrate(&[wanted]).await;
    assert_eq!((report.left, report.imprecise), (vec![], vec![]));
    let tag = format!("{}.{}", "%F0%9F%98%80".repeat(15), "%C3%A9".repeat(31));
    for (value, exact) in [("a", true), ("repeat(chr(233), 100)", false)] {
        let value = if exact { "'a'" } else { value };
        let values = [value; 8].join(", ");
        let tags = shop.tags(&format!("INSERT INTO \"{schema}\".\"{table}\" VALUES ({values})")).await;
        assert!(tags.contains(&tag), "{tags:?}");
        assert!(tags.contains(&format!("{tag}:*")), "eight names are over a thousand bytes: {tags:?}");
        // Beside them those sets whose names and values fit: the first two of three where the values are short.
        assert_eq!(tags.len(), if exact { 4 } else { 2 }, "{tags:?}");
    }
}

#[tokio::test]
async fn a_writer_needs_no_grant_and_can_do_nothing_to_the_log() {
    let shop = keyed().await;
    batch(&shop.writer, "INSERT INTO shop.t VALUES (1, 'a', 1)").await;
    for sql in [
        "SELECT * FROM seawall.event",
        "INSERT INTO seawall.event (tag) VALUES ('x')",
        "DELETE FROM seawall.event",
        "SELECT * FROM seawall.epoch",
        "SELECT seawall.reseed()",
        "SELECT seawall.announce('{x}')",
        "SELECT seawall.invalidate('x')",
        "SELECT seawall.prune(NULL, NULL)",
        "SELECT seawall.tag_text('x')",
        "SELECT seawall.truncated()",
    ] {
        let error = shop.writer.batch_execute(sql).await.expect_err(sql);
        assert_eq!(error.code().map(tokio_postgres::error::SqlState::code), Some("42501"), "{sql}: {error:?}");
    }
}

#[tokio::test]
async fn functions_are_safe_from_the_callers_search_path() {
    let shop = keyed().await;
    // What a writer can put before pg_catalog in its own session must not be called with the owner's rights.
    batch(
        &shop.admin,
        &format!(
            "CREATE SCHEMA evil; GRANT ALL ON SCHEMA evil TO {0}; GRANT TEMPORARY ON DATABASE {1} TO {0}",
            shop.roles.writer, shop.database
        ),
    )
    .await;
    let evil = |signature: &str, returns: &str| {
        format!(
            "CREATE FUNCTION evil.{signature} RETURNS {returns} LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''evil''; END'; "
        )
    };
    let functions = [
        evil("count(\"any\")", "int8").replace("\"any\"", "int"),
        evil("octet_length(text)", "int"),
        evil("pg_current_xact_id()", "xid8"),
        evil("unnest(text[])", "SETOF text"),
        evil("tag_text(text)", "text"),
        evil("cat(text, text)", "text"),
        "CREATE OPERATOR evil.|| (leftarg = text, rightarg = text, function = evil.cat); ".into(),
        evil("gt(int, int)", "bool"),
        "CREATE OPERATOR evil.> (leftarg = int, rightarg = int, function = evil.gt); ".into(),
        evil("same(text, text)", "bool"),
        "CREATE OPERATOR evil.= (leftarg = text, rightarg = text, function = evil.same); ".into(),
        evil("same(int8, int)", "bool"),
        "CREATE OPERATOR evil.= (leftarg = int8, rightarg = int, function = evil.same); ".into(),
        "CREATE OPERATOR evil.> (leftarg = int8, rightarg = int, function = evil.same); ".into(),
        evil("same(oid, int)", "bool"),
        "CREATE OPERATOR evil.= (leftarg = oid, rightarg = int, function = evil.same); ".into(),
        evil("cat(text, text[])", "text[]"),
        "CREATE OPERATOR evil.|| (leftarg = text, rightarg = text[], function = evil.cat); ".into(),
        evil("cardinality(text[])", "int"),
        evil("strpos(text, text)", "int"),
        evil("array_to_string(text[], text)", "text"),
        evil("regexp_replace(text, text, text)", "text"),
        evil("current_setting(text)", "text"),
        evil("pg_notify(text, text)", "void"),
        evil("pg_try_advisory_lock(int8)", "bool"),
        evil("pg_advisory_unlock(int8)", "bool"),
        evil("pg_typeof(int)", "regtype"),
        "CREATE DOMAIN evil.int8 AS text CHECK (false); CREATE DOMAIN evil.bool AS text CHECK (false); ".into(),
        "CREATE DOMAIN evil.oid AS int CHECK (false); CREATE DOMAIN evil.pg_lsn AS int CHECK (false); ".into(),
        "CREATE TEMP TABLE event (tag text); CREATE TEMP TABLE seawall_new (id int); ".into(),
    ];
    batch(&shop.writer, &functions.concat()).await;
    batch(&shop.writer, "SET search_path = pg_temp, evil, pg_catalog").await;
    let announced = async |sql: &str| {
        shop.forget().await;
        batch(&shop.writer, sql).await;
        shop.log().await
    };
    let tags = announced("INSERT INTO shop.t VALUES (1, 'a b', 1); UPDATE shop.t SET n = n").await;
    assert_eq!(tags, set(&["shop.t", "shop.t:id=1", "shop.t:id=1,k=a%20b"]));
    // What is announced already, nothing, and more than is announced one by one: the other half of the function.
    let tags = announced("UPDATE shop.t SET n = 1; UPDATE shop.t SET n = 2; DELETE FROM shop.t WHERE false").await;
    assert_eq!(tags, set(&["shop.t", "shop.t:id=1", "shop.t:id=1,k=a%20b"]));
    let tags = announced("INSERT INTO shop.t SELECT n, 'x', n FROM generate_series(2, 100) AS n").await;
    assert_eq!(tags, set(&["shop.t", "shop.t:*"]));
}

#[tokio::test]
async fn a_serializable_writer_neither_fails_nor_makes_others_fail() {
    let shop = keyed().await;
    let other = shop.connect(&shop.roles.writer).await;
    batch(&shop.writer, "INSERT INTO shop.t VALUES (1, 'a', 1), (2, 'b', 1)").await;
    // Two that overlap and touch different rows, thousands of events, and a service that polls and prunes.
    for (client, id) in [(&shop.writer, 1), (&other, 2)] {
        batch(client, &format!("BEGIN ISOLATION LEVEL SERIALIZABLE; INSERT INTO shop.t VALUES (1{id}, 'n', 1)")).await;
    }
    let service = shop.connect(&shop.roles.service).await;
    text(&service, "SELECT count(*)::text FROM seawall.event").await;
    for (client, id) in [(&shop.writer, 1), (&other, 2)] {
        batch(client, &format!("INSERT INTO shop.t SELECT n, 'm', {id} FROM generate_series({id}00, {id}40) n")).await;
        text(&service, "SELECT seawall.prune((SELECT id FROM seawall.epoch), pg_current_snapshot())::text").await;
    }
    for client in [&shop.writer, &other] {
        batch(client, "COMMIT").await;
    }
    // Its own events of an earlier command are no conflict, and neither are those of a later snapshot.
    let tags = shop
        .tags(
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; INSERT INTO shop.t VALUES (7, 'z', 1); \
               INSERT INTO shop.t VALUES (7, 'z', 1)",
        )
        .await;
    assert_eq!(tags, set(&["shop.t", "shop.t:id=7", "shop.t:id=7,k=z"]));
}

#[tokio::test]
async fn a_session_in_the_replica_role_announces_too() {
    let shop = keyed().await;
    batch(&shop.admin, "SET session_replication_role = replica").await;
    let tags = shop.tags_by(&shop.admin, "INSERT INTO shop.t VALUES (1, 'a', 1)").await;
    assert_eq!(tags, set(&["shop.t", "shop.t:id=1", "shop.t:id=1,k=a"]));
    assert_eq!(shop.tags_by(&shop.admin, "TRUNCATE shop.t").await, set(&["shop.t", "shop.t:*"]));
}

#[tokio::test]
async fn a_key_column_that_is_renamed_dropped_or_changed_costs_precision_and_nothing_else() {
    let changes = [
        "RENAME id TO ident",
        "DROP COLUMN id",
        "ALTER id TYPE numeric",
        "ALTER id TYPE int8",
        "ALTER k TYPE varchar(9)",
        "RENAME k TO id2",
    ];
    for change in changes {
        let shop = keyed().await;
        // A session that has the plans of before.
        batch(&shop.writer, "INSERT INTO shop.t (n) VALUES (1); UPDATE shop.t SET n = 2; DELETE FROM shop.t").await;
        batch(&shop.owner, &format!("ALTER TABLE shop.t {change}")).await;
        for sql in ["INSERT INTO shop.t (n) VALUES (1)", "UPDATE shop.t SET n = 2", "DELETE FROM shop.t"] {
            assert_eq!(shop.tags(sql).await, set(&["shop.t", "shop.t:*"]), "{change}: {sql}");
        }
    }
}

#[tokio::test]
async fn a_key_column_renamed_behind_the_back_of_a_snapshot_does_not_fail_its_write() {
    let shop = keyed().await;
    batch(&shop.writer, "INSERT INTO shop.t VALUES (1, 'a', 1)").await;
    for (isolation, change) in [
        ("REPEATABLE READ", "RENAME id TO ident"),
        ("SERIALIZABLE", "RENAME ident TO id"),
        ("REPEATABLE READ", "DROP COLUMN id"),
    ] {
        batch(&shop.writer, &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1")).await;
        batch(&shop.owner, &format!("ALTER TABLE shop.t {change}")).await;
        let tags = shop.tags_within(&shop.writer, "INSERT INTO shop.t (n) VALUES (5)").await;
        batch(&shop.writer, "COMMIT").await;
        let back = change == "RENAME ident TO id";
        let expected = if back { set(&["shop.t"]) } else { set(&["shop.t", "shop.t:*"]) };
        assert_eq!(tags, expected, "{change}");
    }
}

#[tokio::test]
async fn columns_may_be_called_as_variables_and_aliases_are() {
    let names = [
        "touched",
        "known",
        "keys",
        "tg_argv",
        "tg_op",
        "image",
        "made",
        "key",
        "every",
        "own",
        "missing",
        "written",
        "announcing",
        "bounded",
        "new",
        "old",
        "seawall_new",
        "select",
        "a\"b",
        "c'd",
        "$$",
        "%s",
        "\\",
    ];
    let quote = |name: &&str| format!("\"{}\"", name.replace('"', "\"\""));
    let defined: Vec<String> = names.iter().map(|name| format!("{} int", quote(name))).collect();
    let shop = Shop::new(&format!("CREATE TABLE shop.\"it's\" ({})", defined.join(", "))).await;
    let sets: Vec<&[&str]> = names.chunks(1).collect();
    shop.announce("it's", &sets).await;
    let ones = vec!["1"; names.len()].join(", ");
    let tags = shop.tags(&format!("INSERT INTO shop.\"it's\" VALUES ({ones})")).await;
    assert_eq!(tags.len(), names.len() + 1, "{tags:?}");
    assert!(tags.contains("shop.it%27s:a%22b=1") && tags.contains("shop.it%27s:%5C=1"), "{tags:?}");
    // As a set of all of them, too; and each of them missing.
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    shop.announce("it's", &[&sorted]).await;
    let all = |set: &std::collections::BTreeSet<String>| set.iter().filter(|tag| tag.contains(',')).count();
    assert_eq!(all(&shop.tags("UPDATE shop.\"it's\" SET known = 1").await), 1);
    for name in &names {
        batch(&shop.owner, &format!("ALTER TABLE shop.\"it's\" RENAME {} TO moved", quote(name))).await;
        let tags = shop.tags("INSERT INTO shop.\"it's\" DEFAULT VALUES").await;
        assert_eq!(tags, set(&["shop.it%27s", "shop.it%27s:*"]), "{name}");
        batch(&shop.owner, &format!("ALTER TABLE shop.\"it's\" RENAME moved TO {}", quote(name))).await;
    }
}

#[tokio::test]
async fn settings_that_turn_hints_into_errors_do_not_concern_us() {
    let shop = keyed().await;
    let settings = "SET plpgsql.extra_errors = 'all'; SET plpgsql.variable_conflict = 'error'; SET row_security = off; \
                    SET statement_timeout = '20s'; SET work_mem = '64kB'; SET enable_seqscan = off; \
                    SET plpgsql.check_asserts = on; SET temp_file_limit = 0; SET default_transaction_deferrable = on";
    batch(&shop.admin, settings).await;
    let tags = shop.tags_by(&shop.admin, "INSERT INTO shop.t VALUES (1, 'a b', 1); UPDATE shop.t SET n = 2").await;
    assert_eq!(tags, set(&["shop.t", "shop.t:id=1", "shop.t:id=1,k=a%20b"]));
}

#[tokio::test]
async fn collations_that_disagree_are_no_conflict() {
    let shop = Shop::new(
        "CREATE COLLATION shop.ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
         CREATE TABLE shop.t (a text COLLATE \"C\", b text COLLATE \"POSIX\", c text, id int)",
    )
    .await;
    shop.announce("t", &[&["a", "b", "c"], &["a"]]).await;
    let expected = set(&["shop.t", "shop.t:a=x%20", "shop.t:a=x%20,b=y,c=z"]);
    assert_eq!(shop.tags("INSERT INTO shop.t VALUES ('x ', 'y', 'z')").await, expected);
    // Equal and not the same: a row tag would be wrong, and the type's name doesn't say so. To make none is the analysis's,
    // to fail for none is ours.
    batch(&shop.owner, "ALTER TABLE shop.t ALTER c TYPE text COLLATE shop.ci").await;
    let tags = shop.tags("INSERT INTO shop.t VALUES ('x', 'y', 'Z ')").await;
    assert!(tags.contains("shop.t"), "{tags:?}");
    let report = shop.migrate(&[shop.wanted("t", &[&["c"]]).await]).await;
    assert!(report.imprecise[0].reason.contains("collation"), "{report:?}");
}

#[tokio::test]
async fn a_database_of_another_encoding_has_row_tags_for_what_is_the_same_in_all_of_them() {
    let server = crate::support::server::Server::shared().await;
    let postgres = server.client("postgres").await.expect("a connection");
    for (encoding, value) in [("LATIN1", "chr(233)"), ("SQL_ASCII", "E'\\xe9'"), ("EUC_JP", "'a b'")] {
        let name = format!("encoded_{}", encoding.to_lowercase());
        batch(&postgres, &format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")).await;
        let admin = server.client(&name).await.expect("a connection");
        let shop = Shop::within(server, name, admin, KEYED).await;
        shop.announce("t", &[&["k"]]).await;
        assert_eq!(
            shop.tags("INSERT INTO shop.t (k) VALUES ('a-z')").await,
            set(&["shop.t", "shop.t:k=a-z"]),
            "{encoding}"
        );
        let tags = shop.tags(&format!("INSERT INTO shop.t (k) VALUES ({value})")).await;
        assert_eq!(tags, set(&["shop.t", "shop.t:*"]), "{encoding}");
    }
}
