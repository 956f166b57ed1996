//! The shipped `config.toml`: it runs as it is, and it is the reference of every key.

use std::fmt::Write as _;
use std::path::Path;

use seawall::catalog::{Policy, ResultForm};
use seawall::config::keys::{Absent, Force, KEYS, Section, find};
use seawall::config::{Config, Database, Tls};

use super::{accepted, parse};

const TEXT: &str = include_str!("../../config.toml");

/// Whether a section means something by being there, so that its header is commented out with its keys.
fn is_of_its_own(section: Section) -> bool {
    matches!(
        section,
        Section::Query
            | Section::Param
            | Section::Auth
            | Section::Cors
            | Section::Redis
            | Section::Token
            | Section::Jwt
            | Section::JwtKey
    )
}

/// A key line of the reference, commented out or not.
struct Line {
    section: Section,
    name: String,
    value: String,
    commented: bool,
    /// Below "coming" of its section.
    coming: bool,
    number: usize,
}

/// The reference up to the sample's queries, line by line.
fn lines() -> Vec<Line> {
    let (mut section, mut coming) = (None, false);
    let mut lines = Vec::new();
    for (number, line) in TEXT.lines().enumerate() {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some(header) = bare.strip_prefix('[') {
            let header = header.strip_suffix(']').expect("a header ends with a bracket");
            if header == "queries.product" {
                break;
            }
            let mut known = KEYS.iter().map(|k| k.section);
            section = Some(known.find(|s| s.path() == header).unwrap_or_else(|| panic!("[{header}]")));
            coming = false;
            continue;
        }
        coming |= bare.starts_with("coming:") && !bare.contains(": ");
        let Some((name, rest)) = bare.split_once(" = ") else { continue };
        if !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            continue;
        }
        // A value ends at the first # outside of it, which is where TOML stops, too.
        let value = rest.split("  #").next().unwrap_or(rest).split(" # ").next().unwrap_or(rest).trim();
        lines.push(Line {
            section: section.expect("no key stands before the first section"),
            name: name.to_owned(),
            value: value.to_owned(),
            commented: line.starts_with('#'),
            coming,
            number: number + 1,
        });
    }
    lines
}

#[test]
fn it_loads_in_both_modes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let configured = Config::load(&path, Database::Configured).unwrap_or_else(|e| panic!("{e}"));
    let embedded = Config::load(&path, Database::Embedded).unwrap_or_else(|e| panic!("{e}"));
    assert!(configured.postgres.url.is_some());
    assert!(embedded.postgres.url.is_none());
    let names: Vec<&str> = embedded.queries.iter().map(|q| &*q.name).collect();
    assert_eq!(names, ["product", "products_by_category", "product_page", "product_count", "search"]);
    let params: Vec<Vec<&str>> =
        embedded.queries.iter().map(|q| q.statement.params().iter().map(|p| &**p).collect()).collect();
    assert_eq!(params, [vec!["id"], vec!["category", "limit"], vec!["id"], vec![], vec!["ids"]]);
}

#[test]
fn every_key_is_in_it_once_and_it_has_no_other() {
    let lines = lines();
    for line in &lines {
        let known = find(line.section, &line.name);
        assert!(known.is_some(), "line {}: {} is no key", line.number, line.name);
    }
    for key in KEYS {
        let found = lines.iter().filter(|l| l.section == key.section && l.name == key.name).count();
        assert_eq!(found, 1, "{}.{} is there {found} times", key.section.path(), key.name);
    }
}

#[test]
fn it_shows_the_default_that_the_table_has_and_marks_what_is_coming() {
    for line in lines() {
        let key = find(line.section, &line.name).expect("checked by another test");
        match key.default {
            Absent::Is(text) | Absent::Example(text) => assert_eq!(line.value, text, "line {}", line.number),
            Absent::Required => {}
        }
        assert_eq!(line.commented, key.default != Absent::Required, "line {}", line.number);
        assert_eq!(line.coming, key.force != Force::Now, "line {}", line.number);
    }
}

#[test]
fn the_defaults_that_it_shows_are_those_of_the_code() {
    // Every default written out must make the very configuration that leaving all of them out makes.
    let mut written = String::new();
    for key in KEYS.iter().filter(|k| k.force == Force::Now && !is_of_its_own(k.section)) {
        if let Absent::Is(text) = key.default {
            writeln!(written, "{}.{} = {text}", key.section.path(), key.name).expect("a String takes all");
        }
    }
    let (written, absent) = (accepted(&written), accepted(""));
    assert_eq!(format!("{written:?}"), format!("{absent:?}"));
}

#[test]
fn a_section_of_redis_that_says_nothing_is_the_one_that_is_shown() {
    let shown: String = KEYS
        .iter()
        .filter_map(|key| match key.default {
            Absent::Is(text) if key.section == Section::Redis => Some(format!("{} = {text}\n", key.name)),
            _ => None,
        })
        .collect();
    let (shown, silent) = (accepted(&format!("[redis]\n{shown}")).redis, accepted("[redis]\n").redis);
    assert!(silent.is_some() && shown == silent, "{shown:?} {silent:?}");
    assert_eq!(accepted("").redis, None, "without the section there is none");
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = accepted("");
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.server.admin_listen.to_string(), "127.0.0.1:9090");
    assert_eq!(config.server.body_max_bytes, 65_536);
    assert_eq!(config.postgres.pool_size, 8);
    assert_eq!(config.postgres.tls, Tls::Prefer);
    assert_eq!(config.postgres.timezone, "UTC");
    assert_eq!(config.postgres.search_path, None);
    assert_eq!(config.cache.max_bytes, 256 << 20);
    assert_eq!(config.cache.entry_max_bytes, 1 << 20);
    assert_eq!(config.cache.result_max_bytes, 16 << 20);
    assert_eq!(config.cache.max_fills, 8);
    assert_eq!(config.queries[0].policy, Policy::default());
    assert_eq!(config.queries[0].result, ResultForm::default());
}

#[test]
fn each_coming_key_is_refused_by_name_wherever_it_stands() {
    for key in KEYS {
        let Force::Later(what) = key.force else { continue };
        let (Absent::Is(value) | Absent::Example(value)) = key.default else { continue };
        let places = match key.section {
            Section::Defaults => vec!["defaults", "queries.q"],
            Section::Query => vec!["queries.q"],
            other => vec![other.path()],
        };
        for place in places {
            let path = format!("{place}.{}", key.name);
            let line = format!("queries.q.sql = \"SELECT 1\"\n{path} = {value}\n");
            super::refused_for(&line, &path, "not in force yet: this version has no ");
            super::refused_for(&line, &path, &format!("{what}; remove the key"));
        }
    }
}

#[test]
fn the_text_is_toml_when_every_line_in_force_is_uncommented() {
    let mut text = TEXT.to_owned();
    for line in lines().into_iter().filter(|l| l.commented && !l.coming) {
        if !is_of_its_own(line.section) && line.section != Section::Redis {
            let (from, to) = (format!("# {} = {}", line.name, line.value), format!("{} = {}", line.name, line.value));
            text = text.replacen(&from, &to, 1);
        }
    }
    assert_ne!(text, TEXT);
    let (uncommented, shipped) = (parse(&text), parse(TEXT));
    assert_eq!(format!("{uncommented:?}"), format!("{shipped:?}"));
    assert!(shipped.is_ok());
}
