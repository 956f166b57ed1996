//! Result columns: what a value is in the JSON that Postgres makes of it.
//!
//! For those who are told beforehand what will come (the list, OpenAPI), and for nothing else: answers are never parsed.

/// A result column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// As it appears in the JSON.
    pub name: Box<str>,
    /// In Postgres's words, as `format_type` gives it.
    pub type_name: Box<str>,
    /// What a value is in JSON.
    pub json: JsonType,
    /// Whether it may be null, as far as Postgres tells: a column of a table that is NOT NULL is not, unless an outer join may
    /// have made it so; an expression may be.
    pub nullable: bool,
}

/// What `json_agg` makes of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonType {
    /// `true`, `false`.
    Bool,
    /// `smallint`.
    Int2,
    /// `integer`.
    Int4,
    /// `bigint`.
    Int8,
    /// `numeric`: a number of any length, or `"NaN"`, `"Infinity"`.
    Numeric,
    /// `real`, `double precision`: a number, or `"NaN"`, `"Infinity"`.
    Float,
    /// `uuid`.
    Uuid,
    /// `date`.
    Date,
    /// `timestamp without time zone`: ISO 8601 without an offset.
    Timestamp,
    /// `timestamp with time zone`: ISO 8601 with an offset.
    Timestamptz,
    /// `bytea`, as `"\\x…"`.
    Bytea,
    /// Any type whose values are texts in JSON.
    Text,
    /// One of these.
    Enum(Box<[Box<str>]>),
    /// A list of values or of lists: a type of arrays does not say of how many dimensions.
    Array(Box<JsonType>),
    /// A row: its fields by name.
    Object(Box<[(Box<str>, JsonType)]>),
    /// `json`, `jsonb`, and what can't be told.
    Any,
}
