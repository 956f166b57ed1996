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
use super::cluster::Cluster;
use super::history::{Commit, Histories, Key, Moment, State};
use super::judge::{Answer, Label, Violation, judge, lag};
use super::schema::{self, DATABASE};
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

/// Rows that writers hold.
#[derive(Default)]
struct Leases {
    held: BTreeSet<Key>,
}

/// A run.
pub struct World {
    pub cluster: Cluster,
    pub promise: Promise,
    pub truncates: Truncates,
    /// How pods are broken on purpose.
    pub sabotage: Option<&'static str>,
    /// Held shared by each transaction: who holds it alone knows that none is under way.
    pub gate: RwLock<()>,
    /// The next write's.
    pub versions: AtomicI64,
    begun: Instant,
    over: watch::Sender<bool>,
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
    pub fn new(cluster: Cluster, promise: Promise, truncates: Truncates, sabotage: Option<&'static str>) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            promise,
            truncates,
            sabotage,
            gate: RwLock::new(()),
            versions: AtomicI64::new(2),
            begun: Instant::now(),
            over: watch::Sender::new(false),
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
        self.histories().committed(commit, now);
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
            Label::Hit | Label::Stale => self.promise.max_lag,
            Label::Collapsed => self.promise.max_lag.max(self.promise.timeout),
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
            let violation = judge(&mut histories, answer, allowance);
            let lag = match (&violation, answer.label) {
                (None, Label::Hit) => lag(&histories, answer, allowance),
                _ => Duration::ZERO,
            };
            (violation, lag)
        };
        self.tally().answered(query, answer.label, lag, violation.is_some());
        self.violations().extend(violation);
    }

    /// Waits until there are hits again, enough to find something in, or the run ends. A service that is broken on purpose
    /// may have none any more, and what comes next may mend it.
    pub async fn has_hits(&self) {
        let (before, deadline) = (self.tally().hits(), Instant::now() + WITHIN);
        let begun = Instant::now();
        while self.tally().hits() < before + ENOUGH && !self.is_over() {
            if self.sabotage.is_some() && begun.elapsed() > BROKEN_FOR {
                return;
            }
            assert!(Instant::now() < deadline, "no {ENOUGH} hits within {WITHIN:?}\n{}", self.tally());
            retry().await;
        }
    }

    /// Whether anything was found.
    pub fn is_caught(&self) -> bool {
        !self.violations().is_empty()
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
