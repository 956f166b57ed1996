//! Each rule: both sides of its boundary, the key that is named and a word of the remedy.

use std::time::Duration;

use seawall::catalog::ResultForm;
use seawall::config::Tls;

use super::{accepted, refused, refused_for};

/// `key`: the values of `good` pass; each of `bad` is one problem of that key whose message holds `remedy`.
fn rule(key: &str, good: &[&str], bad: &[&str], remedy: &str) {
    let lines = |value: &str| {
        let sql = if key.starts_with("queries.q.") { "queries.q.sql = \"SELECT :a, :b\"\n" } else { "" };
        format!("{sql}{key} = {value}\n")
    };
    for value in good {
        accepted(&lines(value));
    }
    for value in bad {
        refused_for(&lines(value), key, remedy);
    }
}

#[test]
fn a_redis_is_named_by_a_url_and_a_namespace() {
    let long = format!("\"{}\"", "n".repeat(64));
    rule("redis.namespace", &["\"a\"", "\"A-b_c.1\"", &long], &["\"a:b\"", "\"a b\""], "1 to 64 letters");
    rule("redis.namespace", &[], &[&long.replacen('n', "nn", 1)], "1 to 64 letters");
    rule("redis.url", &["\"redis://:p@h:6379/0\""], &["\"h:6379\"", "\"redis://h/x\""], "redis://HOST:6379");
    rule("redis.url", &["\"redis+sentinel://a,b:1/m/2?sentinel_password=x\""], &["\"redis+sentinel://h\""], "/MASTER");
    rule("redis.url", &["\"rediss+cluster://a,b:1\""], &["\"redis+cluster://h/1\""], "redis.namespace");
}

#[test]
fn what_is_wrong_with_a_redis_is_said_at_once_and_without_its_secrets() {
    let problems =
        refused("redis.url = \"redis+cluster://hunter2@a,:1/9\"\nredis.timeout = \"1s\"\nredis.namespace = \"\"");
    let keys: Vec<&str> = problems.iter().map(|problem| &*problem.key).collect();
    assert_eq!(keys, ["redis.url", "redis.url", "redis.url", "redis.timeout", "redis.namespace"]);
    assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
}

#[test]
fn a_redis_is_verified_only_where_it_is_encrypted() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let root = format!("redis.tls_root_cert = \"{file}\"\n");
    for url in ["rediss://h", "rediss+sentinel://h/m", "rediss+cluster://h"] {
        let redis = accepted(&format!("{root}redis.url = \"{url}\"")).redis.expect("a section");
        assert_eq!(redis.tls_root_cert.as_deref(), Some(std::path::Path::new(file)));
    }
    refused_for(&format!("{root}redis.url = \"redis://h\""), "redis.tls_root_cert", "write rediss://");
    refused_for("redis.url = \"rediss://h\"\nredis.tls_root_cert = \"gone.pem\"", "redis.tls_root_cert", "PEM file");
    assert_eq!(accepted("redis.url = \"rediss://h\"").redis.expect("a section").tls_root_cert, None);
}

