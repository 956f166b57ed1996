//! Reading one value: found, substituted, of the right type, within its range; or reported, and reading goes on.
//!
//! Every reader returns a value or has reported why not. A value is looked for in its table, then in the one it
//! inherits from, then in the table of keys.

use std::path::PathBuf;
use std::time::Duration;

use super::bounds::Range;
use super::keys::{self, Absent, Key, Section};
use super::problem::{Problem, quoted, segment};
use super::raw::{self, Table, Value};
use super::substitute::{Sources, substitute};
use super::units;

/// Collects problems; knows where substituted values come from.
pub(super) struct Reader<'a> {
    pub(super) sources: Sources<'a>,
    pub(super) problems: Vec<Problem>,
}

/// A table whose keys are read.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) section: Section,
    pub(super) path: &'a str,
    /// `None`: the file has no such table.
    pub(super) table: Option<&'a Table>,
    /// Where a key is looked for that this table has not.
    pub(super) inherits: Option<&'a Place<'a>>,
}

/// A scalar that was found, and how to speak of it.
pub(super) struct Given {
    pub(super) at: At,
    /// How a message names the value: as it is written in the file, never what came from outside.
    pub(super) shown: String,
    scalar: Scalar,
    /// It came through `${…}` and may stand for a number or a boolean.
    from_outside: bool,
}

/// There is no value, and why has been reported; where `None` means that there needn't be one.
pub(super) struct Reported;

/// Where a value stands.
#[derive(Clone)]
pub(super) struct At {
    pub(super) key: String,
    pub(super) line: Option<usize>,
}

enum Scalar {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    Other(&'static str),
}

impl<'a> Place<'a> {
    pub(super) fn new(section: Section, path: &'a str, table: Option<&'a Table>) -> Self {
        Self { section, path, table, inherits: None }
    }

    /// Whether the file sets `name` here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.table.is_some_and(|t| t.get(name).is_some())
    }

    /// Where `name` stands, or would.
    pub(super) fn at(&self, name: &str) -> At {
        let line = self.table.and_then(|t| t.get(name)).map(|e| e.line);
        At { key: join(self.path, name), line }
    }
}

