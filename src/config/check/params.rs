//! The rules of a query's `params`: each names a parameter of the SQL, and its bounds agree with each other.
//!
//! Whether a default suits its type is for the catalog to say, once Postgres has named the types.

use serde_json::{Map, Value as Json};

use super::check_keys;
use crate::catalog::ParamDeclaration;
use crate::config::bounds;
use crate::config::keys::Section;
use crate::config::raw::{Entry, Value};
use crate::config::read::{At, Place, Reader, Reported, join};
use crate::config::suggest;

/// Longest type name in bytes: two quoted names of 63 and their modifiers fit, and it is sent with every statement.
const MAX_TYPE_BYTES: usize = 200;

/// Largest integer that a bound compares exactly.
const EXACT: i64 = 1 << 53;

/// What is declared of the parameters; `known` are those of the SQL, `None` if that was no good.
pub(super) fn check(
    reader: &mut Reader<'_>,
    query: &Place<'_>,
    known: Option<&[Box<str>]>,
) -> Option<Vec<(Box<str>, ParamDeclaration)>> {
    let table = match query.table.and_then(|t| t.get("params")).map(|e| &e.value) {
        Some(Value::Table(table)) => table,
        None => return Some(Vec::new()),
        Some(other) => {
            let message = format!("this is {}; write a table such as {{ id = \"int4\" }}", other.kind());
            reader.report(&query.at("params"), message);
            return None;
        }
    };
    let path = join(query.path, "params");
    let checked: Vec<_> = table
        .entries
        .iter()
        .map(|entry| {
            let at = At { key: join(&path, &entry.name), line: Some(entry.line) };
            let is_known = known.is_none_or(|names| names.iter().any(|n| **n == *entry.name));
            if !is_known {
                reader.report(&at, suggest::unknown_param(&entry.name, known.unwrap_or_default()));
            }
            let declaration = check_param(reader, entry, &at)?;
            is_known.then(|| (entry.name.as_str().into(), declaration))
        })
        .collect();
    checked.into_iter().collect()
}

fn check_param(reader: &mut Reader<'_>, entry: &Entry, at: &At) -> Option<ParamDeclaration> {
    let table = match &entry.value {
        Value::Text(text) => {
            return check_type(reader, at, text).map(|t| ParamDeclaration { type_name: Some(t), ..Default::default() });
        }
        Value::Table(table) => table,
        other => {
            let message = format!("this is {}; write a type such as \"int4\", or a table", other.kind());
            reader.report(at, message);
            return None;
        }
    };
    let place = Place::new(Section::Param, &at.key, Some(table));
    check_keys(reader, &place);
    let type_name = match table.get("type").map(|e| &e.value) {
        None => Some(None),
        Some(Value::Text(text)) => check_type(reader, &place.at("type"), text).map(Some),
        Some(other) => {
            reader.report(&place.at("type"), format!("this is {}; write a type such as \"int4\"", other.kind()));
            None
        }
    };
    let default = match table.get("default") {
        None => Some(None),
        Some(entry) => json(reader, &place.at("default"), &entry.value).map(Some),
    };
    let required = if place.has("required") { reader.flag(&place, "required").map(Some) } else { Some(None) };
    let (min, max) = (check_bound(reader, &place, "min"), check_bound(reader, &place, "max"));
    if let (Ok(Some(min)), Ok(Some(max))) = (&min, &max)
        && min > max
    {
        reader.report(&place.at("min"), "it is more than max, so that no value could pass; write min <= max");
    }
    let max_length = if place.has("max_length") {
        reader.count(&place, "max_length", &bounds::MAX_LENGTH).map(Some)
    } else {
        Some(None)
    };
    if let (Some(Some(default)), Ok(min), Ok(max)) = (&default, &min, &max) {
        check_default(reader, &place, default, *min, *max, max_length.flatten());
    }
    Some(ParamDeclaration {
        type_name: type_name?,
        default: default?,
        required: required?,
        min: min.ok()?,
        max: max.ok()?,
        max_length: max_length?,
    })
}

