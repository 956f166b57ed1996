//! The triggers of one table, as the SQL of one transaction.
//!
//! Installing is an event: writes before it were announced by nobody or by less, so the transaction that creates, replaces
//! or enables triggers announces the table and each of its rows itself. It holds the lock that CREATE TRIGGER takes, and has
//! waited for whoever was writing; a writer that comes after it fires the new triggers.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::columns::{self, Column};
use super::function::{self, identifier, literal};
use super::installed::{Installed, STATEMENT_TRIGGERS};
use crate::catalog::verdict::Wanted;

/// As it is written in SQL and in messages.
pub(super) fn sql_name(wanted: &Wanted) -> String {
    format!("{}.{}", identifier(&wanted.schema), identifier(&wanted.name))
}

/// A table as the catalog has it.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) schema: String,
    pub(super) name: String,
    /// `pg_class.relkind`.
    pub(super) kind: String,
    /// `pg_class.relpersistence`.
    pub(super) persistence: String,
    pub(super) is_ours: bool,
    pub(super) subscribed: bool,
    pub(super) columns: Vec<Column>,
}

/// How triggers are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replacing {
    /// By CREATE OR REPLACE: readers go on.
    InPlace,
    /// Before PostgreSQL 14: dropped and created, which locks readers out for a moment.
    ByDropping,
}

/// What is to be done for a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All is as it should be.
    Nothing,
    /// This, in one transaction and in order.
    Install {
        /// Takes the lock that the rest needs; the only statement that waits for others.
        lock: String,
        /// The rest.
        change: String,
    },
}

/// Why no trigger on `table` could announce every write to it.
pub(super) fn refusal(wanted: &Wanted, table: Option<&Table>) -> Option<String> {
    let Some(table) = table else { return Some("it is not there any more; run this again".into()) };
    let why = match &*table.kind {
        "r" | "p" if table.is_ours => "it is one of Seawall's own",
        "r" | "p" if table.persistence == "t" => "it is temporary",
        "r" | "p" if (&*table.schema, &*table.name) != (&*wanted.schema, &*wanted.name) => {
            return Some(format!("it is called {}.{} by now; run this again", table.schema, table.name));
        }
        "r" | "p" => return None,
        "v" => "it is a view: its tables have the triggers",
        "m" => "a materialized view has no triggers",
        "f" => "no trigger sees what is written to a foreign table elsewhere",
        _ => "it is no table",
    };
    Some(why.into())
}

/// What brings the triggers of `wanted` to what they should be, and what of its columns can't be had, with reasons.
pub(super) fn step(
    wanted: &Wanted,
    table: &Table,
    installed: Option<&Installed>,
    replacing: Replacing,
) -> (Step, Vec<String>) {
    let none = BTreeSet::new();
    let present = installed.map_or(&none, |i| &i.columns);
    let (sets, reasons) = columns::settle(&wanted.columns, present, &table.columns);
    let tag = columns::table_tag(&wanted.schema, &wanted.name);
    let needs_row = table.subscribed;
    if let Some(installed) = installed
        && installed.gaps.is_empty()
        && installed.tag == tag
        && installed.columns == sets
    {
        return (Step::Nothing, reasons);
    }
    // Where a row trigger is, it stays: the subscription may only be away for a moment.
    let row = installed.and_then(|i| i.triggers.iter().find(|name| name.starts_with("seawall_row_")).cloned());
    let row = row.or_else(|| needs_row.then(|| format!("seawall_row_{}", wanted.relation)));
    let name = sql_name(wanted);
    let drops = replacing == Replacing::ByDropping && installed.is_some();
    let mode = if drops { "ACCESS EXCLUSIVE" } else { "SHARE ROW EXCLUSIVE" };
    let lock = format!("LOCK TABLE ONLY {name} IN {mode} MODE;\n");
    let mut change = String::new();
    let function = function::written(&sets);
    change.push_str(&function.sql);
    let arguments: Vec<String> =
        std::iter::once(literal(&tag)).chain(sets.iter().map(|set| literal(&set.argument()))).collect();
    let arguments = arguments.join(", ");
    let mut enable = Vec::new();
    for (trigger, event, _) in STATEMENT_TRIGGERS {
        let rows = match event {
            "INSERT" => " REFERENCING NEW TABLE AS seawall_new",
            "UPDATE" => " REFERENCING OLD TABLE AS seawall_old NEW TABLE AS seawall_new",
            "DELETE" => " REFERENCING OLD TABLE AS seawall_old",
            _ => "",
        };
        let called = if event == "TRUNCATE" { "truncated" } else { &function.name };
        let when = format!("AFTER {event} ON {name}{rows} FOR EACH STATEMENT");
        create(&mut change, replacing, trigger, &name, &when, called, &arguments);
        enable.push(format!("ENABLE ALWAYS TRIGGER {trigger}"));
    }
    if let Some(row) = row {
        let when = format!("AFTER INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW");
        create(&mut change, replacing, &row, &name, &when, "row_applied", &arguments);
        // Not ONLY: a partitioned table's goes for its clones, too.
        let _ = writeln!(change, "ALTER TABLE {name} ENABLE REPLICA TRIGGER {row};");
    }
    let _ = writeln!(change, "ALTER TABLE ONLY {name} {};", enable.join(", "));
    // A table that was renamed is known to some pods by its earlier tag.
    let tags: BTreeSet<&str> = installed.map(|i| &*i.tag).into_iter().chain([&*tag]).collect();
    let tags: Vec<String> = tags.iter().flat_map(|tag| [literal(tag), literal(&format!("{tag}:*"))]).collect();
    let _ = writeln!(change, "SELECT seawall.announce(ARRAY[{}]);", tags.join(", "));
    (Step::Install { lock, change }, reasons)
}

