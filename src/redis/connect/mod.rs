//! Connections to Redis, be it one server, a master that sentinels name, or a cluster: each carries many calls at a time, and one
//! over which a call has failed carries no new one.
//!
//! A call has a place in the pool for the moment that it takes to find a connection, and no longer; so the pool's size bounds
//! connections and not calls. What fails by its connection speaks for all that were made before: they lead to the same server.

mod cluster;
mod sentinel;
mod slots;
mod wire;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bb8_redis::bb8::{self, ManageConnection, RunError};
use bb8_redis::redis::aio::{ConnectionLike, PubSub};
use bb8_redis::redis::{self, Cmd, ErrorKind, Pipeline, RedisError, RedisFuture, ServerError, ServerErrorKind, Value};
use tokio::sync::watch;

use super::url::{Address, Login, Servers, Url};
use super::{Settings, SettingsError};

use cluster::Cluster;
use sentinel::Sentinels;
use wire::{Door, Wire};

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    servers: Topology,
    timeout: Duration,
    /// Which connections may still be used: those of this generation.
    generation: Arc<AtomicU64>,
    /// Why none could be made, the last time that none could.
    failure: watch::Sender<Option<RedisError>>,
}

#[derive(Clone)]
enum Topology {
    One(Address, Door),
    Sentinel(Sentinels, Door),
    Cluster(Cluster),
}

/// What calls are made over.
#[derive(Clone)]
pub(super) enum Link {
    /// To a server, which is all there is.
    One(Wire),
    /// To whichever master has the slot.
    Cluster(cluster::Link),
}

/// A connection of the pool.
#[derive(Clone)]
pub(super) struct Pooled {
    link: Link,
    generation: u64,
    /// A call over it was not answered.
    broken: Arc<AtomicBool>,
}

/// Connections, made as they are needed.
pub(super) struct Pool {
    connections: bb8::Pool<Connector>,
    connector: Connector,
}

/// A call that is under way: until it has ended well, it has broken its connection, also where it is dropped.
struct Call {
    broken: Arc<AtomicBool>,
    ended_well: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended_well {
            self.broken.store(true, Ordering::Relaxed);
        }
    }
}

impl Connector {
    /// # Errors
    /// [`SettingsError`], whose texts hold no part of the URL.
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let url = Url::parse(&settings.url).map_err(|wrong| SettingsError::Url(wrong.join("; ")))?;
        let tls = url.tls.then(|| wire::verifier(settings.tls_root_cert.as_deref()));
        let tls = tls.transpose().map_err(SettingsError::Certificate)?;
        let door = |login: &Login, database| Door::new(tls.clone(), login, database);
        let servers = door(&url.login, url.database);
        let servers = match url.servers {
            Servers::One(address) => Topology::One(address, servers),
            Servers::Sentinel { sentinels, master, login } => {
                Topology::Sentinel(Sentinels::new(sentinels, door(&login, 0), master), servers)
            }
            Servers::Cluster(seeds) => Topology::Cluster(Cluster::new(seeds, servers, settings.timeout)),
        };
        let failure = watch::Sender::new(None);
        Ok(Self { servers, timeout: settings.timeout, generation: Arc::default(), failure })
    }

    /// A connection for messages alone, to where what scripts publish is heard: with sentinels to the present master, with a
    /// cluster to any server.
    ///
    /// # Errors
    /// It could not be made in time.
    pub(super) async fn subscriber(&self) -> Result<PubSub, RedisError> {
        self.in_time(async {
            match &self.servers {
                Topology::One(address, door) => door.listen(address).await,
                Topology::Sentinel(sentinels, door) => door.listen(&sentinels.find(door).await?.0).await,
                Topology::Cluster(cluster) => cluster.listen().await,
            }
        })
        .await
    }

    async fn in_time<T>(&self, made: impl Future<Output = Result<T, RedisError>>) -> Result<T, RedisError> {
        tokio::time::timeout(self.timeout, made).await.unwrap_or_else(|_elapsed| Err(none_in_time()))
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }
}

fn none_in_time() -> RedisError {
    RedisError::from((ErrorKind::Io, "no connection in time"))
}

impl ManageConnection for Connector {
    type Connection = Pooled;
    type Error = RedisError;

