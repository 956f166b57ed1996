//! What is wrong with a configuration, all of it at once.
//!
//! A message holds the value, the rule and the remedy on one line. It never holds a value that came through `${…}`, nor
//! that of a key which carries a secret: configurations are checked in continuous integration, and its logs are read by
//! many.

use std::fmt;

/// Longest text of the configuration that a message repeats, in characters: enough to find it again.
const SHOWN_CHARS: usize = 60;

/// Longest name that a path shows without quotes, in bytes: somewhat more than a name may have.
const KEY_BYTES: usize = 100;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Line of the configuration file, from 1; `None` for what is missing from it.
    pub line: Option<usize>,
    /// The key's path, as `queries.product.ttl`; empty for what concerns the file as a whole.
    pub key: String,
    /// The value, the rule and the remedy.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Everything that is wrong, by line, each thing once. What has no line comes first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        // A bad key of [defaults] is met again in every query that inherits it.
        problems.dedup();
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// `text` in quotes, control characters escaped, cut to what a message should hold.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A key as TOML would have it: bare where it can be.
pub(super) fn segment(name: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !name.is_empty() && name.len() <= KEY_BYTES && name.bytes().all(bare) { name.to_owned() } else { quoted(name) }
}
