//! The event stream: what is announced in the log reaches the ledger, and what nobody announces is found out.
//!
//! # Map
//!
//! - `listener` is the session on which everything is read; `poll` the statement.
//! - `notified` takes what others' notifications say.
//! - `doorbell` lets it sleep while nobody writes.
//! - `upkeep` writes: the epoch, pruning, canaries, invalidations by hand.
//! - `schema` keeps the queries' verdicts true of the schema that polls see.
//! - here: when what is done.
//!
//! # What it guarantees
//!
//! One poll is in flight at a time, on one session; its moment is taken before it is handed to the socket, and its result is
//! applied to the cursor that it was asked with. After a lost connection the log is read on from the cursor, so nothing is
//! missed and nothing is flushed. Nobody relies on this task being alive: readers go by the moment of the last applied poll.
//!
//! # Notifications
//!
//! An empty payload says that there is something in the log. Any other is an invalidation by somebody else's trigger, and
//! isn't in the log: it is in force from the next poll's snapshot on, taken after it arrived. Those that were sent while
//! nobody listened are lost, so a stream that has heard one flushes when it comes back (R5).
//!
//! Where the operator's own triggers announce, that is all there is: no log, no doorbell, no canary. A poll then says that the
//! session which listens is alive, and which snapshot what was heard is in force from; it never says that all was heard that
//! had been committed, since Postgres notifies after a commit is visible. So nobody reads strictly there.

mod doorbell;
mod listener;
mod notified;
mod poll;
pub(super) mod schema;
mod succeed;
mod upkeep;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Postgres;
use super::connect::Connector;
use super::lineage::READS_EPOCH;
use super::settings::{Announcers, Settings, SettingsError};
use crate::catalog::InForce;
use crate::clock::Moment;
use crate::ledger::{Applied, Beside, Payload};
use crate::readthrough::origin::OriginState;
use crate::readthrough::{Readthrough, StreamState, Touched};
use crate::stamp::Snapshot;
use crate::telemetry::metrics::{Announced, Flush};

use doorbell::{Doorbell, Due};
use listener::Listener;
use notified::tags_of;
use poll::{Brought, Look, Poller};
use schema::Schema;
pub(super) use upkeep::Upkeep;

/// How events are read.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// `LISTEN`s on it.
    pub channel: String,
    /// How long events are kept.
    pub retention: Duration,
    /// From one poll's start to the next's.
    pub poll_interval: Duration,
}

/// A poll that takes longer is given up with its connection, and never longer than half of the shortest `max_lag`.
const POLL_WITHIN: Duration = Duration::from_secs(1);

/// Between two looks for a schema that isn't there: `seawall migrate` takes effect without a restart.
const LOOK_FOR_SCHEMA: Duration = Duration::from_secs(5);

/// A first pause; it doubles up to `reconnect_max`.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Between two polls at least, however many readers wait for one: under a thousand a second.
const PROBE_INTERVAL: Duration = Duration::from_micros(1_200);

/// Between two canaries.
const CANARY: Duration = Duration::from_secs(1);

/// As many pods may poll at the configured interval.
const PODS: u32 = 4;

/// Between two canaries while asleep.
const CANARY_ASLEEP: Duration = Duration::from_secs(10);

/// Snapshots kept for pruning: with as many, the log is pruned to within a tenth of the retention.
const KEPT: u32 = 10;

/// What became of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Polled {
    /// It is in force; it brought so many events.
    Applied { events: usize },
    /// It was asked of a history that has been left since. Nothing is in force.
    Superseded,
}

/// Why the stream does not run.
#[derive(Debug)]
pub(super) struct Trouble {
    state: StreamState,
}

impl Trouble {
    fn away(why: String) -> Self {
        Self { state: StreamState::Away(why) }
    }

    fn pooler() -> Self {
        Self { state: StreamState::Pooler(listener::POOLER.into()) }
    }

    fn standby(why: String) -> Self {
        Self { state: StreamState::Standby(why) }
    }

    fn nonsense(why: String) -> Self {
        Self { state: StreamState::Away(why) }
    }

    /// In a sentence.
    pub(super) fn reason(&self) -> &str {
        self.state.reason().unwrap_or_default()
    }
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::away(super::failure::text(&error))
    }
}

