//! Reaching the server: who connects when, what is found out while it is away, and when connections that stand are
//! given up.
//!
//! - Every attempt to connect, requests to cancel included, is admitted by the [`Breaker`].
//! - While that is open, one task probes: a probe begins every `reconnect_max`, jittered, whether or not the one before
//!   has ended, since one that hangs must not delay the one that would succeed. No request waits for a probe.
//! - A server that accepts and never answers makes no attempt fail that nobody makes, so each statement on a connection
//!   that stands would wait out its deadline:
//!
//!   1. the server falls silent; eight connections lie in the pool;
//!   2. a statement waits until its deadline, and so would the next seven, one after the other.
//!
//!   So when a statement is given up and *nothing* has been heard from the server since it was sent, on no connection,
//!   that is [suspect](Reach::suspect): one new connection is tried. If that doesn't come about as soon as connections
//!   usually do, the breaker opens, statements under way end at once, and the connections that stand are not used again.
//!
//! The lock is held for bookkeeping only, never across an await. Nothing here knows of queries.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::CancelToken;

use crate::readthrough::origin::OriginState;

use super::breaker::{self, Admitted, Breaker, BreakerState};
use super::connect::Connector;
use super::session::Session;
use super::tls::Tls;
use super::{Event, OnEvent};

/// Probes that hang at a time. With the defaults, a probe hangs for as long as four more begin at most.
const PROBES_AT_A_TIME: usize = 4;

/// A statement that is given up sooner than this after it was sent says nothing of the server, unless its deadline was
/// shorter still: clients leave for reasons of their own.
const SILENCE: Duration = Duration::from_secs(1);

/// A server that is suspect has at least this long to let one in: more than a busy one nearby needs.
const SUSPECT_FOR: Duration = Duration::from_millis(250);

/// And so many times what the last connection took, for one that is far away.
const SUSPECT_FOR_CONNECTS: u32 = 4;

/// A request to cancel that is not taken by then is a failed attempt.
const CANCEL_WITHIN: Duration = Duration::from_millis(500);

pub(super) struct Reach {
    connector: Connector,
    connect_timeout: Duration,
    probe_every: Duration,
    breaker: Mutex<Breaker>,
    /// How the last try to reach the server went, whoever made it.
    origin: watch::Sender<OriginState>,
    /// Follows the breaker.
    state: watch::Sender<BreakerState>,
    /// Raised whenever the breaker has changed.
    changes: watch::Sender<u64>,
    /// How often the server was found silent: connections from before the last time are given up.
    trips: watch::Sender<u64>,
    born: Instant,
    /// When the server was last heard, on whatever connection; and what the last connection took. Microseconds.
    heard_us: AtomicU64,
    connect_us: AtomicU64,
    suspecting: AtomicBool,
    probing: Mutex<Option<AbortHandle>>,
    on_event: OnEvent,
}

/// An attempt that was admitted; dropped without an outcome, it was given up.
struct Attempt<'a> {
    reach: &'a Arc<Reach>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.reach.change(Breaker::ended);
    }
}

impl Reach {
    pub(super) fn new(
        connector: Connector,
        connect_timeout: Duration,
        probe_every: Duration,
        on_event: OnEvent,
    ) -> Arc<Self> {
        Arc::new(Self {
            connector,
            connect_timeout,
            probe_every,
            breaker: Mutex::default(),
            origin: watch::Sender::new(OriginState::Unknown),
            state: watch::Sender::new(BreakerState::Closed),
            changes: watch::Sender::new(0),
            trips: watch::Sender::new(0),
            born: Instant::now(),
            heard_us: AtomicU64::new(0),
            connect_us: AtomicU64::new(0),
            suspecting: AtomicBool::new(false),
            probing: Mutex::new(None),
            on_event,
        })
    }