#[test]
fn numbers_and_durations_and_sizes_have_two_ends() {
    for (key, good, bad) in [
        ("server.drain_delay", ["\"0s\"", "\"10m\""], ["\"601s\"", "\"20000d\""]),
        ("server.shutdown_grace", ["\"0s\"", "\"1h\""], ["\"61m\"", "\"2h\""]),
        ("server.max_connections", ["1", "1000000"], ["0", "1000001"]),
        ("server.max_waiters", ["1", "10000000"], ["0", "10000001"]),
        ("server.body_max_bytes", ["1024", "\"16MiB\""], ["1023", "\"16777217B\""]),
        ("server.compression_min_bytes", ["0", "\"256MiB\""], ["\"268435457B\"", "\"257MiB\""]),
        ("postgres.pool_size", ["1", "1000"], ["0", "1001"]),
        ("postgres.connect_timeout", ["\"10ms\"", "\"1m\""], ["\"9ms\"", "\"61s\""]),
        ("redis.pool_size", ["1", "100"], ["0", "101"]),
        ("redis.timeout", ["\"1ms\"", "\"400ms\""], ["\"0s\"", "\"401ms\""]),
        ("postgres.reconnect_max", ["\"10ms\"", "\"5m\""], ["\"9.999ms\"", "\"301s\""]),
        ("cache.max_bytes", ["\"1MiB\"", "\"1TiB\""], ["\"1048575B\"", "\"1025GiB\""]),
        ("cache.compressed_max_bytes", ["\"1MiB\"", "\"1TiB\""], ["\"1048575B\"", "\"1025GiB\""]),
        ("cache.result_max_bytes", ["\"1KiB\"", "\"256MiB\""], ["\"1023B\"", "\"257MiB\""]),
        ("cache.max_fills", ["1", "1000"], ["0", "-1"]),
        ("cache.max_queued_fills", ["0", "1000000"], ["-1", "1000001"]),
        ("defaults.ttl", ["\"1ms\"", "\"365d\""], ["\"999us\"", "\"366d\""]),
        ("defaults.jitter", ["0", "0.9"], ["-0.1", "0.91"]),
        ("defaults.timeout", ["\"1ms\"", "\"10m\""], ["\"0ms\"", "\"601s\""]),
        ("defaults.error_backoff", ["\"0s\"", "\"1h\""], ["\"61m\"", "\"1d\""]),
        ("defaults.max_rows", ["1", "10000000"], ["0", "10000001"]),
        ("defaults.max_fills", ["1", "1000"], ["0", "1001"]),
        ("queries.q.max_fills", ["1", "1000"], ["0", "9223372036854775807"]),
        ("queries.q.jitter", ["0.0", "0.5"], ["nan", "inf"]),
        ("queries.q.params.a.max_length", ["1", "16777216"], ["0", "16777217"]),
    ] {
        rule(key, &good, &bad, "out of range; write ");
    }
    // The upper end is the one of max_bytes, and named so.
    rule("cache.entry_max_bytes", &["\"1KiB\"", "\"256MiB\""], &["\"1023B\""], "out of range; write 1KiB to 1TiB");
    rule("cache.entry_max_bytes", &[], &["\"257MiB\""], "more than cache.max_bytes");
    accepted("cache.max_bytes = \"1MiB\"");
}

#[test]
fn a_value_of_another_type_is_named_with_what_was_expected() {
    rule(
        "queries.q.ttl",
        &["\"5m\""],
        &["\"5 min\"", "5", "true", "\"\""],
        "write a number and a unit such as \"250ms\"",
    );
    rule("cache.max_bytes", &["4194304", "\"4194304\""], &["\"4 MiB\"", "-1", "1.5"], "is not a size; write a number");
    rule(
        "postgres.pool_size",
        &["8"],
        &["\"8\"", "8.0", "[8]", "99999999999999999999"],
        "is not a whole number; write",
    );
    rule("defaults.jitter", &["1e-1"], &["\"0.1\"", "true"], "is not a number; write one without quotes");
    rule("server.expose_stamp", &["true", "false"], &["1", "\"true\""], "is not a boolean; write true or false");
    rule("postgres.timezone", &["\"UTC\""], &["1", "2020-01-01", "{}"], "write a string in quotes");
    refused_for("queries = 5", "queries", "write a section that begins with [queries]");
    refused_for("server = 5", "server", "write a section that begins with [server]");
    refused_for("queries.q = 5", "queries.q", "[queries.NAME]");
    refused_for("[[queries]]\nsql = \"SELECT 1\"", "queries", "this is an array");
}