/// What a follower owns across connections.
struct Follower {
    postgres: Arc<Postgres>,
    read: Arc<Readthrough>,
    connector: Connector,
    connect_within: Duration,
    settings: StreamSettings,
    schema: Schema,
    /// Of this process, as its canaries are called.
    pod: String,
    announcers: Announcers,
    said_malformed: Option<Moment>,
    /// Pods whose canaries were seen lately, with when.
    pods: HashMap<Box<str>, Moment>,
    /// When the canary that is under way was sent.
    canary: Option<Moment>,
    /// A notification of somebody else's was heard: others may be lost with a connection.
    heard: bool,
    /// Snapshots of polls, with their moments and epochs, the oldest first: one as old as the retention is what the log is
    /// pruned to, while its epoch lasts.
    taken: VecDeque<(Moment, String, Snapshot)>,
}

impl Postgres {
    /// Follows the event log of the database at `listen`, and keeps the ledger of `read` and the verdicts of `catalog`'s
    /// queries. Never ends; may be dropped at any moment.
    ///
    /// # Errors
    /// `listen` can't be used. A database that is away is no error.
    pub async fn follow(
        self: Arc<Self>,
        listen: Settings,
        settings: StreamSettings,
        read: Arc<Readthrough>,
        catalog: Arc<InForce>,
    ) -> Result<(), SettingsError> {
        let connector = Connector::new(&listen)?;
        let reconnect_max = listen.reconnect_max;
        read.ledger().expect_stream();
        let schema = Schema::new(Arc::clone(&self), Arc::clone(&read), catalog);
        // Whether there is a log is not known yet: until it is, nobody vouches for anything.
        schema.begin();
        let mut follower = Follower {
            postgres: self,
            read,
            connector,
            connect_within: listen.connect_timeout * 2,
            settings,
            schema,
            pod: format!("{:032x}", fastrand::u128(..)),
            announcers: listen.announcers,
            said_malformed: None,
            pods: HashMap::new(),
            canary: None,
            heard: false,
            taken: VecDeque::new(),
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let Err(trouble) = follower.follow().await;
            let went_well = began.elapsed() > reconnect_max;
            pause = if went_well { FIRST_PAUSE } else { (pause * 2).min(reconnect_max) };
            let pause = match &trouble.state {
                StreamState::NoSchema(_) | StreamState::Pooler(_) => LOOK_FOR_SCHEMA,
                _ => pause,
            };
            let is_interrupted = !matches!(trouble.state, StreamState::NoSchema(_));
            if is_interrupted {
                follower.read.metrics().listener_reconnects.inc();
            }
            follower.read.stream_is(trouble.state);
            let mut origin = follower.postgres.shared.pool.reach().follow();
            origin.mark_unchanged();
            sleep(FIRST_PAUSE).await;
            tokio::select! {
                () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
                // A fill or a probe has reached the database: who follows it need not wait any longer.
                () = came_back(&mut origin), if is_interrupted => {}
            }
        }
    }
}

/// Resolves when the database is reached that was not. Cancel safe.
async fn came_back(origin: &mut watch::Receiver<OriginState>) {
    while origin.changed().await.is_ok() {
        if *origin.borrow_and_update() == OriginState::Up {
            return;
        }
    }
    std::future::pending::<()>().await;
}

/// It only ends with trouble.
enum Never {}

