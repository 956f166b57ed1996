//! How a query's answers live: lifetimes, deadlines and bounds. Checked where the configuration is.

use std::time::Duration;

/// What the rows of a query become.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResultForm {
    /// An array of objects.
    #[default]
    Rows,
    /// The single row as an object; no row is a 404.
    Row,
    /// The single column of the single row; no row is a 404.
    Value,
}

impl ResultForm {
    /// As the configuration writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Row => "row",
            Self::Value => "value",
        }
    }

    /// Rows that an answer may have at most, and the field that says so is `max_rows` for `rows` alone.
    pub const fn row_limit(self, max_rows: u32) -> u32 {
        match self {
            Self::Rows => max_rows,
            Self::Row | Self::Value => 1,
        }
    }
}

/// The rules that one query's answers live by.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long an answer is fresh, before jitter.
    pub ttl: Duration,
    /// The share of `ttl` that an entry's own lifetime may differ by, in either direction: 0 to 0.9.
    pub jitter: f64,
    /// Bounds the whole rebuild: queue, pool and statement.
    pub timeout: Duration,
    /// How long a failure is remembered, so that the next arrivals don't repeat it.
    pub error_backoff: Duration,
    /// Rows that an answer of form `rows` may have.
    pub max_rows: u32,
    /// Concurrent rebuilds of this query, over all of its keys.
    pub max_fills: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            jitter: 0.1,
            timeout: Duration::from_secs(2),
            error_backoff: Duration::from_secs(1),
            max_rows: 10_000,
            max_fills: 8,
        }
    }
}
