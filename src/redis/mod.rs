//! What pods share through Redis: answers with their stamps, beside which Redis is never needed.
//!
//! Every call is bounded by `redis.timeout`, and all of them by one breaker: where Redis is away or slow, nobody waits for
//! it, and a probe of its own finds out when that is over. Values certify themselves ([`crate::readthrough::shared`]), so Redis
//! may forget, garble or roll back what it likes.
//!
//! - `envelope.rs`: how an answer lies there. `publish.rs`: how it comes there.
//! - `lease.rs`: who fills, of all pods. `notices.rs`: how those that wait hear of it.
//! - `url.rs`, `connect/`, `breaker.rs`: the way there, and when it is left alone.
//!
//! # Keys
//! All of a place have its digest in braces, so that a cluster has them in one slot: `seawall:{namespace}:{<digest>}:v` for the
//! value, `:1` and `:2` for leases, `:m` for a mark of how a holder ended.
//!
//! Commands, all of Redis 6.0 or older: `GET`, `PTTL`, `MULTI`, `EXEC`, `SET`, `EVALSHA`, `SCRIPT LOAD`, in scripts `GET`,
//! `GETRANGE`, `PTTL`, `SET`, `DEL`, `PEXPIRE`, `PUBLISH`; `SUBSCRIBE` and `PING` over a connection of their own; at connecting
//! `AUTH`, `SELECT`, `CLIENT SETINFO` (which older servers refuse, without harm); to a master that sentinels have named `ROLE`, to
//! sentinels `SENTINEL`; in a cluster `CLUSTER SLOTS`, `ASKING`.

mod breaker;
mod connect;
mod envelope;
mod lease;
mod notices;
mod publish;
pub mod url;

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bb8_redis::redis::{self, RedisError};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::cache::entry::Entry;
use crate::clock::Clock;
use crate::readthrough::origin::Pending;
use crate::readthrough::shared::{Away, Claim, Claimed, Ended, Lease, Looked, Place, Seen, SharedTier, Token};
use crate::telemetry::metrics::{Metrics, RedisCall, Shared};

use breaker::Breaker;
use connect::{Connector, Link, Pool};
use lease::Answered;
use notices::Notices;

/// Where Redis is and what it may cost.
#[derive(Clone)]
pub struct Settings {
    /// What [`url::Url`] reads. A secret.
    pub url: String,
    /// PEM to verify servers by; `None`: the platform's roots. Without TLS it is not looked at.
    pub tls_root_cert: Option<PathBuf>,
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
    #[error("redis.url can't be used: {0}")]
    Url(String),
    /// There is nothing to verify servers by.
    #[error("redis.tls_root_cert can't be used: {0}")]
    Certificate(String),
}

/// Answers that are being shared at a time. With the largest entries 64 MiB; where Redis is slower than that, pods fill for
/// themselves what has been skipped.
const PUBLISHING: usize = 64;

/// Longer bodies are packed where nobody else waits: 64 KiB take a tenth of a millisecond.
const BLOCKING_FROM: usize = 64 << 10;

/// Of the probe's own key, in milliseconds: nobody reads it.
const PROBE_LIVES_MS: u64 = 10_000;

const SLOW: &str = "it does not answer in time";

/// From the end of the connection for notices to the next try.
const UNHEARD_PAUSE: Duration = Duration::from_millis(100);

/// The shared tier in Redis.
pub struct Redis {
    shared: Arc<Inner>,
}

struct Inner {
    pool: Pool,
    connector: Connector,
    breaker: Breaker,
    notices: Arc<Notices>,
    channel: String,
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
    /// [`SettingsError`]. A Redis that is away is no error.
    pub fn new(settings: &Settings, clock: Clock, metrics: Arc<Metrics>) -> Result<Self, SettingsError> {
        let connector = Connector::new(settings)?;
        metrics.redis_up.set(1);
        Ok(Self {
            shared: Arc::new(Inner {
                pool: Pool::new(connector.clone(), settings.pool_size),
                connector,
                breaker: Breaker::default(),
                notices: Arc::default(),
                channel: format!("seawall:{}:notices", settings.namespace),
                prefix: format!("seawall:{}:", settings.namespace),
                timeout: settings.timeout,
                entry_max_bytes: usize::try_from(settings.entry_max_bytes).unwrap_or(usize::MAX),
                publishing: Arc::new(Semaphore::new(PUBLISHING)),
                clock,
                metrics,
            }),
        })
    }

    /// Hears what becomes of places, and finds out, whenever Redis has failed, when it works again. Never ends.
    pub async fn watch(&self) {
        tokio::join!(self.hear(), self.probe());
    }

