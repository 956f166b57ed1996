//! One named query: what was declared, and the shape that Postgres gave it.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::columns::Column;
use super::depends::Depends;
use super::params::{Param, ParamType};
use super::policy::{Policy, ResultForm};
use super::sql::Statement;
use super::tags::Template;
use super::verdict::Verdict;

/// What the configuration says of one parameter. Everything is optional: types come from Postgres.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ParamDeclaration {
    /// A type that overrides what Postgres infers, in Postgres's words.
    pub type_name: Option<String>,
    /// The value of an absent parameter.
    pub default: Option<serde_json::Value>,
    /// Whether an absent parameter without default is an error (the default) or NULL.
    pub required: Option<bool>,
    /// The least value.
    pub min: Option<f64>,
    /// The greatest value.
    pub max: Option<f64>,
    /// The greatest length in characters, of texts.
    pub max_length: Option<usize>,
}

/// A query as the configuration declares it, checked as far as that goes without a database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declaration {
    /// `[a-z][a-z0-9_]{0,62}`.
    pub name: Box<str>,
    /// What it is for, in the operator's words; may be empty.
    pub description: Box<str>,
    /// The operator's SQL, its parameters found.
    pub statement: Statement,
    /// What becomes of the rows.
    pub result: ResultForm,
    /// By parameter name; every name occurs in the statement.
    pub params: Vec<(Box<str>, ParamDeclaration)>,
    /// What its answers depend on, in the operator's words; `None`: the operator says nothing. It adds to what Postgres
    /// says and makes it finer, and never takes a table away.
    pub depends: Option<Vec<Depends>>,
    /// Tags of the operator's own.
    pub tags: Vec<Template>,
    /// Claims of the caller that Postgres is told for the time of the fill, for policies of row-level security. Answers differ
    /// by them. By name, each once.
    pub claims: Vec<Box<str>>,
    /// Lifetimes and bounds.
    pub policy: Policy,
}

impl Declaration {
    /// Whether `other` is the same statement with the same dependencies, whatever becomes of its answers. The bound on rows is in
    /// the statement that is sent.
    pub fn asks_the_same(&self, other: &Self) -> bool {
        let alike = Self { policy: other.policy.clone(), description: other.description.clone(), ..self.clone() };
        alike == *other && self.policy.max_rows == other.policy.max_rows
    }
}

/// What preparing a query has shown.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// In the order of first appearance in the text, which is that of `$1`, `$2`, …
    pub params: Vec<Param>,
    /// The caller's claims that are set for the time of the fill, in the order of the declaration. Their values follow those of
    /// `params` in every key.
    pub settings: Vec<Param>,
    /// What a row consists of.
    pub columns: Vec<Column>,
    /// Of the name, the SQL text, the parameters' types, the columns and the session's settings: part of every key, so
    /// that nobody reads an answer of another shape.
    pub fingerprint: u64,
    /// What is sent to Postgres: the operator's SQL within the statement that stamps, bounds and aggregates it.
    pub wrapped: Arc<str>,
    /// What an operator should know, though the query works.
    pub warnings: Vec<String>,
}

/// Why a query can't be asked. The reason is for operators: it may quote SQL and is never sent to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// In a sentence.
    pub reason: String,
}

/// What Postgres says of a query.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Not asked yet: the database has not been reached.
    Pending,
    /// It can be asked.
    Ready(Arc<Prepared>),
    /// It can't; the others can.
    Broken(Broken),
}

/// A declared query and what is known of it now.
#[derive(Debug)]
pub struct Query {
    declaration: Declaration,
    known: Arc<Known>,
}

/// What is known of what a query asks. One for all that ask the same, whichever configuration they are of: what is found out by one is
/// found out of all, also of those that requests under way still have.
#[derive(Debug)]
struct Known {
    shape: ArcSwap<Shape>,
    verdict: ArcSwapOption<Verdict>,
}

impl Prepared {
    /// Parameters that a request gives, and not its caller's claims.
    pub fn asked(&self) -> impl Iterator<Item = &Param> {
        self.params.iter().filter(|param| param.claim().is_none())
    }

    /// Whether answers depend on who asks.
    #[inline]
    pub fn is_personal(&self) -> bool {
        !self.settings.is_empty() || self.params.iter().any(|param| param.claim().is_some())
    }
}

impl Query {
    /// A query that has not been prepared yet.
    pub fn new(declaration: Declaration) -> Self {
        let known = Known { shape: ArcSwap::from_pointee(Shape::Pending), verdict: ArcSwapOption::empty() };
        Self { declaration, known: Arc::new(known) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.declaration.name
    }

    /// What the operator declared.
    pub fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    /// Lifetimes and bounds.
    pub fn policy(&self) -> &Policy {
        &self.declaration.policy
    }

    /// The present shape; takes no lock, and the guard should not be held across an await.
    #[inline]
    pub fn shape(&self) -> arc_swap::Guard<Arc<Shape>> {
        self.known.shape.load()
    }

    /// The present shape where the query can be asked.
    pub fn prepared(&self) -> Option<Arc<Prepared>> {
        match &**self.known.shape.load() {
            Shape::Ready(prepared) => Some(Arc::clone(prepared)),
            Shape::Pending | Shape::Broken(_) => None,
        }
    }

    /// The same question with `declaration` for it, which asks the same.
    pub(super) fn declared(&self, declaration: Declaration) -> Self {
        Self { declaration, known: Arc::clone(&self.known) }
    }

    /// Whether what is known of `other` is what is known of this, now and later.
    pub fn is_known_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.known, &other.known)
    }

    /// Replaces the shape. Entries of another fingerprint are not found any more, and age out.
    pub fn reshape(&self, shape: Shape) {
        self.known.shape.store(Arc::new(shape));
    }

    /// What its freshness rests on, where that has been found out for the shape that it has now.
    pub fn verdict(&self) -> Option<Arc<Verdict>> {
        let verdict = self.known.verdict.load_full()?;
        let is_of_this_shape = self.prepared().is_some_and(|prepared| prepared.fingerprint == verdict.shape);
        is_of_this_shape.then_some(verdict)
    }

    /// Takes the verdict away: nothing is known.
    pub fn unjudge(&self) {
        self.known.verdict.store(None);
    }

    /// Replaces the verdict.
    pub fn judge(&self, verdict: Arc<Verdict>) {
        self.known.verdict.store(Some(verdict));
    }
}

/// The fingerprint of a shape: of what is asked, what comes back, and which writes are said to make it wrong. `session` is
/// whatever of the session's settings shapes the bytes.
pub fn fingerprint(declaration: &Declaration, types: &[&ParamType], columns: &[Column], session: &str) -> u64 {
    use std::fmt::Write as _;
    // Lengths before texts: no two different lists spell the same.
    let mut text = String::with_capacity(declaration.statement.text().len() + 256);
    let mut push = |part: &str| {
        let _ = write!(text, "{}:{part};", part.len());
    };
    push(&declaration.name);
    push(declaration.statement.text());
    push(declaration.result.as_str());
    push(session);
    for kind in types {
        push(&kind.to_string());
    }
    push("->");
    for column in columns {
        push(&column.name);
        push(&column.type_name);
    }
    push("->");
    for claim in &declaration.claims {
        push(claim);
    }
    // What was stored under other tags would not be found wrong by the writes that these name.
    push(&format!("{:?} {:?}", declaration.depends, declaration.tags));
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}
