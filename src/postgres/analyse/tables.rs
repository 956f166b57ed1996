//! The tables among what a query reads: which can be kept fresh, their families, and by which rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::catalog::Query;
use crate::catalog::depends::Rows;
use crate::catalog::verdict::{Dependency, Member, Relation, RowKey, Triggers};

use super::catalogs::{self, Class, Column, Kin};
use super::plan::{self, Claim, DUMMIES};
use super::walk::Reached;
use super::{Called, Finding, Stop, about, installed, rows, typed};
use crate::postgres::settings::Announcers;

/// One query's, while it is analysed.
pub(super) struct Tables<'a> {
    pub(super) client: &'a Client,
    pub(super) query: &'a Query,
    pub(super) number: usize,
    /// Types of the parameters, and how these are spelt.
    pub(super) params: &'a [u32],
    pub(super) spellings: &'a [String],
    /// What the query reads without its operator's word.
    pub(super) read: &'a BTreeSet<u32>,
    pub(super) called: Called,
    /// Oids of what is declared, in its order.
    pub(super) named: &'a [Option<u32>],
    pub(super) announcers: &'a Announcers,
}

/// A table's columns that equal parameters, by its operator's word.
type Declared<'a> = &'a [(Box<str>, usize)];

impl Tables<'_> {
    /// Judges every relation that was reached; the dependencies and their reasons come into `finding`.
    pub(super) async fn judge(&self, reached: &Reached, finding: &mut Finding) -> Result<(), Stop> {
        let mut tables = vec![];
        for class in reached.relations.values() {
            match unkept(class) {
                Some(why) => finding.unkept(why),
                None if class.kind == "v" => self.refuse_rows_of(class, "a view", finding),
                None if class.kind == "m" => {
                    self.refuse_rows_of(class, "a materialized view", finding);
                    finding.note(format!(
                        "{}.{} changes by REFRESH alone, which counts as a change of schema",
                        class.schema, class.name
                    ));
                    finding.dependencies.push(Dependency { relation: relation(class), rows: None, family: vec![] });
                }
                None => tables.push(class),
            }
        }
        let oids: Vec<u32> = tables.iter().map(|class| class.oid).collect();
        let kin = catalogs::families(self.client, &oids).await?;
        let everyone: Vec<u32> = kin.iter().map(|kin| kin.oid).collect::<BTreeSet<u32>>().into_iter().collect();
        for kin in &kin {
            finding.closure.relations.push(kin.oid);
            finding.closure.relation_names.push(kin.name.as_str().into());
            if kin.kind == "f" {
                let what = "is a foreign table, whose writes announce nothing";
                finding.unkept(format!("{}.{}, of the family of a table that it reads, {what}", kin.schema, kin.name));
            }
        }
        let triggers = match self.announcers {
            Announcers::Seawall => Some(installed::triggers(self.client, &everyone).await?),
            Announcers::Operator { .. } => None,
        };
        let declares = tables.iter().any(|class| self.declared(class.oid).is_some());
        let columns = if declares { catalogs::columns(self.client, &everyone).await? } else { vec![] };
        let otherwise = catalogs::compared_otherwise(self.client, &reached.references).await?;
        let mut explained = None;
        for class in tables {
            let family: Vec<&Kin> = kin.iter().filter(|kin| kin.root == class.oid && kin.persistence != "t").collect();
            let mut rows = None;
            if let Some(declared) = self.declared(class.oid) {
                let proved =
                    match admit(class, declared, self.params, &columns, otherwise.as_deref()) {
                        Err(why) => Err(why),
                        Ok(()) if !self.read.contains(&class.oid) => self.believe(),
                        Ok(()) => {
                            if explained.is_none() {
                                explained = Some(self.explain().await?);
                            }
                            explained.as_ref().expect("just asked").as_ref().map_err(Clone::clone).and_then(|plan| {
                                plan::prove(plan, &Claim { tables: &below(&family), columns: declared })
                            })
                        }
                    };
                match proved {
                    Ok(()) => rows = Some(declared),
                    Err(why) => finding.note(format!("{}.{} counts as a whole: {why}", class.schema, class.name)),
                }
            }
            let members = family.iter().map(|kin| member(kin, rows, &columns, triggers.as_ref())).collect();
            let keys = |(column, param): &(Box<str>, usize)| RowKey { column: column.clone(), param: *param };
            finding.dependencies.push(Dependency {
                relation: relation(class),
                rows: rows.map(|rows| rows.iter().map(keys).collect()),
                family: members,
            });
        }
        Ok(())
    }

    /// The rows that are declared of a relation; `None`: nothing, or the whole of it.
    fn declared(&self, oid: u32) -> Option<Declared<'_>> {
        let declared = self.query.declaration().depends.as_deref()?;
        let place = self.named.iter().position(|named| *named == Some(oid))?;
        match &declared.get(place)?.rows {
            Rows::Whole => None,
            Rows::Where(rows) => Some(rows),
        }
    }

    fn refuse_rows_of(&self, class: &Class, what: &str, finding: &mut Finding) {
        if self.declared(class.oid).is_some() {
            let (schema, name) = (&class.schema, &class.name);
            finding.note(format!(
                "{schema}.{name} counts as a whole: it is {what}, and only tables have rows that are announced"
            ));
        }
    }

    /// A table that is not seen to be read can only be read by what can't be looked into.
    fn believe(&self) -> Result<(), String> {
        match self.called {
            Called::Opaque => Ok(()),
            Called::Visible => Err("the query does not read it".into()),
        }
    }

    /// The generic plan as EXPLAIN prints it, or why there is none. The transaction may be aborted then, so nothing can be
    /// read after the first time that this fails.
    async fn explain(&self) -> Result<Result<Value, String>, Stop> {
        let name = format!("seawall_plan_{}", self.number);
        let mut types = "pg_catalog.int4, ".repeat(DUMMIES);
        let mut values = "NULL, ".repeat(DUMMIES);
        for spelling in self.spellings {
            let _ = write!(types, "{spelling}, ");
            values.push_str("NULL, ");
        }
        let types = types.trim_end_matches(", ");
        let values = values.trim_end_matches(", ");
        let sql = typed(self.query, self.spellings, |_, param| format!("${}", DUMMIES + 1 + param));
        let prepare = format!("SAVEPOINT explaining; {}; PREPARE {name} ({types}) AS {sql}", plan::SETTINGS);
        let explained = match self.client.batch_execute(&prepare).await {
            Ok(()) => {
                let explain = format!("EXPLAIN (FORMAT JSON, VERBOSE, COSTS OFF) EXECUTE {name} ({values})");
                self.client.simple_query(&explain).await
            }
            Err(error) => Err(error),
        };
        let messages = match explained {
            Ok(messages) => messages,
            Err(error) => {
                let why = match about(&error, "it can't be planned") {
                    Stop::Ttl(why) => why,
                    failed @ Stop::Failed(_) => return Err(failed),
                };
                self.client.batch_execute("ROLLBACK TO SAVEPOINT explaining").await?;
                return Ok(Err(why));
            }
        };
        self.client.batch_execute(&format!("DEALLOCATE {name}; ROLLBACK TO SAVEPOINT explaining")).await?;
        let text = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0),
            _ => None,
        });
        Ok(text.and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| "its plan can't be read".to_owned()))
    }
}

