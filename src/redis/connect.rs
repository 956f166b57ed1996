//! Connections to Redis: each carries many calls at a time, and one over which a call has failed carries no new one.
//!
//! A call has a place in the pool for the moment that it takes to find a connection, and no longer; so the pool's size bounds
//! connections and not calls.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bb8_redis::bb8::{self, ManageConnection, RunError};
use bb8_redis::redis::aio::{MultiplexedConnection, PubSub};
use bb8_redis::redis::{Client, ErrorKind, RedisError};

pub(super) type Pool = bb8::Pool<Connector>;

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector(Client);

/// A connection of the pool.
#[derive(Clone)]
pub(super) struct Pooled {
    connection: MultiplexedConnection,
    /// A call over it was not answered, or failed by it.
    broken: Arc<AtomicBool>,
}

impl Pooled {
    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
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
    /// Why `url` is none, without any part of it.
    pub(super) fn new(url: &str) -> Result<Self, String> {
        Client::open(url).map(Self).map_err(|error| error.category().to_owned())
    }

    /// A connection of its own, for notices.
    pub(super) async fn subscriber(&self) -> Result<PubSub, RedisError> {
        self.0.get_async_pubsub().await
    }
}

impl ManageConnection for Connector {
    type Connection = Pooled;
    type Error = RedisError;

    async fn connect(&self) -> Result<Pooled, RedisError> {
        let connection = self.0.get_multiplexed_async_connection().await?;
        Ok(Pooled { connection, broken: Arc::default() })
    }

    /// What is known of it. Asking Redis would be a second round trip for each call.
    async fn is_valid(&self, pooled: &mut Pooled) -> Result<(), RedisError> {
        if pooled.is_broken() { Err(RedisError::from((ErrorKind::Io, "a call over it failed"))) } else { Ok(()) }
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.is_broken()
    }
}

/// A pool whose connections are made as they are needed.
pub(super) fn pool(connector: Connector, size: u32, timeout: Duration) -> Pool {
    bb8::Pool::builder()
        .max_size(size)
        .test_on_check_out(true)
        .retry_connection(false)
        .connection_timeout(timeout)
        .build_unchecked(connector)
}

/// Calls over a connection of `pool`. Dropped in the middle, that carries no other call.
pub(super) async fn with<T, A>(pool: &Pool, ask: impl FnOnce(MultiplexedConnection) -> A) -> Result<T, RedisError>
where
    A: Future<Output = Result<T, RedisError>> + Send,
{
    let found = pool.get().await.map(|pooled| pooled.clone());
    let Pooled { connection, broken } = found.map_err(|error| match error {
        RunError::User(error) => error,
        RunError::TimedOut => RedisError::from((ErrorKind::Io, "no connection in time")),
    })?;
    let mut call = Call { broken, ended_well: false };
    let answered = ask(connection).await;
    call.ended_well = !answered.as_ref().is_err_and(is_about_the_connection);
    answered
}

/// Whether it says that the connection is of no use, and not that Redis refuses a command.
pub(super) fn is_about_the_connection(error: &RedisError) -> bool {
    !matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_that_is_none_is_refused_without_its_words() {
        for url in ["", "hunter2", "http://hunter2@h", "redis://hunter2:x@h:port"] {
            let error = Connector::new(url).err().unwrap_or_else(|| panic!("{url} is taken"));
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert!(Connector::new("redis://user:password@127.0.0.1:6379/3").is_ok());
    }
}
