//! What a query depends on, found out from Postgres: the making of a [`Verdict`].
//!
//! In a transaction that is rolled back, on a session that is closed afterwards:
//!
//! 1. The query is prepared for the types of its parameters.
//! 2. A temporary view of it, with `NULL::type` for each parameter, has its parse tree stored: `walk` reads what it refers
//!    to, through views and policies (`trees`). EXPLAIN would not do: it leaves out pruned partitions and removed joins.
//! 3. `calls` judges the functions, and the kinds of relations are judged here. What can't be kept fresh by events is named.
//! 4. Each table's family is found, and what Seawall's triggers on it announce (`installed`).
//! 5. A row declaration is proved on the generic plan (`plan`, `condition`), its types by `rows`; what isn't proved is the
//!    whole table, with the reason.
//!
//! Catalogs are read without a common snapshot, so definitions may change in between: [`Shared::find_out`] analyses
//! until two rounds agree with an unchanged `fingerprint` between them.
//!
//! What the operator declares adds tables and makes them finer, and never takes one away. It is believed only where
//! nothing can be seen: within functions that users define.

mod calls;
mod catalogs;
mod condition;
pub(in crate::postgres) mod fingerprint;
mod installed;
mod plan;
mod round;
mod rows;
mod tables;
mod trees;
mod walk;

use std::collections::BTreeSet;

use tokio_postgres::{Client, Error};

use crate::catalog::depends::RelationName;
use crate::catalog::sql::Statement;
use crate::catalog::sql::lex::{Lexer, Token};
use crate::catalog::verdict::{Closure, Kind, SchemaFingerprint, Verdict};
use crate::catalog::{Prepared, Query};

use super::failure::Failure;
use super::settings::Announcers;
use super::sqlstate::Decision;
use calls::Call;
use tables::Tables;
use walk::{Reached, walk};

pub use round::Analysed;
pub(in crate::postgres) use round::Found;

/// The view's name; it is never committed, and its schema is the session's own.
const VIEW: &str = "pg_temp.seawall_analysed";

/// Whether a temporary view can be made here at all.
const MAY: &str = "SELECT pg_catalog.pg_is_in_recovery(), \
     pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMP'), pg_catalog.current_database()::text, \
     current_user::text";

/// The dates and times that Postgres reads as the present when a statement is prepared.
const MOMENTS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Why an analysis came to no full verdict.
enum Stop {
    /// Postgres is away or something holds a lock: nothing is known.
    Failed(Failure),
    /// The verdict is the ttl, for this reason.
    Ttl(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(Failure::from(&error))
    }
}

/// An error about a text of the query's: in the way of its analysis, unless it is Postgres's own trouble.
fn about(error: &Error, what: &str) -> Stop {
    let failure = Failure::from(error);
    match failure.decision {
        Decision::Away | Decision::Timeout | Decision::Conflict => Stop::Failed(failure),
        Decision::Reshape | Decision::Refused | Decision::TooLarge | Decision::Broken => {
            Stop::Ttl(format!("{what}: {}", failure.text))
        }
    }
}

/// Analyses one query that is prepared. `number` tells its statement from others of the session.
///
/// # Errors
/// Postgres is away, or something holds a lock on what the query reads. The session must not be used for fills afterwards.
async fn analyse(
    client: &Client,
    query: &Query,
    prepared: &Prepared,
    number: usize,
    announcers: &Announcers,
) -> Result<Verdict, Failure> {
    let mut finding = Finding::default();
    if matches!(announcers, Announcers::Operator { .. }) {
        finding.declared(
            "its writes are announced by notifications of your own triggers, which nothing here can see".into(),
        );
    }
    let analysed = within_transaction(client, query, number, announcers, &mut finding).await;
    // Where a statement failed, the transaction has to be ended all the same; where the connection did, this fails too.
    client.batch_execute("ROLLBACK").await.map_err(|error| Failure::from(&error))?;
    match analysed {
        Ok(()) => {}
        Err(Stop::Failed(failure)) => return Err(failure),
        Err(Stop::Ttl(reason)) => finding.unkept(reason),
    }
    Ok(finding.verdict(prepared.fingerprint))
}