/// Why no event tells of writes to a relation, if none does.
fn unkept(class: &Class) -> Option<String> {
    let name = format!("{}.{}", class.schema, class.name);
    if class.is_system() {
        return Some(format!("it reads {name}, which is Postgres's own and announces nothing"));
    }
    if class.schema == "seawall" {
        return Some(format!("it reads {name}, which is Seawall's own"));
    }
    if class.persistence == "t" {
        return Some(format!("it reads {name}, which is temporary and of one session"));
    }
    match &*class.kind {
        "r" | "p" | "v" | "m" => None,
        "f" => Some(format!("it reads {name}, a foreign table, whose writes announce nothing")),
        "S" => Some(format!("it reads {name}, a sequence, which belongs to no transaction")),
        other => Some(format!("it reads {name}, a relation of kind {other}, which announces nothing")),
    }
}

fn relation(class: &Class) -> Relation {
    Relation { schema: class.schema.as_str().into(), name: class.name.as_str().into(), oid: class.oid }
}

fn below<'k>(family: &[&'k Kin]) -> Vec<(&'k str, &'k str)> {
    family.iter().filter(|kin| kin.below).map(|kin| (&*kin.schema, &*kin.name)).collect()
}

/// Whether types and comparisons let rows be told by these columns.
fn admit(
    class: &Class,
    declared: Declared<'_>,
    params: &[u32],
    columns: &[Column],
    otherwise: Option<&str>,
) -> Result<(), String> {
    let own: Vec<&Column> = columns.iter().filter(|column| column.relation == class.oid).collect();
    for (column, param) in declared {
        rows::admit(&own, column, params.get(*param).copied().unwrap_or_default())?;
    }
    match otherwise {
        Some(what) => Err(format!("it compares by {what}, which is not by text")),
        None => Ok(()),
    }
}

/// `triggers`: those that are installed; `None` where the operator's own announce what is declared.
fn member(
    kin: &Kin,
    rows: Option<Declared<'_>>,
    columns: &[Column],
    triggers: Option<&BTreeMap<u32, Triggers>>,
) -> Member {
    let has = |name: &str| columns.iter().any(|c| c.relation == kin.oid && c.name == name && rows::tells(c));
    let names: Vec<Box<str>> = rows.into_iter().flatten().map(|(column, _)| column.clone()).collect();
    let columns = if names.iter().all(|name| has(name)) { names } else { vec![] };
    let missing = || Triggers::Missing("its triggers are missing; run seawall migrate".into());
    let relation = Relation { schema: kin.schema.as_str().into(), name: kin.name.as_str().into(), oid: kin.oid };
    let triggers = if let Some(installed) = triggers {
        installed.get(&kin.oid).cloned().unwrap_or_else(missing)
    } else {
        let mut by: Vec<Box<str>> = columns.clone();
        by.sort();
        Triggers::Installed { tag: relation.tag(), columns: if by.is_empty() { vec![] } else { vec![by] } }
    };
    Member { relation, columns, triggers }
}
