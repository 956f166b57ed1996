//! One statement on one session, which is cancelled in the server when nobody wants it any more.
//!
//! The statement runs in a task of its own that owns the connection. Whoever waits for it holds one end of a channel;
//! when that end is dropped, the task sends a CancelRequest, waits for the statement to end, and closes the connection.
//! It never goes back to the pool, even if the statement ended *because* of the request: the server signals a backend
//! twice (the process, then its group), and the second signal can come when the session has gone on. 50 cancelled
//! statements were enough to see a neighbour cancelled.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use deadpool_postgres::Object;
use futures_util::future::join;
use tokio::sync::oneshot;
use tokio_postgres::types::{Format, IsNull, ToSql, Type};
use tokio_postgres::{CancelToken, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sqlstate;
use crate::catalog::{Prepared, Query, ResultForm, args};
use crate::readthrough::origin::{Fetched, OnSend, OriginError};
use crate::stamp::{Lineage, Snapshot, Stamp};

/// How long a cancelled statement may take to end before its connection is given up.
const CANCEL_WITHIN: Duration = Duration::from_secs(2);

/// A statement about to be sent. It owns all that it needs: it outlives whoever asked.
pub(super) struct Execution {
    wrapped: Arc<str>,
    values: Vec<Option<Box<str>>>,
    timeout: Duration,
    on_send: OnSend,
}

/// The one row that the wrapping statement gives.
pub(super) struct Raw(Row);

impl Execution {
    pub(super) fn new(prepared: &Prepared, key: &[u8], timeout: Duration, on_send: OnSend) -> Self {
        let values = args::values(key).map(|value| value.map(Into::into)).collect();
        Self { wrapped: Arc::clone(&prepared.wrapped), values, timeout, on_send }
    }

    /// Runs it on `client`. Dropping the future cancels the statement in the server.
    pub(super) async fn run(self, client: Object, tls: MakeRustlsConnect) -> Result<Raw, tokio_postgres::Error> {
        let (mut told, outcome) = oneshot::channel();
        tokio::spawn(async move {
            let token = client.cancel_token();
            let ended = {
                let mut statement = std::pin::pin!(self.send(&client));
                tokio::select! {
                    biased;
                    ended = &mut statement => Some(ended),
                    () = told.closed() => {
                        cancel(token, tls).await;
                        // The place in the pool is kept until then: the server never runs more than the pool holds. How
                        // the statement ends is of no interest.
                        let _ = tokio::time::timeout(CANCEL_WITHIN, statement).await;
                        None
                    }
                }
            };
            match ended {
                Some(ended) => {
                    drop(client);
                    // Whoever asked may have left just now; then the answer is nobody's.
                    let _ = told.send(ended);
                }
                None => drop(Object::take(client)),
            }
        });
        match outcome.await {
            Ok(ended) => ended.map(Raw),
            // The task neither answered nor was told to stop: the runtime goes down, and so does the waiter.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// The session's deadline and the statement, in one round trip: both are handed to the socket before either is
    /// waited for.
    async fn send(&self, client: &Object) -> Result<Row, tokio_postgres::Error> {
        let statement = client.prepare_cached(&self.wrapped).await?;
        let texts: Vec<Text<'_>> = self.values.iter().map(|value| Text(value.as_deref())).collect();
        let values: Vec<&(dyn ToSql + Sync)> = texts.iter().map(|t| t as &(dyn ToSql + Sync)).collect();
        // Zero would mean no deadline at all.
        let millis = self.timeout.as_millis().max(1);
        let deadline = format!("SET statement_timeout = {millis}");
        (self.on_send)();
        let (set, row) = join(client.batch_execute(&deadline), client.query_one(&statement, &values)).await;
        set.and(row)
    }
}

async fn cancel(token: CancelToken, tls: MakeRustlsConnect) {
    match tokio::time::timeout(CANCEL_WITHIN, token.cancel_query(tls)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error = %sqlstate::describe(&error), "a statement could not be cancelled"),
        Err(_elapsed) => tracing::debug!("a statement could not be cancelled in time"),
    }
}

impl Raw {
    /// The answer: checked against its bounds, its body in a buffer of exactly its size.
    pub(super) fn into_fetched(self, query: &Query, max_bytes: u64) -> Result<Fetched, OriginError> {
        let row = self.0;
        let malformed = |what: &str| OriginError::Broken(format!("the server's answer has no usable {what}"));
        let snapshot: &str = row.try_get(0).map_err(|_| malformed("snapshot"))?;
        let lineage: Option<&str> = row.try_get(1).map_err(|_| malformed("lineage"))?;
        let rows: i64 = row.try_get(2).map_err(|_| malformed("count"))?;
        let bytes: i32 = row.try_get(3).map_err(|_| malformed("length"))?;
        let json: Option<&str> = row.try_get(4).map_err(|_| malformed("body"))?;
        let rows = u64::try_from(rows).unwrap_or_default();
        let bytes = u64::try_from(bytes).unwrap_or_default();
        let Some(lineage) = lineage else {
            return Err(OriginError::Behind("the server is in recovery".into()));
        };
        let snapshot = Snapshot::parse(snapshot).map_err(|e| malformed(&format!("snapshot: {e}")))?;
        let stamp = Stamp { lineage: Lineage::new(lineage), snapshot };
        let form = query.declaration().result;
        let limit = form.row_limit(query.policy().max_rows);
        if rows > u64::from(limit) {
            return Err(match form {
                ResultForm::Rows => OriginError::TooManyRows { limit },
                ResultForm::Row | ResultForm::Value => OriginError::NotOneRow,
            });
        }
        let Some(json) = json else { return Err(OriginError::TooLarge { bytes, limit: max_bytes }) };
        let body = match form {
            ResultForm::Rows => Some(json.as_bytes().into()),
            ResultForm::Row | ResultForm::Value if rows == 0 => None,
            // The array of one element, without its brackets.
            ResultForm::Row | ResultForm::Value => {
                let inner = json.strip_prefix('[').and_then(|j| j.strip_suffix(']'));
                Some(inner.ok_or_else(|| malformed("array"))?.as_bytes().into())
            }
        };
        Ok(Fetched { stamp, body, rows })
    }
}

/// A parameter in its canonical text, which Postgres reads as whatever type it has.
#[derive(Debug)]
struct Text<'a>(Option<&'a str>);

impl ToSql for Text<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        Ok(match self.0 {
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
            None => IsNull::Yes,
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}
