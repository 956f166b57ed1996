//! Preparing: what Postgres says of a query before anybody asks it.
//!
//! The operator's SQL is prepared alone first, so that whatever would break out of the wrapping statement is a syntax
//! error of its own; then within it. A query that fails is broken alone.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::types::{Kind, Type};

use super::origin::Postgres;
use super::session::{self, LINEAGE};
use super::sqlstate::{self, Meaning};
use crate::catalog::args;
use crate::catalog::params::{Param, ParamType};
use crate::catalog::query::fingerprint;
use crate::catalog::{Broken, Catalog, Column, Prepared, Query, ResultForm, Shape};
use crate::readthrough::origin::{Connection, OriginError, OriginState};

/// The alias of the wrapped rows. A column of this name would be aggregated in its place.
const ALIAS: &str = "__seawall_row";

/// How often shapes are looked at again: a table altered under a query shows within this, and a broken query that has
/// been mended comes back. A hundred queries take about a tenth of a second of one connection.
const REVIEW_EVERY: Duration = Duration::from_secs(30);

/// The first pause after a failed attempt; it doubles up to `reconnect_max`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

impl Postgres {
    /// Prepares every query of `catalog`, and gives each its shape.
    ///
    /// # Errors
    /// [`OriginError::Away`] where the database can't be reached; shapes found so far stay.
    pub async fn prepare_all(&self, catalog: &Catalog) -> Result<(), OriginError> {
        let client = self.connection(Connection::Pooled).await?;
        for query in catalog.iter() {
            self.prepare_over(&client, query).await?;
        }
        Ok(())
    }

    /// Prepares one query anew.
    pub(super) async fn prepare(&self, query: &Query) -> Result<(), OriginError> {
        let client = self.connection(Connection::Pooled).await?;
        self.prepare_over(&client, query).await
    }

