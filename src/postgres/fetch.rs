//! One fill, from the turn to the answer: a detached task owns the connection, and retries what is worth it.
//!
//! The caller waits for the task and may leave at any moment. Then the task cancels its statement and closes the
//! connection ([`super::cancel`]); nobody waits for that.
//!
//! Retries, each at most once: over a new connection if a pooled one turned out dead or leads to a server in recovery
//! (reads are idempotent); on the same one after a conflict with other transactions; and after preparing the query anew
//! where Postgres no longer knows the statement or what it names.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::catalog::{Prepared, Query, Shape, args};
use crate::readthrough::origin::{Connection, Fetched, OnSend, OriginError};
use crate::stamp::{Lineage, Snapshot, Stamp};

use super::Shared;
use super::bind::Text;
use super::cancel::call_off;
use super::failure::Failure;
use super::lineage;
use super::pool::{Lease, Turn};
use super::session::{Ask, Reply, Session, backstop_ms};
use super::sqlstate::Decision;
use super::statement;

/// No deadline lies further away; adding more to a moment could overflow.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Who asks may give up this much before the deadline: it is the same moment, read twice.
const AS_GOOD_AS: Duration = Duration::from_millis(5);

const SLOW_TO_CONNECT: &str = "connecting takes longer than the query's deadline";

/// Before the name of a claim: what policies read is `current_setting('seawall.claims.org_id', true)`.
const SETTINGS: &str = "seawall.";

/// The server was, and is back already.
const FELL_SILENT: &str = "the server fell silent amid the statement";

/// What is asked.
pub(super) struct Fill {
    pub(super) shared: Arc<Shared>,
    pub(super) query: Arc<Query>,
    pub(super) prepared: Arc<Prepared>,
    pub(super) key: Box<[u8]>,
    pub(super) within: Duration,
    pub(super) connection: Connection,
    pub(super) on_send: OnSend,
}

type Outcome = Result<Fetched, OriginError>;

/// Runs the fill. Cancel safe: dropped, it cancels the statement.
pub(super) async fn run(fill: Fill) -> Outcome {
    let asked = Instant::now();
    let deadline = asked + fill.within.min(LONGEST_WAIT);
    let shared = Arc::clone(&fill.shared);
    let Ok(turn) = timeout_at(deadline, shared.pool.turn()).await else {
        shared.pool.waited_in_vain(asked);
        return Err(OriginError::Pool);
    };
    let connected = Arc::new(AtomicBool::new(false));
    let (answer, outcome) = oneshot::channel();
    let task = Task { fill, deadline, connected: Arc::clone(&connected), conflicts: 0, reshapes: 0, seeded: false };
    tokio::spawn(task.run(turn, answer));
    match timeout_at(deadline, outcome).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(OriginError::Broken("its task ended without an outcome".into())),
        Err(_) if connected.load(Ordering::Acquire) => Err(OriginError::Timeout),
        Err(_) => {
            shared.pool.reach().away(SLOW_TO_CONNECT);
            Err(OriginError::Away(SLOW_TO_CONNECT.into()))
        }
    }
}

struct Task {
    fill: Fill,
    deadline: Instant,
    connected: Arc<AtomicBool>,
    conflicts: u32,
    reshapes: u32,
    seeded: bool,
}

impl Shared {
    /// The statement as it is sent: where there is an event log its lineage has the epoch in it, as polls have it.
    fn stamped(&self, wrapped: &Arc<str>) -> Arc<str> {
        if self.reads_epoch.load(Ordering::Acquire) { lineage::with_epoch(wrapped).into() } else { Arc::clone(wrapped) }
    }
}

/// How a session was left.
enum Asked {
    Replied(Reply),
    Failed(Failure),
    /// Nobody wants the answer; a cancel may still be under way.
    CalledOff,
}

impl Task {
    async fn run(mut self, turn: Turn, mut answer: oneshot::Sender<Outcome>) {
        if let Some(outcome) = self.outcome(&turn, &mut answer).await {
            // Whoever left in this moment left a connection in order.
            let _ = answer.send(outcome);
        }
        // The connection is back in the pool or closed; only now may the next one have its turn.
        drop(turn);
    }

