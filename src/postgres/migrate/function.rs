//! The trigger functions that are made for sets of columns, as text.
//!
//! A function names its columns, so that plpgsql plans its statements once for each trigger and session; a generic one would
//! plan them with every write. Its own name is a hash of its text: it is never replaced by another, tables with keys of the
//! same names and types share one, and whether an installed trigger does what it should is seen from the name alone.
//!
//! # What it must not do: fail
//!
//! Columns are renamed, dropped and changed under a trigger, so whether they are there, by name and type, is asked where they
//! are named. The question is answered by how a name resolves: a column of the rows hides one of the same name in `missing`
//! around it, whose type no key has. The catalog's own rows would not do. Under REPEATABLE READ they are as the transaction's
//! snapshot has them, while the rows are as the table is now:
//!
//! 1. a writer takes its snapshot;
//! 2. another session renames `id`, and commits;
//! 3. the writer inserts, its trigger finds `id` in `pg_attribute`, names it, and the writer's statement fails.
//!
//! # What it must not do: cost
//!
//! The usual statement writes a few rows. For it there is one statement here, which puts the keys of its rows into the log; a
//! tag of rows is one of their table as well, so that this is one row for one row. What that leaves out (no row at all, many
//! rows, keys that this transaction has announced already) is looked at by a second. And the function pins no setting: to pin
//! the search path alone costs more than the insert. So every name in it is qualified, operators too, and none of the types
//! that have row tags is printed as a setting says.

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
    let digest = Sha256::digest(&body);
    let name = digest.iter().take(8).fold(PREFIX.to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    });
    let sql = format!(
        "CREATE OR REPLACE FUNCTION seawall.{name}() RETURNS trigger\nLANGUAGE plpgsql SECURITY DEFINER\nAS {};\n\
         REVOKE ALL ON FUNCTION seawall.{name}() FROM PUBLIC;\n",
        literal(&body)
    );
    Function { name, sql }
}

fn body(sets: &BTreeSet<KeyColumns>) -> String {
    let inserted = branch(sets, "seawall_new", &["seawall_new"]);
    let updated = branch(sets, "seawall_new", &["seawall_new", "seawall_old"]);
    let deleted = branch(sets, "seawall_old", &["seawall_old"]);
    // A user's column may be called anything: where a name could be a variable's too, it is the column. Statements with the
    // user's columns in reach name no variable but as a target.
    format!(
        "
#variable_conflict use_column
<<announcing>>
DECLARE
    logged pg_catalog.int8;
    touched pg_catalog.int8;
    known pg_catalog.bool;
    keys pg_catalog.text[];
BEGIN
    IF tg_op OPERATOR(pg_catalog.=) 'INSERT' THEN
{inserted}
    ELSIF tg_op OPERATOR(pg_catalog.=) 'UPDATE' THEN
{updated}
    ELSE
{deleted}
    END IF;
    IF logged OPERATOR(pg_catalog.=) 0 THEN
        IF touched OPERATOR(pg_catalog.>) 0 THEN
            IF pg_catalog.cardinality(keys) OPERATOR(pg_catalog.>) {KEYS_AT_MOST}
               OR pg_catalog.strpos(pg_catalog.array_to_string(keys, ' '), '*') OPERATOR(pg_catalog.>) 0 THEN
                keys := ARRAY[tg_argv[0] OPERATOR(pg_catalog.||) ':*'];
            END IF;
            PERFORM seawall.announce(tg_argv[0] OPERATOR(pg_catalog.||) keys);
        END IF;
        RETURN NULL;
    END IF;
    IF {RING} THEN
        PERFORM pg_catalog.pg_notify(seawall.doorbell_channel(), '');
    END IF;
    RETURN NULL;
END
"
    )
}

/// As in `seawall.announce`, which see; a call of it would cost more than it does.
const RING: &str = "pg_catalog.current_setting('max_prepared_transactions') OPERATOR(pg_catalog.=) '0'
       AND NOT (CASE WHEN pg_catalog.pg_try_advisory_lock(seawall.doorbell_key())
                     THEN pg_catalog.pg_advisory_unlock(seawall.doorbell_key()) ELSE false END)";

