//! What the catalog says of the tables that are to have triggers, in one look at all of them.

use std::collections::BTreeMap;

use tokio_postgres::{Client, Error};

use super::columns::Column;
use super::triggers::Table;

/// The tables with these oids that are there.
pub(super) async fn tables(client: &Client, oids: &[u32]) -> Result<BTreeMap<u32, Table>, Error> {
    let sql = "SELECT c.oid, n.nspname, c.relname, c.relkind::text, c.relpersistence::text, n.nspname = 'seawall', \
               EXISTS (SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid = c.oid) \
               FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = ANY ($1)";
    let mut tables = BTreeMap::new();
    for row in client.query(sql, &[&oids]).await? {
        let table = Table {
            schema: row.try_get(1)?,
            name: row.try_get(2)?,
            kind: row.try_get(3)?,
            persistence: row.try_get(4)?,
            is_ours: row.try_get(5)?,
            subscribed: row.try_get(6)?,
            columns: Vec::new(),
        };
        tables.insert(row.try_get::<_, u32>(0)?, table);
    }
    let sql = "SELECT a.attrelid, a.attname, a.atttypid, coalesce(c.collisdeterministic, true) \
               FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation c ON c.oid = a.attcollation \
               WHERE a.attrelid = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum";
    for row in client.query(sql, &[&oids]).await? {
        let column = Column { name: row.try_get(1)?, type_oid: row.try_get(2)?, deterministic: row.try_get(3)? };
        if let Some(table) = tables.get_mut(&row.try_get::<_, u32>(0)?) {
            table.columns.push(column);
        }
    }
    Ok(tables)
}
