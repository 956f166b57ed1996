//! Preparing a query: what Postgres says of it becomes its shape, or the reason why it has none.
//!
//! 1. The operator's SQL is prepared alone: a text that is two statements, or that only makes sense within the
//!    parentheses it will stand in, is a syntax error here.
//! 2. Types and columns are described; declarations are held against them.
//! 3. The wrapped statement is prepared: what may not stand in a subquery (INSERT, a WITH that writes, INTO) fails here.
//! 4. EXPLAIN, with NULL for every parameter, finds missing grants, which preparing doesn't look at.
//! 5. Where it names no claims, policies of row-level security must not be in force on anything that it reads.
//!
//! One broken query never affects another. What is Postgres's trouble and not the query's (away, a lock on the table)
//! leaves the shape as it was.

use std::collections::HashSet;
use std::sync::Arc;

use tokio_postgres::types::ToSql;

use crate::catalog::params::{Param, ParamType};
use crate::catalog::query::fingerprint;
use crate::catalog::{Broken, Column, ParamDeclaration, Prepared, Query, ResultForm, Shape, args};

use super::bind::Text;
use super::describe;
use super::failure::{self, Failure};
use super::limits;
use super::session::Session;
use super::sqlstate::Decision;
use super::statement::{self, Bounds, ROW_ALIAS};

/// Why there is no shape: the query's fault, or not.
enum Unprepared {
    Broken(String),
    Failed(Failure),
}

impl From<String> for Unprepared {
    fn from(reason: String) -> Self {
        Self::Broken(reason)
    }
}

/// An error about `sql`: the query's fault, with `meaning` before what Postgres says, or else Postgres's.
fn about(error: &tokio_postgres::Error, sql: &str, meaning: &str) -> Unprepared {
    let failure = Failure::from(error);
    match failure.decision {
        Decision::Away | Decision::Timeout | Decision::Conflict => Unprepared::Failed(failure),
        Decision::Reshape | Decision::Refused | Decision::TooLarge | Decision::Broken => {
            let line = failure::line(error, sql).map_or_else(String::new, |line| format!(", line {line}"));
            Unprepared::Broken(format!("{meaning}{line}: {}", failure.text))
        }
    }
}

/// Asks Postgres what `query` is; `session_settings` is what of the session shapes answers.
///
/// # Errors
/// Postgres is away or something holds a lock: nothing is known of the query.
pub(super) async fn shape(
    session: &mut Session,
    query: &Query,
    bounds: Bounds,
    session_settings: &str,
) -> Result<Shape, Failure> {
    match prepared(session, query, bounds, session_settings).await {
        Ok(prepared) => Ok(Shape::Ready(Arc::new(prepared))),
        Err(Unprepared::Broken(reason)) => Ok(Shape::Broken(Broken { reason })),
        Err(Unprepared::Failed(failure)) => Err(failure),
    }
}

async fn prepared(
    session: &mut Session,
    query: &Query,
    bounds: Bounds,
    session_settings: &str,
) -> Result<Prepared, Unprepared> {
    let declaration = query.declaration();
    let names = declaration.statement.params();
    if let Some((unknown, _)) = declaration.params.iter().find(|(name, _)| !names.contains(name)) {
        return Err(format!("params declares {unknown}, which the SQL doesn't use").into());
    }
    let declared: Vec<Option<&ParamDeclaration>> =
        names.iter().map(|name| declaration.params.iter().find(|(n, _)| n == name).map(|(_, d)| d)).collect();
    let sql = declaration.statement.render(|n| declared.get(n).copied().flatten()?.type_name.clone());

    // The driver remembers types by oid; a dropped and recreated enum has another, but an altered one doesn't.
    session.client().clear_type_cache();
    let alone = session.client().prepare(&sql).await.map_err(|e| about(&e, &sql, "Postgres refuses the SQL"))?;
    let lookup = |e: tokio_postgres::Error| about(&e, "", "its types can't be described");
    let kinds = describe::params(session.client(), &alone).await.map_err(lookup)?;
    let columns = describe::columns(session.client(), &alone, &sql).await.map_err(lookup)?;
    drop(alone);
    let params = names.iter().zip(kinds).zip(&declared);
    let params: Vec<Param> = params.map(|((name, kind), d)| param(name, kind, *d)).collect::<Result<_, _>>()?;
    if params.len() != names.len() {
        return Err(format!("the SQL uses {} parameters, Postgres finds {}", names.len(), params.len()).into());
    }
    check_columns(&columns, declaration.result)?;

    let value_column = columns.first().map_or("", |column| &column.name);
    let wrapped: Arc<str> = statement::wrap(&sql, declaration.result, value_column, bounds).into();
    session.prepare(&wrapped).await.map_err(|e| {
        about(&e, "", "it must be a single SELECT, VALUES or TABLE that can stand in a subquery and writes nothing")
    })?;
    check_grants(session, &wrapped).await?;
    if declaration.claims.is_empty() {
        check_policies(session, &sql).await?;
    }
    let settings = declaration.claims.iter().map(|claim| Param::setting(claim)).collect();

    let types: Vec<&ParamType> = params.iter().map(|param| &param.kind).collect();
    let fingerprint = fingerprint(declaration, &types, &columns, session_settings);
    let warnings = warnings(&sql, &columns);
    Ok(Prepared { params, settings, columns, fingerprint, wrapped, warnings })
}

