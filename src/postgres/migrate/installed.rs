//! What is installed: read from the catalogs alone, so that it is what the database does and not what somebody remembers.
//!
//! Triggers of ours are those whose function is in schema `seawall`; what they announce is in their arguments.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, Error};

use super::columns::KeyColumns;
use super::function;

/// The statement triggers, by what fires them: name, and bits of `pg_trigger.tgtype` (insert 4, delete 8, update 16,
/// truncate 32; AFTER and FOR EACH STATEMENT are the absence of others).
pub(super) const STATEMENT_TRIGGERS: [(&str, &str, i16); 4] = [
    ("seawall_insert", "INSERT", 4),
    ("seawall_update", "UPDATE", 16),
    ("seawall_delete", "DELETE", 8),
    ("seawall_truncate", "TRUNCATE", 32),
];
/// AFTER INSERT OR UPDATE OR DELETE, FOR EACH ROW.
const ROW_TRIGGER_TYPE: i16 = 1 + 4 + 8 + 16;

/// What a table's triggers announce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::postgres) struct Installed {
    /// Its oid.
    pub(in crate::postgres) relation: u32,
    /// Where it is now; its tag may say where it once was.
    pub(in crate::postgres) schema: String,
    /// Its name now.
    pub(in crate::postgres) name: String,
    /// The table's tag, in all of its triggers.
    pub(in crate::postgres) tag: String,
    /// What rows are announced by.
    pub(in crate::postgres) columns: BTreeSet<KeyColumns>,
    /// Why a write could pass unannounced; empty where none can.
    pub(in crate::postgres) gaps: Vec<String>,
    /// Names of the triggers, for those who drop them.
    pub(super) triggers: Vec<String>,
}

struct Table {
    schema: String,
    name: String,
    subscribed: bool,
    triggers: Vec<Trigger>,
}

struct Trigger {
    name: String,
    function: String,
    enabled: String,
    kind: i16,
    arguments: Vec<String>,
}

/// Tables with triggers of ours, those in `only` or all, by their oids. Clones on partitions go with their parent's trigger and
/// are not listed.
pub(in crate::postgres) async fn installed(
    client: &Client,
    only: Option<&[u32]>,
) -> Result<BTreeMap<u32, Installed>, Error> {
    let sql = "SELECT c.oid, n.nspname, c.relname, t.tgname, p.proname, t.tgenabled::text, t.tgtype, t.tgargs, \
               EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = c.oid) \
               FROM pg_catalog.pg_trigger t \
               JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid \
               JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid \
               JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
               WHERE p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'seawall') \
               AND NOT t.tgisinternal AND t.tgparentid = 0 AND ($1::oid[] IS NULL OR c.oid = ANY ($1)) \
               ORDER BY n.nspname, c.relname, c.oid, t.tgname";
    let mut tables: BTreeMap<u32, Table> = BTreeMap::new();
    for row in client.query(sql, &[&only]).await? {
        let arguments: &[u8] = row.try_get(7)?;
        let trigger = Trigger {
            name: row.try_get(3)?,
            function: row.try_get(4)?,
            enabled: row.try_get(5)?,
            kind: row.try_get(6)?,
            arguments: split(arguments),
        };
        let (schema, name, subscribed) = (row.try_get(1)?, row.try_get(2)?, row.try_get(8)?);
        let table = Table { schema, name, subscribed, triggers: Vec::new() };
        tables.entry(row.try_get(0)?).or_insert(table).triggers.push(trigger);
    }
    Ok(tables.into_iter().map(|(relation, table)| (relation, judge(relation, table))).collect())
}