    /// A new connection; waits for its turn among the attempts under way.
    ///
    /// # Errors
    /// Why not: this attempt's reason, or at once the last one's while the breaker is open.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Session, String> {
        let attempt = self.admitted().await?;
        let connected = self.attempt().await;
        self.settle(connected.as_ref().map(|_| ()).map_err(String::as_str));
        drop(attempt);
        connected
    }

    /// Asks the server to cancel what `token`'s session runs. While the breaker is open that is not tried: whatever the
    /// server still runs ends by its `statement_timeout`.
    pub(super) async fn cancel(self: &Arc<Self>, token: &CancelToken) {
        let Ok(_attempt) = self.admitted().await else { return };
        match timeout(CANCEL_WITHIN, token.cancel_query(self.tls().clone())).await {
            // It was taken. That is no connection, and no proof that anybody read it.
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.change(|breaker| breaker.failed(&format!("a request to cancel: {error}"))),
            Err(_) => self.change(|breaker| breaker.failed("a request to cancel was not taken in time")),
        }
    }

    /// The server answered, on whatever connection.
    pub(super) fn up(&self) {
        self.heard();
        let changed = self.origin.send_if_modified(|state| {
            let changed = *state != OriginState::Up;
            *state = OriginState::Up;
            changed
        });
        if changed {
            tracing::info!("the database answers");
        }
    }

    /// It couldn't be reached.
    pub(super) fn away(&self, reason: &str) {
        let changed = self.origin.send_if_modified(|state| {
            let changed = !matches!(state, OriginState::Away(_));
            *state = OriginState::Away(reason.to_owned());
            changed
        });
        if changed {
            tracing::warn!(reason, "the database can't be reached");
        }
    }

    /// How it is. While connections are refused, one that stands may still bring answers: that is not "up".
    pub(super) fn origin_state(&self) -> OriginState {
        self.refused().map_or_else(|| self.origin.borrow().clone(), OriginState::Away)
    }

    /// Follows how the last try to reach it went.
    pub(super) fn follow(&self) -> watch::Receiver<OriginState> {
        self.origin.subscribe()
    }

    /// It said something, were it only that it lets nobody in.
    fn heard(&self) {
        self.heard_us.fetch_max(micros(self.born.elapsed()), Ordering::Relaxed);
    }

    /// A statement that was sent at `sent` and is given up now had no answer by its `deadline`, or for long. If nothing
    /// else was heard since, finds out in the background whether the server is there.
    pub(super) fn suspect(self: &Arc<Self>, sent: Instant, deadline: Instant) {
        let now = Instant::now();
        if (now < sent + SILENCE && now < deadline) || self.heard_since(sent) {
            return;
        }
        if self.is_open() {
            // The probes are the new connection: nothing was heard from a whole round of them either.
            if !self.heard_since(sent.min(now - (self.probe_every + SUSPECT_FOR).min(self.born.elapsed()))) {
                self.trip(sent, "the server doesn't answer, and can't be reached");
            }
            return;
        }
        if self.suspecting.swap(true, Ordering::AcqRel) {
            return;
        }
        let reach = Arc::clone(self);
        tokio::spawn(async move {
            let usually = Duration::from_micros(reach.connect_us.load(Ordering::Relaxed));
            let patience = (usually * SUSPECT_FOR_CONNECTS).max(SUSPECT_FOR).min(reach.connect_timeout);
            let mut connecting = pin!(reach.connect());
            tokio::select! {
                biased;
                connected = &mut connecting => if let Err(reason) = connected {
                    reach.trip(sent, &format!("the server doesn't answer: {reason}"));
                },
                // Given up only once the breaker is open: else its turn would be another's, in vain.
                () = sleep(patience) => {
                    (reach.on_event)(Event::ConnectFailed);
                    reach.trip(sent, &format!("the server answers neither a statement nor within {patience:?}"));
                }
            }
            reach.suspecting.store(false, Ordering::Release);
        });
    }

    /// How often the server was found silent so far; what a new connection remembers.
    pub(super) fn trips(&self) -> u64 {
        *self.trips.borrow()
    }

    /// Waits until it is found silent once more than `trips` times.
    pub(super) async fn tripped(&self, trips: u64) {
        // The sender is this value's own, so it can't be gone.
        let _ = self.trips.subscribe().wait_for(|n| *n > trips).await;
    }

    /// Why connections are refused, while they are.
    pub(super) fn refused(&self) -> Option<String> {
        self.breaker().reason().map(ToOwned::to_owned)
    }

    pub(super) fn breaker_state(&self) -> BreakerState {
        *self.state.borrow()
    }

    pub(super) fn is_open(&self) -> bool {
        self.breaker_state() != BreakerState::Closed
    }

    /// Waits until connections are not refused.
    pub(super) async fn closed(&self) {
        let _ = self.state.subscribe().wait_for(|state| *state == BreakerState::Closed).await;
    }

    /// For requests that cancel.
    pub(super) fn tls(&self) -> &Tls {
        self.connector.tls()
    }

    /// Whatever of the session shapes an answer; for a hash, and for nobody's eyes.
    pub(super) fn fingerprint(&self) -> String {
        self.connector.fingerprint()
    }

    /// Ends what runs in the background.
    pub(super) fn stop(&self) {
        if let Some(probing) = self.probing().take() {
            probing.abort();
        }
    }

    async fn admitted(self: &Arc<Self>) -> Result<Attempt<'_>, String> {
        loop {
            let mut changes = self.changes.subscribe();
            let admitted = self.breaker().admit();
            match admitted {
                Admitted::Now => return Ok(Attempt { reach: self }),
                Admitted::Refused(reason) => return Err(reason),
                Admitted::Later => {
                    let _ = changes.changed().await;
                }
            }
        }
    }

    async fn attempt(&self) -> Result<Session, String> {
        let began = Instant::now();
        match timeout(self.connect_timeout, self.connector.connect()).await {
            Ok(Ok(mut session)) => {
                self.connect_us.store(micros(began.elapsed()), Ordering::Relaxed);
                self.up();
                session.remember_trips(self.trips());
                Ok(session)
            }
            Ok(Err(unconnected)) => {
                if unconnected.answered {
                    self.heard();
                }
                Err(unconnected.reason)
            }
            Err(_) => Err(format!("connecting took longer than {:?}", self.connect_timeout)),
        }
    }

    /// Records how an attempt went.
    fn settle(self: &Arc<Self>, outcome: Result<(), &str>) {
        (self.on_event)(if outcome.is_ok() { Event::Connected } else { Event::ConnectFailed });
        self.change(|breaker| match outcome {
            Ok(()) => breaker.succeeded(),
            Err(reason) => breaker.failed(reason),
        });
    }

    fn trip(self: &Arc<Self>, sent: Instant, reason: &str) {
        if self.heard_since(sent) {
            return;
        }
        self.change(|breaker| breaker.trip(reason));
        self.away(reason);
        self.trips.send_modify(|n| *n += 1);
        tracing::warn!(reason, "the database has fallen silent: its connections are given up");
    }

    fn heard_since(&self, moment: Instant) -> bool {
        self.heard_us.load(Ordering::Relaxed) > micros(moment.saturating_duration_since(self.born))
    }

    /// Changes the breaker, tells who follows it, and has it probed while it is open.
    fn change(self: &Arc<Self>, change: impl FnOnce(&mut Breaker)) {
        let mut breaker = self.breaker();
        change(&mut breaker);
        let state = breaker.state();
        // With the lock held, so that states are told in their order.
        let changed = self.state.send_if_modified(|known| std::mem::replace(known, state) != state);
        if changed {
            (self.on_event)(Event::Breaker(state));
        }
        drop(breaker);
        // Who waits for its turn to try looks again.
        self.changes.send_modify(|n| *n += 1);
        if changed && state == BreakerState::Open {
            self.probe_while_open();
        }
    }

    fn probe_while_open(self: &Arc<Self>) {
        let mut probing = self.probing();
        if probing.as_ref().is_none_or(AbortHandle::is_finished) {
            *probing = Some(tokio::spawn(probe(Arc::clone(self))).abort_handle());
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn probing(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.probing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Probes until the breaker is closed.
async fn probe(reach: Arc<Reach>) {
    let mut probes = FuturesUnordered::new();
    let mut begun = 0;
    loop {
        let mut pause = pin!(sleep(breaker::pause(reach.probe_every, begun, fastrand::f64())));
        loop {
            tokio::select! {
                () = &mut pause => break,
                Some(()) = probes.next() => {}
                () = reach.closed() => {
                    // Looked at again with the lock held: whoever opens it meanwhile finds this task gone, or still here.
                    let mut probing = reach.probing();
                    if !reach.is_open() {
                        *probing = None;
                        return;
                    }
                }
            }
        }
        begun += 1;
        if probes.len() < PROBES_AT_A_TIME {
            probes.push(async {
                let _under_way = Probe::new(&reach);
                // Closed again at once: it belongs to nobody, and the pool opens what it needs.
                let outcome = reach.attempt().await.map(drop);
                reach.settle(outcome.as_ref().map_err(String::as_str).copied());
            });
        }
    }
}

/// Counts a probe as long as it is under way.
struct Probe<'a>(&'a Arc<Reach>);

impl<'a> Probe<'a> {
    fn new(reach: &'a Arc<Reach>) -> Self {
        reach.change(Breaker::probe_began);
        Self(reach)
    }
}

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.change(Breaker::probe_ended);
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
