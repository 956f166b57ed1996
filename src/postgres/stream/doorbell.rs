//! The doorbell: a pod that finds nothing goes to sleep, and a writer's notification wakes it.
//!
//! Polling alone costs latency or load; NOTIFY alone costs writers their group commit. So NOTIFY is an interrupt that is masked
//! while it is being served: a writer notifies only where it finds that somebody sleeps.
//!
//! # Falling asleep
//! 1. The pod takes the advisory lock, shared. Writers that look from here on find it, and ring.
//! 2. It reads which transactions run: those may have looked before 1. (From `pg_locks`: a snapshot's own list comes too late,
//!    as a transaction is in it from its first id on, and a writer looks after that.)
//! 3. It polls once more, for those that had committed before 2.
//! 4. It goes on polling, ever more slowly, until a poll that was applied has seen the end of each of 2. Then it sleeps, but for
//!    the safety polls, which readers go by.
//!
//! *Why nothing is missed*: a writer that saw no sleeper looked before 1, so the lock on its transaction id stood at 2, unless it
//! had committed by then; it is among those of 2, or 3 finds what it wrote.
//!
//! A pod that dies drops its lock with its session.

use std::time::Duration;

use postgres_types::Type;
use tokio::time::Instant;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::Trouble;
use super::listener::Listener;
use crate::stamp::Snapshot;

/// Empty polls in a row after which a pod goes to sleep: a quarter of a second at the default interval, so that a steady
/// trickle of writes keeps it awake and rings nobody.
const EMPTY_POLLS: u32 = 50;

/// Between polls while stragglers run, for the first second.
const DOZING: Duration = Duration::from_millis(20);

/// Where it can't sleep, a pod that finds nothing polls no more often than this.
const IDLE: Duration = Duration::from_millis(50);

/// After the lock could not be had.
const RETRY: Duration = Duration::from_secs(5);

/// One statement, outside of a transaction. Ids are 32 bits here: each stands for the 64-bit one nearest to the present. A lock
/// that neither view explains counts as one of this database.
const STRAGGLERS: &str = "SELECT coalesce(pg_catalog.array_agg(DISTINCT present.xmax \
     + ((held.xid - present.xmax + 2147483648) & 4294967295) - 2147483648), '{}') \
     FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8 AS xmax) AS present, \
     (SELECT l.transactionid::text::int8 AS xid FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid \
      LEFT JOIN pg_prepared_xacts p ON p.transaction = l.transactionid \
      WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted \
      AND coalesce(a.datname::text, p.database::text, current_database()::text) = current_database()::text) AS held";

/// Whether the lock's holder sleeps.
#[derive(Debug)]
enum State {
    Awake {
        empty: u32,
    },
    /// The lock is held; these may have looked before it was.
    Dozing {
        stragglers: Vec<u64>,
        since: Instant,
        pause: Duration,
    },
    Asleep,
}

/// The doorbell of one listening session.
pub(super) struct Doorbell {
    key: i64,
    /// On which it rings; none, where nobody does.
    channel: Option<String>,
    /// Writers ring nobody where transactions may be prepared.
    is_rung: bool,
    state: State,
    not_before: Instant,
}

impl Doorbell {
    /// One that nobody rings: for a session that is notified of each write.
    pub(super) fn none() -> Self {
        Self { key: 0, channel: None, is_rung: false, state: State::Asleep, not_before: Instant::now() }
    }

    /// As this database has it. From here on `listener` listens on its channel, too.
    pub(super) async fn find(listener: &Listener) -> Result<Self, Trouble> {
        let client = &listener.client;
        let exists = "SELECT to_regprocedure('seawall.doorbell_key()') IS NOT NULL \
                      AND has_function_privilege('seawall.doorbell_key()', 'EXECUTE'), \
                      current_setting('max_prepared_transactions') = '0'";
        let row = client.query_one(exists, &[]).await?;
        let (exists, none_prepared): (bool, bool) = (row.try_get(0)?, row.try_get(1)?);
        let mut doorbell = Self {
            key: 0,
            channel: None,
            is_rung: false,
            state: State::Awake { empty: 0 },
            not_before: Instant::now(),
        };
        if !exists {
            return Ok(doorbell);
        }
        doorbell.is_rung = none_prepared;
        doorbell.look_up(listener).await?;
        Ok(doorbell)
    }