impl Follower {
    /// One connection's life.
    async fn follow(&mut self) -> Result<Never, Trouble> {
        let opening = async {
            let listener = Listener::open(&self.connector, &self.settings.channel).await?;
            let mut doorbell = Doorbell::none();
            if self.has_log() {
                let readable: bool = listener.client.query_one(READS_EPOCH, &[]).await?.try_get(0)?;
                if !readable {
                    return Ok::<_, Trouble>((listener, None));
                }
                doorbell = Doorbell::find(&listener).await?;
            }
            let poller = Poller::prepare(&listener.client, &self.announcers).await?;
            Ok((listener, Some((poller, doorbell))))
        };
        let Ok(opened) = timeout(self.connect_within, opening).await else {
            return Err(Trouble::away("connecting took too long".into()));
        };
        let (mut listener, followed) = opened?;
        let Some((poller, mut doorbell)) = followed else {
            self.postgres.shared.reads_epoch.store(false, Ordering::Release);
            self.read.ledger().forgo_stream();
            self.schema.forget();
            return Err(Trouble {
                state: StreamState::NoSchema(
                    "there is no schema seawall that this role may read: run seawall migrate".into(),
                ),
            });
        };
        self.postgres.shared.reads_epoch.store(self.has_log(), Ordering::Release);
        self.read.ledger().expect_stream();
        self.schema.begin();
        // Those that were sent while nobody listened are lost.
        let mut may_have_lost = self.heard;
        let mut rung: Vec<Box<str>> = vec![];
        let mut canary_due = Instant::now();
        loop {
            let began = Instant::now();
            rung.extend(listener.arrived());
            let rings = doorbell.rings(&rung);
            let woken = rings > 0 && doorbell.sleeps();
            if woken {
                doorbell.wake(&listener.client).await?;
            }
            may_have_lost |= listener.has_lost();
            let heard: Vec<Payload> =
                rung.iter().filter(|text| !text.is_empty()).map(|text| Payload::parse(text)).collect();
            // Also where the connection ends before it is in force.
            self.heard |= !heard.is_empty();
            let beside = if may_have_lost { Beside::Lost } else { Beside::Heard(&heard) };
            let mut polled = self.poll(&listener, &poller, beside).await?;
            if polled.is_none() && self.has_log() {
                // A crash or a promotion has emptied the log and the epoch with it; in recovery this does nothing.
                self.postgres.shared.upkeep.reseed().await?;
                polled = self.poll(&listener, &poller, beside).await?;
            }
            let (snapshot, polled) = polled.ok_or_else(|| Trouble::standby("the server is in recovery".into()))?;
            let due = match polled {
                Polled::Applied { events } => {
                    self.notified(&rung, &heard);
                    self.heard |= !self.has_log();
                    rung.clear();
                    if std::mem::take(&mut may_have_lost) {
                        self.read.metrics().flushed(Flush::NotifyLost);
                    }
                    for ring in 0..rings {
                        // One of them woke it, and only where it slept: the others were for what is read by then, or for
                        // another pod.
                        self.read.metrics().rung(woken && ring == 0 && events > 0);
                    }
                    doorbell.polled(&listener, events, &snapshot).await?
                }
                // The next one brings all of it again; nobody will ring for it once more.
                Polled::Superseded => Due::AtOnce,
            };
            if began >= canary_due && self.has_log() {
                self.write();
                // One that sleeps is not woken by its own: it is found by a safety poll, and says little.
                canary_due = began + if doorbell.sleeps() { CANARY_ASLEEP } else { CANARY };
            }
            if due == Due::AtOnce {
                continue;
            }
            // At least as long as the poll took, so that a slow database isn't asked without pause.
            let earliest = began + PROBE_INTERVAL.max(began.elapsed() * 2);
            let next = earliest.max(began + doorbell.interval(self.interval(), self.schema.max_lag()));
            tokio::select! {
                () = sleep_until(next) => {}
                // All that have come by then share it.
                payload = listener.rung() => {
                    rung.push(payload?);
                    sleep_until(earliest).await;
                }
                () = self.read.probe_wanted() => sleep_until(earliest).await,
            }
        }
    }

    /// Whether there is a log to be read, and not only notifications to be heard.
    fn has_log(&self) -> bool {
        self.announcers == Announcers::Seawall
    }