fn param(name: &str, kind: ParamType, declared: Option<&ParamDeclaration>) -> Result<Param, String> {
    let none = ParamDeclaration::default();
    let declared = declared.unwrap_or(&none);
    let scalar = match &kind {
        ParamType::Array(element) => element,
        other => other,
    };
    let is_number = matches!(
        scalar,
        ParamType::Int2
            | ParamType::Int4
            | ParamType::Int8
            | ParamType::Numeric
            | ParamType::Float4
            | ParamType::Float8
    );
    if (declared.min.is_some() || declared.max.is_some()) && !is_number {
        return Err(format!("min and max are for numbers, and {name} is {kind}"));
    }
    if declared.max_length.is_some() && !matches!(scalar, ParamType::Text(_)) {
        return Err(format!("max_length is for texts, and {name} is {kind}"));
    }
    let mut param = Param {
        name: name.into(),
        kind,
        default: None,
        required: declared.required.unwrap_or(true),
        min: declared.min,
        max: declared.max,
        max_length: declared.max_length,
    };
    if let Some(default) = &declared.default {
        let canonical = args::canonical_default(&param, default);
        let canonical = canonical.map_err(|bad| {
            let hint = if bad.hint.is_empty() { String::new() } else { format!("; {}", bad.hint) };
            format!("the default of {name} is not taken: {}{hint}", bad.detail)
        })?;
        param.default = Some(canonical);
    }
    Ok(param)
}

fn check_columns(columns: &[Column], form: ResultForm) -> Result<(), String> {
    if columns.is_empty() {
        return Err("it has no result columns, so there is nothing to answer".into());
    }
    if columns.iter().any(|column| &*column.name == ROW_ALIAS) {
        return Err(format!("a column must not be called {ROW_ALIAS}: give it another name with AS"));
    }
    let mut seen = HashSet::new();
    if let Some(twice) = columns.iter().find(|column| !seen.insert(&*column.name)) {
        return Err(format!(
            "two columns are called {:?}, and a JSON object can't tell them apart: name one with AS",
            twice.name
        ));
    }
    if form == ResultForm::Value && columns.len() > 1 {
        return Err(format!("result = \"value\" needs one column, and it has {}", columns.len()));
    }
    Ok(())
}

/// Only a missing grant counts: with NULL for its parameters a good query may fail to be planned.
async fn check_grants(session: &mut Session, wrapped: &str) -> Result<(), Unprepared> {
    let explained = async {
        let explain = session.client().prepare(&format!("EXPLAIN (COSTS OFF) {wrapped}")).await?;
        let nulls = vec![Text(None); explain.params().len()];
        let nulls: Vec<&(dyn ToSql + Sync)> = nulls.iter().map(|null| null as _).collect();
        session.client().query(&explain, &nulls).await
    };
    let Err(error) = explained.await else { return Ok(()) };
    let failure = Failure::from(&error);
    if error.code().is_some_and(|code| code.code() == "42501") {
        return Err(Unprepared::Broken(format!("the role may not run it: {}", failure.text)));
    }
    match failure.decision {
        Decision::Away | Decision::Timeout => Err(Unprepared::Failed(failure)),
        _ => Ok(()),
    }
}

/// A query whose rows are chosen by policies must say by which claims its answers differ; else everybody would be given those of
/// whoever asked first. Whether policies are in force for this role and these tables, views included, Postgres says itself: with
/// `row_security` off it refuses what they would change, instead of changing it.
async fn check_policies(session: &mut Session, sql: &str) -> Result<(), Unprepared> {
    let client = session.client();
    let failed = |e: tokio_postgres::Error| about(&e, "", "whether row-level security applies can't be asked");
    client.batch_execute("BEGIN; SET LOCAL row_security = off").await.map_err(failed)?;
    let prepared = client.prepare(sql).await;
    client.batch_execute("ROLLBACK").await.map_err(failed)?;
    let Err(error) = prepared else { return Ok(()) };
    if error.code().is_some_and(|code| code.code() == "42501") {
        return Err(Unprepared::Broken(format!(
            "{}: rows are chosen by who asks; name the claims that its policies read, as claims = [\"org_id\"], \
             and they are set as seawall.claims.org_id for the time of the statement",
            Failure::from(&error).text
        )));
    }
    match about(&error, sql, "whether row-level security applies can't be asked") {
        Unprepared::Failed(failure) => Err(Unprepared::Failed(failure)),
        // It was prepared a moment ago; what has changed since, the next look will say.
        Unprepared::Broken(_) => Ok(()),
    }
}

fn warnings(sql: &str, columns: &[Column]) -> Vec<String> {
    let mut warnings = vec![];
    for column in columns {
        let name = &column.name;
        if &*column.type_name == "bigint" || column.type_name.starts_with("numeric") {
            warnings.push(format!(
                "column {name} is {}: readers that keep JSON numbers as doubles lose digits beyond 2^53; {name}::text keeps them",
                column.type_name
            ));
        }
    }
    if limits::takes_some(sql) {
        warnings.push("LIMIT without ORDER BY: which rows it takes may differ from one fill to the next".into());
    }
    warnings
}

/// Whether two shapes are the same to those who use them.
pub(super) fn same(a: &Shape, b: &Shape) -> bool {
    match (a, b) {
        (Shape::Pending, Shape::Pending) => true,
        (Shape::Broken(a), Shape::Broken(b)) => a == b,
        (Shape::Ready(a), Shape::Ready(b)) => {
            a.fingerprint == b.fingerprint
                && a.settings == b.settings
                && a.wrapped == b.wrapped
                && a.params == b.params
                && a.columns == b.columns
                && a.warnings == b.warnings
        }
        _ => false,
    }
}
