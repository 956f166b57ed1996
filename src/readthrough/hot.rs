//! Proactive refresh: hot answers are asked for anew as soon as they are invalidated, before anybody waits for them.
//!
//! # Which are hot
//! Entries of queries that want it count how often they are given. At every doubling from two on a hit offers the key to
//! whoever follows the writes: one message into a bounded queue, which is lost where that is full. The follower keeps the
//! candidates, so no reader takes a lock for them.
//!
//! # Which are refreshed
//! There is no way from a tag to entries, and none is needed for a few hundred candidates: after a poll that brought
//! something each is looked at, and those that it made outdated are refreshed, the most read first. A refresh takes one of
//! half of the fills that there are; until it has one the key has no flight, so a reader that comes first leads its own and
//! waits for nobody.
//!
//! # Damping
//! A key that is invalidated more often than it is read would be filled for nobody. For each candidate the reads between two
//! invalidations are averaged, the last counting half; below one there is no refresh, and readers fill as ever. What the
//! average takes from one lull is bounded, so a key that nobody reads any more is filled four times in vain.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::Readthrough;
use super::directives::Directives;
use super::look::{Ask, Vouched};
use super::route::Route;
use super::routes::Routes;
use crate::cache::entry::Entry;
use crate::cache::key::Key;
use crate::cache::store::Store;
use crate::catalog::Prepared;
use crate::clock::Moment;
use crate::tag::Tag;
use crate::telemetry::metrics::{Proactive, Rebuild};

/// Keys offered between two polls: at a hundred polls a second a hundred thousand new hot keys.
const OFFERED: usize = 1024;

/// Candidates for each refresh that may be under way: writes touch some of what is hot, not all.
const CANDIDATES_PER_REFRESH: usize = 8;

/// Longest key that is kept: as many as there are at most have some megabytes.
const KEY_BYTES: usize = 1024;

/// Reads between two invalidations count as no more: a key that was read a million times is dropped as soon as any.
const READS_AT_MOST: f32 = 8.0;

/// Of a new candidate, whose reads are not known yet: it was read twice.
const READS_AT_FIRST: f32 = 2.0;

/// Between two looks for the coldest candidate, which are as long as a poll: others are turned away meanwhile.
const MAKE_ROOM: Duration = Duration::from_secs(1);

/// What writes have touched.
#[derive(Clone, Copy, Debug)]
pub enum Touched<'a> {
    /// What depends on one of these, which are sorted.
    Tags(&'a [Tag]),
    /// Perhaps everything.
    Everything,
}

impl Touched<'_> {
    fn concerns(self, entry: &Entry) -> bool {
        match self {
            Self::Everything => true,
            Self::Tags(tags) => entry.tags().iter().any(|tag| tags.binary_search(tag).is_ok()),
        }
    }
}

/// What is hot.
pub(super) struct Hot {
    offers: mpsc::Sender<(Key, Candidate)>,
    /// The follower's: no reader takes this lock.
    kept: Mutex<Kept>,
    /// Refreshes under way or waiting for their turn.
    at_most: Arc<Semaphore>,
    /// Those that have theirs.
    turns: Arc<Semaphore>,
}

struct Kept {
    offered: mpsc::Receiver<(Key, Candidate)>,
    candidates: HashMap<Key, Candidate>,
    most: usize,
    make_room_from: Moment,
}

/// By which query something was asked for.
#[derive(Clone)]
struct Asked {
    /// As it was then; for its name.
    route: Arc<Route>,
    /// The fingerprint of its shape.
    shape: u64,
}

struct Candidate {
    asked: Asked,
    /// Between two invalidations, on average.
    reads: f32,
    /// The entry that was judged last.
    judged: Option<Moment>,
}

impl Asked {
    /// As it is in force now, with its present lifetimes, and judged by whoever judges; where one of that name and shape still asks for it
    /// to be refreshed.
    fn in_force(&self, routes: &Routes) -> Option<(Arc<Route>, Arc<Prepared>)> {
        let route = routes.find(self.route.query().name())?;
        let prepared = route.query().prepared().filter(|now| now.fingerprint == self.shape)?;
        route.query().policy().proactive_refresh.then(|| (Arc::clone(route), prepared))
    }
}

impl Candidate {
    /// `entry` was invalidated; whether it is read often enough to be refreshed for that.
    fn judge(&mut self, entry: &Entry) -> bool {
        // Who was judged already and not refreshed has not been given since.
        let again = self.judged.replace(entry.filled()) == Some(entry.filled());
        #[expect(clippy::cast_precision_loss, reason = "small numbers are exact, and others are cut off")]
        let reads = if again { 0.0 } else { (entry.uses() as f32).min(READS_AT_MOST) };
        self.reads = f32::midpoint(self.reads, reads);
        self.reads >= 1.0
    }
}

