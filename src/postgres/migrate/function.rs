//! The trigger functions that are made for sets of columns, as text.
//!
//! A function names its columns, so that plpgsql plans its statements once for each trigger and session; a generic one would
//! plan them with every write. Its own name is a hash of its text: it is never replaced by another, tables with keys of the
//! same names and types share one, and whether an installed trigger does what it should is seen from the name alone.
//!
//! # What it must not do: fail
//!
//! Columns are renamed, dropped and changed under a trigger. So whether they are there, by name and type, is asked before
//! the statement that names them, and that statement is planned only when it is reached. The question is answered by how a
//! name resolves: a column of the rows hides one of the same name in `missing` around it, whose type no key has. The catalog's
//! own rows would not do. Under REPEATABLE READ they are as the transaction's snapshot has them, while the rows are as the
//! table is now:
//!
//! 1. a writer takes its snapshot;
//! 2. another session renames `id`, and commits;
//! 3. the writer inserts, its trigger finds `id` in `pg_attribute`, names it, and the writer's statement fails.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use sha2::{Digest, Sha256};

use super::columns::{KeyColumns, KeyType, encode};

/// Rows of one statement that keys are looked for in: more are announced as every row. It bounds what a bulk statement pays.
const ROWS_AT_MOST: usize = 4096;
/// Row keys that one statement announces; more are announced as every row.
const KEYS_AT_MOST: usize = 64;
/// A longer key is announced as every row; the log's index takes no entry over 2.7 kB.
const KEY_BYTES_AT_MOST: usize = 1000;
/// Two names of 63 bytes with every byte escaped, and the dot and the colon.
const TABLE_TAG_BYTES: usize = 2 * 63 * 3 + 2;

/// How our functions' names begin.
pub(super) const PREFIX: &str = "written_";

/// The settings that shape the text of values. None of those types that have row tags depends on one; a type that is added
/// some day shall not either.
const PINNED: &str = "SET search_path = pg_catalog, pg_temp\n    SET \"DateStyle\" = 'ISO' SET \"IntervalStyle\" = 'postgres' \
                      SET \"TimeZone\" = 'UTC'\n    SET extra_float_digits = 1 SET bytea_output = 'hex'";

/// A trigger function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    /// Without its schema.
    pub(super) name: String,
    /// What makes it; may be run again.
    pub(super) sql: String,
}

/// `name` as an SQL identifier.
pub(super) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `text` as an SQL literal, under standard_conforming_strings.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The function for statements that insert, update or delete, on a table whose rows are announced by `sets`.
pub(super) fn written(sets: &BTreeSet<KeyColumns>) -> Function {
    let body = body(sets);
    let digest = Sha256::digest(format!("{PINNED}{body}"));
    let name = digest.iter().take(8).fold(PREFIX.to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    });
    let sql = format!(
        "CREATE OR REPLACE FUNCTION seawall.{name}() RETURNS trigger\nLANGUAGE plpgsql SECURITY DEFINER\n    {PINNED}\nAS {};\n\
         REVOKE ALL ON FUNCTION seawall.{name}() FROM PUBLIC;\n",
        literal(&body)
    );
    Function { name, sql }
}

fn body(sets: &BTreeSet<KeyColumns>) -> String {
    let inserted = branch(sets, "seawall_new", &["seawall_new"]);
    let updated = branch(sets, "seawall_new", &["seawall_old", "seawall_new"]);
    let deleted = branch(sets, "seawall_old", &["seawall_old"]);
    let declared = if sets.is_empty() { "" } else { "    known boolean;\n" };
    // A user's column may be called anything: where a name could be a variable's too, it is the column. Statements with the
    // user's columns in reach name no variable but as a target.
    format!(
        "
#variable_conflict use_column
<<announcing>>
DECLARE
    touched int8;
{declared}    keys text[] := '{{}}';
BEGIN
    IF tg_op = 'INSERT' THEN
{inserted}
    ELSIF tg_op = 'UPDATE' THEN
{updated}
    ELSE
{deleted}
    END IF;
    IF touched = 0 THEN
        RETURN NULL;
    END IF;
    IF cardinality(keys) > {KEYS_AT_MOST} OR strpos(array_to_string(keys, ' '), '*') > 0 THEN
        keys := ARRAY[tg_argv[0] || ':*'];
    END IF;
    PERFORM seawall.announce(tg_argv[0] || keys);
    RETURN NULL;
END
"
    )
}

