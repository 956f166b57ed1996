//! The types of parameters, and the canonical form of their values.
//!
//! Two spellings that Postgres can't tell apart have one canonical form, and so one key: `042` and `42`, `1e1` and `10`,
//! two offsets of one instant. What prints differently keeps its difference (the scale of a numeric, the zero sign of a
//! float). The form is text that Postgres reads as that type, and what it would refuse is refused here, before a
//! connection is taken. Values that come as text (GET) and as JSON (POST) meet in the same functions: a JSON string or
//! number is its text, so both ways give the same key.
//!
//! Pure. A valid scalar is written to the key without allocation; the text of a refusal is made on refusal only.
//! Where a value was refused, what has been written to the key so far is unspecified.

mod array;
mod json;
mod number;
#[cfg(test)]
mod tests;
mod text;
mod time;

use std::fmt;

use serde_json::value::RawValue;

use super::args::KeyBuf;
use super::sql::{CLAIMS, claim_of};
use number::Range;

/// What Postgres takes for a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamType {
    /// `boolean`.
    Bool,
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `numeric`: the scale is kept, since 1.0 and 1.00 print differently.
    Numeric,
    /// `real`.
    Float4,
    /// `double precision`.
    Float8,
    /// `uuid`.
    Uuid,
    /// `text`, `varchar`, `bpchar`, `name`, `citext`: taken as they are.
    Text(Box<str>),
    /// `date`.
    Date,
    /// `timestamp without time zone`.
    Timestamp,
    /// `timestamp with time zone`.
    Timestamptz,
    /// `json`.
    Json,
    /// `jsonb`.
    Jsonb,
    /// An enum, with its labels.
    Enum(Box<str>, Box<[Box<str>]>),
    /// An array.
    Array(Box<ParamType>),
    /// Any other: goes to Postgres as text.
    Other(Box<str>),
}

/// Postgres's name of the type, as it may stand in a cast: `int4[]`.
impl fmt::Display for ParamType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Numeric => "numeric",
            Self::Float4 => "float4",
            Self::Float8 => "float8",
            Self::Uuid => "uuid",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Text(name) | Self::Enum(name, _) | Self::Other(name) => name,
            Self::Array(inner) => return write!(f, "{inner}[]"),
        })
    }
}

/// One parameter of a prepared query.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name in the SQL.
    pub name: Box<str>,
    /// What Postgres takes.
    pub kind: ParamType,
    /// The canonical text of its default.
    pub default: Option<Box<str>>,
    /// Whether absence without default is an error.
    pub required: bool,
    /// Least value, of numbers and of the numbers in an array. A numeric is compared as a float8.
    pub min: Option<f64>,
    /// Greatest value, likewise.
    pub max: Option<f64>,
    /// Greatest length in characters, of texts and of the texts in an array.
    pub max_length: Option<usize>,
}

impl Param {
    /// The claim of the caller's that is its value, where no request gives it.
    #[inline]
    pub fn claim(&self) -> Option<&str> {
        claim_of(&self.name)
    }

    /// The value of a claim that is told to Postgres as a text.
    pub fn setting(claim: &str) -> Self {
        Self {
            name: format!("{CLAIMS}.{claim}").into(),
            kind: ParamType::Text("text".into()),
            default: None,
            required: true,
            min: None,
            max: None,
            max_length: None,
        }
    }
}

/// Why a value is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong; quotes at most [`QUOTED_CHARS`] characters of the value.
    pub detail: String,
    /// What to send instead; may be empty.
    pub hint: String,
}

/// A value quoted in an error is cut here: enough to recognise it, too little to fill a log with.
pub const QUOTED_CHARS: usize = 64;

impl Refusal {
    fn new(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { detail: detail.into(), hint: hint.into() }
    }
}

/// `value` in quotes, escaped, its tail cut.
pub(super) fn quoted(value: &str) -> String {
    match value.char_indices().nth(QUOTED_CHARS) {
        Some((at, _)) => format!("{:?}…", &value[..at]),
        None => format!("{value:?}"),
    }
}

