//! JSON as a value: checked, its insignificant white space left out, its text otherwise kept.
//!
//! Nothing is built in memory, and nothing recurses: a body of brackets alone costs its length.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::number::{Range, numeric};
use super::{KeyBuf, Refusal, quoted};

/// Deepest nesting; serde_json's own, and far below where Postgres's stack ends.
const MAX_DEPTH: usize = 128;

/// What a JSON value is, where a scalar is expected.
pub(super) enum Scalar<'a> {
    String(Cow<'a, str>),
    /// Its text, with every digit.
    Number(&'a str),
    Bool(&'static str),
    Null,
    Array,
    Object,
}

impl<'a> Scalar<'a> {
    pub(super) fn of(raw: &'a RawValue) -> Result<Self, Refusal> {
        let text = raw.get();
        Ok(match text.as_bytes().first() {
            Some(b'"') => Self::String(unescaped(text)?),
            Some(b't') => Self::Bool("true"),
            Some(b'f') => Self::Bool("false"),
            Some(b'n') => Self::Null,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ => Self::Number(text),
        })
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Number(_) => "a number",
            Self::Bool(_) => "a boolean",
            Self::Null => "null",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// The text of a JSON string, borrowed where nothing in it is escaped.
fn unescaped(literal: &str) -> Result<Cow<'_, str>, Refusal> {
    if !literal.contains('\\') {
        return Ok(Cow::Borrowed(literal.trim_matches('"')));
    }
    serde_json::from_str(literal).map(Cow::Owned).map_err(|_| {
        Refusal::new(format!("{} holds half of a surrogate pair", quoted(literal)), "send well-formed Unicode")
    })
}

pub(super) fn json(raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    stripped(raw, "json", key)?;
    Ok(())
}

/// As [`json`], and what Postgres can't store decoded is refused: NUL characters, halves of surrogate pairs, numbers
/// beyond numeric.
pub(super) fn jsonb(raw: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    let start = key.len();
    stripped(raw, "jsonb", key)?;
    let text = std::str::from_utf8(&key[start..]).expect("white space alone was taken from a text");
    for token in Tokens(text) {
        if token.starts_with('"') {
            check_string(token)?;
        } else if token.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            numeric(token, Range { min: None, max: None }, &mut KeyBuf::new())?;
        }
    }
    Ok(())
}

fn stripped(raw: &str, kind: &str, key: &mut KeyBuf) -> Result<(), Refusal> {
    // A raw value is checked without recursion and without being built.
    if let Err(error) = serde_json::from_str::<&RawValue>(raw) {
        return Err(Refusal::new(
            format!("{} is not of type {kind}: {error}", quoted(raw)),
            "send JSON; a text is a JSON string only in double quotes",
        ));
    }
    let mut depth = 0_usize;
    for token in Tokens(raw) {
        match token {
            "[" | "{" => depth += 1,
            "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Refusal::new(
                format!("{} is nested more than {MAX_DEPTH} deep", quoted(raw)),
                format!("send at most {MAX_DEPTH} levels"),
            ));
        }
        key.extend_from_slice(token.as_bytes());
    }
    Ok(())
}

fn check_string(literal: &str) -> Result<(), Refusal> {
    if !literal.contains("\\u") {
        return Ok(());
    }
    if unescaped(literal)?.contains('\0') {
        return Err(Refusal::new(format!("{} holds \\u0000, which jsonb can't", quoted(literal)), "leave it out"));
    }
    Ok(())
}

/// The tokens of a text that is JSON, white space between them left out.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start_matches([' ', '\t', '\n', '\r']);
        let bytes = text.as_bytes();
        let end = match bytes.first()? {
            b'"' => {
                let mut at = 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at + 1
            }
            b'[' | b']' | b'{' | b'}' | b',' | b':' => 1,
            _ => bytes
                .iter()
                .position(|b| matches!(b, b'[' | b']' | b'{' | b'}' | b',' | b':' | b' ' | b'\t' | b'\n' | b'\r'))
                .unwrap_or(bytes.len()),
        };
        let (token, rest) = text.split_at(end.min(text.len()));
        self.0 = rest;
        Some(token)
    }
}
