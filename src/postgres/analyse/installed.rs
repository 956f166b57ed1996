//! Which of Seawall's triggers are on a relation, enabled for every writer, and what they announce.
//!
//! They are known by their names (`seawall_…`) and by calling a function of schema `seawall`. Their arguments are the tag
//! they announce and then lists of columns, each as `column=type,column=type` with names encoded as in tags.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use postgres_types::Type;
use tokio_postgres::{Client, Error};

use crate::catalog::verdict::Triggers;

/// One row for each trigger, and one without for a relation that has none. A trigger that doesn't fire for everything
/// (WHEN, UPDATE OF) is not one of ours.
const TRIGGERS: &str = "SELECT r.oid, EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = r.oid), \
     t.tgtype::pg_catalog.int4, t.tgenabled::text, t.tgargs \
     FROM pg_catalog.unnest($1::pg_catalog.oid[]) AS r(oid) LEFT JOIN (pg_catalog.pg_trigger t \
     JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid AND p.pronamespace = pg_catalog.to_regnamespace('seawall')) \
     ON t.tgrelid = r.oid AND NOT t.tgisinternal AND t.tgname LIKE 'seawall\\_%' AND t.tgqual IS NULL \
     AND pg_catalog.cardinality(t.tgattr::pg_catalog.int2[]) = 0";

/// Bits of `pg_trigger.tgtype`.
const ROW: i32 = 1;
const BEFORE_OR_INSTEAD: i32 = 2 | 64;
const EVENTS: [(i32, &str); 4] = [(4, "INSERT"), (16, "UPDATE"), (8, "DELETE"), (32, "TRUNCATE")];
const TRUNCATE: i32 = 32;

/// A trigger as the catalog has it.
#[derive(Clone, Debug)]
struct Found {
    kind: i32,
    enabled: String,
    tag: String,
    columns: Vec<Vec<Box<str>>>,
}

/// The triggers of each of `relations`.
pub(super) async fn triggers(client: &Client, relations: &[u32]) -> Result<BTreeMap<u32, Triggers>, Error> {
    let mut found: BTreeMap<u32, (bool, Vec<Found>)> = BTreeMap::new();
    for row in client.query_typed(TRIGGERS, &[(&relations, Type::OID_ARRAY)]).await? {
        let (oid, subscribed) = (row.try_get::<_, u32>(0)?, row.try_get(1)?);
        let of_relation = found.entry(oid).or_insert_with(|| (subscribed, vec![]));
        if let Some(kind) = row.try_get::<_, Option<i32>>(2)? {
            let (tag, columns) = arguments(row.try_get(4)?);
            of_relation.1.push(Found { kind, enabled: row.try_get(3)?, tag, columns });
        }
    }
    Ok(found.into_iter().map(|(oid, (subscribed, found))| (oid, judge(&found, subscribed))).collect())
}

/// The tag and the lists of columns among a trigger's arguments, each of which ends with a NUL.
fn arguments(bytes: &[u8]) -> (String, Vec<Vec<Box<str>>>) {
    let text = String::from_utf8_lossy(bytes);
    let mut arguments = text.split_terminator('\0');
    let tag = arguments.next().unwrap_or_default().to_owned();
    let columns = |list: &str| {
        let name = |part: &str| {
            let encoded = part.split('=').next().unwrap_or_default();
            percent_decode_str(encoded).decode_utf8_lossy().into()
        };
        let mut columns: Vec<Box<str>> = list.split(',').map(name).collect();
        columns.sort();
        columns
    };
    (tag, arguments.map(columns).collect())
}

