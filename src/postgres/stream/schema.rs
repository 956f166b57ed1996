//! Verdicts that stay true: queries are judged when they can be, and again when a poll sees that a definition has changed.
//!
//! A change is in force with the poll that sees it: what was stored before is flushed with that poll's snapshot, and once more
//! with the next one that looks. (Queries take no locks on functions and types, so a statement's snapshot can see a change
//! that its backend's caches have missed.) Until every query is judged anew, nothing that is filled is kept.
//!
//! While something is known (`present`), the read path rests on its basis: whoever puts another in its place says so to the read path
//! under the same lock.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::catalog::verdict::{Closure, SchemaFingerprint};
use crate::catalog::{Catalog, InForce};
use crate::postgres::Postgres;
use crate::postgres::analyse::{Analysed, Found};
use crate::readthrough::Readthrough;
use crate::readthrough::origin::OriginError;

/// Where queries ask for nothing shorter.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Queries that a warning names at most.
const NAMED: usize = 10;

/// After an analysis that failed.
const RETRY: Duration = Duration::from_secs(1);

/// With the shapes that it judges.
type Analysing = JoinHandle<Result<(Found, Vec<Option<u64>>), OriginError>>;

/// The verdicts and what they rest on.
pub(super) struct Schema {
    postgres: Arc<Postgres>,
    read: Arc<Readthrough>,
    catalog: Arc<InForce>,
    settled: Arc<Settled>,
    /// With the generation that it began in.
    analysing: Option<(u64, Analysing)>,
    /// The generation whose closure the poll under way looks at.
    looking: u64,
    /// Flushed once, and due again at the next look.
    flush_again: bool,
    look_at: Instant,
    retry_at: Instant,
}

/// What is known of the queries in force, and with its lock their verdicts, for the stream and for whoever puts other queries in their place.
#[derive(Default)]
pub(in crate::postgres) struct Settled(Mutex<State>);

#[derive(Default)]
pub(super) struct State {
    pub(super) present: Option<Present>,
    /// Counts what is put in the place of `present`.
    pub(super) generation: u64,
}

impl Settled {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn put(&mut self, present: Option<Present>) {
        self.present = present;
        self.generation += 1;
    }
}

/// What was found out last.
#[derive(Clone)]
pub(super) struct Present {
    pub(super) analysed: Analysed,
    /// The shapes that were judged.
    pub(super) shapes: Vec<Option<u64>>,
    /// What answers rest on.
    pub(super) basis: SchemaFingerprint,
}

impl Present {
    /// What answers rest on: this analysis, which took the place of the `generation`-th. The definitions would not do: where a query
    /// is taken away and comes back, those of the others may be as they were, and nobody has looked at its own in between.
    fn new(analysed: Analysed, shapes: Vec<Option<u64>>, generation: u64) -> Self {
        let bytes = [analysed.fingerprint.0.to_le_bytes(), u128::from(generation).to_le_bytes()].concat();
        let basis = SchemaFingerprint(xxhash_rust::xxh3::xxh3_128(&bytes));
        Self { analysed, shapes, basis }
    }
}

impl Schema {
    pub(super) fn new(postgres: Arc<Postgres>, read: Arc<Readthrough>, catalog: Arc<InForce>) -> Self {
        let now = Instant::now();
        let settled = Arc::clone(&postgres.settled);
        Self {
            postgres,
            read,
            catalog,
            settled,
            analysing: None,
            looking: 0,
            flush_again: false,
            look_at: now,
            retry_at: now,
        }
    }

    /// Whether what can be known of the queries is.
    pub(super) fn is_settled(&self) -> bool {
        self.settled.lock().present.is_some()
    }

    /// The shortest of the queries' `max_lag`.
    pub(super) fn max_lag(&self) -> Duration {
        self.catalog.load().iter().map(|query| query.policy().max_lag).min().unwrap_or(LONGEST_PAUSE)
    }

    /// What the next poll is to look at, if a look is due and there is something to look at.
    pub(super) fn look(&mut self) -> Option<Closure> {
        let now = Instant::now();
        if now < self.look_at {
            return None;
        }
        let state = self.settled.lock();
        let closure = state.present.as_ref()?.analysed.closure.clone();
        self.looking = state.generation;
        drop(state);
        self.look_at = now + (self.max_lag() / 2).min(LONGEST_PAUSE);
        Some(closure)
    }