    /// Polls once, and applies what came, and what came `beside` the log. `None`: the server says no lineage.
    async fn poll(
        &mut self,
        listener: &Listener,
        poller: &Poller,
        beside: Beside<'_>,
    ) -> Result<Option<(Snapshot, Polled)>, Trouble> {
        let asked = self.read.ledger().ask();
        let look = self.schema.look();
        let looked = look.is_some();
        let look = look.as_ref().map_or(Look::Log, Look::Schema);
        let sent = self.read.clock().now();
        let within = POLL_WITHIN.min(self.schema.max_lag() / 2);
        let Ok(brought) = timeout(within, poller.poll(&listener.client, &asked, look, sent)).await else {
            return Err(Trouble::away(format!("a poll took longer than {within:?}")));
        };
        let Brought { poll, purged, canaries, marker, epoch, fingerprint } = brought?;
        let Some(poll) = poll else { return Ok(None) };
        let is_direct = marker.is_some_and(|marker| marker == listener.marker());
        if !is_direct {
            // Settings and notifications are lost there.
            return Err(Trouble::pooler());
        }
        let stamp = poll.stamp.clone();
        let events = poll.events.len();
        let touched = if self.read.watches() { tags_of(&poll, beside) } else { vec![] };
        let applied = self.read.ledger().apply_beside(&asked, poll, beside);
        self.meet(&canaries, sent);
        let metrics = self.read.metrics();
        metrics.announced(Announced::Log, events);
        match applied {
            Applied::Events { .. } | Applied::Superseded => {}
            Applied::Gap => metrics.flushed(Flush::Gap),
            Applied::Flood => metrics.flushed(Flush::Flood),
            Applied::NewHistory => {
                metrics.flushed(Flush::Lineage);
                tracing::warn!(
                    lineage = stamp.lineage.as_str(),
                    "the database is of another history than before (a restart, failover or restore): every entry is refilled"
                );
            }
            Applied::OtherHistory => {
                return Err(Trouble::standby("its snapshots go back behind what was seen: another history under the same name; a new epoch helps: DELETE FROM seawall.epoch".into()));
            }
        }
        if !purged.is_empty() {
            self.read.purge(&purged);
        }
        if canaries.iter().any(|pod| **pod == *self.pod)
            && let Some(sent) = self.canary.take()
        {
            metrics.invalidation_lag.observe(self.read.clock().now().since(sent).as_secs_f64());
        }
        if self.schema.looked(looked, fingerprint) {
            self.read.ledger().flush(&stamp);
            metrics.flushed(Flush::Schema);
        }
        match (applied, beside) {
            (Applied::Superseded, _) => {}
            (Applied::Events { .. }, Beside::Heard(_)) if touched.is_empty() => {}
            (Applied::Events { .. }, Beside::Heard(_)) => self.read.refresh_hot(Touched::Tags(&touched)),
            _ => self.read.refresh_hot(Touched::Everything),
        }
        self.schema.keep_up();
        self.remember(&stamp.snapshot, sent, epoch);
        self.read.stream_is(match self.schema.is_settled() {
            false => StreamState::Starting,
            true if self.has_log() => StreamState::Following,
            true => StreamState::Listening,
        });
        if applied == Applied::Superseded {
            return Ok(Some((stamp.snapshot, Polled::Superseded)));
        }
        // Without a log a poll says nothing of writes: their notifications may still be on their way.
        if self.has_log() {
            self.read.polled(sent);
        }
        Ok(Some((stamp.snapshot, Polled::Applied { events })))
    }

    /// Other pods make themselves known by their canaries.
    fn meet(&mut self, canaries: &[Box<str>], now: Moment) {
        for pod in canaries {
            self.pods.insert(pod.clone(), now);
        }
        self.pods.retain(|_, seen| now.since(*seen) < CANARY_ASLEEP * 2);
    }

    /// Between polls while events come: the more pods there are, the longer, so that all together poll little more often than
    /// a few would.
    fn interval(&self) -> Duration {
        let pods = u32::try_from(self.pods.len()).unwrap_or(u32::MAX);
        self.settings.poll_interval * pods.div_ceil(PODS).max(1)
    }

    /// Keeps the snapshot for pruning, and prunes to one that is as old as the retention.
    fn remember(&mut self, snapshot: &Snapshot, sent: Moment, epoch: Option<String>) {
        let retention = self.settings.retention;
        let due = self.taken.back().is_none_or(|(last, ..)| sent.since(*last) >= retention / KEPT);
        let (true, Some(epoch)) = (due, epoch) else { return };
        self.taken.push_back((sent, epoch, snapshot.clone()));
        let mut oldest = None;
        while self.taken.front().is_some_and(|(taken, ..)| sent.since(*taken) >= retention) {
            oldest = self.taken.pop_front();
        }
        let Some((_, epoch, horizon)) = oldest else { return };
        let postgres = Arc::clone(&self.postgres);
        let metrics = Arc::clone(self.read.metrics());
        // Beside the polls: it may take its time.
        tokio::spawn(async move {
            if let Err(trouble) = postgres.shared.upkeep.prune(&epoch, &horizon).await {
                tracing::debug!(reason = trouble.reason(), "the log was not pruned");
            }
            if let Ok(rows) = postgres.shared.upkeep.rows().await {
                metrics.event_log_rows.set(rows);
            }
        });
    }

    /// Announces this pod's canary, unless the last one is still on its way.
    fn write(&mut self) {
        let now = self.read.clock().now();
        // One that was lost with a connection or a history is given up.
        if self.canary.is_some_and(|sent| now.since(sent) < CANARY * 10) {
            return;
        }
        self.canary = Some(now);
        let postgres = Arc::clone(&self.postgres);
        let pod = self.pod.clone();
        tokio::spawn(async move {
            if let Err(trouble) = postgres.shared.upkeep.canary(&pod).await {
                tracing::debug!(reason = trouble.reason(), "no canary");
            }
        });
    }
}
