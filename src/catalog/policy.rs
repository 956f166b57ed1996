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

/// What becomes of the `Cache-Control` of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RequestCacheControl {
    /// It is not read.
    Ignore,
    /// It is honoured within the query's bounds: no directive makes an answer older than the query allows, and none
    /// forces fills of a key more often than `min_refill_interval`.
    #[default]
    Bounded,
}

/// What becomes of stored answers while the event stream is silent for longer than `max_lag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnBlind {
    /// Postgres is asked, by one rebuild per key as ever.
    #[default]
    Bypass,
    /// They are given, and labelled.
    Serve,
}

/// Which writes an answer must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    /// Those that were visible `max_lag` ago.
    #[default]
    Bounded,
    /// Those that were acknowledged before the request arrived: never stale, never blind.
    Strict,
}

/// The rules that one query's answers live by.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// How long an answer is fresh, before jitter.
    pub ttl: Duration,
    /// The share of `ttl` that an entry's own lifetime may differ by, in either direction: 0 to 0.9.
    pub jitter: f64,
    /// After its lifetime, an old answer is given for so long at once while one refresh runs (RFC 5861, section 3).
    pub stale_while_revalidate: Duration,
    /// After its lifetime, an old answer is given for so long where a rebuild has failed (RFC 5861, section 4). It runs
    /// beside `stale_while_revalidate`, not after it.
    pub stale_if_error: Duration,
    /// How long after its invalidation an old answer is given at once while one refresh runs; 0: never.
    pub serve_invalidated: Duration,
    /// The event stream may have been silent for so long; beyond it no answer counts as fresh.
    pub max_lag: Duration,
    /// What becomes of answers then.
    pub on_blind: OnBlind,
    /// Which writes an answer must have.
    pub consistency: Consistency,
    /// Whether hot answers are refreshed as soon as they are invalidated, before anybody asks.
    pub proactive_refresh: bool,
    /// XFetch's beta: the greater, the earlier a refresh begins; 0 turns it off.
    pub early_refresh: f64,
    /// Bounds the whole rebuild: queue, pool and statement.
    pub timeout: Duration,
    /// A reader that waits for so long gets an old answer within `stale_if_error`, where there is one; the rebuild runs
    /// on.
    pub wait_at_most: Option<Duration>,
    /// How long a failure is remembered, so that the next arrivals don't repeat it.
    pub error_backoff: Duration,
    /// What becomes of the `Cache-Control` of requests.
    pub request_cache_control: RequestCacheControl,
    /// The most often that requests' directives can force a fill of one key.
    pub min_refill_interval: Duration,
    /// How long clients may keep an answer without asking; never beyond its lifetime.
    pub client_ttl: Duration,
    /// Rows that an answer of form `rows` may have.
    pub max_rows: u32,
    /// Concurrent rebuilds of this query, over all of its keys.
    pub max_fills: usize,
}

impl Policy {
    /// How long after its lifetime an old answer can be of any use.
    pub fn stale_at_most(&self) -> Duration {
        self.stale_while_revalidate.max(self.stale_if_error)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            jitter: 0.1,
            stale_while_revalidate: Duration::from_secs(30),
            stale_if_error: Duration::from_secs(3600),
            serve_invalidated: Duration::ZERO,
            max_lag: Duration::from_secs(2),
            on_blind: OnBlind::Bypass,
            consistency: Consistency::Bounded,
            proactive_refresh: false,
            early_refresh: 1.0,
            timeout: Duration::from_secs(2),
            wait_at_most: None,
            error_backoff: Duration::from_secs(1),
            request_cache_control: RequestCacheControl::Bounded,
            min_refill_interval: Duration::from_secs(1),
            client_ttl: Duration::ZERO,
            max_rows: 10_000,
            max_fills: 8,
        }
    }
}
