//! What an error of the driver means: a decision, and a sentence for the log without secrets.

use tokio_postgres::error::ErrorPosition;

use crate::readthrough::origin::OriginError;

use super::sqlstate::{self, Decision};
use super::tls;

/// A failed statement, or a failed attempt to connect.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) decision: Decision,
    /// Quotes the server; for logs.
    pub(super) text: String,
}

impl Failure {
    pub(super) fn new(decision: Decision, text: impl Into<String>) -> Self {
        Self { decision, text: text.into() }
    }

    /// What the read path is told, of a query that takes `params` parameters.
    pub(super) fn to_error(&self, params: usize, max_bytes: u64) -> OriginError {
        let text = self.text.clone();
        match self.decision {
            Decision::Away => OriginError::Away(text),
            Decision::Timeout => OriginError::Timeout,
            Decision::Conflict => OriginError::Conflict(text),
            // Where nothing comes from the client, a value that is not taken is the query's or the data's.
            Decision::Refused if params > 0 => OriginError::Refused(text),
            Decision::TooLarge => OriginError::TooLarge { bytes: LARGEST_VALUE, limit: max_bytes },
            Decision::Reshape | Decision::Refused | Decision::Broken => OriginError::Broken(text),
        }
    }
}

/// What a value of Postgres can have at most, just under 1 GB: what an answer that could not be built had at least.
const LARGEST_VALUE: u64 = 0x3fff_ffff;

impl From<&tokio_postgres::Error> for Failure {
    fn from(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self::new(sqlstate::decision(db.code().code()), text(error)),
            // The driver's other errors are of the connection: closed, IO, TLS, or a server that speaks nonsense.
            None => Self::new(Decision::Away, text(error)),
        }
    }
}

/// What Postgres or the driver says, in one line.
///
/// The driver never puts the password in an error, and neither does Postgres; the URL is not quoted.
pub(super) fn text(error: &tokio_postgres::Error) -> String {
    use std::fmt::Write as _;
    let Some(db) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                let _ = write!(text, ": {cause_text}");
            }
            source = cause.source();
        }
        if let Some(hint) = tls::hint(error) {
            let _ = write!(text, " ({hint})");
        }
        return text;
    };
    let mut text = db.message().to_owned();
    for (name, part) in [("detail", db.detail()), ("hint", db.hint()), ("where", db.where_())] {
        if let Some(part) = part {
            let _ = write!(text, "; {name}: {part}");
        }
    }
    let _ = write!(text, " (SQLSTATE {})", db.code().code());
    text
}

/// The line of `sql` that Postgres points at, where there is more than one.
pub(super) fn line(error: &tokio_postgres::Error, sql: &str) -> Option<usize> {
    let Some(ErrorPosition::Original(position)) = error.as_db_error()?.position() else { return None };
    let before = usize::try_from(*position).ok()?.checked_sub(1)?;
    sql.contains('\n').then(|| sql.chars().take(before).filter(|&c| c == '\n').count() + 1)
}