    async fn hear(&self) {
        let inner = &self.shared;
        loop {
            inner.breaker.is_closed().await;
            if let Some(opened) = inner.breaker.closed() {
                let ended = tokio::select! {
                    ended = inner.notices.hear(&inner.connector, &inner.channel, inner.timeout) => ended,
                    // What is left of it may be a connection to a server that is gone.
                    () = opened => Ok(()),
                };
                if let Err(error) = ended {
                    tracing::debug!(%error, "notices of other pods can't be heard");
                }
            }
            tokio::time::sleep(UNHEARD_PAUSE).await;
        }
    }

    async fn probe(&self) {
        let inner = &self.shared;
        let key = format!("{}probe", inner.prefix);
        loop {
            inner.breaker.due().await;
            // It writes: a replica and a full memory refuse that, and are no place to share anything.
            let probe = inner.call_anyway(RedisCall::Probe, |mut link| {
                let key = &key;
                async move { link.probe(key, PROBE_LIVES_MS).await }
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
    /// The names of a place. The digest is a strong one: clients choose parameters, and two places must never meet.
    fn names(&self, place: &Place) -> Names {
        let mut hash = Sha256::new();
        let lineage = place.lineage.as_str().as_bytes();
        hash.update((lineage.len() as u64).to_le_bytes());
        hash.update(lineage);
        hash.update(place.schema.to_le_bytes());
        hash.update(place.key.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let key = |what: &str| format!("{}{{{}}}:{what}", self.prefix, hex(&digest));
        Names { value: key("v"), leases: [key("1"), key("2")], mark: key("m"), digest }
    }

    /// One call: within the timeout, and given up at once where another has found Redis away meanwhile.
    async fn call<T, A>(&self, call: RedisCall, ask: impl FnOnce(Link) -> A) -> Result<T, CallError>
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
            // It can be waited for that they arrive, and others are where they were.
            Err(CallError::Refused(error)) if connect::is_about_a_slot(error) => false,
            Err(CallError::Refused(error)) => self.breaker.refused(call, &error.to_string()),
            Err(CallError::Slow) => self.breaker.opens(SLOW),
            Err(CallError::Open) => false,
        };
        if open {
            self.metrics.redis_up.set(0);
            self.pool.renew();
        }
        ended
    }

    async fn call_anyway<T, A>(&self, call: RedisCall, ask: impl FnOnce(Link) -> A) -> Result<T, RedisError>
    where
        A: Future<Output = Result<T, RedisError>> + Send,
    {
        let begun = self.clock.now();
        let answered = self.pool.with(ask).await;
        if answered.is_ok() {
            self.metrics.redis_call(call, self.clock.now().since(begun).as_secs_f64());
        }
        answered
    }

    async fn take(&self, place: &Place) -> Result<Looked, Away> {
        let names = self.names(place);
        let mut both = redis::pipe();
        // Of one value, also where it is replaced in between.
        both.atomic().cmd("GET").arg(&names.value).cmd("PTTL").arg(&names.value);
        let read = self.call(RedisCall::Take, |mut connection| async move {
            both.query_async::<(Option<Vec<u8>>, i64)>(&mut connection).await
        });
        match read.await {
            Ok((bytes, left)) => Ok(self.looked(bytes, left, &names)),
            Err(CallError::Open | CallError::Slow | CallError::Refused(_)) => {
                self.metrics.shared(Shared::Failed);
                Err(Away)
            }
        }
    }

    /// What `bytes` are that `left` ms are left to.
    fn looked(&self, bytes: Option<Vec<u8>>, left: i64, names: &Names) -> Looked {
        let Some(bytes) = bytes else {
            self.metrics.shared(Shared::Miss);
            return Looked::default();
        };
        let seen = Seen(bytes[bytes.len().saturating_sub(8)..].to_vec());
        let value = match u64::try_from(left) {
            // In its last millisecond, or without an end: nobody says how long it may be given.
            Ok(0) | Err(_) => {
                self.metrics.shared(Shared::Miss);
                None
            }
            Ok(left) => {
                let value = envelope::decode(&bytes, &names.digest, Duration::from_millis(left), self.entry_max_bytes);
                if value.is_none() {
                    self.metrics.shared(Shared::Malformed);
                }
                value
            }
        };
        Looked { value, seen }
    }

    /// Claims, with nobody perhaps to hear the answer any more: what was given is given back then.
    async fn claim(self: Arc<Self>, names: Names, claim: Claim) -> Result<Claimed, Away> {
        let answered = self.call(RedisCall::Claim, |mut connection| {
            let (names, claim) = (&names, &claim);
            async move { lease::claim(&mut connection, names, claim).await }
        });
        match answered.await {
            Ok(Answered::Leased) => {
                let inner = Arc::clone(&self);
                Ok(Claimed::Leased(Lease::new(claim.token, move |how| inner.release(names, claim.token, how))))
            }
            Ok(Answered::Value(bytes, left)) => Ok(Claimed::Value(self.looked(Some(bytes), left, &names))),
            Ok(Answered::Marked(word, left)) => Ok(Claimed::Marked { word, left }),
            Ok(Answered::Held(holders)) => Ok(Claimed::Held(holders)),
            Err(error) => {
                // It may have been given all the same.
                if !matches!(error, CallError::Open) {
                    self.release(names, claim.token, Ended::Free);
                }
                Err(Away)
            }
        }
    }

    /// Gives a lease back, where Redis can be told; else it ends by itself.
    fn release(self: Arc<Self>, names: Names, token: Token, how: Ended) {
        // A process that ends has nobody left to do it.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let (names, how) = (&names, &how);
            let channel = &self.channel;
            let released = self.call(RedisCall::Release, |mut connection| async move {
                lease::release(&mut connection, names, token, how, channel).await
            });
            if released.await.is_err() {
                tracing::debug!("a lease could not be given back; it ends by itself");
            }
        });
    }

    async fn publish(&self, names: &Names, entry: &Arc<Entry>, token: Option<Token>) -> Shared {
        let encoded = if entry.body().len() < BLOCKING_FROM {
            envelope::encode(entry, &names.digest)
        } else {
            let (entry, digest) = (Arc::clone(entry), names.digest);
            tokio::task::spawn_blocking(move || envelope::encode(&entry, &digest)).await.ok().flatten()
        };
        let Some(bytes) = encoded else { return Shared::Failed };
        let left = entry.expires().since(self.clock.now());
        if left < Duration::from_millis(1) {
            // Over before anybody could find it.
            return Shared::Skipped;
        }
        let (bytes, channel) = (&bytes, &self.channel);
        let written = self.call(RedisCall::Publish, |mut connection| async move {
            publish::publish(&mut connection, names, bytes, entry.stamp(), left, token, channel).await
        });
        written.await.unwrap_or(Shared::Failed)
    }
}

impl SharedTier for Redis {
    fn take<'a>(&'a self, place: &'a Place) -> Pending<'a, Result<Looked, Away>> {
        Box::pin(self.shared.take(place))
    }

