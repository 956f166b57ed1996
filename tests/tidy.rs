//! Reads the source and keeps the house's rules, so that a wrong `use` fails a test and not a review.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules in layers, top first. A module uses its own and those of lower layers; siblings never use each other.
const LAYERS: &[&[&str]] = &[
    &["cli"],
    &["app"],
    &["http", "postgres", "redis"],
    &["readthrough", "access"],
    &["cache", "ledger", "catalog", "telemetry"],
    &["stamp", "tag", "clock", "chance", "coding", "tls", "sabotage"],
];

/// Known to these alone.
const CONFIG_IS_KNOWN_TO: &[&str] = &["cli", "app", "config"];

/// Crates and the only places that may name them.
const CONFINED: &[(&[&str], &str)] = &[
    (
        &["tokio_postgres", "deadpool", "deadpool_postgres", "postgres_types", "rustls", "rustls_native_certs"],
        "src/postgres/",
    ),
    (&["redis", "bb8", "bb8_redis"], "src/redis/"),
    (&["hyper", "hyper_util", "axum", "tower", "http_body_util"], "src/http/"),
    (&["prometheus"], "src/telemetry/"),
    (&["toml"], "src/config/"),
    (&["jsonwebtoken", "governor"], "src/access/"),
    (&["tokio_rustls", "x509_parser"], "src/tls/"),
    (&["zstd", "brotli", "flate2"], "src/coding.rs"),
    (&["pg_embed"], "src/postgres/embedded"),
    (&["clap"], "src/cli/"),
];

/// Files that the confinement doesn't hold for, each with its reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The listeners' half of TLS; `postgres` has libpq's modes to itself.
    ("src/tls/", "rustls"),
    ("src/tls/", "rustls_native_certs"),
    // It has no logic, but it must parse arguments to have none.
    ("src/main.rs", "clap"),
    // The composition root serves the admin router that `http` built.
    ("src/app.rs", "axum"),
    // The demo is a client and a naive server of its own, to compare with: see its head.
    ("src/cli/demo", "hyper"),
    ("src/cli/demo", "hyper_util"),
    ("src/cli/demo", "http_body_util"),
];

const LINES_AT_MOST: usize = 500;

fn sources(under: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
        let mut entries: Vec<_> =
            fs::read_dir(dir).expect("a directory").map(|e| e.expect("an entry").path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, out);
            } else if path.extension().is_some_and(|e| e == "rs") {
                out.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![];
    walk(&root.join(under), &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("readable"))
        })
        .collect()
}

/// Code without comments, so that prose may name what code may not.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// The code before its tests, which may use more; a file of tests has none.
fn production(file: &str, text: &str) -> String {
    if file.ends_with("/tests.rs") {
        return String::new();
    }
    let code = code(text);
    code.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

fn module_of(file: &str) -> &str {
    let inner = file.strip_prefix("src/").expect("below src");
    inner.split(['/', '.']).next().expect("a name")
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

/// Modules of this crate that a text names: `crate::name`.
fn named_modules(code: &str) -> Vec<String> {
    code.match_indices("crate::")
        .map(|(at, found)| {
            let rest = &code[at + found.len()..];
            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        })
        .collect()
}

#[test]
fn arrows_between_modules_point_downwards_only() {
    let mut wrong = vec![];
    for (file, text) in sources("src") {
        let module = module_of(&file).to_owned();
        let Some(layer) = layer_of(&module) else { continue };
        for named in named_modules(&production(&file, &text)) {
            if named == module {
                continue;
            }
            if named == "config" {
                if !CONFIG_IS_KNOWN_TO.contains(&module.as_str()) {
                    wrong.push(format!("{file} uses config"));
                }
            } else if layer_of(&named).is_some_and(|other| other <= layer) {
                wrong.push(format!("{file} uses {named}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn confined_crates_stay_in_their_modules() {
    let mut wrong = vec![];
    for (file, text) in sources("src") {
        let code = production(&file, &text);
        for (crates, home) in CONFINED {
            for name in *crates {
                let named = code.match_indices(&format!("{name}::")).any(|(at, _)| {
                    let before = code[..at].chars().next_back();
                    // A path's first segment: not the tail of another word or path.
                    before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
                });
                let excepted = EXCEPTIONS.iter().any(|(prefix, allowed)| file.starts_with(prefix) && allowed == name);
                if named && !file.starts_with(home) && !excepted {
                    wrong.push(format!("{file} names {name}, which belongs in {home}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_file_says_what_it_is_and_stays_readable() {
    let mut wrong = vec![];
    for (file, text) in sources("src").into_iter().chain(sources("tests")).chain(sources("benches")) {
        if !text.starts_with("//!") {
            wrong.push(format!("{file} does not open with its //! head"));
        }
        if text.lines().count() > LINES_AT_MOST {
            wrong.push(format!("{file} has {} lines, over {LINES_AT_MOST}: split it", text.lines().count()));
        }
        let name = Path::new(&file).file_stem().expect("a name").to_string_lossy().into_owned();
        if ["utils", "helpers", "common", "types", "manager"].contains(&name.as_str()) {
            wrong.push(format!("{file}: a name that says nothing"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn time_is_read_in_one_place_and_nothing_unwraps() {
    let mut wrong = vec![];
    for (file, text) in sources("src") {
        let code = production(&file, &text);
        // tokio's Instant is a timer's, for deadlines of waits; an age is the clock's.
        if file != "src/clock.rs" && (code.contains("std::time::Instant") || code.contains("SystemTime")) {
            wrong.push(format!("{file} reads the time past the clock"));
        }
        for banned in [".unwrap()", "todo!(", "unimplemented!(", "dbg!("] {
            if code.contains(banned) {
                wrong.push(format!("{file} has {banned}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn tests_await_conditions_and_not_time() {
    let mut wrong = vec![];
    for (file, text) in sources("tests") {
        let code = code(&text);
        // Spelt in parts, or this file would find itself. The one that is excepted polls a condition with a deadline.
        if code.contains(concat!("sle", "ep(")) && file != "tests/support/eventually.rs" {
            // SQL may: it is what makes a statement slow.
            let ours = code.match_indices(concat!("sle", "ep(")).any(|(at, _)| !code[..at].ends_with("pg_"));
            if ours {
                wrong.push(file);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_test_that_a_page_names_is_there() {
    let page = include_str!("../docs/regressions.md");
    let names: Vec<&str> = page.split('`').filter(|word| word.matches('_').count() >= 3).collect();
    let known: Vec<(String, String)> = sources("tests").into_iter().chain(sources("src")).collect();
    let missing: Vec<&&str> =
        names.iter().filter(|name| !known.iter().any(|(_, text)| text.contains(&format!("fn {name}(")))).collect();
    assert!(names.len() > 30 && missing.is_empty(), "{missing:?}");
}
