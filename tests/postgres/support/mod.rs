//! What the tests of this binary share: servers, a database for each test, queries, and ways to wait without sleeping.

#[path = "../../support/chaos.rs"]
pub mod chaos;
#[path = "../../support/eventually.rs"]
pub mod eventually;
pub mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use seawall::catalog::args::{self, KeyBuf};
use seawall::catalog::sql::Statement;
use seawall::catalog::{Declaration, ParamDeclaration, Query, ResultForm, Shape};
use seawall::postgres::{Postgres, Settings};
use seawall::readthrough::origin::{Connection, Fetched, Origin as _, OriginError};
use serde_json::Value;

/// Long enough for a slow machine; a test that waits this long has failed.
pub const WITHIN: Duration = Duration::from_secs(20);

/// A declaration of `sql`, to be changed where a test needs it.
pub fn declare(sql: &str) -> Declaration {
    Declaration {
        name: "q".into(),
        statement: Statement::parse(sql).unwrap_or_else(|problems| panic!("{sql}: {problems:?}")),
        result: ResultForm::Rows,
        ..Declaration::default()
    }
}

/// A query of `sql`.
pub fn query(sql: &str) -> Arc<Query> {
    Arc::new(Query::new(declare(sql)))
}

/// A query of `sql` in another form than rows.
pub fn query_as(result: ResultForm, sql: &str) -> Arc<Query> {
    Arc::new(Query::new(Declaration { result, ..declare(sql) }))
}

/// A query whose parameters have the types given.
pub fn query_typed(sql: &str, types: &[(&str, &str)]) -> Arc<Query> {
    let params = types
        .iter()
        .map(|(name, kind)| {
            ((*name).into(), ParamDeclaration { type_name: Some((*kind).into()), ..ParamDeclaration::default() })
        })
        .collect();
    Arc::new(Query::new(Declaration { params, ..declare(sql) }))
}

/// An origin under test, with a count of what was sent.
pub struct Origin {
    pub postgres: Postgres,
    sent: Arc<AtomicUsize>,
}

impl Origin {
    /// Over `settings`.
    pub fn new(settings: Settings) -> Self {
        let postgres = Postgres::new(settings, |_| {}).expect("usable settings");
        Self { postgres, sent: Arc::default() }
    }

    /// Statements that were told to be sent.
    pub fn sent(&self) -> usize {
        self.sent.load(Ordering::Acquire)
    }

    /// Prepares `query`, which must not be broken.
    pub async fn ready(&self, query: &Arc<Query>) {
        self.postgres.prepare(query).await.expect("the database answers");
        if let Shape::Broken(broken) = &**query.shape() {
            panic!("{} is broken: {}", query.name(), broken.reason);
        }
    }

    /// Why `query` is broken, which it must be.
    pub async fn reason(&self, query: &Arc<Query>) -> String {
        self.postgres.prepare(query).await.expect("the database answers");
        match &**query.shape() {
            Shape::Broken(broken) => broken.reason.clone(),
            other => panic!("{} should be broken and is {other:?}", query.name()),
        }
    }

    /// Fetches with parameters given as a JSON object.
    pub async fn fetch(&self, query: &Arc<Query>, params: Value) -> Result<Fetched, OriginError> {
        self.fetch_within(query, params, WITHIN, Connection::Pooled).await
    }

    /// Fetches within a deadline.
    pub async fn fetch_within(
        &self,
        query: &Arc<Query>,
        params: Value,
        within: Duration,
        connection: Connection,
    ) -> Result<Fetched, OriginError> {
        let prepared = query.prepared().expect("prepared");
        let mut key = KeyBuf::new();
        args::key_from_json(&prepared, params.to_string().as_bytes(), &mut key)
            .unwrap_or_else(|bad| panic!("{params}: {bad:?}"));
        let sent = Arc::clone(&self.sent);
        let on_send = Arc::new(move || {
            sent.fetch_add(1, Ordering::AcqRel);
        });
        self.postgres.fetch(query, &prepared, &key, within, connection, on_send).await
    }

    /// The answer to a query without parameters, as text.
    pub async fn text(&self, query: &Arc<Query>) -> String {
        self.text_of(query, serde_json::json!({})).await
    }

    /// The answer as text.
    pub async fn text_of(&self, query: &Arc<Query>, params: Value) -> String {
        let fetched = self.fetch(query, params).await.unwrap_or_else(|error| panic!("{}: {error}", query.name()));
        String::from_utf8(fetched.body.expect("a body").into()).expect("JSON is UTF-8")
    }

    /// Prepares and answers.
    pub async fn answer(&self, query: Arc<Query>) -> String {
        self.ready(&query).await;
        self.text(&query).await
    }
}