async fn within_transaction(
    client: &Client,
    query: &Query,
    number: usize,
    announcers: &Announcers,
    finding: &mut Finding,
) -> Result<(), Stop> {
    let declaration = query.declaration();
    let declared = declaration.depends.as_deref();
    // Also what isn't there yet: when it comes, the query is looked at again.
    finding.closure.relation_names.extend(declared.unwrap_or_default().iter().map(|d| d.relation.name.clone()));
    may_make_views(client).await?;
    client.batch_execute("BEGIN READ WRITE").await.map_err(|error| about(&error, "it can't be analysed"))?;

    let sql = declaration.statement.render(|n| cast(query, n));
    let alone = client.prepare(&sql).await.map_err(|error| about(&error, "Postgres refuses the SQL"))?;
    let params: Vec<u32> = alone.params().iter().map(postgres_types::Type::oid).collect();
    let spellings = catalogs::spellings(client, &params).await?;
    drop(alone);

    let view = format!(
        "CREATE TEMP VIEW {VIEW} AS SELECT 1 AS one FROM ({}\n) AS analysed",
        typed(query, &spellings, |spelling, _| format!("NULL::{spelling}"))
    );
    client.batch_execute(&view).await.map_err(|error| about(&error, "no view can be made of it"))?;
    let names: Vec<String> = declared.unwrap_or_default().iter().map(|d| d.relation.to_string()).collect();
    let own = catalogs::named(client, &[VIEW.to_owned()]).await?;
    let own = own.first().copied().flatten().ok_or_else(|| Stop::Ttl("its view can't be found".into()))?;
    let mut reached = Reached::default();
    walk(client, own, &[own], &mut reached).await?;
    let read: BTreeSet<u32> = reached.relations.keys().copied().collect();

    let named = catalogs::named(client, &names).await?;
    for (depends, oid) in declared.unwrap_or_default().iter().zip(&named) {
        if oid.is_none() {
            finding.unkept(format!("depends names {}, and there is no such table", shown(&depends.relation)));
        }
    }
    let roots: Vec<u32> = named.iter().copied().flatten().collect();
    walk(client, own, &roots, &mut reached).await?;

    if reached.references.moments || is_of_the_moment(&declaration.statement) {
        finding.unkept("its answer changes with time: CURRENT_DATE, 'today' or the like".into());
    }
    if reached.references.random_sample {
        finding.unkept("TABLESAMPLE without REPEATABLE takes other rows each time".into());
    }
    let called = calls(client, &reached, declared.is_some(), finding).await?;
    let tables = Tables {
        client,
        query,
        number,
        params: &params,
        spellings: &spellings,
        read: &read,
        called,
        named: &named,
        announcers,
    };
    tables.judge(&reached, finding).await?;
    close(client, &reached, finding).await?;
    Ok(())
}

async fn may_make_views(client: &Client) -> Result<(), Stop> {
    let may = client.query_typed_one(MAY, &[]).await?;
    if may.try_get(0)? {
        return Err(Stop::Ttl("the database is in recovery, where nothing can be analysed".into()));
    }
    if !may.try_get::<_, bool>(1)? {
        let (database, role): (&str, &str) = (may.try_get(2)?, may.try_get(3)?);
        return Err(Stop::Ttl(format!(
            "the analysis makes a temporary view and may not: GRANT TEMPORARY ON DATABASE {} TO {}",
            crate::catalog::depends::quoted(database),
            crate::catalog::depends::quoted(role)
        )));
    }
    Ok(())
}

/// The type that the operator declares for a parameter.
fn cast(query: &Query, param: usize) -> Option<String> {
    let declaration = query.declaration();
    let name = declaration.statement.params().get(param)?;
    declaration.params.iter().find(|(declared, _)| declared == name).and_then(|(_, d)| d.type_name.clone())
}