    /// Keeps the shapes up to date for as long as it is polled: prepares all at once, tries again while the database is
    /// away, and looks again from time to time.
    pub async fn supervise(&self, catalog: Arc<Catalog>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let prepared = self.prepare_all(&catalog).await;
            self.attempted.send_replace(true);
            let wait = match prepared {
                Ok(()) => {
                    pause = FIRST_PAUSE;
                    REVIEW_EVERY
                }
                Err(error) => {
                    self.note(OriginState::Away(error.to_string()));
                    pause = (pause * 2).min(self.settings.reconnect_max);
                    pause
                }
            };
            // Pods that started together don't come together.
            tokio::time::sleep(wait.mul_f64(0.75 + 0.25 * fastrand::f64())).await;
        }
    }

    /// Waits until [`Postgres::supervise`] has made its first attempt, whatever came of it. Cancel safe.
    pub async fn first_attempt(&self) {
        // The sender lives in `self`.
        let _ = self.attempted.subscribe().wait_for(|attempted| *attempted).await;
    }

    async fn prepare_over(&self, client: &Object, query: &Query) -> Result<(), OriginError> {
        let path = self.pin_search_path(client).await?;
        let session = session::fingerprint(&self.settings.timezone, path);
        let shape = match self.shape(client, query, &session).await {
            Ok(prepared) => Shape::Ready(Arc::new(prepared)),
            Err(Unusable::Away(error)) => return Err(error),
            Err(Unusable::Broken(reason)) => Shape::Broken(Broken { reason }),
        };
        announce(query, &shape);
        query.reshape(shape);
        Ok(())
    }

    /// The schemas that names are looked up in: as configured, else the role's own at the first connection.
    async fn pin_search_path(&self, client: &Object) -> Result<&str, OriginError> {
        let read = async || {
            if let Some(configured) = &self.settings.search_path {
                return Ok(configured.clone());
            }
            let row = client.query_one("SELECT pg_catalog.current_setting('search_path')", &[]).await;
            row.map(|row| row.get(0)).map_err(|e| sqlstate::outcome(&e))
        };
        self.search_path.get_or_try_init(read).await.map(String::as_str)
    }

    async fn shape(&self, client: &Object, query: &Query, session: &str) -> Result<Prepared, Unusable> {
        let declaration = query.declaration();
        let declared = |name: &str| declaration.params.iter().find(|(n, _)| **n == *name).map(|(_, d)| d);
        let statement = &declaration.statement;
        let sql = statement.render(|n| declared(statement.params().get(n)?)?.type_name.clone());
        let alone = client.prepare(&sql).await.map_err(|e| Unusable::from_server(&e, &sql))?;
        let columns: Vec<Column> = alone
            .columns()
            .iter()
            .map(|c| Column { name: c.name().into(), type_name: type_name(c.type_()).into() })
            .collect();
        check_columns(&columns, declaration.result)?;
        let mut params = Vec::new();
        for (name, kind) in statement.params().iter().zip(alone.params()) {
            params.push(param(name, param_type(kind), declared(name))?);
        }
        let wrapped = self.wrap(&sql, query, &columns);
        client.prepare(&wrapped).await.map_err(|e| Unusable::from_server(&e, &sql))?;
        let types: Vec<&ParamType> = params.iter().map(|p| &p.kind).collect();
        let fingerprint = fingerprint(query.name(), &sql, &types, &columns, declaration.result, session);
        let warnings = warnings(&columns, statement.text());
        Ok(Prepared { params, columns, fingerprint, wrapped: wrapped.into(), warnings })
    }

    /// The statement of a fill: stamp, lineage, count and length always, the body only within its bounds.
    fn wrap(&self, sql: &str, query: &Query, columns: &[Column]) -> String {
        let form = query.declaration().result;
        let limit = u64::from(form.row_limit(query.policy().max_rows));
        let element = match (form, columns) {
            (ResultForm::Value, [column]) => format!("{ALIAS}.{}", session::identifier(&column.name)),
            _ => ALIAS.to_owned(),
        };
        format!(
            "SELECT s, l, n, b, CASE WHEN n <= {limit} AND b <= {max} THEN j END FROM (\
             SELECT s, l, n, j, pg_catalog.octet_length(j) AS b FROM (\
             SELECT pg_catalog.pg_current_snapshot()::text AS s, {LINEAGE} AS l, pg_catalog.count(*) AS n, \
             coalesce(pg_catalog.json_agg({element}), '[]')::text AS j FROM (\
             SELECT * FROM ({sql}\n) AS {ALIAS} LIMIT {more}) AS {ALIAS}) AS aggregated OFFSET 0) AS measured",
            max = self.settings.result_max_bytes,
            more = limit + 1,
        )
    }
}

/// Why a query has no shape.
enum Unusable {
    Away(OriginError),
    Broken(String),
}

impl Unusable {
    fn from_server(error: &tokio_postgres::Error, sql: &str) -> Self {
        if sqlstate::meaning_of(error) == Meaning::Away {
            return Self::Away(sqlstate::outcome(error));
        }
        let mut reason = sqlstate::describe(error);
        if error.code().is_some_and(|c| c.code() == "42P18") {
            reason.push_str("; declare the parameter's type: params = { name = \"int4\" }");
        }
        if let Some(at) = error.as_db_error().and_then(|e| e.position()).and_then(|p| match p {
            tokio_postgres::error::ErrorPosition::Original(at) => Some(*at as usize),
            tokio_postgres::error::ErrorPosition::Internal { .. } => None,
        }) {
            let near: String = sql.chars().skip(at.saturating_sub(1)).take(30).collect();
            if !near.is_empty() {
                // Writing to a String can't fail.
                let _ = write!(reason, " at \"{}\"", near.replace('\n', " "));
            }
        }
        Self::Broken(reason)
    }
}

fn check_columns(columns: &[Column], form: ResultForm) -> Result<(), Unusable> {
    let broken = |reason: String| Err(Unusable::Broken(reason));
    if columns.is_empty() {
        return broken("the query has no result columns".into());
    }
    for (n, column) in columns.iter().enumerate() {
        if *column.name == *ALIAS {
            return broken(format!("a result column is called {ALIAS}, which Seawall uses itself; rename it with AS"));
        }
        if columns[..n].iter().any(|other| other.name == column.name) {
            return broken(format!("two result columns are called {:?}; rename one with AS", column.name));
        }
    }
    if form == ResultForm::Value && columns.len() > 1 {
        return broken(format!("result = \"value\" needs one column, and the query has {}", columns.len()));
    }
    Ok(())
}

