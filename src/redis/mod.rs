//! What pods share through Redis: answers with their stamps, beside which Redis is never needed.
//!
//! Every call is bounded by `redis.timeout`, and all of them by one breaker: where Redis is away or slow, nobody waits for
//! it, and a probe of its own finds out when that is over. Values certify themselves ([`crate::readthrough::shared`]), so Redis
//! may forget, garble or roll back what it likes.
//!
//! Commands, all of Redis 6.0 or older: `GET`, `PTTL`, `MULTI`, `EXEC`, `SET`, `EVALSHA`, `SCRIPT LOAD`, and in the script
//! `GET`, `GETRANGE`, `SET`; at connecting `AUTH`, `SELECT`, `CLIENT SETINFO` (which older servers refuse, without harm).

mod breaker;
mod connect;
mod envelope;
mod publish;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::aio::MultiplexedConnection;
use bb8_redis::redis::{self, RedisError};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cache::entry::Entry;
use crate::clock::Clock;
use crate::readthrough::origin::Pending;
use crate::readthrough::shared::{Place, SharedTier, SharedValue};
use crate::telemetry::metrics::{Metrics, RedisCall, Shared};

use breaker::Breaker;
use connect::{Connector, Pool};

/// Where Redis is and what it may cost.
#[derive(Clone)]
pub struct Settings {
    /// `redis://[user:password@]host[:port][/database]`. A secret.
    pub url: String,
    /// Keys begin with `seawall:{namespace}:`.
    pub namespace: String,
    /// Connections. Each carries many calls at a time.
    pub pool_size: u32,
    /// Bounds each call, connecting included.
    pub timeout: Duration,
    /// Longest body that is taken, in bytes; what is shared is never longer.
    pub entry_max_bytes: u64,
}

/// Why Redis can't even be tried. The texts name no part of the URL.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The URL is none.
    #[error("redis.url can't be used: {0}; write one such as \"redis://HOST:6379\"")]
    Url(String),
}

/// Answers that are being shared at a time. With the largest entries 64 MiB; where Redis is slower than that, pods fill for
/// themselves what has been skipped.
const PUBLISHING: usize = 64;

/// Longer bodies are packed where nobody else waits: 64 KiB take a tenth of a millisecond.
const BLOCKING_FROM: usize = 64 << 10;

/// Of the probe's own key, in milliseconds: nobody reads it.
const PROBE_LIVES_MS: u64 = 10_000;

const SLOW: &str = "it does not answer in time";

/// The shared tier in Redis.
pub struct Redis {
    shared: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    breaker: Breaker,
    prefix: String,
    timeout: Duration,
    entry_max_bytes: usize,
    publishing: Arc<Semaphore>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// How a call failed. Logged by the breaker, and nobody's reason for anything but going on alone.
enum CallError {
    /// It would not be tried now, or was given up because another failed.
    Open,
    /// It took longer than it may.
    Slow,
    /// Redis, or the way to it, said no.
    Refused(RedisError),
}

impl Redis {
    /// The tier that `settings` describe. Connects when it is first asked.
    ///
    /// # Errors
    /// [`SettingsError::Url`]. A Redis that is away is no error.
    pub fn new(settings: &Settings, clock: Clock, metrics: Arc<Metrics>) -> Result<Self, SettingsError> {
        let connector = Connector::new(&settings.url).map_err(SettingsError::Url)?;
        metrics.redis_up.set(1);
        Ok(Self {
            shared: Arc::new(Inner {
                pool: connect::pool(connector, settings.pool_size, settings.timeout),
                breaker: Breaker::default(),
                prefix: format!("seawall:{}:", settings.namespace),
                timeout: settings.timeout,
                entry_max_bytes: usize::try_from(settings.entry_max_bytes).unwrap_or(usize::MAX),
                publishing: Arc::new(Semaphore::new(PUBLISHING)),
                clock,
                metrics,
            }),
        })
    }