#[test]
fn unknown_keys_come_with_the_one_that_was_meant() {
    for (lines, key, remedy) in [
        ("server.listn = \"x\"", "server.listn", "did you mean listen?"),
        ("cache.max_byte = 1", "cache.max_byte", "did you mean max_bytes?"),
        ("server.pool_size = 1", "server.pool_size", "move it to postgres.pool_size"),
        ("cache.ttl = 1", "cache.ttl", "move it to defaults.ttl"),
        ("server.advisory_key = 1", "server.advisory_key", "move it to invalidation.advisory_key"),
        ("defaults.sql = \"SELECT 1\"", "defaults.sql", "move it to queries.NAME.sql"),
        ("admin.something_else = 1", "admin.something_else", "write one of token_sha256"),
        ("servr.listen = 1", "servr", "did you mean [server]?"),
        ("listen = 1", "listen", "move it to server.listen"),
        ("zzzzzzzzz = 1", "zzzzzzzzz", "write one of server, admin"),
        ("\"odd key\\n\".x = 1", "\"odd key\\n\"", "no such section"),
        ("queries.q.sql = \"SELECT 1\"\nqueries.q.tll = \"1s\"", "queries.q.tll", "did you mean ttl?"),
        ("queries.q.sql = \"SELECT :a\"\nqueries.q.params.a.mn = 1", "queries.q.params.a.mn", "did you mean min?"),
    ] {
        refused_for(lines, key, remedy);
    }
}

#[test]
fn listeners_have_addresses_and_not_the_same() {
    rule(
        "server.listen",
        &["\"0.0.0.0:80\"", "\"[::1]:8080\"", "\"127.0.0.1:0\""],
        &["\":8080\"", "\"localhost:8080\"", "\"127.0.0.1\"", "\"\"", "\"127.0.0.1:65536\""],
        "write an IP address and a port such as \"127.0.0.1:8080\"",
    );
    let both = |one: &str, other: &str| format!("server.listen = \"{one}\"\nserver.admin_listen = \"{other}\"\n");
    for (one, other) in [
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.2:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "[::1]:1"),
    ] {
        accepted(&both(one, other));
    }
    for (one, other) in
        [("127.0.0.1:1", "127.0.0.1:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1")]
    {
        refused_for(&both(one, other), "server.admin_listen", "write another for one of them");
    }
    refused_for("server.listen = \"127.0.0.1:9090\"", "server.listen", "share a port");
}

#[test]
fn an_admin_listener_beyond_loopback_requires_a_token() {
    let digest = "9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08".to_lowercase();
    for address in ["127.0.0.1:9", "127.1.2.3:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
        accepted(&format!("server.admin_listen = \"{address}\""));
    }
    for address in ["0.0.0.0:9", "10.0.0.1:9", "[::]:9"] {
        refused_for(&format!("server.admin_listen = \"{address}\""), "admin.token_sha256", "sha256sum");
        let config = accepted(&format!("server.admin_listen = \"{address}\"\nadmin.token_sha256 = \"{digest}\""));
        assert_eq!(config.admin.token_sha256.expect("it is set")[..3], [0x9f, 0x86, 0xd0]);
    }
    let short = &digest[..63];
    for bad in [short.to_owned(), format!("{digest}0"), format!("{short}g"), format!("{short}é"), "hunter2".to_owned()]
    {
        refused_for(&format!("admin.token_sha256 = \"{bad}\""), "admin.token_sha256", "choose a new one");
    }
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    refused_for(&format!("admin.token_sha256 = \"{empty}\""), "admin.token_sha256", "digest of an empty token");
}

#[test]
fn the_url_is_one_of_postgres_and_sslmode_becomes_tls() {
    rule("postgres.url", &["\"host=h user=a\""], &["\"\"", "\"shop\""], "such as \"postgres://USER@HOST/DATABASE\"");
    rule("postgres.url", &[], &["\"mysql://a@h/d\""], "write postgres:// or postgresql://");
    rule("postgres.url", &[], &["\"postgres://h/d?sslrootcert=x\""], "set postgres.tls_root_cert");
    rule("postgres.url", &[], &["\"postgres://h/d?sslmode=allow\""], "set postgres.tls");
    rule("postgres.url", &[], &["5", "[]"], "write a string in quotes");
    for (mode, tls) in [
        ("disable", Tls::Disable),
        ("prefer", Tls::Prefer),
        ("require", Tls::Require),
        ("verify-ca", Tls::VerifyCa),
        ("verify-full", Tls::VerifyFull),
    ] {
        for (url, rest) in [("postgres://a@h/d?sslmode=", "postgres://a@h/d"), ("host=h sslmode=", "host=h")] {
            let config = accepted(&format!("postgres.url = \"{url}{mode}\""));
            assert_eq!(config.postgres.tls, tls);
            assert_eq!(config.postgres.url.expect("it is configured").expose(), rest);
        }
        assert_eq!(accepted(&format!("postgres.tls = \"{mode}\"")).postgres.tls, tls);
        let both = format!("postgres.url = \"host=h sslmode={mode}\"\npostgres.tls = \"{mode}\"");
        refused_for(&both, "postgres.tls", "remove one of the two");
    }
    rule("postgres.tls", &[], &["\"allow\"", "\"\"", "\"REQUIRE\""], "write \"disable\" or \"prefer\"");
}

