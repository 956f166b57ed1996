//! The metrics, as handles that are resolved once.
//!
//! Labels come from the configuration or from the enums below, so the number of series is known at start. Handles of a
//! query are resolved when its route is made; a request looks nothing up. The text of each HELP line is the doc comment
//! of its field, shortened.

use std::time::Duration;

#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use super::register::{NO_LABELS, REGISTERED, counters, gauge, gauges, histograms, real_gauge};

/// Unknown query names count under this label: names that clients make up never become series.
pub const UNKNOWN: &str = "_unknown";

pub use super::handles::{CallerMetrics, HandshakeMetrics, QueryMetrics};
pub use super::labels::*;

use crate::coding::{CODINGS, Coding};

/// All metrics of a process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    durations: HistogramVec,
    shared: IntCounterVec,
    rebuilds: IntCounterVec,
    statements: IntCounterVec,
    fallbacks: IntCounterVec,
    refresh: HistogramVec,
    failures: IntCounterVec,
    evictions: IntCounterVec,
    refused: Box<[IntCounter]>,
    degraded: Box<[IntGauge]>,
    pooled: Box<[IntGauge]>,
    connects: Box<[IntCounter]>,
    verdicts: IntGaugeVec,
    announced: Box<[IntCounter]>,
    flushed: Box<[IntCounter]>,
    doorbells: [IntCounter; 2],
    /// Connections of the event stream that ended.
    pub listener_reconnects: IntCounter,
    /// Parts of notifications that could not be read.
    pub malformed_notifications: IntCounter,
    proactive: Box<[IntCounter]>,
    callers: IntCounterVec,
    reload_success: IntGauge,
    reload_time: Gauge,
    reloads: [IntCounter; 2],
    unauthorized: Box<[IntCounter]>,
    packs: [Box<[IntCounter]>; CODINGS],
    packed_bytes: [IntGauge; CODINGS],
    packed_saved: [IntCounter; CODINGS],
    handshakes: IntCounterVec,
    tls_success: IntGaugeVec,
    tls_expiry: IntGaugeVec,
    shared_values: Box<[IntCounter]>,
    leases: Box<[IntCounter]>,
    redis_calls: Box<[Histogram]>,
    /// 1 where Redis is asked, 0 where it is away or slow, or there is none.
    pub redis_up: IntGauge,
    /// From a canary's being sent to its being applied.
    pub invalidation_lag: Histogram,
    /// 1 where the event stream is silent for longer than the shortest `max_lag`.
    pub blind: IntGauge,
    /// Transaction ids that the ledger holds.
    pub ledger_xids: IntGauge,
    /// Rows of the event log, about.
    pub event_log_rows: IntGauge,
    /// Answers kept in memory.
    pub store_entries: IntGauge,
    /// Bytes of these: bodies, keys and bookkeeping.
    pub store_bytes: IntGauge,
    /// Rebuilds under way.
    pub flights: IntGauge,
    /// Requests waiting for one.
    pub waiters: IntGauge,
    /// Requests that have been read and not yet answered.
    pub in_flight: IntGauge,
    /// How long fills waited for a connection.
    pub pool_wait_seconds: Histogram,
    /// The breaker of connecting to Postgres: 0 closed, 1 half-open, 2 open.
    pub origin_breaker: IntGauge,
    /// Time since the last completed poll of the event stream; infinite without one.
    pub freshness_bound: Gauge,
}

