//! The operator's SQL: its `:name` parameters, and what keeps it a single reading statement within another.
//!
//! A text that is accepted can stand where `<sql>` is in `SELECT … FROM (<sql>\n) AS __seawall_row` and stays there: its
//! parentheses balance and never go below zero, its strings and comments end, there is no second statement. Parameters
//! become `$1`, `$2`, … by order of first appearance. Tokens are found as PostgreSQL finds them, with
//! `standard_conforming_strings = on` (see `lex`). Whether the statement makes sense is for Postgres to say, and so is
//! that it only reads: what is refused here for writing is refused for a better message, not for safety.
//!
//! `:claims.name` is a parameter that no request gives: see [`super::claims`].
//!
//! # A `:` that separates
//! Directly within `[…]` and within the parentheses of `json_object` and `json_objectagg`, a `:` after a value (a name,
//! a literal, a number, a parameter, a closing bracket) separates and what follows it is ordinary SQL; everywhere else a
//! `:` before a letter begins a parameter. So `a[lo:hi]` is a slice between two columns, `a[:i]` and `a[:lo: :hi]` take
//! parameters. A word that can't end an expression, as AND, is no value.

pub(crate) mod lex;
mod read;
#[cfg(test)]
mod tests;

/// Longest text of a query, in bytes. Longer ones are generated, and belong in a view.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Most parameters of a query. A call with more wants an array or a json parameter.
pub const MAX_PARAMS: usize = 100;

/// The operator's SQL with its `:name` parameters found and its end (`;`, comments) tidied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statement {
    text: Box<str>,
    params: Vec<Box<str>>,
    sites: Vec<Site>,
    /// Where the last token ends that is no `;` and no comment.
    end: usize,
}

/// A place in the text where a parameter stands, `:` included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Site {
    start: usize,
    end: usize,
    param: usize,
}

/// Why a text can't be a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where, as line and column from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and the remedy.
    pub message: String,
}

impl Statement {
    /// Finds the parameters.
    ///
    /// # Errors
    /// Every reason why the text can't be a query, in the order of the text.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        read::read(text)
    }

    /// As the operator wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Parameter names in the order of first appearance: the first is `$1`.
    pub fn params(&self) -> &[Box<str>] {
        &self.params
    }

    /// The SQL with `$n` for each parameter, `($n::type)` where `cast` gives one for its index (from 0), without the
    /// `;` and the comments at its end.
    ///
    /// The parentheses are needed: `FETCH FIRST $1::int8 ROWS ONLY` is a syntax error, and in `$1::int4[][2]` or
    /// `$1::item.price` what follows would be read as a part of the type.
    pub fn render(&self, cast: impl Fn(usize) -> Option<String>) -> String {
        self.substitute(|param| {
            let n = param + 1;
            cast(param).map_or_else(|| format!("${n}"), |kind| format!("(${n}::{kind})"))
        })
    }

    /// The SQL with `value` of its index (from 0) for each parameter, otherwise as [`Statement::render`].
    pub fn substitute(&self, value: impl Fn(usize) -> String) -> String {
        let mut sql = String::with_capacity(self.end + 16 * self.sites.len());
        let mut copied = 0;
        for site in &self.sites {
            sql.push_str(&self.text[copied..site.start]);
            // `AND:a` must not become the identifier `AND$1`.
            if sql.bytes().next_back().is_some_and(lex::continues_word) {
                sql.push(' ');
            }
            sql.push_str(&value(site.param));
            copied = site.end;
        }
        sql.push_str(&self.text[copied..self.end]);
        sql
    }
}

/// What a parameter's name begins with, before a dot, whose value is a claim of the caller's: `:claims.org_id`. No request can
/// set one, since no name that a request can use has a dot.
pub const CLAIMS: &str = "claims";

/// The claim that a parameter of this name takes, if it takes one.
pub fn claim_of(param: &str) -> Option<&str> {
    param.strip_prefix(CLAIMS)?.strip_prefix('.')
}

/// Whether `name` can name a parameter or a query: `[a-z][a-z0-9_]{0,62}`.
pub fn is_name(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