/// Appends the canonical form of a value that came as text.
///
/// An array is a JSON array, or else an array of this one element.
///
/// # Errors
/// The text is none of the parameter's type, or out of its bounds.
pub fn canonical_text(param: &Param, raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    match &param.kind {
        ParamType::Array(element) => array::from_text(element, param, raw, key),
        scalar => scalar_text(scalar, param, raw, key),
    }
}

/// Appends the canonical form of an array that came as repeated texts, one for each element.
///
/// # Errors
/// An element is none of the array's type, or out of the parameter's bounds, or the parameter is no array.
pub fn canonical_texts<'v, T: AsRef<str> + 'v>(
    param: &Param,
    raw: impl ExactSizeIterator<Item = T>,
    key: &mut KeyBuf,
) -> Result<(), Refusal> {
    let ParamType::Array(element) = &param.kind else {
        return Err(Refusal::new("it is given more than once", "give it once"));
    };
    array::from_texts(element, param, raw, key)
}

/// Appends the canonical form of a value that came as JSON. A JSON null is the caller's: it is no value.
///
/// # Errors
/// The value is none of the parameter's type, or out of its bounds.
pub fn canonical_json(param: &Param, raw: &RawValue, key: &mut KeyBuf) -> Result<(), Refusal> {
    match &param.kind {
        ParamType::Array(element) => array::from_json(element, param, raw, key),
        scalar => scalar_json(scalar, param, raw, key),
    }
}

fn scalar_text(kind: &ParamType, param: &Param, raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    let range = Range { min: param.min, max: param.max };
    match kind {
        ParamType::Bool => text::boolean(raw, key),
        ParamType::Int2 => number::integer(raw, "int2", (i16::MIN.into(), i16::MAX.into()), range, key),
        ParamType::Int4 => number::integer(raw, "int4", (i32::MIN.into(), i32::MAX.into()), range, key),
        ParamType::Int8 => number::integer(raw, "int8", (i64::MIN, i64::MAX), range, key),
        ParamType::Numeric => number::numeric(raw, range, key),
        ParamType::Float4 => number::float4(raw, range, key),
        ParamType::Float8 => number::float8(raw, range, key),
        ParamType::Uuid => text::uuid(raw, key),
        ParamType::Text(_) => text::text(raw, param.max_length, key),
        ParamType::Date => time::date(raw, key),
        ParamType::Timestamp => time::timestamp(raw, key),
        ParamType::Timestamptz => time::timestamptz(raw, key),
        ParamType::Json => json::json(raw, key),
        ParamType::Jsonb => json::jsonb(raw, key),
        ParamType::Enum(name, labels) => text::label(raw, name, labels, key),
        ParamType::Other(name) => text::other(raw, name, key),
        ParamType::Array(_) => Err(Refusal::new("an array of arrays is an array of more dimensions", "")),
    }
}

fn scalar_json(kind: &ParamType, param: &Param, raw: &RawValue, key: &mut KeyBuf) -> Result<(), Refusal> {
    if matches!(kind, ParamType::Json | ParamType::Jsonb) {
        return scalar_text(kind, param, raw.get(), key);
    }
    match json::Scalar::of(raw)? {
        json::Scalar::String(value) => scalar_text(kind, param, &value, key),
        json::Scalar::Number(digits)
            if matches!(
                kind,
                ParamType::Int2
                    | ParamType::Int4
                    | ParamType::Int8
                    | ParamType::Numeric
                    | ParamType::Float4
                    | ParamType::Float8
                    | ParamType::Other(_)
            ) =>
        {
            scalar_text(kind, param, digits, key)
        }
        json::Scalar::Bool(value) if matches!(kind, ParamType::Bool | ParamType::Other(_)) => {
            scalar_text(kind, param, value, key)
        }
        other => Err(Refusal::new(
            format!("{} is {}, and {kind} is expected", quoted(raw.get()), other.name()),
            match kind {
                ParamType::Bool => "send true or false".to_owned(),
                ParamType::Int2
                | ParamType::Int4
                | ParamType::Int8
                | ParamType::Numeric
                | ParamType::Float4
                | ParamType::Float8 => "send a JSON number, or its digits in a string".to_owned(),
                _ => "send a JSON string".to_owned(),
            },
        )),
    }
}
