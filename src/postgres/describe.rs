//! What Postgres's catalogs say of types: what a parameter takes, and what a column is called.

use std::collections::HashMap;

use postgres_types::Type;
use tokio_postgres::{Client, Statement};

use crate::catalog::Column;
use crate::catalog::params::ParamType;

/// Everything about the types asked for and those they are made of, in one statement: a domain's base type, an array's
/// elements. The driver's own lookups are not used for this: it remembers an enum's labels as they were at first.
const TYPES: &str = "WITH RECURSIVE known(oid) AS (\
     SELECT pg_catalog.unnest($1::pg_catalog.oid[]) \
     UNION SELECT part.oid FROM known JOIN pg_catalog.pg_type t ON t.oid = known.oid \
     CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem)) AS part(oid) WHERE part.oid <> 0) \
     SELECT t.oid, pg_catalog.format_type(t.oid, NULL), t.typtype::text, t.typcategory::text, t.typbasetype, t.typelem, \
     t.typname::text, \
     ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder) \
     FROM known JOIN pg_catalog.pg_type t ON t.oid = known.oid";

/// Names of columns' types with their modifiers: `numeric(10,2)`.
const COLUMNS: &str = "SELECT pg_catalog.format_type(oid, typmod) \
     FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.int4[])) \
     WITH ORDINALITY AS c(oid, typmod, n) ORDER BY n";

/// Domains over domains, arrays of domains: nobody nests deeper, and a cycle can't be.
const DEEPEST: u32 = 16;

struct Known {
    name: String,
    kind: String,
    category: String,
    base: u32,
    element: u32,
    short: String,
    labels: Vec<String>,
}

/// The types of a statement's parameters, in their order.
pub(super) async fn params(client: &Client, statement: &Statement) -> Result<Vec<ParamType>, tokio_postgres::Error> {
    let oids: Vec<u32> = statement.params().iter().map(Type::oid).collect();
    if oids.is_empty() {
        return Ok(vec![]);
    }
    let mut known = HashMap::new();
    for row in client.query_typed(TYPES, &[(&oids, Type::OID_ARRAY)]).await? {
        let described = Known {
            name: row.try_get(1)?,
            kind: row.try_get(2)?,
            category: row.try_get(3)?,
            base: row.try_get(4)?,
            element: row.try_get(5)?,
            short: row.try_get(6)?,
            labels: row.try_get(7)?,
        };
        known.insert(row.try_get::<_, u32>(0)?, described);
    }
    Ok(oids.iter().map(|&oid| param_type(oid, &known, DEEPEST)).collect())
}

/// The columns of a statement's result.
pub(super) async fn columns(client: &Client, statement: &Statement) -> Result<Vec<Column>, tokio_postgres::Error> {
    let columns = statement.columns();
    let oids: Vec<u32> = columns.iter().map(|column| column.type_().oid()).collect();
    let modifiers: Vec<i32> = columns.iter().map(tokio_postgres::Column::type_modifier).collect();
    let rows = client.query_typed(COLUMNS, &[(&oids, Type::OID_ARRAY), (&modifiers, Type::INT4_ARRAY)]).await?;
    columns
        .iter()
        .zip(rows)
        .map(|(column, row)| {
            let type_name: String = row.try_get(0)?;
            Ok(Column { name: column.name().into(), type_name: type_name.into() })
        })
        .collect()
}

fn param_type(oid: u32, known: &HashMap<u32, Known>, depth: u32) -> ParamType {
    if let Some(builtin) = Type::from_oid(oid).and_then(|kind| builtin(&kind)) {
        return builtin;
    }
    let Some(described) = known.get(&oid) else { return ParamType::Other(oid.to_string().into()) };
    let name: Box<str> = described.name.as_str().into();
    match &*described.kind {
        _ if depth == 0 => ParamType::Other(name),
        "d" => param_type(described.base, known, depth - 1),
        "e" => ParamType::Enum(name, described.labels.iter().map(|label| label.as_str().into()).collect()),
        // `int2vector` and `oidvector` are of the category, and are written otherwise.
        "b" if described.category == "A" && !described.short.ends_with("vector") => {
            ParamType::Array(Box::new(param_type(described.element, known, depth - 1)))
        }
        "b" if described.short == "citext" => ParamType::Text(name),
        _ => ParamType::Other(name),
    }
}

fn builtin(kind: &Type) -> Option<ParamType> {
    Some(match *kind {
        Type::BOOL => ParamType::Bool,
        Type::INT2 => ParamType::Int2,
        Type::INT4 => ParamType::Int4,
        Type::INT8 => ParamType::Int8,
        Type::NUMERIC => ParamType::Numeric,
        Type::FLOAT4 => ParamType::Float4,
        Type::FLOAT8 => ParamType::Float8,
        Type::UUID => ParamType::Uuid,
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => ParamType::Text(kind.name().into()),
        Type::DATE => ParamType::Date,
        Type::TIMESTAMP => ParamType::Timestamp,
        Type::TIMESTAMPTZ => ParamType::Timestamptz,
        Type::JSON => ParamType::Json,
        Type::JSONB => ParamType::Jsonb,
        _ => return None,
    })
}