/// `name` within `path`.
pub(super) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { segment(name) } else { format!("{path}.{}", segment(name)) }
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: Sources<'a>) -> Self {
        Self { sources, problems: Vec::new() }
    }

    /// Adds a problem.
    pub(super) fn report(&mut self, at: &At, message: impl Into<String>) {
        self.problems.push(Problem { line: at.line, key: at.key.clone(), message: message.into() });
    }

    /// Adds `message` and gives the reader's answer.
    fn refuse<T>(&mut self, at: &At, message: impl Into<String>) -> Option<T> {
        self.report(at, message);
        None
    }

    /// The scalar at `name`, whatever its type.
    pub(super) fn given(&mut self, place: &Place<'_>, name: &str) -> Option<Given> {
        let key = keys::find(place.section, name).expect("the check asks for keys of the table alone");
        let mut source = Some(place);
        while let Some(at) = source {
            if let Some(entry) = at.table.and_then(|t| t.get(name)) {
                return self.scalar(key, at.at(name), &entry.value);
            }
            source = at.inherits;
        }
        match key.default {
            Absent::Is(text) => self.scalar(key, place.at(name), &raw::value(text)),
            Absent::Required | Absent::Example(_) => self.refuse(&place.at(name), "it is missing; set it"),
        }
    }

    fn scalar(&mut self, key: &Key, at: At, value: &Value) -> Option<Given> {
        let (scalar, shown, from_outside) = match value {
            Value::Text(text) => {
                let (value, from_outside) = self.text_of(&at, text)?;
                (Scalar::Text(value), quoted(text), from_outside)
            }
            Value::Integer(n) => (Scalar::Integer(*n), n.to_string(), false),
            Value::Float(n, _) => (Scalar::Float(*n), n.to_string(), false),
            Value::Bool(b) => (Scalar::Bool(*b), b.to_string(), false),
            other => (Scalar::Other(other.kind()), other.kind().to_owned(), false),
        };
        let shown = if key.is_secret() { "the value".to_owned() } else { shown };
        Some(Given { at, shown, scalar, from_outside })
    }

    /// `text` with its references replaced, and whether it had any.
    pub(super) fn text_of(&mut self, at: &At, text: &str) -> Option<(String, bool)> {
        match substitute(text, self.sources) {
            Ok(substituted) => Some((substituted.text, substituted.from_outside)),
            Err(messages) => {
                for message in messages {
                    self.report(at, message);
                }
                None
            }
        }
    }

    /// A string; empty where the default is.
    pub(super) fn text(&mut self, place: &Place<'_>, name: &str) -> Option<(String, Given)> {
        let mut given = self.given(place, name)?;
        match &mut given.scalar {
            Scalar::Text(text) => {
                let text = std::mem::take(text);
                Some((text, given))
            }
            other => {
                let message = format!("{} is {}; write a string in quotes", given.shown, other.kind());
                self.refuse(&given.at, message)
            }
        }
    }

    /// A duration within `range`.
    pub(super) fn duration(&mut self, place: &Place<'_>, name: &str, range: &Range<Duration>) -> Option<Duration> {
        let given = self.given(place, name)?;
        let value = if let Scalar::Text(text) = &given.scalar { units::duration(text) } else { None };
        let Some(value) = value else {
            return self.refuse(
                &given.at,
                format!(
                    "{} is not a duration; write a number and a unit such as \"250ms\", \"5s\", \"1h\"",
                    given.shown
                ),
            );
        };
        self.within(&given, value, range, units::show_duration)
    }

    /// A duration within `range`, or `Ok(None)` where the text is empty.
    pub(super) fn optional_duration(
        &mut self,
        place: &Place<'_>,
        name: &str,
        range: &Range<Duration>,
    ) -> Result<Option<Duration>, Reported> {
        match self.given(place, name).ok_or(Reported)?.scalar {
            Scalar::Text(text) if text.is_empty() => Ok(None),
            _ => self.duration(place, name, range).map(Some).ok_or(Reported),
        }
    }

    /// A number of bytes within `range`.
    pub(super) fn size(&mut self, place: &Place<'_>, name: &str, range: &Range<u64>) -> Option<u64> {
        let given = self.given(place, name)?;
        let value = match &given.scalar {
            Scalar::Text(text) => units::size(text),
            Scalar::Integer(n) => u64::try_from(*n).ok(),
            _ => None,
        };
        let Some(value) = value else {
            return self.refuse(
                &given.at,
                format!("{} is not a size; write a number and a unit such as \"64KiB\", \"256MiB\"", given.shown),
            );
        };
        self.within(&given, value, range, units::show_size)
    }

    /// A count within `range`.
    pub(super) fn count(&mut self, place: &Place<'_>, name: &str, range: &Range<usize>) -> Option<usize> {
        let given = self.given(place, name)?;
        let number = match &given.scalar {
            Scalar::Text(text) if given.from_outside => text.trim().parse().ok(),
            Scalar::Integer(n) => Some(*n),
            _ => None,
        };
        let Some(number) = number else {
            return self.refuse(&given.at, format!("{} is not a whole number; write one without quotes", given.shown));
        };
        match usize::try_from(number) {
            Ok(value) => self.within(&given, value, range, |n| n.to_string()),
            // Negative, and below every range.
            Err(_) => self.out_of_range(&given, &range.low.to_string(), &range.high.to_string()),
        }
    }

    /// A number, with or without decimals, within `range`.
    pub(super) fn share(&mut self, place: &Place<'_>, name: &str, range: &Range<f64>) -> Option<f64> {
        let given = self.given(place, name)?;
        let Some(value) = given.number() else {
            return self.refuse(&given.at, format!("{} is not a number; write one without quotes", given.shown));
        };
        // What is not a number compares with nothing, so it falls out of every range.
        self.within(&given, value, range, |n| n.to_string())
    }

    /// A whole number within `range`, which may be negative.
    pub(super) fn integer(&mut self, place: &Place<'_>, name: &str, range: &Range<i64>) -> Option<i64> {
        let given = self.given(place, name)?;
        let number = match &given.scalar {
            Scalar::Text(text) if given.from_outside => text.trim().parse().ok(),
            Scalar::Integer(n) => Some(*n),
            _ => None,
        };
        let Some(number) = number else {
            return self.refuse(&given.at, format!("{} is not a whole number; write one without quotes", given.shown));
        };
        self.within(&given, number, range, |n| n.to_string())
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, place: &Place<'_>, name: &str) -> Option<bool> {
        let given = self.given(place, name)?;
        match &given.scalar {
            Scalar::Bool(value) => Some(*value),
            Scalar::Text(text) if given.from_outside && text.trim() == "true" => Some(true),
            Scalar::Text(text) if given.from_outside && text.trim() == "false" => Some(false),
            _ => self.refuse(&given.at, format!("{} is not a boolean; write true or false", given.shown)),
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, place: &Place<'_>, name: &str, words: &[(&str, T)]) -> Option<T> {
        let (text, given) = self.text(place, name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<String> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            self.report(&given.at, format!("{} is none of its values; write {}", given.shown, known.join(" or ")));
        }
        found
    }

    /// A file that can be read, from the configuration's directory; `Ok(None)` where none is named.
    pub(super) fn file(&mut self, place: &Place<'_>, name: &str) -> Result<Option<PathBuf>, Reported> {
        let (text, given) = self.text(place, name).ok_or(Reported)?;
        if text.is_empty() {
            return Ok(None);
        }
        let path = self.sources.path(&text);
        let why = match std::fs::File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) if !metadata.is_dir() => return Ok(Some(path)),
            Ok(_) => "it is a directory".to_owned(),
            Err(e) => e.to_string(),
        };
        let message =
            format!("{} can't be read: {why}; write a path to a PEM file, from this file's directory", given.shown);
        self.report(&given.at, message);
        Err(Reported)
    }

    fn within<T: PartialOrd + Copy>(
        &mut self,
        given: &Given,
        value: T,
        range: &Range<T>,
        show: impl Fn(T) -> String,
    ) -> Option<T> {
        if range.low <= value && value <= range.high {
            return Some(value);
        }
        self.out_of_range(given, &show(range.low), &show(range.high))
    }

    fn out_of_range<T>(&mut self, given: &Given, low: &str, high: &str) -> Option<T> {
        self.refuse(&given.at, format!("{} is out of range; write {low} to {high}", given.shown))
    }

    /// The path of a file that the configuration names.
    pub(super) fn path(&self, named: &str) -> PathBuf {
        self.sources.path(named)
    }
}

impl Given {
    /// As a number, if it is one.
    pub(super) fn number(&self) -> Option<f64> {
        match &self.scalar {
            Scalar::Text(text) if self.from_outside => text.trim().parse().ok(),
            Scalar::Integer(n) => Some(*n as f64),
            Scalar::Float(n) => Some(*n),
            _ => None,
        }
    }
}

impl Scalar {
    fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Bool(_) => "a boolean",
            Self::Other(kind) => kind,
        }
    }
}