#[test]
fn certificates_can_be_read_are_used_and_have_their_key() {
    let file = "\"Cargo.toml\"";
    for key in ["tls_root_cert", "tls_client_cert", "tls_client_key"] {
        for bad in ["\"no/such/file\"", "\"src\""] {
            refused_for(&format!("postgres.{key} = {bad}"), &format!("postgres.{key}"), "write a path to a PEM file");
        }
    }
    let config = accepted(&format!("postgres.tls = \"verify-ca\"\npostgres.tls_root_cert = {file}"));
    assert!(config.postgres.tls_root_cert.expect("it is set").is_file());
    for tls in ["disable", "prefer", "require"] {
        let lines = format!("postgres.tls = \"{tls}\"\npostgres.tls_root_cert = {file}");
        refused_for(&lines, "postgres.tls_root_cert", "set postgres.tls to \"verify-full\"");
    }
    accepted("postgres.tls = \"verify-full\"");
    let (cert, key) = (format!("postgres.tls_client_cert = {file}\n"), format!("postgres.tls_client_key = {file}\n"));
    accepted(&format!("{cert}{key}"));
    refused_for(&cert, "postgres.tls_client_cert", "set both or neither");
    refused_for(&key, "postgres.tls_client_key", "set both or neither");
    let unused = format!("{cert}{key}postgres.tls = \"disable\"");
    refused_for(&unused, "postgres.tls_client_cert", "set postgres.tls to \"require\"");
}

#[test]
fn session_settings_are_texts_that_postgres_can_take() {
    rule("postgres.timezone", &["\"Europe/Berlin\""], &["\"a\\u0000b\"", "\"a\\nb\""], "control character");
    rule("postgres.timezone", &[], &["\"\""], "such as \"UTC\"");
    let (longest, longer) = (format!("\"{}\"", "x".repeat(1024)), format!("\"{}\"", "x".repeat(1025)));
    rule("postgres.search_path", &["\"\"", "\"shop, public\"", &longest], &[&longer], "write less");
    rule("postgres.search_path", &[], &["\"a\\u0000b\""], "control character");
}

#[test]
fn events_come_from_the_log_from_notifications_or_from_nowhere() {
    rule("invalidation.source", &["\"none\"", "\"log\"", "\"notify\""], &["\"x\"", "\"\""], "\"none\"");
    rule("invalidation.proactive", &["0", "10000"], &["-1", "10001"], "0 to 10000");
    let key = "invalidation.advisory_key";
    rule(key, &["-9223372036854775808", "9223372036854775807", "0"], &["\"7\"", "0.5", "true"], "without quotes");
    rule("defaults.proactive_refresh", &["true", "false"], &["\"true\"", "1"], "write true or false");
    let (longest, longer) = (format!("\"{}\"", "x".repeat(63)), format!("\"{}\"", "x".repeat(64)));
    rule("invalidation.channel", &["\"a b\"", &longest], &["\"\"", &longer], "1 to 63 bytes");
    rule("postgres.listen_url", &["\"\"", "\"postgres://a@h/d\""], &["\"mysql://a@h/d\""], "write postgres://");
}