    /// The lock and the channel, which `seawall migrate` may have changed since.
    async fn look_up(&mut self, listener: &Listener) -> Result<(), Trouble> {
        let row = listener.client.query_one("SELECT seawall.doorbell_key(), seawall.doorbell_channel()", &[]).await?;
        self.key = row.try_get(0)?;
        let channel: String = row.try_get(1)?;
        if self.channel.as_ref() != Some(&channel) {
            listener.listen(&channel).await?;
            self.channel = Some(channel);
        }
        Ok(())
    }

    /// How many of these notifications are rings.
    pub(super) fn rings(&self, payloads: &[Box<str>]) -> usize {
        if self.channel.is_none() { 0 } else { payloads.iter().filter(|payload| payload.is_empty()).count() }
    }

    /// Whether a notification was waited for.
    pub(super) fn sleeps(&self) -> bool {
        !matches!(self.state, State::Awake { .. })
    }

    /// A poll was applied that brought so many `events` under `snapshot`; `woken`: somebody rang, or wants a poll.
    ///
    /// # Errors
    /// The session is lost.
    pub(super) async fn polled(
        &mut self,
        listener: &Listener,
        events: usize,
        snapshot: &Snapshot,
    ) -> Result<(), Trouble> {
        if events > 0 {
            return self.wake(&listener.client).await;
        }
        match &mut self.state {
            State::Awake { empty } => {
                *empty = empty.saturating_add(1);
                if *empty >= EMPTY_POLLS && self.is_rung && Instant::now() >= self.not_before {
                    self.lie_down(listener).await?;
                }
            }
            State::Dozing { stragglers, .. } => {
                stragglers.retain(|&xid| !snapshot.sees(xid));
                if stragglers.is_empty() {
                    self.state = State::Asleep;
                }
            }
            State::Asleep => {}
        }
        Ok(())
    }

    /// Somebody rang: there is, or will be in a moment, something in the log.
    ///
    /// # Errors
    /// The session is lost.
    pub(super) async fn wake(&mut self, client: &Client) -> Result<(), Trouble> {
        if self.sleeps() {
            client.query_typed("SELECT pg_advisory_unlock_shared($1)", &[(&self.key, Type::INT8)]).await?;
        }
        self.state = State::Awake { empty: 0 };
        Ok(())
    }

    /// From the start of one poll to that of the next, unless somebody rings.
    pub(super) fn interval(&mut self, awake: Duration, max_lag: Duration) -> Duration {
        let safety = max_lag / 4;
        match &mut self.state {
            State::Awake { empty } if *empty >= EMPTY_POLLS => awake.max(IDLE).min(safety.max(awake)),
            State::Awake { .. } => awake,
            State::Dozing { since, pause, .. } => {
                if since.elapsed() > Duration::from_secs(1) {
                    *pause = (*pause * 3 / 2).min(safety.max(DOZING));
                }
                (*pause).min(safety)
            }
            State::Asleep => safety,
        }
    }

    /// Steps 1 and 2.
    async fn lie_down(&mut self, listener: &Listener) -> Result<(), Trouble> {
        self.look_up(listener).await?;
        let client = &listener.client;
        let locked = client.query_typed("SELECT pg_advisory_lock_shared($1)", &[(&self.key, Type::INT8)]).await;
        match locked {
            Ok(_) => {}
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                // Somebody keeps it exclusively, which no writer of ours does.
                tracing::debug!("the doorbell's lock can't be had; staying awake");
                self.not_before = Instant::now() + RETRY;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        // From here on the state says so, whatever becomes of the next statement: the lock is the session's.
        let (since, pause) = (Instant::now(), DOZING);
        self.state = State::Dozing { stragglers: vec![], since, pause };
        let row = client.query_one(STRAGGLERS, &[]).await?;
        let stragglers = row.try_get::<_, Vec<i64>>(0)?.into_iter().filter_map(|xid| u64::try_from(xid).ok()).collect();
        self.state = State::Dozing { stragglers, since, pause };
        Ok(())
    }
}