/// The SQL with `value` of its type's spelling and its index for each parameter, cast as the query casts it.
fn typed(query: &Query, spellings: &[String], value: impl Fn(&str, usize) -> String) -> String {
    query.declaration().statement.substitute(|param| {
        let value = value(spellings.get(param).map_or("text", String::as_str), param);
        match cast(query, param) {
            Some(declared) => format!("({value}::{declared})"),
            None => format!("({value})"),
        }
    })
}

/// Whether a string of the statement may be read as the present: a prepared statement keeps the moment of its preparation.
fn is_of_the_moment(statement: &Statement) -> bool {
    let text = statement.text();
    let mut lexer = Lexer::new(text);
    while let Some(lexeme) = lexer.next() {
        if lexeme.kind == Token::Literal {
            let first = text[lexeme.start..lexeme.end].trim_matches('\'').split_whitespace().next().unwrap_or_default();
            if MOMENTS.iter().any(|moment| first.eq_ignore_ascii_case(moment)) {
                return true;
            }
        }
    }
    false
}

/// What the operator's word is needed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Called {
    /// Nothing: all is seen.
    Visible,
    /// What functions read that can't be looked into.
    Opaque,
}

async fn calls(client: &Client, reached: &Reached, is_declared: bool, finding: &mut Finding) -> Result<Called, Error> {
    let mut called = Called::Visible;
    for function in catalogs::functions(client, &reached.references).await? {
        match calls::judge(&function) {
            Call::Computes => {}
            Call::Unkept(why) => finding.unkept(why),
            Call::Opaque => {
                called = Called::Opaque;
                let signature = &function.signature;
                if is_declared {
                    finding.declared(format!("it calls {signature}, which reads what depends says"));
                } else {
                    let remedy = "say in depends which tables it reads";
                    finding.unkept(format!("it calls {signature}, which can't be looked into; {remedy}"));
                }
            }
        }
        finding.closure.functions.push(function.oid);
        finding.closure.function_names.push(function.name.into());
    }
    Ok(called)
}

/// Adds types and what was reached to the closure.
async fn close(client: &Client, reached: &Reached, finding: &mut Finding) -> Result<(), Error> {
    let closure = &mut finding.closure;
    for class in reached.relations.values().filter(|class| !class.is_system()) {
        closure.relations.push(class.oid);
        closure.relation_names.push(class.name.as_str().into());
    }
    let (types, holders) = catalogs::types(client, &reached.references, &closure.relations).await?;
    closure.types.extend(types);
    closure.relations.extend(holders);
    Ok(())
}

fn shown(name: &RelationName) -> String {
    match &name.schema {
        Some(schema) => format!("{schema}.{}", name.name),
        None => name.name.to_string(),
    }
}

/// A verdict in the making.
#[derive(Default)]
struct Finding {
    /// Why the ttl alone, if anything.
    unkept: Vec<String>,
    /// What the operator's word is taken for.
    declared: Vec<String>,
    notes: Vec<String>,
    dependencies: Vec<crate::catalog::verdict::Dependency>,
    closure: Closure,
}

impl Finding {
    fn unkept(&mut self, why: String) {
        self.unkept.push(why);
    }

    fn declared(&mut self, why: String) {
        self.declared.push(why);
    }

    fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    fn verdict(mut self, shape: u64) -> Verdict {
        let at_best = match (self.unkept.is_empty(), self.declared.is_empty()) {
            (false, _) => Kind::TtlOnly,
            (true, false) => Kind::Declared,
            (true, true) => Kind::Exact,
        };
        let mut closure = Closure::default();
        // Sorts, too.
        closure.extend(&self.closure);
        self.dependencies.sort_by(|a, b| a.relation.cmp(&b.relation));
        let mut reasons = self.unkept;
        reasons.append(&mut self.declared);
        reasons.append(&mut self.notes);
        let schema = SchemaFingerprint::default();
        Verdict { shape, at_best, reasons, dependencies: self.dependencies, closure, schema }
    }
}