/// What one kind of statement does: counts its rows, and finds their keys.
fn branch(sets: &BTreeSet<KeyColumns>, counted: &str, images: &[&str]) -> String {
    if sets.is_empty() {
        return format!("        touched := (SELECT count(*) FROM (SELECT FROM {counted} LIMIT 1) AS bounded);");
    }
    let columns: BTreeMap<&str, KeyType> = sets.iter().flat_map(|set| &set.0).map(|(n, kind)| (&**n, *kind)).collect();
    let known: Vec<String> = columns
        .iter()
        .map(|(name, kind)| {
            format!(
                "pg_typeof((SELECT {} FROM (SELECT * FROM {counted}) AS written LIMIT 0)) = '{}'::regtype",
                identifier(name),
                kind.name()
            )
        })
        .collect();
    let missing: Vec<String> = columns.keys().map(|name| format!("NULL::pg_lsn AS {}", identifier(name))).collect();
    let keys: Vec<String> = sets.iter().map(|set| format!("({})", key(set))).collect();
    let images: Vec<String> = images
        .iter()
        .map(|image| {
            format!(
                "                SELECT made.key FROM {image} AS image\n                 CROSS JOIN LATERAL (VALUES {}) AS made (key)",
                keys.join(", ")
            )
        })
        .collect();
    format!(
        "        SELECT (SELECT count(*) FROM (SELECT FROM {counted} LIMIT {bound}) AS bounded),
               {known}
          INTO announcing.touched, announcing.known
          FROM (SELECT {missing}) AS missing;
        IF touched > {ROWS_AT_MOST} OR NOT known THEN
            keys := ARRAY['*'];
        ELSIF touched > 0 THEN
            keys := ARRAY(SELECT tg_argv[0] || ':' || own.key FROM (SELECT DISTINCT every.key FROM (
{images}
            ) AS every WHERE every.key IS NOT NULL LIMIT {keys_bound}) AS own);
        END IF;",
        bound = ROWS_AT_MOST + 1,
        known = known.join("\n               AND "),
        missing = missing.join(", "),
        images = images.join("\n                 UNION ALL\n"),
        keys_bound = KEYS_AT_MOST + 1,
    )
}

/// What follows the colon of a row's tag: NULL where a value is, `*` where it would be too long.
fn key(set: &KeyColumns) -> String {
    let parts: Vec<String> = set
        .0
        .iter()
        .enumerate()
        .map(|(place, (name, kind))| {
            let separator = if place == 0 { "" } else { "," };
            let value = format!("image.{}::text COLLATE \"C\"", identifier(name));
            let value = if kind.is_free_text() { format!("seawall.tag_text({value})") } else { value };
            format!("{} || {value}", literal(&format!("{separator}{}=", encode(name))))
        })
        .collect();
    let key = parts.join(" || ");
    let longest: usize = set.0.iter().map(|(name, kind)| encode(name).len() + 2 + kind.tag_bytes()).sum();
    if longest + TABLE_TAG_BYTES <= KEY_BYTES_AT_MOST {
        return key;
    }
    let most = KEY_BYTES_AT_MOST - TABLE_TAG_BYTES;
    format!("CASE WHEN octet_length({key}) > {most} THEN '*' ELSE {key} END")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sets(columns: &[&[(&str, KeyType)]]) -> BTreeSet<KeyColumns> {
        columns
            .iter()
            .map(|set| KeyColumns(set.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()))
            .collect()
    }

    #[test]
    fn the_same_columns_have_the_same_function_and_others_another() {
        let id = written(&sets(&[&[("id", KeyType::Int4)]]));
        assert_eq!(id, written(&sets(&[&[("id", KeyType::Int4)]])));
        assert_ne!(id.name, written(&sets(&[&[("id", KeyType::Int8)]])).name);
        assert_ne!(id.name, written(&sets(&[])).name);
        assert!(id.name.len() < 63 && id.name.starts_with(PREFIX));
    }

    #[test]
    fn names_are_quoted_wherever_they_go() {
        let function = written(&sets(&[&[("it's \"$seawall$\" \\", KeyType::Text)]]));
        assert!(function.sql.contains(r#""it''s ""$seawall$"" \""#), "{}", function.sql);
        assert!(function.sql.contains("it%27s%20%22%24seawall%24%22%20%5C="), "{}", function.sql);
    }

    #[test]
    fn only_keys_that_could_be_too_long_are_measured() {
        assert!(!written(&sets(&[&[("id", KeyType::Int4)], &[("a", KeyType::Uuid)]])).sql.contains("octet_length"));
        assert!(written(&sets(&[&[("a", KeyType::Text), ("b", KeyType::Text)]])).sql.contains("octet_length"));
    }
}