    async fn connect(&self) -> Result<Pooled, RedisError> {
        // Before: what fails meanwhile may be where this leads.
        let generation = self.generation();
        let made = self.in_time(async {
            Ok(match &self.servers {
                Topology::One(address, door) => Link::One(door.open(address).await?),
                Topology::Sentinel(sentinels, door) => Link::One(sentinels.find(door).await?.1),
                Topology::Cluster(cluster) => Link::Cluster(cluster.link().await?),
            })
        });
        match made.await {
            Ok(link) => Ok(Pooled { link, generation, broken: Arc::default() }),
            Err(error) => {
                self.failure.send_replace(Some(error.clone()));
                Err(error)
            }
        }
    }

    /// What is known of it. Asking Redis would be a second round trip for each call.
    async fn is_valid(&self, pooled: &mut Pooled) -> Result<(), RedisError> {
        let is_broken = self.has_broken(pooled);
        if is_broken { Err(RedisError::from((ErrorKind::Io, "a call over it failed"))) } else { Ok(()) }
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.broken.load(Ordering::Relaxed) || pooled.generation != self.generation()
    }
}

impl Pool {
    pub(super) fn new(connector: Connector, size: u32) -> Self {
        let connections = bb8::Pool::builder()
            .max_size(size)
            .test_on_check_out(true)
            .retry_connection(false)
            .connection_timeout(connector.timeout)
            .build_unchecked(connector.clone());
        Self { connections, connector }
    }

    /// No connection that there is now will be used again.
    pub(super) fn renew(&self) {
        self.connector.generation.fetch_add(1, Ordering::Relaxed);
    }

    async fn find(&self) -> Result<Pooled, RedisError> {
        let mut failure = self.connector.failure.subscribe();
        // Who waits for a connection that can't be made is told so at once, and why.
        tokio::select! {
            biased;
            found = self.connections.get() => match found {
                Ok(pooled) => Ok(pooled.clone()),
                Err(RunError::User(error)) => Err(error),
                Err(RunError::TimedOut) => Err(none_in_time()),
            },
            Ok(()) = failure.changed() => Err(failure.borrow().clone().unwrap_or_else(none_in_time)),
        }
    }

    /// Calls over one of its connections. Dropped in the middle, that carries no other call.
    pub(super) async fn with<T, A>(&self, ask: impl FnOnce(Link) -> A) -> Result<T, RedisError>
    where
        A: Future<Output = Result<T, RedisError>> + Send,
    {
        let Pooled { link, broken, .. } = self.find().await?;
        let mut call = Call { broken, ended_well: false };
        let answered = ask(link).await;
        if answered.as_ref().is_err_and(|error| is_about_the_connection(error) || is_by_a_replica(error)) {
            self.renew();
        } else {
            call.ended_well = true;
        }
        answered
    }
}

/// Whether it says that the connection is of no use, and not that Redis refuses a command.
pub(super) fn is_about_the_connection(error: &RedisError) -> bool {
    !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// Whether it says that what was the master is one no more. Another connection may lead to the one that is.
fn is_by_a_replica(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Whether it says that slots are on their way, and that this was sent after them as often as it may be: nothing is wrong.
pub(super) fn is_about_a_slot(error: &RedisError) -> bool {
    let is = |error: &ServerError| {
        matches!(error.kind(), Some(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain))
    };
    error.clone().into_server_errors().is_some_and(|all| all.iter().any(|(_, error)| is(error)))
}

impl Link {
    /// Writes a key that lives for `lives_ms`, to each master of a cluster: a replica and a full memory refuse that.
    pub(super) async fn probe(&mut self, key: &str, lives_ms: u64) -> Result<(), RedisError> {
        match self {
            Self::One(wire) => {
                let mut write = redis::cmd("SET");
                write.arg(key).arg(1).arg("PX").arg(lives_ms).query_async(&mut wire.connection).await
            }
            Self::Cluster(link) => link.probe(key, lives_ms).await,
        }
    }
}

impl ConnectionLike for Link {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(wire) => wire.connection.req_packed_command(command),
            Self::Cluster(link) => link.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(wire) => wire.connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(link) => link.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(wire) => wire.connection.get_db(),
            Self::Cluster(link) => link.get_db(),
        }
    }
}
