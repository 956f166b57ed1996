//! What to say of a key that there is not: the one that was probably meant.

use super::keys::{self, Force, KEYS, Section, TOP};
use super::problem::quoted;

/// Edits that still make a likely typing error: a third of the word, since short words are all close to each other.
fn near(wanted: &str, known: &str) -> Option<usize> {
    // The distance takes the product of the lengths; no key is this long.
    if wanted.len() > 64 {
        return None;
    }
    let edits = strsim::damerau_levenshtein(wanted, known);
    (edits <= (known.chars().count().max(wanted.chars().count()) / 3).max(1)).then_some(edits)
}

/// The closest of `known`, if any is close.
pub(super) fn closest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known.filter_map(|k| near(wanted, k).map(|edits| (edits, k))).min_by_key(|(edits, _)| *edits).map(|(_, k)| k)
}

/// For `name`, which is no key of `section`.
pub(super) fn unknown_key(section: Section, name: &str) -> String {
    let elsewhere: Vec<String> = KEYS
        .iter()
        .filter(|k| k.name == name && k.section != section)
        .map(|k| match k.force {
            Force::Now => format!("{}.{name}", k.section.path()),
            Force::Later(_) => format!("{}.{name} (not in force yet)", k.section.path()),
        })
        .collect();
    if !elsewhere.is_empty() {
        return format!("there is no such key here; move it to {}", elsewhere.join(" or "));
    }
    if let Some(known) = closest(name, keys::of(section).map(|k| k.name)) {
        return format!("there is no such key; did you mean {known}?");
    }
    if let Some((_, key)) =
        KEYS.iter().filter_map(|k| near(name, k.name).map(|edits| (edits, k))).min_by_key(|(edits, _)| *edits)
    {
        return format!("there is no such key; did you mean {}.{}?", key.section.path(), key.name);
    }
    format!(
        "there is no such key; remove it, or write one of {}",
        listed(keys::of(section).filter(|k| k.force == Force::Now).map(|k| k.name))
    )
}

/// For `name` at the top of the file, where only sections are.
pub(super) fn unknown_section(name: &str) -> String {
    if let Some(key) = KEYS.iter().find(|k| k.name == name) {
        return format!("keys stand in sections; move it to {}.{name}", key.section.path());
    }
    match closest(name, TOP.into_iter()) {
        Some(known) => format!("there is no such section; did you mean [{known}]?"),
        None => format!("there is no such section; remove it, or write one of {}", listed(TOP.into_iter())),
    }
}

/// For parameter `name`, which is none of the SQL's.
pub(super) fn unknown_param(name: &str, known: &[Box<str>]) -> String {
    match closest(name, known.iter().map(|k| &**k)) {
        Some(close) => format!("the SQL has no parameter {}; did you mean {close}?", quoted(name)),
        None => format!("the SQL has no parameter {}; remove it, or write :name in the SQL", quoted(name)),
    }
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
