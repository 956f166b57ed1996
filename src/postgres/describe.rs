//! What Postgres's catalogs say of types: what a parameter takes, and what a column is called.

use std::collections::HashMap;

use postgres_types::Type;
use tokio_postgres::{Client, Statement};

use crate::catalog::params::ParamType;
use crate::catalog::sql::lex::{Lexer, Token};
use crate::catalog::{Column, JsonType};

/// Everything about the types asked for and those they are made of, in one statement: a domain's base type, an array's
/// elements. The driver's own lookups are not used for this: it remembers an enum's labels as they were at first.
const TYPES: &str = "WITH RECURSIVE known(oid) AS (\
     SELECT pg_catalog.unnest($1::pg_catalog.oid[]) \
     UNION SELECT part.oid FROM known JOIN pg_catalog.pg_type t ON t.oid = known.oid \
     CROSS JOIN LATERAL (SELECT t.typbasetype UNION ALL SELECT t.typelem UNION ALL SELECT a.atttypid \
     FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0 AND NOT a.attisdropped) \
     AS part(oid) WHERE part.oid <> 0) \
     SELECT t.oid, pg_catalog.format_type(t.oid, NULL), t.typtype::text, t.typcategory::text, t.typbasetype, t.typelem, \
     t.typname::text, \
     ARRAY(SELECT e.enumlabel::text FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid ORDER BY e.enumsortorder), \
     ARRAY(SELECT a.attname::text FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 \
     AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum), \
     ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND t.typrelid <> 0 \
     AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) \
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
    /// Of a composite type: names and types.
    fields: Vec<(String, u32)>,
}

/// The types of a statement's parameters, in their order.
pub(super) async fn params(client: &Client, statement: &Statement) -> Result<Vec<ParamType>, tokio_postgres::Error> {
    let oids: Vec<u32> = statement.params().iter().map(Type::oid).collect();
    if oids.is_empty() {
        return Ok(vec![]);
    }
    let known = types(client, &oids).await?;
    Ok(oids.iter().map(|&oid| param_type(oid, &known, DEEPEST)).collect())
}

/// What the catalogs say of these types and of those that they are made of.
async fn types(client: &Client, oids: &[u32]) -> Result<HashMap<u32, Known>, tokio_postgres::Error> {
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
            fields: row.try_get::<_, Vec<String>>(8)?.into_iter().zip(row.try_get::<_, Vec<u32>>(9)?).collect(),
        };
        known.insert(row.try_get::<_, u32>(0)?, described);
    }
    Ok(known)
}

/// Whether the columns of tables that a result has are NOT NULL.
const NOT_NULL: &str = "SELECT coalesce(a.attnotnull, false) \
     FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.oid[]), pg_catalog.unnest($2::pg_catalog.int2[])) \
     WITH ORDINALITY AS c(relation, number, n) \
     LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.relation AND a.attnum = c.number ORDER BY n";

/// The columns of the result of `statement`, which is `sql`.
pub(super) async fn columns(
    client: &Client,
    statement: &Statement,
    sql: &str,
) -> Result<Vec<Column>, tokio_postgres::Error> {
    let columns = statement.columns();
    let oids: Vec<u32> = columns.iter().map(|column| column.type_().oid()).collect();
    let modifiers: Vec<i32> = columns.iter().map(tokio_postgres::Column::type_modifier).collect();
    let names = client.query_typed(COLUMNS, &[(&oids, Type::OID_ARRAY), (&modifiers, Type::INT4_ARRAY)]).await?;
    let known = types(client, &oids).await?;
    let relations: Vec<u32> = columns.iter().map(|column| column.table_oid().unwrap_or_default()).collect();
    let numbers: Vec<i16> = columns.iter().map(|column| column.column_id().unwrap_or_default()).collect();
    let not_null = client.query_typed(NOT_NULL, &[(&relations, Type::OID_ARRAY), (&numbers, Type::INT2_ARRAY)]).await?;
    let may_null = may_null_columns(sql);
    let mut described = vec![];
    for (place, column) in columns.iter().enumerate() {
        let type_name: String = names[place].try_get(0)?;
        let not_null: bool = not_null[place].try_get(0)?;
        let mut room = MOST_TYPES;
        described.push(Column {
            name: column.name().into(),
            type_name: type_name.into(),
            json: json_type(oids[place], &known, DEEPEST, &mut room),
            nullable: may_null || !not_null,
        });
    }
    Ok(described)
}

/// Types within one column at most: composites of composites are described so far, and anything beyond as anything.
const MOST_TYPES: usize = 500;

/// Whether a word of the statement may make columns of tables null: an outer join, or grouping sets. A function called `left` is
/// taken for one, which errs on the side of null.
fn may_null_columns(sql: &str) -> bool {
    const WORDS: [&str; 6] = ["LEFT", "RIGHT", "FULL", "GROUPING", "ROLLUP", "CUBE"];
    let mut lexer = Lexer::new(sql);
    while let Some(lexeme) = lexer.next() {
        let text = &sql[lexeme.start..lexeme.end];
        if lexeme.kind == Token::Word && WORDS.iter().any(|word| text.eq_ignore_ascii_case(word)) {
            return true;
        }
    }
    false
}

/// As `datum_to_json` decides.
fn json_type(oid: u32, known: &HashMap<u32, Known>, depth: u32, room: &mut usize) -> JsonType {
    if *room == 0 || depth == 0 {
        return JsonType::Any;
    }
    *room -= 1;
    if let Some(kind) = Type::from_oid(oid) {
        match kind {
            Type::BOOL => return JsonType::Bool,
            Type::INT2 => return JsonType::Int2,
            Type::INT4 => return JsonType::Int4,
            Type::INT8 => return JsonType::Int8,
            Type::NUMERIC => return JsonType::Numeric,
            Type::FLOAT4 | Type::FLOAT8 => return JsonType::Float,
            Type::UUID => return JsonType::Uuid,
            Type::DATE => return JsonType::Date,
            Type::TIMESTAMP => return JsonType::Timestamp,
            Type::TIMESTAMPTZ => return JsonType::Timestamptz,
            Type::BYTEA => return JsonType::Bytea,
            Type::JSON | Type::JSONB | Type::RECORD => return JsonType::Any,
            _ => {}
        }
    }
    let Some(described) = known.get(&oid) else { return JsonType::Any };
    match &*described.kind {
        "d" => json_type(described.base, known, depth - 1, room),
        "e" => JsonType::Enum(described.labels.iter().map(|label| label.as_str().into()).collect()),
        "c" => JsonType::Object(
            described
                .fields
                .iter()
                .map(|(name, oid)| (name.as_str().into(), json_type(*oid, known, depth - 1, room)))
                .collect(),
        ),
        "b" if described.category == "A" && !described.short.ends_with("vector") => {
            JsonType::Array(Box::new(json_type(described.element, known, depth - 1, room)))
        }
        // A type of an extension may be cast to json, and is that then.
        "b" if described.category == "U" => JsonType::Any,
        "b" | "r" | "m" => JsonType::Text,
        _ => JsonType::Any,
    }
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