    fn claim<'a>(&'a self, place: &'a Place, claim: Claim) -> Pending<'a, Result<Claimed, Away>> {
        let inner = &self.shared;
        // A task of its own: Redis may be about to give what its asker has left, and is told to take it back after that.
        let claimed = tokio::spawn(Arc::clone(inner).claim(inner.names(place), claim));
        Box::pin(async move { claimed.await.unwrap_or(Err(Away)) })
    }

    fn renew<'a>(&'a self, place: &'a Place, token: Token, life: Duration) -> Pending<'a, Result<bool, Away>> {
        Box::pin(async move {
            let names = &self.shared.names(place);
            let renewed = self.shared.call(RedisCall::Renew, |mut connection| async move {
                lease::renew(&mut connection, names, token, life).await
            });
            renewed.await.map_err(|_| Away)
        })
    }

    fn news(&self, place: &Place) -> Pending<'static, ()> {
        let inner = &self.shared;
        Box::pin(inner.notices.next(inner.names(place).digest))
    }

    fn publish(&self, place: Place, entry: &Arc<Entry>, lease: Option<Lease>) {
        let inner = Arc::clone(&self.shared);
        let Ok(permit) = Arc::clone(&inner.publishing).try_acquire_owned() else {
            return inner.metrics.shared(Shared::Skipped);
        };
        let entry = Arc::clone(entry);
        tokio::spawn(async move {
            let outcome = inner.publish(&inner.names(&place), &entry, lease.as_ref().map(Lease::token)).await;
            inner.metrics.shared(outcome);
            match outcome {
                Shared::Published | Shared::Superseded | Shared::Incomparable => {
                    lease.into_iter().for_each(Lease::is_over);
                }
                // Dropped, it is given back.
                _ => drop(lease),
            }
            drop(permit);
        });
    }

    fn trouble(&self) -> Option<String> {
        self.shared.breaker.trouble()
    }
}

/// What belongs to a place.
struct Names {
    value: String,
    leases: [String; 2],
    mark: String,
    digest: [u8; 32],
}

/// As Redis counts: at least one, and no more than it takes.
fn whole_ms(duration: Duration) -> i64 {
    // Redis takes no more than an i64, and no year is as long.
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 1_000_000).max(1)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
