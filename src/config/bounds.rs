//! The range of every number, with the argument for both ends. Both ends are allowed.
//!
//! A bound is there where a value beyond it can't be meant, or would break a promise: what is merely unwise is the
//! operator's to decide.

use std::time::Duration;

/// From `low` to `high`, both included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range<T> {
    pub(super) low: T,
    pub(super) high: T,
}

const fn range<T>(low: T, high: T) -> Range<T> {
    Range { low, high }
}

const MILLI: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// None, where no load balancer has to notice; ten minutes are beyond any of them and beyond what a rollout waits.
pub(super) const DRAIN_DELAY: Range<Duration> = range(Duration::ZERO, MINUTE.saturating_mul(10));

/// None: browsers ask each time. They cap it themselves, at two hours or a day.
pub(super) const CORS_MAX_AGE: Range<Duration> = range(Duration::ZERO, MINUTE.saturating_mul(24 * 60));

/// None cuts requests off at once; an hour is beyond the longest `timeout`, so nothing could still run.
pub(super) const SHUTDOWN_GRACE: Range<Duration> = range(Duration::ZERO, MINUTE.saturating_mul(60));

/// One, or nothing is served; Linux allows a process 1,048,576 descriptors unless `nr_open` is raised.
pub(super) const MAX_CONNECTIONS: Range<usize> = range(1, 1_000_000);

/// One, or no miss is ever answered; a waiter costs some hundred bytes, so ten million are gigabytes.
pub(super) const MAX_WAITERS: Range<usize> = range(1, 10_000_000);

/// A few parameters fit into 1 KiB; bodies are held whole while they are read, and parameters of 16 MiB are data.
pub(super) const BODY_MAX_BYTES: Range<u64> = range(KIB, 16 * MIB);

/// One, or nothing is asked; a Postgres with more than a thousand connections from one pod needs a pooler.
pub(super) const POOL_SIZE: Range<usize> = range(1, 1_000);

/// One, or nothing is shared; each carries many calls at a time, so more than a hundred are more than a Redis has threads for.
pub(super) const REDIS_POOL_SIZE: Range<usize> = range(1, 100);

/// Below a millisecond Redis would count as away at each pause of a scheduler; above 400 ms it is no cache, and the client's own
/// bound comes first.
pub(super) const REDIS_TIMEOUT: Range<Duration> = range(MILLI, MILLI.saturating_mul(400));

/// Below 10 ms a TLS handshake across a network always fails; above a minute the kernel gives up by itself.
pub(super) const CONNECT_TIMEOUT: Range<Duration> = range(MILLI.saturating_mul(10), MINUTE);

/// Probing more often than every 10 ms is load on a database that is starting; less often than every five minutes
/// leaves an outage in place long after its end.
pub(super) const RECONNECT_MAX: Range<Duration> = range(MILLI.saturating_mul(10), MINUTE.saturating_mul(5));

/// Below a mebibyte the store's own shards don't fill evenly; no machine has more than a tebibyte to give to one pod,
/// and the sum of sizes stays far from overflow.
pub(super) const MAX_BYTES: Range<u64> = range(MIB, TIB);

/// As [`MAX_BYTES`].
pub(super) const COMPRESSED_MAX_BYTES: Range<u64> = range(MIB, TIB);

/// None, if the operator thinks that it pays; a body of 256 MiB is the longest there is.
pub(super) const COMPRESSION_MIN_BYTES: Range<u64> = range(0, 256 * MIB);

/// Below a kibibyte nothing but the bookkeeping would be stored; the upper end is `max_bytes`, checked apart.
pub(super) const ENTRY_MAX_BYTES: Range<u64> = range(KIB, TIB);

/// Below a kibibyte most single rows are refused; Postgres makes the answer as one text, whose bound is 1 GB, and each
/// running fill holds one: 256 MiB with eight fills are 2 GiB.
pub(super) const RESULT_MAX_BYTES: Range<u64> = range(KIB, 256 * MIB);

/// One, or nothing is rebuilt; more than the largest pool can't run.
pub(super) const MAX_FILLS: Range<usize> = range(1, 1_000);

