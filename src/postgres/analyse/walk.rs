//! Everything that a query reads, found in catalogs: through views in views, and through the policies of tables.
//!
//! Starts from a temporary view of the query and goes on until nothing new turns up. A view is looked through; a
//! materialized view is not, since what it was made from no longer matters to what it holds.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, Error};

use super::catalogs::{self, Class};
use super::trees::{FIRST_USER_OID, References};

/// What was reached.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// From the query itself, or from a relation that its operator declares.
    pub(super) references: References,
    pub(super) relations: BTreeMap<u32, Class>,
}

impl Class {
    /// Whether it belongs to Postgres: written without triggers, and read by none of our means.
    pub(super) fn is_system(&self) -> bool {
        self.oid < FIRST_USER_OID
            || matches!(&*self.schema, "pg_catalog" | "information_schema")
            || self.schema.starts_with("pg_toast")
    }
}

/// Adds what `roots` lead to. The temporary view `own` is looked through and not a part of it.
pub(super) async fn walk(client: &Client, own: u32, roots: &[u32], reached: &mut Reached) -> Result<(), Error> {
    let mut next: BTreeSet<u32> = roots.iter().copied().collect();
    loop {
        next.retain(|oid| !reached.relations.contains_key(oid));
        if next.is_empty() {
            break;
        }
        let oids: Vec<u32> = std::mem::take(&mut next).into_iter().collect();
        let (mut views, mut guarded) = (vec![], vec![]);
        for class in catalogs::relations(client, &oids).await? {
            if class.kind == "v" && (class.oid == own || !class.is_system()) {
                views.push(class.oid);
            }
            if class.row_security {
                guarded.push(class.oid);
            }
            reached.relations.insert(class.oid, class);
        }
        let mut found = References::default();
        catalogs::trees(client, &views, &guarded, &mut found).await?;
        next.extend(&found.relations);
        reached.references.extend(found);
    }
    reached.relations.remove(&own);
    reached.references.relations.remove(&own);
    Ok(())
}

impl References {
    fn extend(&mut self, other: Self) {
        self.relations.extend(other.relations);
        self.functions.extend(other.functions);
        self.operators.extend(other.operators);
        self.collations.extend(other.collations);
        self.types.extend(other.types);
        self.moments |= other.moments;
        self.random_sample |= other.random_sample;
    }
}
