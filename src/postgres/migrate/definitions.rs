//! The event triggers that announce changed definitions, where the migrating role may create such: it takes a superuser, or
//! what a managed service has in its place. They are never needed, since pods watch the schema's fingerprint; with them a
//! change is heard of as a write is.

use std::fmt::Write as _;

use tokio_postgres::{Client, Error};

/// Name, event and function.
const EVENT_TRIGGERS: [(&str, &str, &str); 2] =
    [("seawall_defined", "ddl_command_end", "defined"), ("seawall_dropped", "sql_drop", "dropped")];

/// Whether definitions are announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Definitions {
    /// By event triggers that were there.
    #[default]
    Announced,
    /// By event triggers that were created just now.
    Installed,
    /// They are not: this role may not create event triggers.
    NotAllowed,
}

/// What is missing, as one transaction's change; `None` where nothing is.
pub(super) async fn missing(client: &Client) -> Result<Option<String>, Error> {
    let sql = "SELECT count(*) FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid \
               WHERE e.evtenabled = 'A' AND p.pronamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = 'seawall') \
               AND (e.evtname::text, e.evtevent::text, p.proname::text) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))";
    let (names, events, functions): (Vec<&str>, Vec<&str>, Vec<&str>) = (
        EVENT_TRIGGERS.iter().map(|t| t.0).collect(),
        EVENT_TRIGGERS.iter().map(|t| t.1).collect(),
        EVENT_TRIGGERS.iter().map(|t| t.2).collect(),
    );
    let present: i64 = client.query_one(sql, &[&names, &events, &functions]).await?.try_get(0)?;
    Ok((usize::try_from(present) != Ok(EVENT_TRIGGERS.len())).then(install))
}

/// Creates them. A change of definitions before was announced by nobody: installing is an event.
pub(super) fn install() -> String {
    let mut sql = drop_statements();
    for (name, event, function) in EVENT_TRIGGERS {
        let _ = writeln!(sql, "CREATE EVENT TRIGGER {name} ON {event} EXECUTE FUNCTION seawall.{function}();");
        let _ = writeln!(sql, "ALTER EVENT TRIGGER {name} ENABLE ALWAYS;");
    }
    sql.push_str("SELECT seawall.announce(ARRAY['*']);\n");
    sql
}

/// Drops what is there of them.
pub(super) fn drop_statements() -> String {
    let drop = |name: &str| ["DROP EVENT TRIGGER IF EXISTS ", name, ";\n"].concat();
    EVENT_TRIGGERS.iter().map(|(name, ..)| drop(name)).collect()
}

/// Those that are there, of whatever function.
pub(super) async fn present(client: &Client) -> Result<bool, Error> {
    let names: Vec<&str> = EVENT_TRIGGERS.iter().map(|t| t.0).collect();
    let sql = "SELECT EXISTS (SELECT FROM pg_catalog.pg_event_trigger WHERE evtname = ANY ($1::text[]))";
    client.query_one(sql, &[&names]).await?.try_get(0)
}