/// None refuses at once when all are busy; a million queued fills outlive every deadline.
pub(super) const MAX_QUEUED_FILLS: Range<usize> = range(0, 1_000_000);

/// Below a millisecond an answer has expired before it is sent; beyond a year it is not a cache but an archive, and
/// sums of lifetimes stay far from overflow.
pub(super) const TTL: Range<Duration> = range(MILLI, MINUTE.saturating_mul(60 * 24 * 365));

/// None gives every entry the same lifetime. At 1 a lifetime of zero can be drawn, so that an entry is stored and never
/// hit; at 0.9 the shortest is a tenth of `ttl`.
pub(super) const JITTER: Range<f64> = range(0.0, 0.9);

/// None gives no old value; with `ttl` at its most, sums of lifetimes stay far from overflow.
pub(super) const STALE: Range<Duration> = range(Duration::ZERO, MINUTE.saturating_mul(60 * 24 * 365));

/// A pod that is away for less replays what it missed; below a second it could not even reconnect. A week of events is a
/// table of its own.
pub(super) const RETENTION: Range<Duration> = range(MILLI.saturating_mul(1000), MINUTE.saturating_mul(60 * 24 * 7));

/// Below a millisecond polls would follow each other without pause; beyond ten seconds every answer is blind.
pub(super) const POLL_INTERVAL: Range<Duration> = range(MILLI, MILLI.saturating_mul(10_000));

/// None turns it off; each is a statement that nobody has asked for yet, and ten thousand of them are a load of their own.
pub(super) const PROACTIVE: Range<usize> = range(0, 10_000);

/// Postgres's own range.
pub(super) const ADVISORY_KEY: Range<i64> = range(i64::MIN, i64::MAX);

/// Below 50 ms a pause of any process would count as silence; beyond an hour nobody is blind, and `ttl` is meant.
pub(super) const MAX_LAG: Range<Duration> = range(MILLI.saturating_mul(50), MINUTE.saturating_mul(60));

/// None turns it off. At 10 a rebuild begins, on average under load, some thirty times its own duration early.
pub(super) const EARLY_REFRESH: Range<f64> = range(0.0, 10.0);

/// Below a millisecond no rebuild returns, and `stale_while_revalidate` is meant; the upper end is `timeout`'s.
pub(super) const WAIT_AT_MOST: Range<Duration> = range(MILLI, MINUTE.saturating_mul(10));

/// None lets every directive force a fill, at most two at a time for a key; beyond an hour `ignore` is meant.
pub(super) const MIN_REFILL_INTERVAL: Range<Duration> = range(Duration::ZERO, MINUTE.saturating_mul(60));

/// None makes clients ask each time; the upper end is that of `ttl`, which bounds it in any case.
pub(super) const CLIENT_TTL: Range<Duration> = range(Duration::ZERO, MINUTE.saturating_mul(60 * 24 * 365));

/// Below a millisecond no statement returns; clients and load balancers give up long before ten minutes.
pub(super) const TIMEOUT: Range<Duration> = range(MILLI, MINUTE.saturating_mul(10));

/// None retries with every request; after an hour of remembered failure the cause is long gone.
pub(super) const ERROR_BACKOFF: Range<Duration> = range(Duration::ZERO, MINUTE.saturating_mul(60));

/// One, or no answer has content; ten million rows are beyond `result_max_bytes` at 26 bytes each.
pub(super) const MAX_ROWS: Range<usize> = range(1, 10_000_000);

/// One, or every text but the empty one is refused; a longer one than the largest body can't arrive.
pub(super) const MAX_LENGTH: Range<usize> = range(1, 16 * 1024 * 1024);

/// None, or at least one a second; more than a million a second one pod doesn't answer.
pub(super) const RATE: Range<usize> = range(0, 1_000_000);

/// None, or at least one; as [`MAX_WAITERS`], which bounds all callers together.
pub(super) const CONCURRENCY: Range<usize> = range(0, 10_000_000);

/// None, where clocks are kept together; beyond an hour a token that has expired would be as good as one that hasn't.
pub(super) const LEEWAY: Range<Duration> = range(Duration::ZERO, MINUTE.saturating_mul(60));

/// One service goes by few names.
pub(super) const AUDIENCES: usize = 16;