    /// What a look has shown; whether everything is to be flushed with the snapshot of its poll.
    pub(super) fn looked(&mut self, looked: bool, found: Option<SchemaFingerprint>) -> bool {
        if !looked {
            return false;
        }
        let again = std::mem::take(&mut self.flush_again);
        let mut state = self.settled.lock();
        // Where other queries have been put in force meanwhile, it was another closure's. What it would have shown, the next look
        // at theirs will, which has this one in it.
        let is_of_present = state.generation == self.looking;
        let changed = is_of_present
            && state
                .present
                .as_ref()
                .is_some_and(|present| found.is_some_and(|found| found != present.analysed.fingerprint));
        if changed {
            tracing::info!(
                "a definition that answers rest on has changed: queries are judged again, and every entry is refilled"
            );
            self.read.unsettle();
            state.put(None);
            self.flush_again = true;
        }
        changed || again
    }

    /// Begins an analysis where one is due, and takes over what one has found out.
    pub(super) fn keep_up(&mut self) {
        if self.analysing.as_ref().is_some_and(|(_, analysing)| analysing.is_finished())
            && let Some((began, analysing)) = self.analysing.take()
        {
            self.take_over(began, analysing);
        }
        let (is_known, generation) = {
            let state = self.settled.lock();
            let catalog = self.catalog.load();
            let known = state.present.as_ref().is_some_and(|present| present.shapes == shapes(&catalog));
            (known && is_judged(&catalog), state.generation)
        };
        if is_known || self.analysing.is_some() || Instant::now() < self.retry_at {
            return;
        }
        let catalog = self.catalog.load_full();
        let attempted = *self.postgres.shared.attempted.borrow();
        if !attempted || shapes(&catalog).iter().all(Option::is_none) {
            // What is being prepared is judged together.
            return;
        }
        let postgres = Arc::clone(&self.postgres);
        let reshape = self.flush_again;
        let analysing = tokio::spawn(async move {
            if reshape {
                postgres.prepare_all(&catalog).await?;
            }
            let shapes = shapes(&catalog);
            postgres.shared.find_out(&catalog).await.map(|found| (found, shapes))
        });
        self.analysing = Some((generation, analysing));
    }

    fn take_over(&mut self, began: u64, analysing: Analysing) {
        use futures_util::FutureExt as _;
        match analysing.now_or_never() {
            Some(Ok(Ok((found, shapes)))) => {
                let mut state = self.settled.lock();
                if state.generation != began {
                    // Others are in force by now.
                    return;
                }
                // Verdicts first: what begins on the new basis is tagged by them.
                let present = Present::new(found.judge(), shapes, state.generation);
                self.read.rest_on(Some(present.basis));
                state.put(Some(present));
                // What changed meanwhile shows at once.
                self.look_at = Instant::now();
            }
            failed => {
                let reason = match failed {
                    Some(Ok(Err(error))) => error.to_string(),
                    _ => "it ended without an outcome".into(),
                };
                let state = self.settled.lock();
                if state.generation != began {
                    // Of others than are in force by now.
                    return;
                }
                // What is known stands, and so does what rests on it: what has no verdict yet rests on nothing.
                let kept = if state.present.is_some() {
                    "what has no verdict yet is not kept"
                } else {
                    self.read.unsettle();
                    "nothing is kept"
                };
                let catalog = self.catalog.load();
                let unjudged = catalog.iter().filter(|query| query.prepared().is_some() && query.verdict().is_none());
                let unjudged: Vec<&str> = unjudged.map(|query| query.name()).take(NAMED).collect();
                let unjudged = unjudged.join(", ");
                tracing::warn!(reason, unjudged, "what queries depend on can't be found out: {kept} until it is");
                self.retry_at = Instant::now() + RETRY;
            }
        }
    }

    /// There is a log to follow: what is kept from here on rests on verdicts, and there are none yet.
    pub(super) fn begin(&self) {
        if !self.is_settled() {
            self.read.unsettle();
        }
    }

    /// Nothing is known: queries live by their ttl.
    pub(super) fn forget(&mut self) {
        if let Some((_, analysing)) = self.analysing.take() {
            analysing.abort();
        }
        self.withdraw();
    }

    fn withdraw(&mut self) {
        self.read.unsettle();
        let mut state = self.settled.lock();
        // With the lock: no verdict comes into force in between, and no other queries do, which would keep theirs.
        self.catalog.load().iter().for_each(|query| query.unjudge());
        state.put(None);
        self.read.rest_on(None);
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        if let Some((_, analysing)) = self.analysing.take() {
            analysing.abort();
        }
    }
}

/// What each query's shape is; `None` for one that has none.
pub(super) fn shapes(catalog: &Catalog) -> Vec<Option<u64>> {
    catalog.iter().map(|query| query.prepared().map(|prepared| prepared.fingerprint)).collect()
}

/// Whether each that can be asked has a verdict. One that was prepared anew, for a bound on a parameter perhaps, may have the former's
/// shape, and has none yet.
pub(super) fn is_judged(catalog: &Catalog) -> bool {
    catalog.iter().all(|query| query.prepared().is_none() || query.verdict().is_some())
}
