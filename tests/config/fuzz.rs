//! Arbitrary configurations: none makes the check panic, each is a configuration or at least one problem, each problem
//! is one line, and none holds what came from outside. Known keys with odd values reach deep; arbitrary text reaches
//! the parser. Not covered: files, since what they hold comes through the same door as variables.
//!
//! `SEAWALL_FUZZ_CASES` sets how many are tried of each kind; a failure prints the text, which is the whole case.

use proptest::prelude::*;
use proptest::sample::select;
use seawall::config::keys::{KEYS, Section};

use super::{SECRET, parse};

fn cases() -> ProptestConfig {
    let cases = std::env::var("SEAWALL_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn value() -> impl Strategy<Value = String> {
    let word = select(vec![
        "none",
        "prefer",
        "verify-full",
        "row",
        "127.0.0.1:0",
        "0.0.0.0:9",
        "5s",
        "1 s",
        "1e9d",
        "12MiB",
        "UTC",
        "int4[]",
        "numeric(1,2)",
        "postgres://a@h/d",
        "postgres://a@h/d?sslmode=disable&sslmode=",
        "host=h sslmode='a\\\\",
        "SELECT :a",
        "SELECT (:a",
        "src",
        "Cargo.toml",
        "${SECRET}",
        "x${SECRET}",
        "${SECRET_URL}",
        "${NUMBER}",
        "${NOT_SET}",
        "${NOT_SET:-1}",
        "$${",
        "${",
        "${}",
        "${file:}",
        "${file:Cargo.toml}",
        "",
        "\\u0000",
        "é",
        "true",
    ])
    .prop_map(|word| format!("\"{word}\""));
    let scalar = prop_oneof![
        6 => word,
        2 => any::<i64>().prop_map(|n| n.to_string()),
        2 => (-3_i64..3000).prop_map(|n| n.to_string()),
        2 => any::<f64>().prop_filter("nan and inf come below", |n| n.is_finite()).prop_map(|n| format!("{n:?}")),
        1 => select(vec!["true", "false", "nan", "-inf", "0xff", "99999999999999999999", "1979-05-27T07:32:00Z"])
            .prop_map(str::to_owned),
        1 => "\\PC{0,80}".prop_map(|text| format!("{text:?}")),
    ];
    scalar.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(", "))),
            prop::collection::btree_map(name(), inner, 0..4).prop_map(|fields| {
                let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                format!("{{ {} }}", fields.join(", "))
            }),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => select(KEYS.iter().map(|k| k.name.to_owned()).collect::<Vec<_>>()),
        1 => select(vec!["a", "b", "q", "Q", "\"\"", "\"a b\"", "server"]).prop_map(str::to_owned),
        1 => "[a-z_]{1,12}",
    ]
}

fn line() -> impl Strategy<Value = String> {
    let known = select(KEYS.iter().collect::<Vec<_>>()).prop_flat_map(|key| {
        let place = match key.section {
            Section::Query => select(vec!["queries.q", "queries.r"]),
            Section::Param => select(vec!["queries.q.params.a", "queries.r.params.b"]),
            Section::Defaults => select(vec!["defaults", "queries.q"]),
            other => select(vec![other.path()]),
        };
        (place, Just(key.name)).prop_map(|(place, name)| format!("{place}.{name}"))
    });
    let path = prop_oneof![
        8 => known,
        1 => prop::collection::vec(name(), 1..4).prop_map(|parts| parts.join(".")),
    ];
    (path, value()).prop_map(|(path, value)| format!("{path} = {value}\n"))
}

/// What holds of every text.
fn check(text: &str) {
    match parse(text) {
        Ok(config) => {
            assert!(!config.queries.is_empty());
            assert!(config.cache.entry_max_bytes <= config.cache.max_bytes);
            let url = config.postgres.url.as_ref().expect("it is configured");
            assert_eq!(format!("{url:?}"), "***");
        }
        Err(problems) => {
            assert!(!problems.0.is_empty());
            let shown = problems.to_string();
            assert_eq!(shown.lines().count(), problems.0.len(), "{shown}");
            assert!(!shown.contains(SECRET), "{shown}");
            assert!(!problems.0.iter().any(|p| p.message.is_empty()), "{shown}");
        }
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn known_keys_with_odd_values_never_panic(lines in prop::collection::vec(line(), 0..12)) {
        // The same key twice is a syntax error, which would hide all the rest.
        let mut seen = std::collections::HashSet::new();
        let mut lines = lines;
        lines.retain(|line| seen.insert(line.split(" = ").next().unwrap_or_default().to_owned()));
        check(&lines.concat());
    }

    #[test]
    fn one_odd_value_in_a_sound_file_never_panics(line in line()) {
        let sound = "postgres.url = \"host=h\"\nqueries.r.sql = \"SELECT :b\"\n";
        if !line.starts_with("postgres.url ") && !line.starts_with("queries.r.sql ") {
            check(&format!("{sound}{line}"));
        }
    }

    #[test]
    fn arbitrary_text_never_panics(text in "(\\PC|[\\[\\]{}\"'=.,#$:\\\\\n\t ]){0,200}") {
        check(&text);
    }
}

#[test]
fn deep_nesting_is_bounded() {
    for depth in [10, 30, 79, 100, 5_000] {
        check(&format!("x = {}{}", "[".repeat(depth), "]".repeat(depth)));
        check(&format!("queries.q.params.a.default = {}1{}", "{ a = ".repeat(depth), " }".repeat(depth)));
        check(&format!("queries.q.params.a.default.{} = 1", vec!["a"; depth].join(".")));
        let inner = vec!["a"; depth.min(70)].join(".");
        check(&format!("x = {}1{}", format!("{{ {inner} = ").repeat(depth.min(70)), " }".repeat(depth.min(70))));
    }
}