    /// Finds out, whenever Redis has failed, when it works again. Never ends.
    pub async fn watch(&self) {
        let inner = &self.shared;
        let key = format!("{}probe", inner.prefix);
        loop {
            inner.breaker.due().await;
            // It writes: a replica and a full memory refuse that, and are no place to share anything.
            let mut write = redis::cmd("SET");
            write.arg(&key).arg(1).arg("PX").arg(PROBE_LIVES_MS);
            let probe = inner.call_anyway(RedisCall::Probe, |mut connection| async move {
                write.query_async::<()>(&mut connection).await
            });
            match timeout(inner.timeout, probe).await {
                Ok(Ok(())) => {
                    inner.metrics.redis_up.set(1);
                    inner.breaker.closes();
                }
                Ok(Err(error)) => inner.breaker.stays_open(error.to_string()),
                Err(_elapsed) => inner.breaker.stays_open(SLOW.to_owned()),
            }
        }
    }
}

impl Inner {
    /// The key of a place, and the digest in it. A strong one: clients choose parameters, and two places must never meet.
    fn key(&self, place: &Place) -> (String, [u8; 32]) {
        let mut hash = Sha256::new();
        let lineage = place.lineage.as_str().as_bytes();
        hash.update((lineage.len() as u64).to_le_bytes());
        hash.update(lineage);
        hash.update(place.basis.to_le_bytes());
        hash.update(place.key.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        (format!("{}v:{}", self.prefix, hex(&digest)), digest)
    }

    /// One call: within the timeout, and given up at once where another has found Redis away meanwhile.
    async fn call<T, A>(&self, call: RedisCall, ask: impl FnOnce(MultiplexedConnection) -> A) -> Result<T, CallError>
    where
        A: Future<Output = Result<T, RedisError>> + Send,
    {
        let Some(opened) = self.breaker.closed() else { return Err(CallError::Open) };
        let ended = tokio::select! {
            ended = timeout(self.timeout, self.call_anyway(call, ask)) => ended,
            () = opened => return Err(CallError::Open),
        };
        let ended = match ended {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(CallError::Refused(error)),
            Err(_elapsed) => Err(CallError::Slow),
        };
        let open = match &ended {
            Ok(_) => {
                self.breaker.succeeded(call);
                false
            }
            Err(CallError::Refused(error)) if connect::is_about_the_connection(error) => {
                self.breaker.opens(&error.to_string())
            }
            Err(CallError::Refused(error)) => self.breaker.refused(call, &error.to_string()),
            Err(CallError::Slow) => self.breaker.opens(SLOW),
            Err(CallError::Open) => false,
        };
        if open {
            self.metrics.redis_up.set(0);
        }
        ended
    }

    async fn call_anyway<T, A>(
        &self,
        call: RedisCall,
        ask: impl FnOnce(MultiplexedConnection) -> A,
    ) -> Result<T, RedisError>
    where
        A: Future<Output = Result<T, RedisError>> + Send,
    {
        let begun = self.clock.now();
        let answered = connect::with(&self.pool, ask).await;
        if answered.is_ok() {
            self.metrics.redis_call(call, self.clock.now().since(begun).as_secs_f64());
        }
        answered
    }

    async fn take(&self, place: &Place) -> Option<SharedValue> {
        let (key, digest) = self.key(place);
        let mut both = redis::pipe();
        // Of one value, also where it is replaced in between.
        both.atomic().cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        let read = self.call(RedisCall::Take, |mut connection| async move {
            both.query_async::<(Option<Vec<u8>>, i64)>(&mut connection).await
        });
        let outcome = match read.await {
            // In its last millisecond, or without an end: nobody says how long it may be given.
            Ok((Some(_), ..=0) | (None, _)) => Shared::Miss,
            Ok((Some(bytes), left)) => {
                let left = Duration::from_millis(left.unsigned_abs());
                match envelope::decode(&bytes, &digest, left, self.entry_max_bytes) {
                    Some(value) => return Some(value),
                    None => Shared::Malformed,
                }
            }
            Err(CallError::Open | CallError::Slow | CallError::Refused(_)) => Shared::Failed,
        };
        self.metrics.shared(outcome);
        None
    }

    async fn publish(&self, place: &Place, entry: &Arc<Entry>) -> Shared {
        let (key, digest) = self.key(place);
        let encoded = if entry.body().len() < BLOCKING_FROM {
            envelope::encode(entry, &digest)
        } else {
            let entry = Arc::clone(entry);
            tokio::task::spawn_blocking(move || envelope::encode(&entry, &digest)).await.ok().flatten()
        };
        let Some(bytes) = encoded else { return Shared::Failed };
        let left = entry.expires().since(self.clock.now());
        if left < Duration::from_millis(1) {
            // Over before anybody could find it.
            return Shared::Skipped;
        }
        let written = self.call(RedisCall::Publish, |mut connection| async move {
            publish::publish(&mut connection, &key, &bytes, entry.stamp(), left).await
        });
        written.await.unwrap_or(Shared::Failed)
    }
}

impl SharedTier for Redis {
    fn take<'a>(&'a self, place: &'a Place) -> Pending<'a, Option<SharedValue>> {
        Box::pin(self.shared.take(place))
    }

    fn publish(&self, place: Place, entry: &Arc<Entry>) {
        let inner = Arc::clone(&self.shared);
        let Ok(permit) = Arc::clone(&inner.publishing).try_acquire_owned() else {
            return inner.metrics.shared(Shared::Skipped);
        };
        let entry = Arc::clone(entry);
        tokio::spawn(async move {
            let outcome = inner.publish(&place, &entry).await;
            inner.metrics.shared(outcome);
            drop(permit);
        });
    }

    fn trouble(&self) -> Option<String> {
        self.shared.breaker.trouble()
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
