//! Why a reader gets no answer: decisions, not status codes (these are made in `http/problem.rs`).

use super::origin::OriginError;
use crate::clock::Moment;

/// Why there is no answer. Shared by all who waited for it.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// The rebuild did not end by the reader's deadline.
    #[error("the rebuild did not end in time")]
    Deadline,
    /// As many rebuilds wait already as may.
    #[error("the queue of rebuilds is full")]
    QueueFull,
    /// The rebuild waited for its turn until its deadline.
    #[error("the rebuild's turn did not come in time")]
    QueueDeadline,
    /// As many requests wait already as may.
    #[error("too many requests wait")]
    TooManyWaiters,
    /// A bug in Seawall, which went to the log.
    #[error("the rebuild panicked")]
    Panicked,
    /// Everybody who wanted it had left; whoever sees this came at the same moment, and may try again.
    #[error("the rebuild was cancelled")]
    Cancelled,
    /// The query has not been prepared: the database has not been reached since the start.
    #[error("the query has not been prepared yet")]
    Unprepared,
    /// The query can't be asked, as the log says.
    #[error("the query is broken")]
    BrokenQuery,
    /// Even a fill sent after the reader's arrival is of another history.
    #[error("the origin is behind")]
    OriginBehind,
    /// The client's token is of another history.
    #[error("the token is of another history")]
    LineageChanged,
    /// What the client's token names has not become visible in time.
    #[error("the token's transaction is not visible")]
    NotVisible,
    /// The database gave no answer.
    #[error(transparent)]
    Origin(#[from] OriginError),
}

impl ReadError {
    /// Whether the same question would fail again if it were asked at once: then it is remembered for the backoff.
    /// A panic isn't (the next request fills), nor is what says nothing about the question.
    pub fn lasts(&self) -> bool {
        match self {
            Self::Deadline | Self::Origin(_) | Self::OriginBehind | Self::BrokenQuery => true,
            Self::QueueFull
            | Self::QueueDeadline
            | Self::TooManyWaiters
            | Self::Panicked
            | Self::Cancelled
            | Self::Unprepared
            | Self::LineageChanged
            | Self::NotVisible => false,
        }
    }
}

impl ReadError {
    /// Whether an old answer is better than this error (RFC 5861, section 4: what would be a 5xx). What says that the
    /// question itself is wrong, or that its answer has outgrown the limits, is the answer.
    pub fn is_hidden_by_stale(&self) -> bool {
        match self {
            Self::Origin(origin) => match origin {
                OriginError::Away(_)
                | OriginError::Pool
                | OriginError::Timeout
                | OriginError::NotOneRow
                | OriginError::Broken(_)
                | OriginError::Conflict(_)
                | OriginError::Behind(_) => true,
                OriginError::TooManyRows { .. } | OriginError::TooLarge { .. } | OriginError::Refused(_) => false,
            },
            Self::Deadline
            | Self::QueueFull
            | Self::QueueDeadline
            | Self::TooManyWaiters
            | Self::Panicked
            | Self::Cancelled
            | Self::Unprepared
            | Self::BrokenQuery
            | Self::OriginBehind => true,
            Self::LineageChanged | Self::NotVisible => false,
        }
    }

    /// Whether it says of the origin that it can't be reached, and nothing of the question.
    pub(super) fn is_over_when_reached(&self) -> bool {
        matches!(self, Self::Origin(OriginError::Away(_)))
    }

    /// The same with the database's words cut short: they may quote a whole parameter, and failures are remembered.
    #[must_use]
    pub(super) fn clipped(self) -> Self {
        const CHARS: usize = 300;
        let clip = |text: String| if text.len() > CHARS { text.chars().take(CHARS).collect() } else { text };
        Self::Origin(match self {
            Self::Origin(OriginError::Away(text)) => OriginError::Away(clip(text)),
            Self::Origin(OriginError::Refused(text)) => OriginError::Refused(clip(text)),
            Self::Origin(OriginError::Broken(text)) => OriginError::Broken(clip(text)),
            Self::Origin(OriginError::Conflict(text)) => OriginError::Conflict(clip(text)),
            Self::Origin(OriginError::Behind(text)) => OriginError::Behind(clip(text)),
            other => return other,
        })
    }
}

/// An error, and until when it is remembered, if it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// What went wrong.
    pub error: ReadError,
    /// Until then the same question gets the same error.
    pub until: Option<Moment>,
}

impl From<ReadError> for Failed {
    fn from(error: ReadError) -> Self {
        Self { error, until: None }
    }
}
