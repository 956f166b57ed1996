//! Types of Postgres as JSON Schema (draft 2020-12, which OpenAPI 3.1 uses), and an example of each.

use serde_json::{Map, Value, json};

use crate::catalog::params::{Param, ParamType};
use crate::catalog::{Column, JsonType, Prepared, ResultForm};

/// Numbers that JSON has no number for.
fn or_none(number: &Value) -> Value {
    json!({ "anyOf": [number, { "enum": ["NaN", "Infinity", "-Infinity"] }] })
}

fn integer(low: i64, high: i64) -> Value {
    json!({ "type": "integer", "minimum": low, "maximum": high })
}

/// What a value of a column is.
fn of(kind: &JsonType) -> Value {
    match kind {
        JsonType::Bool => json!({ "type": "boolean" }),
        JsonType::Int2 => integer(i16::MIN.into(), i16::MAX.into()),
        JsonType::Int4 => json!({ "type": "integer", "format": "int32" }),
        JsonType::Int8 => json!({
            "type": "integer",
            "format": "int64",
            "description": "Readers that keep numbers as doubles lose digits beyond 2^53."
        }),
        JsonType::Numeric => or_none(&json!({ "type": "number", "description": "Of any length: the scale is kept." })),
        JsonType::Float => or_none(&json!({ "type": "number" })),
        JsonType::Uuid => json!({ "type": "string", "format": "uuid" }),
        // Postgres's `infinity` is a date, too.
        JsonType::Date => json!({ "type": "string", "examples": ["2026-11-23"] }),
        JsonType::Timestamp => json!({
            "type": "string",
            "description": "ISO 8601, without an offset.",
            "examples": ["2026-11-23T08:30:00"]
        }),
        JsonType::Timestamptz => json!({
            "type": "string",
            "description": "ISO 8601, with an offset.",
            "examples": ["2026-11-23T08:30:00+00:00"]
        }),
        JsonType::Bytea => json!({ "type": "string", "pattern": r"^\\x([0-9a-f]{2})*$" }),
        JsonType::Text => json!({ "type": "string" }),
        JsonType::Enum(labels) => json!({ "type": "string", "enum": labels }),
        JsonType::Array(element) => {
            // Elements may be null, and a list of more dimensions has lists for elements.
            json!({ "type": "array", "items": { "anyOf": [or_null(of(element)), { "type": "array" }] } })
        }
        JsonType::Object(fields) => {
            let properties: Map<String, Value> =
                fields.iter().map(|(name, kind)| (name.to_string(), or_null(of(kind)))).collect();
            let required: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
            json!({ "type": "object", "properties": properties, "required": required })
        }
        JsonType::Any => json!({}),
    }
}

fn or_null(mut schema: Value) -> Value {
    let absent = json!({ "type": "null" });
    if schema == json!({}) {
        return schema;
    }
    if let Some(any) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        any.push(absent);
        return schema;
    }
    match schema.get("type").cloned() {
        // A schema of one plain type, with no list of values, takes null as another type.
        Some(Value::String(kind)) if schema.get("enum").is_none() => {
            schema["type"] = json!([kind, "null"]);
            schema
        }
        _ => json!({ "anyOf": [schema, absent] }),
    }
}

fn column(column: &Column) -> Value {
    if column.nullable { or_null(of(&column.json)) } else { of(&column.json) }
}

/// What a query answers.
pub(super) fn answer(form: ResultForm, prepared: &Prepared) -> Value {
    if form == ResultForm::Value {
        return prepared.columns.first().map_or_else(|| json!({}), column);
    }
    let properties: Map<String, Value> = prepared.columns.iter().map(|c| (c.name.to_string(), column(c))).collect();
    let required: Vec<&str> = prepared.columns.iter().map(|c| &*c.name).collect();
    let row = json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false
    });
    match form {
        ResultForm::Rows => json!({ "type": "array", "items": row }),
        ResultForm::Row | ResultForm::Value => row,
    }
}

/// What a parameter takes, in a JSON body.
pub(super) fn parameter(param: &Param) -> Value {
    let mut schema = taken(&param.kind, param);
    if !param.required && param.default.is_none() {
        schema = or_null(schema);
    }
    if let Some(default) = &param.default {
        schema["default"] = value_of(&param.kind, default);
    }
    schema
}

fn bounded(mut schema: Value, param: &Param) -> Value {
    if let Some(min) = param.min {
        schema["minimum"] = number(min);
    }
    if let Some(max) = param.max {
        schema["maximum"] = number(max);
    }
    schema
}