fn judge(found: &[Found], subscribed: bool) -> Triggers {
    let after = || found.iter().filter(|t| t.kind & BEFORE_OR_INSTEAD == 0);
    let (statements, rows): (Vec<&Found>, Vec<&Found>) = after().partition(|t| t.kind & ROW == 0);
    let mut used: Vec<&Found> = vec![];
    let mut missing = vec![];
    for (event, name) in EVENTS {
        match statements.iter().find(|t| t.kind & event != 0 && t.enabled == "A") {
            Some(trigger) => used.push(trigger),
            None if statements.iter().any(|t| t.kind & event != 0) => {
                missing.push(format!("for {name} is disabled, or not ENABLE ALWAYS"));
            }
            None => missing.push(format!("for {name} is missing")),
        }
        // A worker of logical replication fires no statement triggers, and the statements' own TRUNCATE trigger it does.
        if subscribed && event != TRUNCATE {
            match rows.iter().find(|t| t.kind & event != 0 && matches!(&*t.enabled, "A" | "R")) {
                Some(trigger) => used.push(trigger),
                None => missing.push(format!("for {name} by logical replication is missing")),
            }
        }
    }
    let tag: Box<str> = used.first().map_or("", |trigger| &trigger.tag).into();
    if !missing.is_empty() {
        let what =
            if found.is_empty() { "it has no triggers".into() } else { format!("its trigger {}", missing.join(", ")) };
        return Triggers::Missing(format!("{what}; run seawall migrate").into());
    }
    if tag.is_empty() || used.iter().any(|trigger| *trigger.tag != *tag) {
        return Triggers::Missing("its triggers announce different tags; run seawall migrate".into());
    }
    // TRUNCATE announces every row whatever its arguments.
    let writers = || used.iter().filter(|trigger| trigger.kind & TRUNCATE == 0);
    let mut columns = writers().next().map(|trigger| trigger.columns.clone()).unwrap_or_default();
    columns.retain(|list| writers().all(|trigger| trigger.columns.contains(list)));
    Triggers::Installed { tag, columns }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: i32, enabled: &str, arguments_text: &str) -> Found {
        let (tag, columns) = arguments(arguments_text.as_bytes());
        Found { kind, enabled: enabled.into(), tag, columns }
    }

    fn all(arguments: &str) -> Vec<Found> {
        EVENTS.iter().map(|(event, _)| found(*event, "A", arguments)).collect()
    }

    fn missing(triggers: &Triggers) -> &str {
        match triggers {
            Triggers::Missing(why) => why,
            Triggers::Installed { .. } => "",
        }
    }

    #[test]
    fn arguments_are_a_tag_and_lists_of_columns() {
        let (tag, columns) = arguments(b"s.t\0id=integer\0b=text,a%20b=text\0");
        assert_eq!(tag, "s.t");
        let lists: Vec<Vec<&str>> = columns.iter().map(|list| list.iter().map(|c| &**c).collect()).collect();
        assert_eq!(lists, [vec!["id"], vec!["a b", "b"]]);
        assert_eq!(arguments(b""), (String::new(), vec![]));
    }

    #[test]
    fn all_four_must_be_there_and_always_enabled() {
        assert_eq!(missing(&judge(&all("s.t\0"), false)), "");
        for place in 0..4 {
            let mut one_less = all("s.t\0");
            one_less.remove(place);
            assert!(missing(&judge(&one_less, false)).contains(EVENTS[place].1));
            for enabled in ["O", "D", "R"] {
                let mut other = all("s.t\0");
                other[place].enabled = enabled.into();
                assert!(missing(&judge(&other, false)).contains("ENABLE ALWAYS"), "{enabled}");
            }
            let mut before = all("s.t\0");
            before[place].kind |= 2;
            assert!(missing(&judge(&before, false)).contains("is missing"));
        }
    }

    #[test]
    fn what_is_announced_is_what_all_writers_announce() {
        let mut triggers = all("s.t\0id=int4\0a=text\0");
        triggers[3] = found(32, "A", "s.t\0");
        triggers[1] = found(16, "A", "s.t\0id=int4\0");
        let Triggers::Installed { tag, columns } = judge(&triggers, false) else { panic!("they are there") };
        assert_eq!((&*tag, columns), ("s.t", vec![vec!["id".into()]]));
        triggers[0] = found(4, "A", "s.other\0");
        assert!(missing(&judge(&triggers, false)).contains("different tags"));
    }

    #[test]
    fn logical_replication_needs_row_triggers_beside() {
        let mut triggers = all("s.t\0");
        assert!(missing(&judge(&triggers, true)).contains("logical replication"));
        triggers.push(found(1 | 4 | 8 | 16, "R", "s.t\0"));
        assert_eq!(missing(&judge(&triggers, true)), "");
        triggers[4].enabled = "O".into();
        assert!(missing(&judge(&triggers, true)).contains("logical replication"));
    }
}