#[test]
fn polls_are_often_enough_for_every_query() {
    accepted("invalidation.poll_interval = \"500ms\"");
    refused_for("invalidation.poll_interval = \"501ms\"", "invalidation.poll_interval", "write at most \"500ms\"");
    accepted("invalidation.poll_interval = \"501ms\"\ninvalidation.source = \"none\"");
    accepted("invalidation.poll_interval = \"25ms\"\nqueries.q.max_lag = \"100ms\"\nqueries.q.sql = \"SELECT 1\"");
    let lines = "invalidation.poll_interval = \"26ms\"\nqueries.q.max_lag = \"100ms\"\nqueries.q.sql = \"SELECT 1\"";
    refused_for(lines, "invalidation.poll_interval", "write at most \"25ms\"");
}

#[test]
fn strict_reads_need_the_log() {
    rule("defaults.consistency", &["\"strict\"", "\"bounded\""], &["\"\"", "\"linear\""], "\"bounded\"");
    let lines = "invalidation.source = \"none\"\nqueries.q.consistency = \"strict\"\nqueries.q.sql = \"SELECT 1\"";
    refused_for(lines, "queries.q.consistency", "set invalidation.source to \"log\"");
    refused_for(&lines.replace("none", "notify"), "queries.q.consistency", "set invalidation.source to \"log\"");
}

#[test]
fn a_query_has_a_name_and_sql_from_one_place() {
    let longest = format!("q{}", "0".repeat(62));
    accepted(&format!("queries.{longest}.sql = \"SELECT 1\""));
    for name in [&format!("{longest}0"), "Q", "1q", "q-r", "_q", "\"\"", "\"q r\"", "é"] {
        let quoted = if name.contains('é') { "\"é\"" } else { name };
        refused_for(
            &format!("queries.{quoted}.sql = \"SELECT 1\""),
            &format!("queries.{quoted}"),
            "write a lowercase letter",
        );
    }
    refused_for("queries.q.ttl = \"1s\"", "queries.q", "set sql or sql_file");
    refused_for("queries.q.sql = 5", "queries.q.sql", "as a string in quotes");
    refused_for(
        "queries.q.sql = \"SELECT 1\"\nqueries.q.sql_file = \"x\"",
        "queries.q.sql_file",
        "remove one of the two",
    );
    refused_for("queries.q.sql_file = \"no/such\"", "queries.q.sql_file", "write a path from this file's directory");
    refused_for("queries.q.sql_file = \"src\"", "queries.q.sql_file", "can't be read");
    refused_for("queries.q.sql = \"SELECT (1\"", "queries.q.sql", "SQL line 1, column ");
    rule("queries.q.result", &["\"rows\"", "\"row\"", "\"value\""], &["\"one\"", "\"\""], "write \"rows\" or \"row\"");
}

#[test]
fn sql_of_a_file_is_bounded_and_found_beside_the_configuration() {
    let dir = tempfile::tempdir().expect("a directory");
    let load = |sql: &[u8]| {
        std::fs::write(dir.path().join("q.sql"), sql).expect("a file");
        let path = dir.path().join("config.toml");
        std::fs::write(&path, super::document("queries.q.sql_file = \"q.sql\"")).expect("a file");
        seawall::config::Config::load(&path, seawall::config::Database::Configured)
    };
    let config = load(b"SELECT '${HOME}' -- ${GONE}").expect("SQL is not substituted");
    assert_eq!(config.queries[0].statement.text(), "SELECT '${HOME}' -- ${GONE}");
    let padded = |length: usize| format!("SELECT 1{}", " ".repeat(length - 8)).into_bytes();
    assert!(load(&padded(65_536)).is_ok());
    let problems = load(&padded(65_537)).expect_err("it is too long");
    assert!(problems.to_string().contains("queries.q.sql_file: \"q.sql\" is longer than 64KiB"), "{problems}");
    assert!(load(&[0xff]).expect_err("it is no text").to_string().contains("UTF-8"));
}