/// What one kind of statement does: announces its rows, or counts them and finds their keys where that was nothing.
fn branch(sets: &BTreeSet<KeyColumns>, counted: &str, images: &[&str]) -> String {
    if sets.is_empty() {
        return format!(
            "        INSERT INTO seawall.event (tag) SELECT tg_argv[0] WHERE EXISTS (SELECT FROM {counted}) ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS logged = ROW_COUNT;
        IF logged OPERATOR(pg_catalog.=) 0 THEN
            touched := (SELECT pg_catalog.count(*) FROM (SELECT FROM {counted} LIMIT 1) AS bounded);
            keys := ARRAY[]::pg_catalog.text[];
        END IF;"
        );
    }
    let columns: BTreeMap<&str, KeyType> = sets.iter().flat_map(|set| &set.0).map(|(n, kind)| (&**n, *kind)).collect();
    let missing: Vec<String> =
        columns.keys().map(|name| format!("NULL::pg_catalog.pg_lsn AS {}", identifier(name))).collect();
    let missing = missing.join(", ");
    let announced: Vec<String> = images.iter().map(|image| suffixes(sets, image)).collect();
    // So many rows have no more than the keys that one statement announces.
    let few = KEYS_AT_MOST / (images.len() * sets.len()).max(1);

    let known: Vec<String> = columns
        .iter()
        .map(|(name, kind)| {
            is_known(&format!("(SELECT {} FROM (SELECT * FROM {counted}) AS written LIMIT 0)", identifier(name)), *kind)
        })
        .collect();
    let keys: Vec<String> = sets.iter().map(|set| format!("({})", key(set, "image."))).collect();
    let distinct: Vec<String> = images
        .iter()
        .map(|image| {
            format!(
                "                    SELECT made.key FROM {image} AS image\n                     CROSS JOIN LATERAL (VALUES {}) AS made (key)",
                keys.join(", ")
            )
        })
        .collect();
    format!(
        "        INSERT INTO seawall.event (tag)
        SELECT tg_argv[0] OPERATOR(pg_catalog.||) own.suffix FROM (SELECT every.suffix FROM (SELECT {missing}) AS missing
          CROSS JOIN LATERAL (
{announced}
            ) AS every) AS own
         WHERE NOT EXISTS (SELECT FROM {counted} OFFSET {few})
            ON CONFLICT DO NOTHING;
        GET DIAGNOSTICS logged = ROW_COUNT;
        IF logged OPERATOR(pg_catalog.=) 0 THEN
            keys := ARRAY[]::pg_catalog.text[];
            SELECT (SELECT pg_catalog.count(*) FROM (SELECT FROM {counted} LIMIT {bound}) AS bounded),
                   {known}
              INTO announcing.touched, announcing.known
              FROM (SELECT {missing}) AS missing;
            IF touched OPERATOR(pg_catalog.>) {ROWS_AT_MOST} OR NOT known THEN
                keys := ARRAY['*']::pg_catalog.text[];
            ELSIF touched OPERATOR(pg_catalog.>) 0 THEN
                keys := ARRAY(SELECT tg_argv[0] OPERATOR(pg_catalog.||) ':' OPERATOR(pg_catalog.||) own.key
                                FROM (SELECT DISTINCT every.key FROM (
{distinct}
                ) AS every WHERE every.key IS NOT NULL LIMIT {keys_bound}) AS own);
            END IF;
        END IF;",
        announced = announced.join("\n             UNION ALL\n"),
        known = known.join("\n               AND "),
        bound = ROWS_AT_MOST + 1,
        distinct = distinct.join("\n                     UNION ALL\n"),
        keys_bound = KEYS_AT_MOST + 1,
    )
}

/// Whether `value` is of the type that the key is made for. By its number, which is the same in every database: to look a name
/// up would cost more than the rest of the key.
fn is_known(value: &str, kind: KeyType) -> String {
    format!("pg_catalog.pg_typeof({value})::pg_catalog.oid OPERATOR(pg_catalog.=) {}", kind.oid())
}

