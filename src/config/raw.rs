//! The first step: TOML as it stands, with lines. Nothing is known here of keys, types or rules.
//!
//! The rest of the configuration reads this tree and not the `toml` crate's, so that a value's line is at hand wherever
//! a problem is found.

use serde_json::Number;
use toml::de::{DeTable, DeValue};

use super::problem::Problem;

/// Deepest nesting that is looked at. The deepest key there is has six levels, and a `default` for a json parameter may
/// add some. Below, a value is only known to be too deep, so that no input makes the walk recurse without bound.
const MAX_DEPTH: usize = 24;

/// A table, by order of its keys' lines.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Where the key stands, from 1.
    pub(super) line: usize,
    pub(super) value: Value,
}

/// A value. Numbers keep their spelling where it matters: `1.50` is not `1.5` to a `numeric`.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Float(f64, Option<Number>),
    Bool(bool),
    Datetime(String),
    Array(Vec<Value>),
    Table(Table),
    /// An integer that 64 bits don't hold.
    Beyond,
    /// Nested deeper than [`MAX_DEPTH`].
    Deep,
}

impl Value {
    /// What it is, for a message about what it should have been.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(..) => "a number",
            Self::Bool(_) => "a boolean",
            Self::Datetime(_) => "a date or time",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
            Self::Beyond => "an integer beyond 64 bits",
            Self::Deep => "nested too deep",
        }
    }
}

impl Table {
    /// The entry called `name`.
    pub(super) fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|e| e.name == name)
    }
}

/// Reads a whole document.
///
/// Every syntax error is a problem. What the parser makes of the rest is not looked at: after a missing quote it is
/// anything, and problems about it would bury the one that counts.
pub(super) fn document(text: &str) -> Result<Table, Vec<Problem>> {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(convert_table(table.get_ref(), &lines, 0));
    }
    // Of one line the first counts, the others follow from it.
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|e| Problem {
            line: e.span().map(|span| lines.at(span.start)),
            key: String::new(),
            // The message alone: the error's Display quotes the line, which may hold a secret.
            message: format!("not TOML: {}", e.message().replace(char::is_control, " ")),
        })
        .collect();
    problems.sort_by_key(|p| p.line);
    problems.dedup_by_key(|p| p.line);
    Err(problems)
}

/// Reads a single value, for the defaults in the table of keys.
pub(super) fn value(text: &str) -> Value {
    match DeValue::parse(text) {
        Ok(value) => convert(value.get_ref(), &Lines::of(text), 0),
        Err(_) => Value::Deep,
    }
}

fn convert_table(table: &DeTable<'_>, lines: &Lines, depth: usize) -> Table {
    let mut entries: Vec<Entry> = table
        .iter()
        .map(|(key, value)| Entry {
            name: key.get_ref().to_string(),
            line: lines.at(key.span().start),
            value: convert(value.get_ref(), lines, depth + 1),
        })
        .collect();
    entries.sort_by_key(|e| e.line);
    Table { entries }
}

fn convert(value: &DeValue<'_>, lines: &Lines, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Deep;
    }
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(n) => i64::from_str_radix(n.as_str(), n.radix()).map_or(Value::Beyond, Value::Integer),
        DeValue::Float(n) => {
            let text = n.as_str().trim_start_matches('+');
            Value::Float(text.parse().unwrap_or(f64::NAN), text.parse().ok())
        }
        DeValue::Boolean(b) => Value::Bool(*b),
        DeValue::Datetime(at) => Value::Datetime(at.to_string()),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| convert(item.get_ref(), lines, depth + 1)).collect())
        }
        DeValue::Table(table) => Value::Table(convert_table(table, lines, depth)),
    }
}

/// Where lines begin.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of the byte at `offset`, from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}