fn param(name: &str, kind: ParamType, declared: Option<&crate::catalog::ParamDeclaration>) -> Result<Param, Unusable> {
    let mut param = Param {
        name: name.into(),
        kind,
        default: None,
        required: declared.and_then(|d| d.required).unwrap_or(true),
        min: declared.and_then(|d| d.min),
        max: declared.and_then(|d| d.max),
        max_length: declared.and_then(|d| d.max_length),
    };
    if let Some(value) = declared.and_then(|d| d.default.as_ref()) {
        let default = args::canonical_default(&param, value)
            .map_err(|bad| Unusable::Broken(format!("params.{name}.default: {}; {}", bad.detail, bad.hint)))?;
        param.default = Some(default);
    }
    Ok(param)
}

/// Postgres's type as a parameter's; a domain is what it is over.
fn param_type(kind: &Type) -> ParamType {
    match kind.kind() {
        Kind::Array(inner) => return ParamType::Array(Box::new(param_type(inner))),
        Kind::Domain(inner) => return param_type(inner),
        Kind::Enum(labels) => {
            return ParamType::Enum(kind.name().into(), labels.iter().map(|l| l.as_str().into()).collect());
        }
        _ => {}
    }
    match *kind {
        Type::BOOL => ParamType::Bool,
        Type::INT2 => ParamType::Int2,
        Type::INT4 => ParamType::Int4,
        Type::INT8 => ParamType::Int8,
        Type::NUMERIC => ParamType::Numeric,
        Type::FLOAT4 => ParamType::Float4,
        Type::FLOAT8 => ParamType::Float8,
        Type::UUID => ParamType::Uuid,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => ParamType::Text(kind.name().into()),
        Type::DATE => ParamType::Date,
        Type::TIMESTAMP => ParamType::Timestamp,
        Type::TIMESTAMPTZ => ParamType::Timestamptz,
        Type::JSON => ParamType::Json,
        Type::JSONB => ParamType::Jsonb,
        _ if kind.name() == "citext" => ParamType::Text(kind.name().into()),
        _ => ParamType::Other(kind.name().into()),
    }
}

/// A type as people write it.
fn type_name(kind: &Type) -> String {
    match kind.kind() {
        Kind::Array(inner) => format!("{}[]", type_name(inner)),
        _ => kind.name().to_owned(),
    }
}

/// What works and may still surprise.
fn warnings(columns: &[Column], text: &str) -> Vec<String> {
    let mut warnings = vec![];
    for column in columns.iter().filter(|c| matches!(&*c.type_name, "int8" | "numeric")) {
        warnings.push(format!(
            "column {} is {}: JSON readers that use doubles lose digits beyond 2^53; cast it to text if it may be that large",
            column.name, column.type_name
        ));
    }
    let upper = text.to_ascii_uppercase();
    let words: Vec<&str> = upper.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    if words.contains(&"LIMIT") && !words.contains(&"ORDER") {
        warnings.push("LIMIT without ORDER BY: which rows it gives is Postgres's choice, at each fill anew".into());
    }
    warnings
}

/// Says what became of a query, once for each change.
fn announce(query: &Query, shape: &Shape) {
    match (&**query.shape(), shape) {
        (Shape::Broken(before), Shape::Broken(now)) if before == now => {}
        (_, Shape::Broken(now)) => tracing::error!(query = query.name(), reason = now.reason, "a query is broken"),
        (Shape::Broken(_), Shape::Ready(_)) => tracing::info!(query = query.name(), "a broken query is usable again"),
        (Shape::Ready(before), Shape::Ready(now)) if before.fingerprint != now.fingerprint => {
            tracing::info!(query = query.name(), "a query has another shape than before");
        }
        _ => {}
    }
}