/// What follows the table's tag for each row of `image`: `:` and a key, `:*` where a column isn't there any more or the key has
/// a value that stands for any, and nothing for a row that no value finds.
fn suffixes(sets: &BTreeSet<KeyColumns>, image: &str) -> String {
    let suffix = |set: &KeyColumns| {
        let known: Vec<String> = set.0.iter().map(|(name, kind)| is_known(&identifier(name), *kind)).collect();
        let mut key = key(set, "");
        if set.0.iter().any(|(_, kind)| kind.is_free_text()) {
            key = format!("pg_catalog.regexp_replace({key}, '^.*[*].*$', '*')");
        }
        format!("coalesce(':' OPERATOR(pg_catalog.||) CASE WHEN {} THEN {key} ELSE '*' END, '')", known.join(" AND "))
    };
    let all: Vec<String> = sets.iter().map(suffix).collect();
    match all.as_slice() {
        [only] => format!("            SELECT {only} AS suffix FROM (SELECT * FROM {image}) AS image"),
        several => format!(
            "            SELECT made.suffix FROM (SELECT * FROM {image}) AS image CROSS JOIN LATERAL (VALUES ({})) AS made (suffix)",
            several.join("), (")
        ),
    }
}

/// What follows the colon of a row's tag: NULL where a value is, `*` where it would be too long. Columns are named with `image`
/// before them, if anything.
fn key(set: &KeyColumns, image: &str) -> String {
    let parts: Vec<String> = set
        .0
        .iter()
        .enumerate()
        .map(|(place, (name, kind))| {
            let separator = if place == 0 { "" } else { "," };
            let value = format!("{image}{}::pg_catalog.text COLLATE pg_catalog.\"C\"", identifier(name));
            let value = if kind.is_free_text() { format!("seawall.tag_text({value})") } else { value };
            format!("{} OPERATOR(pg_catalog.||) {value}", literal(&format!("{separator}{}=", encode(name))))
        })
        .collect();
    let key = parts.join(" OPERATOR(pg_catalog.||) ");
    let longest: usize = set.0.iter().map(|(name, kind)| encode(name).len() + 2 + kind.tag_bytes()).sum();
    if longest + TABLE_TAG_BYTES <= KEY_BYTES_AT_MOST {
        return key;
    }
    let most = KEY_BYTES_AT_MOST - TABLE_TAG_BYTES;
    format!("CASE WHEN pg_catalog.octet_length({key}) OPERATOR(pg_catalog.>) {most} THEN '*' ELSE {key} END")
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

    /// `body` without its texts and quoted names.
    fn bare(body: &str) -> String {
        let mut bare = String::new();
        let mut within = None;
        for c in body.chars() {
            match within {
                Some(quote) if c == quote => within = None,
                Some(_) => {}
                None if c == '\'' || c == '"' => within = Some(c),
                None => bare.push(c),
            }
        }
        bare
    }

    #[test]
    fn nothing_in_it_is_found_by_the_callers_search_path() {
        let several = sets(&[&[("id", KeyType::Int4)], &[("a", KeyType::Text), ("b", KeyType::Varchar)]]);
        for sets in [sets(&[]), sets(&[&[("id", KeyType::Int4)]]), several] {
            let body = bare(&body(&sets));
            let mut rest = body.replace("<<announcing>>", "").replace(":=", "THEN").replace("= ROW_COUNT", "");
            for operator in ["||", "=", ">"] {
                rest = rest.replace(&format!("OPERATOR(pg_catalog.{operator})"), "");
            }
            let rest = rest.replace("SELECT *", "SELECT").replace("count(*)", "count()");
            assert!(
                !rest.contains(['=', '<', '>', '|', '+', '*', '/', '%', '~', '@']),
                "an operator by itself: {rest}"
            );
            for (at, _) in rest.match_indices("::") {
                assert!(rest[at..].starts_with("::pg_catalog."), "a type by itself: {}", &rest[at..]);
            }
            let words = [
                "coalesce", "EXISTS", "ARRAY", "FROM", "VALUES", "LATERAL", "made", "AND", "THEN", "NOT", "SELECT", "",
            ];
            for (at, _) in rest.match_indices('(') {
                let word = rest[..at].trim_end().rsplit(|c: char| !(c.is_alphanumeric() || "_.".contains(c))).next();
                let called = word.unwrap_or_default();
                let named =
                    called.starts_with("pg_catalog.") || called.starts_with("seawall.") || words.contains(&called);
                assert!(named, "a function by itself: {called}: {rest}");
            }
        }
    }

    #[test]
    fn only_keys_that_could_be_too_long_are_measured() {
        assert!(!written(&sets(&[&[("id", KeyType::Int4)], &[("a", KeyType::Uuid)]])).sql.contains("octet_length"));
        assert!(written(&sets(&[&[("a", KeyType::Text), ("b", KeyType::Text)]])).sql.contains("octet_length"));
    }
}