fn create(
    out: &mut String,
    replacing: Replacing,
    trigger: &str,
    table: &str,
    when: &str,
    function: &str,
    arguments: &str,
) {
    let or_replace = match replacing {
        Replacing::InPlace => " OR REPLACE",
        Replacing::ByDropping => {
            let _ = writeln!(out, "DROP TRIGGER IF EXISTS {trigger} ON {table};");
            ""
        }
    };
    let _ = writeln!(
        out,
        "CREATE{or_replace} TRIGGER {trigger} {when}\n    EXECUTE FUNCTION seawall.{function}({arguments});"
    );
}

#[cfg(test)]
mod tests {
    use super::super::columns::KeyColumns;
    use super::*;

    fn wanted() -> Wanted {
        Wanted { relation: 7, schema: "shop".into(), name: "it's".into(), columns: vec![vec!["id".into()]] }
    }

    fn table() -> Table {
        Table {
            schema: "shop".into(),
            name: "it's".into(),
            kind: "r".into(),
            persistence: "p".into(),
            is_ours: false,
            subscribed: false,
            columns: vec![Column { name: "id".into(), type_oid: 23, deterministic: true }],
        }
    }

    fn change(installed: Option<&Installed>, replacing: Replacing) -> (String, String) {
        match step(&wanted(), &table(), installed, replacing).0 {
            Step::Install { lock, change } => (lock, change),
            Step::Nothing => panic!("there is something to do"),
        }
    }

    fn installed(tag: &str) -> Installed {
        Installed {
            relation: 7,
            schema: "shop".into(),
            name: "it's".into(),
            tag: tag.into(),
            columns: [KeyColumns::from_argument("id=int4").expect("one")].into(),
            gaps: vec![],
            triggers: STATEMENT_TRIGGERS.map(|(name, ..)| name.to_owned()).into(),
        }
    }

    #[test]
    fn what_is_installed_is_left_alone() {
        let (step, reasons) = step(&wanted(), &table(), Some(&installed("shop.it%27s")), Replacing::InPlace);
        assert_eq!((step, reasons), (Step::Nothing, vec![]));
    }

    #[test]
    fn a_renamed_table_announces_both_of_its_tags_once() {
        let (_, change) = change(Some(&installed("shop.old")), Replacing::InPlace);
        assert!(change.contains("ARRAY['shop.it%27s', 'shop.it%27s:*', 'shop.old', 'shop.old:*']"), "{change}");
    }

    #[test]
    fn a_server_that_can_not_replace_drops_under_a_lock_that_allows_it() {
        let (lock, text) = change(Some(&installed("shop.old")), Replacing::ByDropping);
        assert!(
            lock.contains("ACCESS EXCLUSIVE") && text.contains("DROP TRIGGER IF EXISTS seawall_insert"),
            "{lock}{text}"
        );
        assert!(!text.contains("OR REPLACE TRIGGER"), "{text}");
        let (lock, _) = change(None, Replacing::ByDropping);
        assert!(lock.contains("SHARE ROW EXCLUSIVE"), "{lock}");
    }

    #[test]
    fn what_has_no_triggers_is_refused_with_a_reason() {
        for (kind, reason) in [("v", "view"), ("m", "materialized"), ("f", "foreign"), ("S", "no table")] {
            let refused = refusal(&wanted(), Some(&Table { kind: kind.into(), ..table() }));
            assert!(refused.as_ref().is_some_and(|r| r.contains(reason)), "{kind}: {refused:?}");
        }
        assert!(refusal(&wanted(), None).is_some());
        assert!(refusal(&wanted(), Some(&Table { persistence: "t".into(), ..table() })).is_some());
        assert!(refusal(&wanted(), Some(&Table { name: "other".into(), ..table() })).is_some());
        assert_eq!(refusal(&wanted(), Some(&table())), None);
        assert_eq!(refusal(&wanted(), Some(&Table { kind: "p".into(), ..table() })), None);
    }
}