impl Hot {
    /// Refreshes `at_most` at a time, with half of `max_fills`; none where that is 0.
    pub(super) fn new(at_most: usize, max_fills: usize) -> Self {
        let (offers, offered) = mpsc::channel(OFFERED);
        let kept = Kept {
            offered,
            candidates: HashMap::new(),
            most: at_most * CANDIDATES_PER_REFRESH,
            make_room_from: Moment::from_nanos(0),
        };
        Self {
            offers,
            kept: Mutex::new(kept),
            at_most: Arc::new(Semaphore::new(at_most)),
            turns: Arc::new(Semaphore::new((max_fills / 2).max(1))),
        }
    }

    /// `entry` was given to `ask`.
    #[inline]
    pub(super) fn given(&self, ask: &Ask<'_>, entry: &Entry) {
        let uses = entry.count_use();
        if uses >= 2 && uses.is_power_of_two() {
            self.offer(ask);
        }
    }

    #[cold]
    fn offer(&self, ask: &Ask<'_>) {
        if ask.key.len() > KEY_BYTES {
            return;
        }
        let asked = Asked { route: Arc::clone(ask.route), shape: ask.prepared.fingerprint };
        let candidate = Candidate { asked, reads: READS_AT_FIRST, judged: None };
        // Where the queue is full, others are hot enough.
        let _ = self.offers.try_send((Key::new(ask.key), candidate));
    }
}

impl Kept {
    fn take_in(&mut self, store: &Store, now: Moment) {
        while let Ok((key, candidate)) = self.offered.try_recv() {
            if self.candidates.contains_key(&key) {
                continue;
            }
            if self.candidates.len() >= self.most && !self.make_room(store, &key, now) {
                continue;
            }
            self.candidates.insert(key, candidate);
        }
    }

    /// Makes room for `newcomer`, if a candidate is colder or gone.
    fn make_room(&mut self, store: &Store, newcomer: &Key, now: Moment) -> bool {
        if now < self.make_room_from {
            return false;
        }
        self.make_room_from = now + MAKE_ROOM;
        let heat = |key: &Key| {
            let entry = store.peek(key.as_bytes())?;
            Some(f64::from(entry.uses()) / entry.age(now).as_secs_f64().max(1e-3))
        };
        let own = heat(newcomer);
        let heats = self.candidates.keys().map(|key| (heat(key), key));
        let coldest = heats.min_by(|(a, _), (b, _)| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        let Some(key) = coldest.filter(|(heat, _)| *heat < own).map(|(_, key)| key.clone()) else { return false };
        self.candidates.remove(&key);
        true
    }
}

/// A candidate to be refreshed.
struct Due {
    key: Key,
    asked: Asked,
    uses: u32,
}

impl Readthrough {
    /// Whether anything is hot that writes could touch. For whoever follows them.
    pub fn watches(&self) -> bool {
        let mut kept = self.hot.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_in(&self.store, self.clock.now());
        !kept.candidates.is_empty()
    }

    /// Begins to refresh what is hot, and outdated by what writes have `touched`, which the ledger knows by now. Never waits.
    pub fn refresh_hot(self: &Arc<Self>, touched: Touched<'_>) {
        if !self.is_settled() {
            // What would be filled could not be kept.
            return;
        }
        for due in self.due(touched) {
            let Ok(place) = Arc::clone(&self.hot.at_most).try_acquire_owned() else {
                self.metrics.proactive(Proactive::Refused);
                continue;
            };
            let read = Arc::clone(self);
            tokio::spawn(async move {
                let _place = place;
                tokio::select! {
                    () = read.refresh_in_turn(due) => {}
                    () = read.stopped() => {}
                }
            });
        }
    }

    /// What is to be refreshed, the most read first.
    fn due(&self, touched: Touched<'_>) -> Vec<Due> {
        let now = self.clock.now();
        let mut kept = self.hot.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.take_in(&self.store, now);
        let mut due = vec![];
        kept.candidates.retain(|key, candidate| {
            let Some(entry) = self.store.peek(key.as_bytes()).filter(|entry| entry.is_counted()) else { return false };
            if touched.concerns(&entry) && self.vouch(&entry, now) == Vouched::Outdated {
                if candidate.judge(&entry) {
                    let asked = candidate.asked.clone();
                    due.push(Due { key: key.clone(), asked, uses: entry.uses() });
                } else {
                    self.metrics.proactive(Proactive::Damped);
                }
            }
            true
        });
        due.sort_by_key(|due| Reverse(due.uses));
        due
    }

    async fn refresh_in_turn(self: &Arc<Self>, due: Due) {
        // Turns are given in the order in which they are asked for. The semaphore is never closed.
        let Ok(_turn) = self.hot.turns.acquire().await else { return };
        let arrived = self.clock.now();
        let Some(entry) = self.store.peek(due.key.as_bytes()) else { return };
        if self.vouch(&entry, arrived) != Vouched::Outdated {
            // Somebody asked meanwhile.
            return;
        }
        let Some((route, prepared)) = due.asked.in_force(&self.routes()) else { return };
        let ask = Ask {
            route: &route,
            prepared: &prepared,
            key: due.key.as_bytes(),
            arrived,
            directives: Directives::default(),
        };
        if let Some(refreshing) = self.refresh(&ask, &entry, Rebuild::Invalidated) {
            self.metrics.proactive(Proactive::Begun);
            let _ = refreshing.await;
        }
    }
}
