//! What writers, readers and faults share in a run: the servers, what has become of each row, and what was found.
//!
//! Locks are held for moments and never across an await; a writer that holds rows holds the gate, too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{RwLock, watch};
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use super::changes::Truncates;
use super::cluster::{Cluster, Prepares};
use super::history::{Commit, Copied, Histories, Key, Moment, State};
use super::judge::{Answer, Label, Promised, Reader, Violation, judge, lag, tells};
use super::news::Newsroom;
use super::schema::{self, DATABASE};
use super::strict::Form;
use super::tally::Tally;

const WITHIN: Duration = Duration::from_secs(60);

/// Hits that show something: some for each query.
const ENOUGH: u64 = 300;

const BROKEN_FOR: Duration = Duration::from_secs(3);

/// Between two looks at a condition.
pub async fn retry() {
    let _ = timeout(Duration::from_millis(5), std::future::pending::<()>()).await;
}

/// What pods promise of a run, and how long each of its statements may take.
#[derive(Clone, Copy, Debug)]
pub struct Promise {
    /// Of every query.
    pub max_lag: Duration,
    /// Of a rebuild: while a pod is blind, one may be joined that is as old as this.
    pub timeout: Duration,
}

/// How a run is played.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub promise: Promise,
    pub truncates: Truncates,
    pub prepares: Prepares,
    /// How pods are broken on purpose.
    pub sabotage: Option<&'static str>,
    /// Whose answers have to show it.
    pub caught_by: Reader,
}

/// Rows that writers hold.
#[derive(Default)]
struct Leases {
    held: BTreeSet<Key>,
}

/// A run.
pub struct World {
    pub cluster: Cluster,
    pub rules: Rules,
    /// What writers tell.
    pub news: Newsroom,
    /// Held shared by each transaction: who holds it alone knows that none is under way.
    pub gate: RwLock<()>,
    /// The next write's.
    pub versions: AtomicI64,
    begun: Instant,
    over: watch::Sender<bool>,
    /// Hardly anybody writes.
    quiet: watch::Sender<bool>,
    histories: Mutex<Histories>,
    leases: Mutex<Leases>,
    tally: Mutex<Tally>,
    /// Queries that are not exact, and until when they were not.
    unjudged: Mutex<BTreeMap<&'static str, Option<Moment>>>,
    violations: Mutex<Vec<Violation>>,
}

/// Rows that nobody else writes until this is dropped.
pub struct Lease {
    world: Arc<World>,
    rows: Vec<Key>,
}

