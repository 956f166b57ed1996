//! The pool: turns first, connections second.
//!
//! A fill waits for a turn, of which there are as many as connections, and holds it until its connection is back or
//! closed. So whatever a fill that nobody waits for any more still does with a connection (opening one to its end,
//! cleaning up after a cancel) is bounded by the pool, and waiting itself can be given up at any moment.
//!
//! Opening a connection is not given up with the fill that needed it: where a query's deadline is shorter than a TLS
//! handshake, the pool would never have a connection otherwise. Whether one may be opened, [`super::reach`] says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deadpool::managed::{self, Metrics, Object, PoolError, RecycleError, RecycleResult};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::readthrough::origin::{Connection, PoolCounts};

use super::connect::Connector;
use super::failure::Failure;
use super::reach::Reach;
use super::session::Session;
use super::settings::{Settings, SettingsError};
use super::sqlstate::Decision;
use super::{Event, OnEvent};

pub(super) struct Pool {
    sessions: managed::Pool<Sessions>,
    reach: Arc<Reach>,
    turns: Arc<Semaphore>,
    size: usize,
    waiting: AtomicUsize,
    on_event: OnEvent,
}

/// The right to one of the pool's connections.
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    asked: Instant,
}

/// A connection in use. It goes back to the pool only by [`Lease::give_back`]; dropped, as by a task that panics or is
/// aborted amid a statement, it is closed.
pub(super) struct Lease {
    session: Option<Object<Sessions>>,
}

impl Pool {
    pub(super) fn new(settings: &Settings, on_event: OnEvent) -> Result<Self, SettingsError> {
        if settings.pool_size == 0 {
            return Err(SettingsError::NoPool);
        }
        let connector = Connector::new(settings)?;
        let reach = Reach::new(connector, settings.connect_timeout, settings.reconnect_max, OnEvent::clone(&on_event));
        let sessions = managed::Pool::builder(Sessions(Arc::clone(&reach)))
            .max_size(settings.pool_size)
            .build()
            .expect("a pool without timeouts needs no runtime");
        Ok(Self {
            sessions,
            reach,
            turns: Arc::new(Semaphore::new(settings.pool_size)),
            size: settings.pool_size,
            waiting: AtomicUsize::new(0),
            on_event,
        })
    }

    /// Waits for a turn, first come, first served. Cancel safe.
    pub(super) async fn turn(&self) -> Turn {
        let asked = Instant::now();
        let _waiting = Waiting::new(&self.waiting);
        let permit = Arc::clone(&self.turns).acquire_owned().await.expect("the semaphore is never closed");
        Turn { _permit: permit, asked }
    }

    /// A connection for who has a turn.
    pub(super) async fn session(&self, turn: &Turn, connection: Connection) -> Result<Lease, Failure> {
        if connection == Connection::New
            && let Some(reason) = self.reach.refused()
        {
            // Those that lie idle may be all there will be for a while.
            return Err(Failure::new(Decision::Away, reason));
        }
        loop {
            let lease = match self.sessions.get().await {
                Ok(session) => Lease { session: Some(session) },
                Err(PoolError::Backend(reason)) => return Err(Failure::new(Decision::Away, reason)),
                Err(other) => return Err(Failure::new(Decision::Away, other.to_string())),
            };
            if connection == Connection::New && lease.is_reused() {
                // It is suspect, and so are the others that lie idle: dropped, it is closed.
                continue;
            }
            (self.on_event)(Event::Waited(turn.asked.elapsed()));
            return Ok(lease);
        }
    }

    /// Counts the wait of a fill that got no turn.
    pub(super) fn waited_in_vain(&self, since: Instant) {
        (self.on_event)(Event::Waited(since.elapsed()));
    }

    pub(super) fn counts(&self) -> PoolCounts {
        let status = self.sessions.status();
        PoolCounts {
            idle: status.available,
            busy: status.size.saturating_sub(status.available),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }

    /// Waits until no connection is in use: no statement runs and none has to be cancelled.
    pub(super) async fn drained(&self) {
        let all = u32::try_from(self.size).unwrap_or(u32::MAX);
        let _all = self.turns.acquire_many(all).await.expect("the semaphore is never closed");
    }

    pub(super) fn reach(&self) -> &Arc<Reach> {
        &self.reach
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.reach.stop();
    }
}

impl Lease {
    pub(super) fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect(HELD)
    }

    /// Whether it has been in the pool before.
    pub(super) fn is_reused(&self) -> bool {
        Object::metrics(self.session.as_ref().expect(HELD)).recycled.is_some()
    }

    /// Nothing is under way on it: the next one may have it.
    pub(super) fn give_back(mut self) {
        drop(self.session.take());
    }
}

/// Only what consumes a lease empties it.
const HELD: &str = "a lease holds its connection";

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // Taken out of the pool, which has room for another then.
            drop(Object::take(session));
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What deadpool asks for connections.
struct Sessions(Arc<Reach>);

impl managed::Manager for Sessions {
    type Type = Session;
    type Error = String;

    async fn create(&self) -> Result<Session, String> {
        self.0.connect().await
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> RecycleResult<String> {
        // No round trip: a connection that died unnoticed is found out by its statement, which is then sent once more.
        if session.is_closed() {
            Err(RecycleError::message("closed"))
        } else if session.trips() < self.0.trips() {
            Err(RecycleError::message("from before the server fell silent"))
        } else {
            Ok(())
        }
    }
}