/// A bound as it was most likely written.
fn number(bound: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, reason = "bounds of integers are within 2^53, which is checked")]
    if bound.fract() == 0.0 && bound.abs() <= 9e15 { json!(bound as i64) } else { json!(bound) }
}

fn taken(kind: &ParamType, param: &Param) -> Value {
    match kind {
        ParamType::Bool => json!({ "type": "boolean" }),
        ParamType::Int2 => bounded(integer(i16::MIN.into(), i16::MAX.into()), param),
        ParamType::Int4 => bounded(integer(i32::MIN.into(), i32::MAX.into()), param),
        ParamType::Int8 => bounded(json!({ "type": "integer", "format": "int64" }), param),
        ParamType::Numeric | ParamType::Float4 | ParamType::Float8 => bounded(json!({ "type": "number" }), param),
        ParamType::Uuid => json!({ "type": "string", "format": "uuid" }),
        ParamType::Date => json!({ "type": "string", "format": "date" }),
        ParamType::Timestamp => json!({ "type": "string", "examples": ["2026-11-23T08:30"] }),
        ParamType::Timestamptz => json!({ "type": "string", "format": "date-time" }),
        ParamType::Json | ParamType::Jsonb => json!({}),
        ParamType::Enum(_, labels) => json!({ "type": "string", "enum": labels }),
        ParamType::Array(element) => json!({ "type": "array", "items": taken(element, param) }),
        ParamType::Text(_) => match param.max_length {
            Some(length) => json!({ "type": "string", "maxLength": length }),
            None => json!({ "type": "string" }),
        },
        ParamType::Other(name) => json!({ "type": "string", "description": format!("Postgres reads it as {name}.") }),
    }
}

/// A canonical text as JSON.
fn value_of(kind: &ParamType, text: &str) -> Value {
    match kind {
        ParamType::Bool => json!(text == "true"),
        ParamType::Int2
        | ParamType::Int4
        | ParamType::Int8
        | ParamType::Numeric
        | ParamType::Float4
        | ParamType::Float8
        | ParamType::Json
        | ParamType::Jsonb => serde_json::from_str(text).unwrap_or_else(|_| json!(text)),
        _ => json!(text),
    }
}

/// A value that a request could send: the default, the least that is allowed, or one of the type.
pub(in crate::http) fn example(param: &Param) -> Value {
    if let Some(default) = &param.default {
        return value_of(&param.kind, default);
    }
    sample(&param.kind, param)
}

fn sample(kind: &ParamType, param: &Param) -> Value {
    match kind {
        ParamType::Bool => json!(true),
        ParamType::Int2
        | ParamType::Int4
        | ParamType::Int8
        | ParamType::Numeric
        | ParamType::Float4
        | ParamType::Float8 => {
            let low = param.min.unwrap_or(1.0);
            number(param.max.map_or(low.max(1.0), |max| max.min(low.max(1.0))))
        }
        ParamType::Uuid => json!("9b2f6c1e-7d3a-4f52-8f0c-1a2b3c4d5e6f"),
        ParamType::Date => json!("2026-11-23"),
        ParamType::Timestamp => json!("2026-11-23T08:30:00"),
        ParamType::Timestamptz => json!("2026-11-23T08:30:00Z"),
        ParamType::Json | ParamType::Jsonb => json!({}),
        ParamType::Enum(_, labels) => json!(labels.first()),
        ParamType::Array(element) => json!([sample(element, param)]),
        ParamType::Text(_) | ParamType::Other(_) => {
            let text = if param.name.contains("slug") || param.name.contains("category") { "toys" } else { "text" };
            json!(text.chars().take(param.max_length.unwrap_or(usize::MAX)).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_a_type_among_others_and_nothing_is_added_where_anything_goes() {
        assert_eq!(or_null(json!({ "type": "string" })), json!({ "type": ["string", "null"] }));
        assert_eq!(or_null(json!({})), json!({}));
        let labels = json!({ "type": "string", "enum": ["a"] });
        assert_eq!(or_null(labels.clone()), json!({ "anyOf": [labels, { "type": "null" }] }));
    }

    #[test]
    fn an_example_is_within_the_bounds() {
        let param = |min, max| Param { kind: ParamType::Int4, min, max, ..Param::setting("n") };
        for (min, max, expected) in
            [(None, None, 1), (Some(5.0), None, 5), (None, Some(0.0), 0), (Some(-9.0), Some(-3.0), -3)]
        {
            assert_eq!(example(&param(min, max)), json!(expected));
        }
        let short = Param { max_length: Some(2), ..Param::setting("t") };
        assert_eq!(example(&short), json!("te"));
    }
}