    /// `None`: nobody wants it.
    async fn outcome(&mut self, turn: &Turn, answer: &mut oneshot::Sender<Outcome>) -> Option<Outcome> {
        let shared = Arc::clone(&self.fill.shared);
        let mut connection = self.fill.connection;
        loop {
            let mut lease = match shared.pool.session(turn, connection).await {
                Ok(lease) => lease,
                Err(failure) => {
                    shared.pool.reach().away(&failure.text);
                    return Some(Err(OriginError::Away(failure.text)));
                }
            };
            self.connected.store(true, Ordering::Release);
            let fresh = !lease.is_reused();
            let failure = match self.ask(&mut lease, answer).await {
                // Closed with the lease: see `cancel`.
                Asked::CalledOff => return None,
                Asked::Replied(Reply { lineage: None, .. }) => {
                    if fresh || connection == Connection::New {
                        // After a crash or a promotion whoever comes first seeds the epoch; in recovery nobody can.
                        let may_seed = shared.reads_epoch.load(Ordering::Acquire) && !self.seeded;
                        self.seeded = true;
                        if !may_seed || shared.upkeep.reseed().await.is_err() {
                            return Some(Err(OriginError::Behind("the server is in recovery".into())));
                        }
                    }
                    connection = Connection::New;
                    continue;
                }
                Asked::Replied(reply) => {
                    lease.give_back();
                    shared.pool.reach().up();
                    return Some(self.fetched(reply));
                }
                Asked::Failed(failure) => failure,
            };
            if failure.decision == Decision::Away {
                if !fresh && connection == Connection::Pooled {
                    connection = Connection::New;
                    continue;
                }
                shared.pool.reach().away(&failure.text);
            } else {
                lease.give_back();
                shared.pool.reach().up();
            }
            let params = self.fill.prepared.params.len();
            return Some(Err(failure.to_error(params, shared.result_max_bytes)));
        }
    }

    /// Asks on one session, unless nobody wants it any more.
    async fn ask(&mut self, lease: &mut Lease, answer: &mut oneshot::Sender<Outcome>) -> Asked {
        let shared = Arc::clone(&self.fill.shared);
        let session = lease.session();
        let backstop = backstop_ms(self.deadline.saturating_duration_since(Instant::now()));
        let (token, trips) = (session.cancel_token(), session.trips());
        let (sent, deadline) = (Instant::now(), self.deadline);
        let reach = shared.pool.reach();
        let wanted = AtomicBool::new(!answer.is_closed());
        let mut work = pin!(self.ask_on(session, backstop, &wanted));
        tokio::select! {
            biased;
            replied = &mut work => match replied {
                Ok(reply) => Asked::Replied(reply),
                Err(failure) => Asked::Failed(failure),
            },
            () = reach.tripped(trips) => {
                Asked::Failed(Failure::new(Decision::Away, reach.refused().unwrap_or_else(|| FELL_SILENT.into())))
            }
            () = answer.closed() => {
                wanted.store(false, Ordering::Release);
                reach.suspect(sent, deadline - AS_GOOD_AS);
                call_off(work, &token, reach, trips).await;
                Asked::CalledOff
            }
        }
    }

    async fn ask_on(&mut self, session: &mut Session, backstop_ms: u32, wanted: &AtomicBool) -> Result<Reply, Failure> {
        loop {
            let fill = &self.fill;
            let mut values: Vec<Text<'_>> = args::values(&fill.key).map(Text).collect();
            let told = values.split_off(fill.prepared.params.len().min(values.len()));
            let names = fill.prepared.settings.iter().map(|setting| format!("{SETTINGS}{}", setting.name));
            let settings: Vec<(String, Text<'_>)> = names.zip(told).collect();
            let form = fill.query.declaration().result;
            let wrapped = fill.shared.stamped(&fill.prepared.wrapped);
            let ask =
                Ask { sql: &wrapped, form, values: &values, settings: &settings, backstop_ms, on_send: &fill.on_send };
            let failure = match session.ask(&ask, wanted).await {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            match failure.decision {
                Decision::Conflict if self.conflicts == 0 => self.conflicts += 1,
                Decision::Reshape if self.reshapes == 0 => {
                    self.reshapes += 1;
                    session.forget(&wrapped);
                    self.fill.shared.prepare_on(session, &self.fill.query).await?;
                    match &**self.fill.query.shape() {
                        Shape::Ready(prepared) => self.fill.prepared = Arc::clone(prepared),
                        Shape::Broken(broken) => return Err(Failure::new(Decision::Broken, &*broken.reason)),
                        Shape::Pending => return Err(failure),
                    }
                }
                _ => return Err(failure),
            }
        }
    }

    fn fetched(&self, reply: Reply) -> Outcome {
        let form = self.fill.query.declaration().result;
        let bounds = self.fill.shared.bounds(&self.fill.query);
        if reply.rows > u64::from(bounds.rows) {
            return Err(match form {
                crate::catalog::ResultForm::Rows => OriginError::TooManyRows { limit: bounds.rows },
                _ => OriginError::NotOneRow,
            });
        }
        let bytes = reply.bytes.saturating_sub(statement::brackets(form));
        if bytes > bounds.bytes {
            return Err(OriginError::TooLarge { bytes, limit: bounds.bytes });
        }
        let lineage = reply.lineage.as_deref().map(Lineage::new);
        let snapshot = Snapshot::parse(&reply.snapshot);
        let (Some(lineage), Ok(snapshot)) = (lineage, snapshot) else {
            return Err(OriginError::Broken(format!("{:?} is no snapshot", reply.snapshot)));
        };
        Ok(Fetched { stamp: Stamp { lineage, snapshot }, body: reply.body, rows: reply.rows })
    }
}
