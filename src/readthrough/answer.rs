//! An answer, and how it came about: what the response's `Cache-Status` will say.

use std::sync::Arc;
use std::time::Duration;

use super::error::ReadError;
use crate::cache::entry::{Entry, Freshness};
use crate::telemetry::metrics::Fallback;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The answer itself.
    pub entry: Arc<Entry>,
    /// How it came about.
    pub source: Source,
}

/// How an answer came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Found in memory, and given at once.
    Memory {
        /// Where it stands in its lifetime.
        stands: Freshness,
        /// What allows it to be given.
        by: By,
    },
    /// Brought from where pods share answers: another one had filled it.
    Shared {
        /// For how long its lifetime runs on.
        left: Duration,
    },
    /// An old answer, given after a wait that brought no new one.
    Old {
        /// Whose flight was waited for.
        led: Led,
        /// Why it was.
        why: Fallback,
        /// What it brought instead.
        instead: Instead,
    },
    /// Brought by a fill.
    Fill {
        /// Whether this request led it, or waited for another's.
        led: Led,
        /// Why it was needed.
        why: Fallback,
        /// Whether it was kept.
        stored: Stored,
    },
}

/// The rule by which a stored answer is given at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// It is fresh.
    Lifetime,
    /// It is within `stale_while_revalidate`, and being refreshed.
    WhileRevalidate,
    /// It is within `stale_if_error`, and the last rebuild failed a moment ago.
    IfError,
    /// The request takes stale answers (`max-stale`), and this one is within the query's windows.
    MaxStale,
    /// The event stream is silent, and the query says that this is no reason to ask Postgres.
    Blind,
    /// A write has made it wrong less than `serve_invalidated` ago, and it is being refreshed.
    Invalidated,
    /// The request wants a newer one, but the last is less than `min_refill_interval` ago.
    RefillLimited,
}

/// What a wait brought instead of a new answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// A failure.
    Failure(ReadError),
    /// Nothing within `wait_at_most`; the rebuild runs on.
    Nothing,
}

/// Whose flight it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Led {
    /// This request's.
    Own,
    /// Another's.
    Others,
}

/// Whether an answer was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// It was.
    Kept,
    /// It is larger than an entry may be, or not certified: given, not stored.
    Passed,
}
