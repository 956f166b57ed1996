//! The configuration from outside: what is accepted, what is refused and in which words.

mod auth;
mod cors;
mod fuzz;
mod rules;
mod shipped;
mod tls;
mod together;

use std::path::Path;

use seawall::config::{Config, Database, Problem, Problems};

/// A document of dotted keys: `lines`, and what a configuration can't do without.
fn document(lines: &str) -> String {
    let mut text = String::new();
    if !lines.contains("postgres.url") {
        text.push_str("postgres.url = \"postgres://app@localhost/shop\"\n");
    }
    if !lines.contains("queries.") && !lines.contains("[queries") && !lines.starts_with("queries") {
        text.push_str("queries.q.sql = \"SELECT :a::int4 + :b::int4\"\n");
    }
    text + lines
}

fn env(name: &str) -> Option<String> {
    match name {
        "NUMBER" => Some("5".to_owned()),
        "TRUE" => Some("true".to_owned()),
        "SECRET" => Some(SECRET.to_owned()),
        "SECRET_URL" => Some(format!("postgres://app:{SECRET}@localhost/shop")),
        "EMPTY" => Some(String::new()),
        _ => None,
    }
}

/// What must never be printed.
const SECRET: &str = "hunter2-s3cr3t";

fn parse(text: &str) -> Result<Config, Problems> {
    Config::parse(text, Path::new(env!("CARGO_MANIFEST_DIR")), Database::Configured, &env)
}

fn accepted(lines: &str) -> Config {
    parse(&document(lines)).unwrap_or_else(|problems| panic!("{lines}\nis refused:\n{problems}"))
}

fn refused(lines: &str) -> Vec<Problem> {
    match parse(&document(lines)) {
        Ok(config) => panic!("{lines}\nis accepted:\n{config:#?}"),
        Err(problems) => problems.0,
    }
}

/// One problem, with `key` and `remedy` in its message.
fn refused_for(lines: &str, key: &str, remedy: &str) {
    let problems = refused(lines);
    assert_eq!(problems.len(), 1, "{lines}\n{problems:#?}");
    assert_eq!(problems[0].key, key, "{lines}\n{problems:#?}");
    assert!(problems[0].message.contains(remedy), "{lines}\n{problems:#?}");
}
