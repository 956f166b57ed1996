//! What concerns the file as a whole: all problems at once, lines, substitution, and secrets that stay where they are.

use std::path::Path;

use seawall::config::{Config, Database};

use super::{SECRET, accepted, document, env, parse, refused, refused_for};

#[test]
fn every_problem_is_reported_at_once_in_the_order_of_the_file() {
    let text = "\
[server]
listn = \"x\"
drain_delay = \"soon\"
admin_listen = \"0.0.0.0:9\"

[postgres]
pool_size = 0
tls = \"maybe\"

[redis]
url = \"redis+cluster://h/1\"
[defaults]
ttl = 5
proactive_refresh = 1
[queries.one]
sql = \"SELECT (\"
jitter = 2
[queries.Two]
sql = \"SELECT :a\"
params = { b = \"int4\" }
[queries.three]
sql = \"SELECT 1\"
";
    let problems = parse(text).expect_err("it is full of mistakes");
    let found: Vec<(Option<usize>, &str)> = problems.0.iter().map(|p| (p.line, &*p.key)).collect();
    assert_eq!(
        found,
        [
            (None, "admin.token_sha256"),
            (None, "postgres.url"),
            (Some(2), "server.listn"),
            (Some(3), "server.drain_delay"),
            (Some(7), "postgres.pool_size"),
            (Some(8), "postgres.tls"),
            (Some(11), "redis.url"),
            (Some(13), "defaults.ttl"),
            (Some(14), "defaults.proactive_refresh"),
            (Some(16), "queries.one.sql"),
            (Some(17), "queries.one.jitter"),
            (Some(18), "queries.Two"),
            (Some(20), "queries.Two.params.b"),
        ]
    );
    assert_eq!(problems.to_string().lines().count(), problems.0.len());
    assert!(
        problems.to_string().contains("line 3: server.drain_delay: \"soon\" is not a duration; write"),
        "{problems}"
    );
}

#[test]
fn a_syntax_error_is_one_problem_with_its_line_and_without_the_text() {
    for (text, line) in [
        ("a = 1\n[postgres]\nurl = \"postgres://a:hunter2-s3cr3t@h/d\n[queries.q]\n", 3),
        ("a = 1\na = 2\n", 2),
        ("a = hunter2-s3cr3t\n", 1),
    ] {
        let problems = parse(text).expect_err("it is not TOML");
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert_eq!(problems.0[0].line, Some(line), "{problems}");
        assert_eq!(problems.0[0].key, "");
        assert!(problems.to_string().contains("not TOML"), "{problems}");
        assert!(!problems.to_string().contains(SECRET), "{problems}");
    }
}

#[test]
fn without_a_query_there_is_nothing_to_serve() {
    for text in ["postgres.url = \"host=h\"", "postgres.url = \"host=h\"\n[queries]"] {
        let problems = parse(text).expect_err("it has no query");
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert_eq!(problems.0[0].key, "queries");
        assert!(problems.0[0].message.contains("[queries.NAME]"));
    }
    assert!(parse("").is_err());
}

#[test]
fn a_url_is_needed_except_for_the_embedded_database() {
    let text = "queries.q.sql = \"SELECT 1\"\n";
    let problems = parse(text).expect_err("it has no URL");
    assert_eq!((problems.0.len(), &*problems.0[0].key), (1, "postgres.url"), "{problems}");
    for url in ["", "postgres.url = \"${NOT_SET}\"", "postgres.url = 5", "postgres.url = \"x?sslmode=y\""] {
        let text = format!("{text}{url}\n");
        let config = Config::parse(&text, Path::new(""), Database::Embedded, &env).expect("the URL is not looked at");
        assert!(config.postgres.url.is_none());
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem() {
    let dir = tempfile::tempdir().expect("a directory");
    let load = |path: &Path| Config::load(path, Database::Configured).expect_err("it can't be loaded").to_string();
    assert!(load(&dir.path().join("gone.toml")).contains("can't be opened"));
    assert!(load(dir.path()).contains("can't be read"));
    let path = dir.path().join("config.toml");
    std::fs::write(&path, [0xff]).expect("a file");
    assert!(load(&path).contains("UTF-8"));
    let size = |bytes: usize| std::fs::write(&path, document(&format!("#{}", "x".repeat(bytes)))).expect("a file");
    let own = document("#").len();
    size(4 * 1024 * 1024 - own);
    assert!(Config::load(&path, Database::Configured).is_ok());
    size(4 * 1024 * 1024 - own + 1);
    assert!(load(&path).contains("4MiB"));
}

#[test]
fn what_is_substituted_may_be_a_number_or_a_boolean() {
    let config = accepted(
        "server.max_connections = \"${NUMBER}0\"\nserver.expose_stamp = \"${TRUE}\"\n\
         defaults.jitter = \"0.${NUMBER}\"\ndefaults.ttl = \"${NUMBER}s\"\npostgres.search_path = \"a$${NUMBER}\"",
    );
    assert_eq!(config.server.max_connections, 50);
    assert!(config.server.expose_stamp);
    assert!((config.queries[0].policy.jitter - 0.5).abs() < f64::EPSILON);
    assert_eq!(config.queries[0].policy.ttl.as_secs(), 5);
    assert_eq!(config.postgres.search_path.as_deref(), Some("a${NUMBER}"));
    refused_for("server.max_connections = \"50\"", "server.max_connections", "without quotes");
}

#[test]
fn a_variable_that_is_not_set_is_named_and_so_is_a_missing_file() {
    refused_for("postgres.timezone = \"${NOT_SET}\"", "postgres.timezone", "the variable NOT_SET is not set");
    refused_for(
        "postgres.timezone = \"${file:no/such}\"",
        "postgres.timezone",
        "${file:no/such}: the file can't be opened",
    );
    refused_for("postgres.timezone = \"${\"", "postgres.timezone", "close it with }");
    refused_for("postgres.timezone = \"${EMPTY}\"", "postgres.timezone", "such as \"UTC\"");
    let both = refused("postgres.timezone = \"${ONE}${TWO}\"");
    assert_eq!(both.len(), 2, "{both:?}");
}

#[test]
fn keys_and_sql_and_types_are_not_substituted() {
    let config = accepted("queries.q.sql = \"SELECT '${NOT_SET}'\"");
    assert_eq!(config.queries[0].statement.text(), "SELECT '${NOT_SET}'");
    refused_for("queries.\"${NUMBER}\".sql = \"SELECT 1\"", "queries.\"${NUMBER}\"", "can't name a query");
}

#[test]
fn no_secret_is_in_a_problem_wherever_it_is_put() {
    use seawall::config::keys::{KEYS, Section};
    for key in KEYS {
        let path = match key.section {
            Section::Query => "queries.q".to_owned(),
            Section::Param => "queries.q.params.a".to_owned(),
            other => other.path().to_owned(),
        };
        for value in ["\"${SECRET}\"", "\"x${SECRET}y\"", "\"${NOT_SET:-hunter2-s3cr3t}\"", "[\"${SECRET}\"]"] {
            if value.contains("hunter2") && !key.is_secret() {
                // Written into the file itself under a key that carries no secret.
                continue;
            }
            let sql = if key.name == "sql" { "" } else { "queries.q.sql = \"SELECT :a\"\n" };
            let url = if path == "postgres" && key.name == "url" { "" } else { "postgres.url = \"host=h\"\n" };
            let text = format!("{sql}{url}{path}.{} = {value}\n", key.name);
            if let Err(problems) = parse(&text) {
                assert!(!problems.to_string().contains(SECRET), "{text}\n{problems}");
                assert!(!format!("{problems:?}").contains(SECRET), "{text}\n{problems:?}");
            }
        }
    }
    for url in
        ["postgres://a:hunter2-s3cr3t@h/d?sslmode=x", "hunter2-s3cr3t", "mysql://hunter2-s3cr3t", "a='hunter2-s3cr3t"]
    {
        let problems = parse(&document(&format!("postgres.url = \"{url}\""))).expect_err("it is no URL");
        assert!(!format!("{problems}{problems:?}").contains(SECRET), "{problems}");
    }
    refused_for("postgres.timezone = \"${SECRET}\\n\"", "postgres.timezone", "\"${SECRET}\\n\"");
}

#[test]
fn no_secret_is_in_the_debug_output_of_a_configuration() {
    let digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    for url in ["${SECRET_URL}", "postgres://app:hunter2-s3cr3t@localhost/shop"] {
        let config = accepted(&format!("postgres.url = \"{url}\"\nadmin.token_sha256 = \"{digest}\""));
        for text in [format!("{config:?}"), format!("{config:#?}")] {
            assert!(!text.contains(SECRET), "{text}");
            assert!(!text.contains("9f86") && !text.contains("159, 134"), "{text}");
            assert!(text.contains("***"), "{text}");
        }
        assert!(config.postgres.url.expect("it is configured").expose().contains(SECRET));
    }
}
