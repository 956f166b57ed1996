//! A query as the read path knows it: its metrics and its bound on concurrent rebuilds beside what the catalog says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::catalog::args;
use crate::catalog::sql::Statement;
use crate::catalog::verdict::{Kind, SchemaFingerprint};
use crate::catalog::{Declaration, Query, ResultForm, Shape};
use crate::clock::Moment;
use crate::tag::Tag;
use crate::telemetry::metrics::{Metrics, QueryMetrics, UNKNOWN};

/// Every verdict that a query can have.
pub const VERDICTS: [&str; 4] = ["exact", "declared", "ttl-only", "broken"];

/// One named query on the read path.
pub struct Route {
    number: u32,
    query: Arc<Query>,
    metrics: QueryMetrics,
    pub(super) fills: Semaphore,
    last_logged: AtomicU64,
}

impl Route {
    pub(super) fn new(number: u32, query: Arc<Query>, metrics: QueryMetrics) -> Self {
        let fills = Semaphore::new(query.policy().max_fills);
        Self { number, query, metrics, fills, last_logged: AtomicU64::new(0) }
    }

    /// Where requests are counted that name no query. It can't be asked.
    pub(super) fn unknown(metrics: &Metrics) -> Self {
        let declaration = Declaration {
            name: UNKNOWN.into(),
            statement: Statement::default(),
            result: ResultForm::Rows,
            ..Declaration::default()
        };
        Self::new(u32::MAX, Arc::new(Query::new(declaration)), metrics.query(UNKNOWN))
    }

    /// Its number, which entries carry.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The query.
    #[inline]
    pub fn query(&self) -> &Arc<Query> {
        &self.query
    }

    /// What the answer of `key` depends on, as far as is known of the query now, and for how long the event stream may be
    /// silent for it to count as fresh; and the verdict's own fingerprint, if there is a verdict.
    ///
    /// An answer that lives by its ttl alone is never blind: no event would make it wrong. But those that an operator sends
    /// reach it, too.
    pub(super) fn rests_on(&self, key: &[u8]) -> (Arc<[Tag]>, Duration, Option<SchemaFingerprint>) {
        let declaration = self.query.declaration();
        let mut tags = vec![Tag::query(self.query.name()), Tag::key(key)];
        if !declaration.tags.is_empty() {
            let values: Vec<Option<&str>> = args::values(key).collect();
            tags.extend(declaration.tags.iter().filter_map(|own| own.tag(&values)).map(|text| Tag::new(&text)));
        }
        let mut max_lag = Duration::MAX;
        let verdict = self.query.verdict();
        if let Some(verdict) = verdict.as_ref().filter(|verdict| verdict.kind() != Kind::TtlOnly) {
            tags.extend(verdict.tags(key).iter().map(|text| Tag::new(text)));
            max_lag = self.query.policy().max_lag;
        }
        (tags.into(), max_lag, verdict.map(|verdict| verdict.schema))
    }

    /// Whether its freshness rests on more than its ttl.
    pub(super) fn has_verdict(&self) -> bool {
        self.query.verdict().is_some_and(|verdict| verdict.kind() != Kind::TtlOnly)
    }

    /// Its metrics.
    #[inline]
    pub fn metrics(&self) -> &QueryMetrics {
        &self.metrics
    }

    /// What its freshness rests on.
    pub fn verdict(&self) -> &'static str {
        match &**self.query.shape() {
            Shape::Broken(_) => "broken",
            Shape::Ready(_) | Shape::Pending => self.query.verdict().map_or(Kind::TtlOnly, |v| v.kind()).as_str(),
        }
    }

    /// Whether a failure of this query may be logged aloud now: once a second. An outage is a line a second and query,
    /// not one per key.
    pub(super) fn may_log(&self, now: Moment) -> bool {
        let last = self.last_logged.load(Ordering::Relaxed);
        let due = last == 0 || now.since(Moment::from_nanos(last)) >= Duration::from_secs(1);
        due && self.last_logged.compare_exchange(last, now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}