impl World {
    /// With all rows in their first state.
    pub fn new(cluster: Cluster, rules: Rules) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            rules,
            news: Newsroom::default(),
            gate: RwLock::new(()),
            versions: AtomicI64::new(2),
            begun: Instant::now(),
            over: watch::Sender::new(false),
            quiet: watch::Sender::new(false),
            histories: Mutex::new(schema::initial()),
            leases: Mutex::default(),
            tally: Mutex::default(),
            unjudged: Mutex::default(),
            violations: Mutex::default(),
        })
    }

    /// Since the run began.
    pub fn now(&self) -> Moment {
        self.begun.elapsed()
    }

    /// Ends the run.
    pub fn end(&self) {
        self.over.send_replace(true);
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    /// Does nothing for `time`, or until the run ends.
    pub async fn idle(&self, time: Duration) {
        let _ = timeout(time, self.over.subscribe().wait_for(|over| *over)).await;
    }

    /// From now on hardly anybody writes, or everybody.
    pub fn quiet(&self, quiet: bool) {
        self.quiet.send_replace(quiet);
    }

    /// While it is quiet, does nothing for `time`.
    pub async fn keep_quiet(&self, time: Duration) {
        let (mut quiet, mut over) = (self.quiet.subscribe(), self.over.subscribe());
        tokio::select! {
            _ = timeout(time, quiet.wait_for(|quiet| !quiet)) => {}
            _ = over.wait_for(|over| *over) => {}
        }
    }

    /// What has become of each row.
    pub fn histories(&self) -> MutexGuard<'_, Histories> {
        self.histories.lock().expect("nobody panics with it")
    }

    /// What was counted.
    pub fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("nobody panics with it")
    }

    /// What broke the promise.
    pub fn violations(&self) -> MutexGuard<'_, Vec<Violation>> {
        self.violations.lock().expect("nobody panics with it")
    }

    /// These rows, unless somebody has one of them.
    pub fn lease(self: &Arc<Self>, mut rows: Vec<Key>) -> Option<Lease> {
        rows.sort_unstable();
        rows.dedup();
        let mut leases = self.leases.lock().expect("nobody panics with it");
        if rows.iter().any(|row| leases.held.contains(row)) {
            return None;
        }
        leases.held.extend(&rows);
        Some(Lease { world: Arc::clone(self), rows })
    }

    /// The rows of a lease as they are.
    pub fn states(&self, lease: &Lease) -> BTreeMap<Key, State> {
        let histories = self.histories();
        lease.rows.iter().map(|row| (*row, histories.current(*row))).collect()
    }

    /// A COMMIT that does this is about to be sent.
    pub fn send(&self, writes: &BTreeMap<Key, State>) -> Commit {
        let mut histories = self.histories();
        histories.send(writes, self.now())
    }

    /// It was acknowledged.
    pub fn committed(&self, commit: Commit) {
        let now = self.now();
        let keys = self.histories().committed(commit, now);
        self.news.committed(keys);
    }

    /// The database was replaced by a copy of an earlier time, which was started no earlier than at `sent`.
    pub fn replaced(&self, copy: &Copied, sent: Moment) {
        let now = self.now();
        let keys = self.histories().replaced(copy, sent, now);
        self.news.committed(keys);
    }

    /// It did not come to pass. An answer that has shown it is a violation.
    pub fn rolled_back(&self, commit: Commit) {
        let shown = self.histories().rolled_back(commit);
        assert_eq!(shown, Ok(()), "an answer has shown what was never committed");
    }

    /// For how long a write may have been visible, when a request was sent, that its answer lacks.
    fn allowance(&self, label: Label) -> Duration {
        match label {
            Label::Filled => Duration::ZERO,
            Label::Hit | Label::Stale => self.rules.promise.max_lag,
            Label::Collapsed => self.rules.promise.max_lag.max(self.rules.promise.timeout),
        }
    }

    /// A version that no write ever had.
    pub fn version(&self) -> i64 {
        self.versions.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on answers of `query` are as old as they are.
    pub fn judge_not(&self, query: &'static str) {
        self.unjudged.lock().expect("nobody panics with it").insert(query, None);
    }

    /// Those that are asked for from now on are judged.
    pub fn judge_again(&self, query: &'static str) {
        self.unjudged.lock().expect("nobody panics with it").insert(query, Some(self.now()));
    }

    fn is_judged(&self, query: &'static str, sent: Moment) -> bool {
        let unjudged = self.unjudged.lock().expect("nobody panics with it");
        unjudged.get(query).is_none_or(|until| until.is_some_and(|until| sent > until))
    }

    /// Judges an answer of `query` and counts it.
    pub fn judge(&self, query: &'static str, answer: &Answer) {
        if !self.is_judged(query, answer.sent) {
            return;
        }
        let allowance = self.allowance(answer.label);
        let (violation, lag) = {
            let mut histories = self.histories();
            let violation = judge(&mut histories, answer, Promised::within(allowance));
            let lag = match (&violation, answer.label) {
                (None, Label::Hit) => lag(&histories, answer, allowance),
                _ => Duration::ZERO,
            };
            (violation, lag)
        };
        self.tally().answered(query, answer.label, lag, violation.is_some());
        self.violations().extend(violation);
    }

    /// Judges an answer of `query` to a strict reader of this `form` that asked for what `own` wrote, and counts it.
    ///
    /// # What strict readers are held to where definitions change
    /// A poll that was sent after the request came has every write, but definitions are looked at only every so often. So an
    /// answer `by_definition` has the same allowance as a bounded one; what is written to tables has none, whatever happens
    /// to their definitions meanwhile. Also of a query that has lost its verdict, since then no stored answer will do; but
    /// who brings a token is given one that contains that write, and may be as old as the ttl otherwise.
    pub fn judge_strictly(
        &self,
        form: Form,
        query: &'static str,
        by_definition: bool,
        answer: &Answer,
        own: Option<Commit>,
    ) {
        let allowance = match answer.label {
            label if by_definition => Some(self.allowance(label)),
            _ if form == Form::After && !self.is_judged(query, answer.sent) => None,
            _ => Some(Duration::ZERO),
        };
        let (violation, tells) = {
            let mut histories = self.histories();
            let violation = judge(&mut histories, answer, Promised { allowance, own });
            (violation, tells(&histories, answer, own, self.rules.promise.max_lag))
        };
        self.tally().answered_strictly(form.name(), answer.label, tells, violation.is_some());
        self.violations().extend(violation);
    }

    /// Waits until there are hits again, enough to find something in, or the run ends. A service that is broken on purpose
    /// may have none any more, and what comes next may mend it.
    pub async fn has_hits(&self) {
        let (before, deadline) = (self.tally().hits(), Instant::now() + WITHIN);
        let begun = Instant::now();
        while self.tally().hits() < before + ENOUGH && !self.is_over() {
            if self.rules.sabotage.is_some() && begun.elapsed() > BROKEN_FOR {
                return;
            }
            assert!(Instant::now() < deadline, "no {ENOUGH} hits within {WITHIN:?}\n{}", self.tally());
            retry().await;
        }
    }

    /// Whether anything was found by those who have to find it.
    pub fn is_caught(&self) -> bool {
        self.violations().iter().any(|violation| violation.reader == self.rules.caught_by)
    }

    /// A session of `role`, waited for.
    pub async fn session(&self, role: &str) -> Client {
        let deadline = Instant::now() + WITHIN;
        loop {
            match self.cluster.connect(role, DATABASE).await {
                Ok(client) => return client,
                Err(error) if Instant::now() > deadline => panic!("no session within {WITHIN:?}: {error}"),
                Err(_) => retry().await,
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.world.leases.lock().expect("nobody panics with it");
        for row in &self.rows {
            leases.held.remove(row);
        }
    }
}