#[test]
fn parameters_are_those_of_the_sql_and_their_bounds_agree() {
    let key = "queries.q.params.a";
    rule(
        key,
        &[
            "\"int4\"",
            "\"numeric(10,2)\"",
            "\"varchar(5)[]\"",
            "\"timestamp with time zone\"",
            "\"shop.kind[][]\"",
            "{}",
        ],
        &[
            "\"\"",
            "\"1int\"",
            "\"int4; x\"",
            "\"numeric(10,)\"",
            "\"${T}\"",
            "\"a(1)(2)\"",
            "\"[]\"",
            "\"a--\"",
            "\"é\"",
        ],
        "write its name as \"int4\"",
    );
    rule(key, &["{ type = \"int4\" }"], &["5", "[]"], "write a type such as \"int4\"");
    rule("queries.q.params.a.type", &[], &["5"], "write a type such as \"int4\"");
    rule("queries.q.params.a.required", &["true", "false"], &["0"], "write true or false");
    rule("queries.q.params", &["{}"], &["5", "\"int4\""], "write a table such as");
    rule("queries.q.params.c", &[], &["\"int4\"", "{}"], "the SQL has no parameter \"c\"");
    rule("queries.q.params.a.min", &["-1", "0.5", "9007199254740992"], &["9007199254740993"], "beyond 2^53");
    rule("queries.q.params.a.max", &["1"], &["\"1\"", "inf", "nan"], "write one without quotes");
    rule(key, &["{ min = 1, max = 1 }"], &[], "");
    let sql = "queries.q.sql = \"SELECT :a\"\n";
    for (param, at, remedy) in [
        ("{ min = 2, max = 1 }", "min", "write min <= max"),
        ("{ min = 2, default = 1 }", "default", "not within min and max"),
        ("{ max = 2, default = 2.5 }", "default", "not within min and max"),
        ("{ max_length = 2, default = \"äöü\" }", "default", "longer than max_length"),
        ("{ default = nan }", "default", "write a finite value"),
        ("{ default = [1, inf] }", "default", "write a finite value"),
    ] {
        refused_for(&format!("{sql}{key} = {param}"), &format!("{key}.{at}"), remedy);
    }
    accepted(&format!("{sql}{key} = {{ max_length = 2, default = \"äö\" }}"));
}

#[test]
fn a_default_keeps_its_spelling() {
    let config = accepted(
        "queries.q.sql = \"SELECT :a, :b\"\n[queries.q.params]\na = { default = 1.50 }\n\
         b = { default = [1, \"x\", true, 2020-01-01] }",
    );
    let defaults: Vec<String> =
        config.queries[0].params.iter().map(|(_, p)| p.default.as_ref().expect("set").to_string()).collect();
    assert_eq!(defaults, ["1.50", "[1,\"x\",true,\"2020-01-01\"]"]);
}

#[test]
fn what_a_query_does_not_set_it_inherits() {
    let config = accepted(
        "defaults.ttl = \"7s\"\ndefaults.result = \"value\"\nqueries.q.sql = \"SELECT 1\"\n\
         queries.r.sql = \"SELECT 1\"\nqueries.r.ttl = \"8s\"\nqueries.r.result = \"row\"\npostgres.pool_size = 3",
    );
    let [q, r] = &config.queries[..] else { panic!("{config:?}") };
    assert_eq!((q.policy.ttl, r.policy.ttl), (Duration::from_secs(7), Duration::from_secs(8)));
    assert_eq!((q.result, r.result), (ResultForm::Value, ResultForm::Row));
    assert_eq!(config.cache.max_fills, 3, "as many as the pool has connections");
}

#[test]
fn each_coding_is_named_once() {
    rule(
        "server.compression",
        &["[]", "[\"gzip\"]", "[\"br\", \"gzip\", \"zstd\"]"],
        &["[\"gzip\", \"gzip\"]"],
        "write each once",
    );
    rule(
        "server.compression",
        &[],
        &["[\"deflate\"]", "[\"GZIP\"]", "[\"\"]"],
        "some of \"zstd\", \"br\" and \"gzip\"",
    );
    rule("server.compression", &[], &["true", "[1]"], "write");
    let order =
        |toml: &str| accepted(toml).server.compression.iter().map(seawall::coding::Coding::as_str).collect::<Vec<_>>();
    assert_eq!(order(""), ["zstd", "br", "gzip"]);
    assert_eq!(order("server.compression = [\"gzip\", \"zstd\"]"), ["gzip", "zstd"]);
}