/// `pg_trigger.tgargs`: each argument ends with a zero byte.
fn split(bytes: &[u8]) -> Vec<String> {
    let mut parts: Vec<String> =
        bytes.split(|b| *b == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    parts.pop();
    parts
}

fn judge(relation: u32, table: Table) -> Installed {
    let Table { schema, name, subscribed, triggers } = table;
    let tag = triggers.iter().find_map(|t| t.arguments.first()).cloned().unwrap_or_default();
    let sets =
        |trigger: &Trigger| trigger.arguments.iter().skip(1).filter_map(|a| KeyColumns::from_argument(a)).collect();
    let columns: BTreeSet<KeyColumns> = triggers.first().map(sets).unwrap_or_default();
    let written = function::written(&columns).name;
    let mut gaps = Vec::new();
    for (expected, event, kind) in STATEMENT_TRIGGERS {
        let function = if event == "TRUNCATE" { "truncated" } else { &written };
        let found = triggers.iter().find(|t| t.name == expected);
        gaps.extend(found.map_or(Some(format!("no trigger {expected}")), |t| gap(t, kind, function, "A")));
    }
    let row = triggers.iter().find(|t| t.function == "row_applied");
    match row {
        Some(row) => gaps.extend(gap(row, ROW_TRIGGER_TYPE, "row_applied", "R")),
        None if subscribed => gaps.push("a subscription writes to it, and no trigger fires for that".into()),
        None => {}
    }
    for trigger in &triggers {
        if trigger.arguments.first() != Some(&tag) || sets(trigger) != columns {
            gaps.push(format!("trigger {} announces something else than the others", trigger.name));
        }
    }
    Installed {
        relation,
        schema,
        name,
        tag,
        columns,
        gaps,
        triggers: triggers.iter().map(|t| t.name.clone()).collect(),
    }
}

fn gap(trigger: &Trigger, kind: i16, function: &str, enabled: &str) -> Option<String> {
    let name = &trigger.name;
    if trigger.kind != kind {
        Some(format!("trigger {name} fires for something else"))
    } else if trigger.function != function {
        Some(format!("trigger {name} has another version's function"))
    } else if trigger.enabled != enabled && trigger.enabled != "A" {
        Some(if trigger.enabled == "D" {
            format!("trigger {name} is disabled")
        } else {
            format!("trigger {name} doesn't fire in every session")
        })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trigger(name: &str, kind: i16, function: &str) -> Trigger {
        let arguments = vec!["shop.products".into(), "id=int4".into()];
        Trigger { name: name.into(), function: function.into(), enabled: "A".into(), kind, arguments }
    }

    fn complete() -> Vec<Trigger> {
        let written = function::written(&[KeyColumns::from_argument("id=int4").expect("one")].into()).name;
        let function = |event| if event == "TRUNCATE" { "truncated" } else { &*written };
        STATEMENT_TRIGGERS.iter().map(|(name, event, kind)| trigger(name, *kind, function(*event))).collect()
    }

    fn judged(subscribed: bool, triggers: Vec<Trigger>) -> Installed {
        judge(1, Table { schema: "shop".into(), name: "products".into(), subscribed, triggers })
    }

    fn gaps(subscribed: bool, triggers: Vec<Trigger>) -> String {
        judged(subscribed, triggers).gaps.join("; ")
    }

    #[test]
    fn four_triggers_that_agree_have_no_gap() {
        let installed = judged(false, complete());
        assert_eq!(installed.gaps, [""; 0]);
        assert_eq!(installed.tag, "shop.products");
        assert_eq!(installed.columns.len(), 1);
    }

    #[test]
    fn each_way_to_miss_a_write_is_a_gap() {
        let with = |change: &dyn Fn(&mut Vec<Trigger>)| {
            let mut triggers = complete();
            change(&mut triggers);
            gaps(false, triggers)
        };
        assert_eq!(with(&|t| drop(t.remove(1))), "no trigger seawall_update");
        assert_eq!(with(&|t| t[0].enabled = "D".into()), "trigger seawall_insert is disabled");
        assert_eq!(with(&|t| t[0].enabled = "O".into()), "trigger seawall_insert doesn't fire in every session");
        assert_eq!(with(&|t| t[0].kind = 8), "trigger seawall_insert fires for something else");
        assert_eq!(
            with(&|t| t[2].function = "written_0".into()),
            "trigger seawall_delete has another version's function"
        );
        assert!(with(&|t| t[3].arguments[0] = "shop.goods".into()).contains("something else than the others"));
        assert!(with(&|t| drop(t[1].arguments.pop())).contains("something else than the others"));
        assert!(gaps(true, complete()).contains("subscription"));
    }

    #[test]
    fn a_row_trigger_closes_a_subscriptions_gap() {
        let mut triggers = complete();
        triggers.push(Trigger { enabled: "O".into(), ..trigger("seawall_row_1", ROW_TRIGGER_TYPE, "row_applied") });
        assert!(gaps(true, triggers).contains("doesn't fire"));
        let mut triggers = complete();
        triggers.push(Trigger { enabled: "R".into(), ..trigger("seawall_row_1", ROW_TRIGGER_TYPE, "row_applied") });
        assert_eq!(gaps(true, triggers), "");
    }

    #[test]
    fn arguments_end_with_a_zero_byte_each() {
        assert_eq!(split(b"a\0b\0"), ["a", "b"]);
        assert_eq!(split(b""), [""; 0]);
    }
}