impl Metrics {
    /// A registry of its own with every metric in it.
    #[expect(clippy::too_many_lines, reason = "it is a list")]
    pub fn new() -> Self {
        let registry = Registry::new();
        let r = &registry;
        let refused = counters(r, "seawall_refused_total", "Turned away at a bound, by bound.", &["reason"]);
        let degraded = gauges(r, "seawall_degraded", "1 where the service is degraded for this reason.", &["reason"]);
        let pooled = gauges(r, "seawall_pool_connections", "Connections to Postgres, by what they do.", &["state"]);
        let connects = counters(r, "seawall_origin_connects_total", "Attempts to connect to Postgres.", &["outcome"]);
        let announced =
            counters(r, "seawall_invalidations_total", "Events applied, by where they came from.", &["source"]);
        let flushed =
            counters(r, "seawall_flushes_total", "Times that everything was invalidated at once.", &["reason"]);
        let doorbells = counters(
            r,
            "seawall_doorbells_total",
            "Rings that reached this process, by whether one woke it for something to read.",
            &["needed"],
        );
        let proactive = counters(
            r,
            "seawall_proactive_refreshes_total",
            "Hot entries that were invalidated, by whether they were refreshed before anybody asked.",
            &["outcome"],
        );
        let reloads = counters(
            r,
            "seawall_config_reloads_total",
            "Configurations that were read, the first included, by whether they came into force.",
            &["outcome"],
        );
        let reload_time = real_gauge(
            r,
            "seawall_config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in seconds since 1970.",
        );
        let unauthorized = counters(
            r,
            "seawall_unauthorized_total",
            "Requests whose credentials were not accepted, by reason.",
            &["reason"],
        );
        let packs = counters(
            r,
            "seawall_compressions_total",
            "Bodies that were to be packed, by what became of it.",
            &["coding", "outcome"],
        );
        let packed_bytes = gauges(
            r,
            "seawall_compressed_bytes",
            "Bytes of packed bodies kept beside the store, with their bookkeeping.",
            &["coding"],
        );
        let packed_saved = counters(
            r,
            "seawall_compression_saved_bytes_total",
            "Bytes of bodies that were not sent because they were packed.",
            &["coding"],
        );
        let shared_values = counters(
            r,
            "seawall_shared_values_total",
            "Answers that were looked for where pods share them, and that were shared, by what became of it.",
            &["outcome"],
        );
        let leases = counters(
            r,
            "seawall_leases_total",
            "Flights that found no answer of other pods' to take, by how they came to fill or were spared that.",
            &["outcome"],
        );
        let redis_calls =
            histograms(r, "seawall_redis_duration_seconds", "Calls of Redis that were answered.", &["call"]);
        let build = gauges(r, "seawall_build_info", "Always 1; the version is in the label.", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        #[cfg(target_os = "linux")]
        r.register(Box::new(ProcessCollector::for_self())).expect(REGISTERED);
        let freshness_bound = real_gauge(
            r,
            "seawall_freshness_bound_seconds",
            "Now minus the start of the last completed poll: what a bounded hit may lack.",
        );
        freshness_bound.set(f64::INFINITY);
        Self {
            requests: counters(r, "seawall_requests_total", "Requests, each exactly once.", &["query", "outcome"]),
            durations: histograms(
                r,
                "seawall_request_duration_seconds",
                "From a request's head being read to its answer being ready.",
                &["query", "served"],
            ),
            shared: counters(
                r,
                "seawall_shared_requests_total",
                "Requests answered by a flight that another request led.",
                &["query"],
            ),
            rebuilds: counters(r, "seawall_rebuilds_total", "Rebuilds begun, by reason.", &["query", "reason"]),
            statements: counters(r, "seawall_db_queries_total", "Statements that reached Postgres.", &["query"]),
            fallbacks: counters(
                r,
                "seawall_db_fallbacks_total",
                "Requests that had to wait for Postgres, by reason.",
                &["query", "reason"],
            ),
            refresh: histograms(
                r,
                "seawall_refresh_duration_seconds",
                "The whole rebuild: queue, connection and statement.",
                &["query"],
            ),
            failures: counters(
                r,
                "seawall_rebuild_errors_total",
                "Rebuilds that brought nothing, by reason.",
                &["query", "reason"],
            ),
            evictions: counters(r, "seawall_evictions_total", "Entries evicted for want of room.", &["query"]),
            refused: Refused::ALL.iter().map(|l| refused.with_label_values(&[l.as_str()])).collect(),
            degraded: Degraded::ALL.iter().map(|l| degraded.with_label_values(&[l.as_str()])).collect(),
            pooled: Pooled::ALL.iter().map(|l| pooled.with_label_values(&[l.as_str()])).collect(),
            connects: Connects::ALL.iter().map(|l| connects.with_label_values(&[l.as_str()])).collect(),
            verdicts: gauges(r, "seawall_query_verdict", "1 for the verdict in force.", &["query", "verdict"]),
            store_entries: gauge(r, "seawall_store_entries", "Answers kept in memory."),
            store_bytes: gauge(r, "seawall_store_bytes", "Bytes of these: bodies, keys and bookkeeping."),
            flights: gauge(r, "seawall_flights", "Rebuilds under way."),
            waiters: gauge(r, "seawall_waiters", "Requests waiting for a rebuild."),
            in_flight: gauge(r, "seawall_requests_in_flight", "Requests read and not yet answered."),
            pool_wait_seconds: histograms(r, "seawall_pool_wait_seconds", "Time fills waited for a connection.", &[])
                .with_label_values(NO_LABELS),
            origin_breaker: gauge(
                r,
                "seawall_origin_breaker",
                "Whether Postgres is tried: 0 it is, 1 a probe is finding out, 2 not until the next probe.",
            ),
            announced: Announced::ALL.iter().map(|l| announced.with_label_values(&[l.as_str()])).collect(),
            doorbells: ["false", "true"].map(|needed| doorbells.with_label_values(&[needed])),
            flushed: Flush::ALL.iter().map(|l| flushed.with_label_values(&[l.as_str()])).collect(),
            malformed_notifications: counters(
                r,
                "seawall_malformed_notifications_total",
                "Parts of notifications that could not be read and were taken as they stand.",
                &[],
            )
            .with_label_values(NO_LABELS),
            reload_success: gauge(
                r,
                "seawall_config_reload_success",
                "1 where the configuration that was read last is in force.",
            ),
            reload_time,
            reloads: ["refused", "ok"].map(|outcome| reloads.with_label_values(&[outcome])),
            callers: counters(
                r,
                "seawall_caller_requests_total",
                "Requests by the configured name of their caller, and whether its limits let them through.",
                &["caller", "outcome"],
            ),
            unauthorized: Unauthorized::ALL.iter().map(|l| unauthorized.with_label_values(&[l.as_str()])).collect(),
            packs: Coding::ALL.map(|coding| {
                let by = |l: &Packs| packs.with_label_values(&[coding.as_str(), l.as_str()]);
                Packs::ALL.iter().map(by).collect()
            }),
            packed_bytes: Coding::ALL.map(|coding| packed_bytes.with_label_values(&[coding.as_str()])),
            packed_saved: Coding::ALL.map(|coding| packed_saved.with_label_values(&[coding.as_str()])),
            handshakes: counters(
                r,
                "seawall_tls_handshakes_total",
                "TLS handshakes of a listener, by how they ended.",
                &["listener", "outcome"],
            ),
            tls_success: gauges(
                r,
                "seawall_tls_reload_success",
                "1 where the certificate that was read last is in force at this listener.",
                &["listener"],
            ),
            tls_expiry: gauges(
                r,
                "seawall_tls_certificate_expiry_timestamp_seconds",
                "Until when the certificate in force at this listener is valid, in seconds since 1970.",
                &["listener"],
            ),
            proactive: Proactive::ALL.iter().map(|l| proactive.with_label_values(&[l.as_str()])).collect(),
            shared_values: Shared::ALL.iter().map(|l| shared_values.with_label_values(&[l.as_str()])).collect(),
            leases: LeaseOutcome::ALL.iter().map(|l| leases.with_label_values(&[l.as_str()])).collect(),
            redis_calls: RedisCall::ALL.iter().map(|l| redis_calls.with_label_values(&[l.as_str()])).collect(),
            redis_up: gauge(
                r,
                "seawall_redis_up",
                "1 where Redis is asked, 0 where it is away or slow, or there is none.",
            ),
            listener_reconnects: counters(
                r,
                "seawall_listener_reconnects_total",
                "Connections of the event stream that ended, or were not to be had.",
                &[],
            )
            .with_label_values(NO_LABELS),
            invalidation_lag: histograms(
                r,
                "seawall_invalidation_lag_seconds",
                "From the sending of this process's own canary to its being applied.",
                &[],
            )
            .with_label_values(NO_LABELS),
            blind: gauge(
                r,
                "seawall_blind",
                "1 where the event stream is silent for longer than the shortest max_lag.",
            ),
            ledger_xids: gauge(r, "seawall_ledger_xids", "Transaction ids that the ledger holds."),
            event_log_rows: gauge(r, "seawall_event_log_rows", "Rows of the event log, about, as of the last pruning."),
            freshness_bound,
            registry,
        }
    }

    /// Counts a configuration that was read at this time of day, and whether it came into force.
    pub fn reloaded(&self, in_force: bool, at: Duration) {
        self.reloads[usize::from(in_force)].inc();
        self.reload_success.set(i64::from(in_force));
        if in_force {
            self.reload_time.set(at.as_secs_f64());
        }
    }

    /// Counts a look for a shared answer, or the sharing of one.
    pub fn shared(&self, outcome: Shared) {
        self.shared_values[outcome as usize].inc();
    }

    /// Counts how a flight came to fill, among pods.
    pub fn lease(&self, outcome: LeaseOutcome) {
        self.leases[outcome as usize].inc();
    }

    /// Counts a call of Redis that was answered, and how long it took.
    pub fn redis_call(&self, call: RedisCall, seconds: f64) {
        self.redis_calls[call as usize].observe(seconds);
    }

    /// Counts an attempt to pack a body.
    pub fn packs(&self, coding: Coding, outcome: Packs) {
        self.packs[coding as usize][outcome as usize].inc();
    }

    /// Counts an answer whose body is shorter by `saved` bytes for being packed.
    #[inline]
    pub fn packed(&self, coding: Coding, saved: usize) {
        self.packed_saved[coding as usize].inc_by(saved as u64);
    }

    /// Sets how many bytes are kept in `coding`.
    pub fn packed_bytes(&self, coding: Coding, bytes: i64) {
        self.packed_bytes[coding as usize].set(bytes);
    }

    /// Counts a hot entry that was invalidated.
    pub fn proactive(&self, outcome: Proactive) {
        self.proactive[outcome as usize].inc();
    }

    /// Counts events that were applied.
    pub fn announced(&self, by: Announced, events: usize) {
        self.announced[by as usize].inc_by(events as u64);
    }

    /// Counts a notification that woke this process; `needed`: there was something in the log.
    pub fn rung(&self, needed: bool) {
        self.doorbells[usize::from(needed)].inc();
    }

    /// Counts a flush.
    pub fn flushed(&self, reason: Flush) {
        self.flushed[reason as usize].inc();
    }

    /// The handles of the caller that the configuration calls `name`.
    pub fn caller(&self, name: &str) -> CallerMetrics {
        CallerMetrics(Passed::ALL.iter().map(|l| self.callers.with_label_values(&[name, l.as_str()])).collect())
    }

    /// Counts a request whose credentials were not accepted.
    pub fn unauthorized(&self, reason: Unauthorized) {
        self.unauthorized[reason as usize].inc();
    }

    /// The handles of a listener's handshakes.
    pub fn handshakes(&self, listener: Listener) -> HandshakeMetrics {
        let by = |l: &Handshake| self.handshakes.with_label_values(&[listener.as_str(), l.as_str()]);
        HandshakeMetrics(Handshake::ALL.iter().map(by).collect())
    }

    /// Counts a certificate that was read; `expires`: of the one in force.
    pub fn certificate(&self, listener: Listener, in_force: bool, expires: Duration) {
        self.tls_success.with_label_values(&[listener.as_str()]).set(i64::from(in_force));
        let seconds = i64::try_from(expires.as_secs()).unwrap_or(i64::MAX);
        self.tls_expiry.with_label_values(&[listener.as_str()]).set(seconds);
    }

    /// The handles of one query, or of [`UNKNOWN`].
    pub fn query(&self, name: &str) -> QueryMetrics {
        let by = |vec: &IntCounterVec, label: &'static str| vec.with_label_values(&[name, label]);
        QueryMetrics {
            requests: Outcome::ALL.iter().map(|l| by(&self.requests, l.as_str())).collect(),
            durations: Served::ALL.iter().map(|l| self.durations.with_label_values(&[name, l.as_str()])).collect(),
            rebuilds: Rebuild::ALL.iter().map(|l| by(&self.rebuilds, l.as_str())).collect(),
            fallbacks: Fallback::ALL.iter().map(|l| by(&self.fallbacks, l.as_str())).collect(),
            failures: Failure::ALL.iter().map(|l| by(&self.failures, l.as_str())).collect(),
            redis_down: by(&self.fallbacks, "redis_down"),
            shared: self.shared.with_label_values(&[name]),
            statements: self.statements.with_label_values(&[name]),
            refresh_seconds: self.refresh.with_label_values(&[name]),
            evictions: self.evictions.with_label_values(&[name]),
        }
    }

    /// Counts what was turned away at a bound.
    pub fn refused(&self, reason: Refused) {
        self.refused[reason as usize].inc();
    }

    /// Sets whether the service is degraded for `reason`.
    pub fn degraded(&self, reason: Degraded, yes: bool) {
        self.degraded[reason as usize].set(i64::from(yes));
    }

    /// Sets how many connections do what.
    pub fn pooled(&self, what: Pooled, n: usize) {
        self.pooled[what as usize].set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// Counts an attempt to connect to Postgres.
    pub fn connected(&self, outcome: Connects) {
        self.connects[outcome as usize].inc();
    }

    /// Sets a query's verdict and clears the others of `all`.
    pub fn verdict(&self, query: &str, all: &[&str], verdict: &str) {
        for other in all {
            self.verdicts.with_label_values(&[query, other]).set(i64::from(*other == verdict));
        }
    }

    /// All of them in Prometheus's text format.
    pub fn text(&self) -> String {
        // Encoding fails only for metrics without samples, which a registry doesn't gather.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