fn check_type(reader: &mut Reader<'_>, at: &At, text: &str) -> Option<String> {
    if text.len() <= MAX_TYPE_BYTES && is_type(text) {
        return Some(text.to_owned());
    }
    // It becomes a part of the statement, so it is not substituted and no more is allowed than types need.
    reader.report(
        at,
        format!(
            "{} is not a type; write its name as \"int4\", \"numeric(10,2)\", \"text[]\", without quotes or references",
            crate::config::problem::quoted(text)
        ),
    );
    None
}

/// `[A-Za-z_][A-Za-z0-9_ .]*(\(\d+(,\d+)?\))?(\[\])*`
fn is_type(text: &str) -> bool {
    let mut base = text;
    while let Some(element) = base.strip_suffix("[]") {
        base = element;
    }
    if let Some(inner) = base.strip_suffix(')') {
        let Some((name, modifiers)) = inner.split_once('(') else { return false };
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let sound = match modifiers.split_once(',') {
            Some((precision, scale)) => number(precision) && number(scale),
            None => number(modifiers),
        };
        if !sound {
            return false;
        }
        base = name;
    }
    base.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && base.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b' ' | b'.'))
}

/// `min` or `max`.
fn check_bound(reader: &mut Reader<'_>, place: &Place<'_>, name: &str) -> Result<Option<f64>, Reported> {
    let Some(entry) = place.table.and_then(|t| t.get(name)) else { return Ok(None) };
    if let Value::Integer(n) = entry.value
        && !(-EXACT..=EXACT).contains(&n)
    {
        reader.report(&place.at(name), format!("{n} is beyond 2^53 and can't be compared exactly; write less"));
        return Err(Reported);
    }
    let given = reader.given(place, name).ok_or(Reported)?;
    let number = given.number().filter(|n| n.is_finite());
    if number.is_none() {
        reader.report(&given.at, format!("{} is not a finite number; write one without quotes", given.shown));
        return Err(Reported);
    }
    Ok(number)
}

/// A default that a request could not send would be an answer that nobody can ask for by name.
fn check_default(
    reader: &mut Reader<'_>,
    place: &Place<'_>,
    default: &Json,
    min: Option<f64>,
    max: Option<f64>,
    max_length: Option<usize>,
) {
    let at = place.at("default");
    let number = match default {
        Json::Number(number) => number.as_f64(),
        _ => None,
    };
    if let Some(number) = number
        && (min.is_some_and(|min| number < min) || max.is_some_and(|max| number > max))
    {
        reader.report(&at, format!("{number} is not within min and max; write one that is"));
    }
    if let (Json::String(text), Some(length)) = (default, max_length)
        && text.chars().count() > length
    {
        reader.report(&at, format!("it is longer than max_length, {length}; write a shorter one"));
    }
}

/// A default as JSON, its numbers spelled as in the file: the scale of `1.50` is kept.
pub(super) fn json(reader: &mut Reader<'_>, at: &At, value: &Value) -> Option<Json> {
    match value {
        Value::Text(text) => reader.text_of(at, text).map(|(text, _)| Json::String(text)),
        Value::Integer(n) => Some(Json::Number((*n).into())),
        Value::Float(_, Some(number)) => Some(Json::Number(number.clone())),
        Value::Bool(b) => Some(Json::Bool(*b)),
        Value::Datetime(text) => Some(Json::String(text.clone())),
        Value::Array(items) => {
            items.iter().map(|item| json(reader, at, item)).collect::<Vec<_>>().into_iter().collect()
        }
        Value::Table(table) => {
            let fields: Vec<_> =
                table.entries.iter().map(|e| Some((e.name.clone(), json(reader, at, &e.value)?))).collect();
            fields.into_iter().collect::<Option<Map<_, _>>>().map(Json::Object)
        }
        Value::Float(_, None) | Value::Beyond | Value::Deep => {
            reader.report(at, format!("{} can't be a default; write a finite value", value.kind()));
            None
        }
    }
}
