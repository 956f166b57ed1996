//! Flights: who rebuilds a key, and who waits for it.
//!
//! # Data
//! Per key at most two flights. A flight has one leader, which holds a [`Lead`] inside of a detached task, and any
//! number of followers, each with a [`Wait`]; the request that caused the flight waits like any other. The rebuild
//! belongs to nobody's request: a client that leaves drops its `Wait`, and only when the last one is gone (and the
//! flight is no refresh) does [`Lead::abandoned`] resolve.
//!
//! # Who may join (rule R3)
//! `S` is what the leader knew when it handed its statement over. A reader joins a flight that has not been sent yet,
//! or one whose `S` is sure to meet what the reader requires; else it leads a second flight, whose statement is sent
//! after its arrival and so is sure to; and with two unsuitable ones under way it waits for the older to end and asks again.
//! A joiner never changes what a waiting flight must bring: raising it livelocks.
//!
//! # Locking
//! Shard before flight. Wakers are called with neither held. Whoever ends or abandons a flight takes it out of the
//! table under both locks, by identity, so that nobody joins what will not land:
//!  1. the last waiter leaves, and sees that nobody is left;
//!  2. before it takes the shard's lock, a new reader joins the same flight;
//!  3. under both locks it looks again, sees the new one, and leaves the flight alone.
//!
//! Nothing here is async but the two futures; there are no timers, and no IO. Compiled twice: see `shim.rs`.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, Hash, RandomState};
use std::pin::Pin;
use std::sync::PoisonError;
use std::task::{Context, Poll, Waker};

use super::shim::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering};

/// The flights of a process. `K`: key, `S`: what was known at sending, `T`: what lands.
pub struct Flights<K, S, T> {
    shards: Box<[Shard<K, S, T>]>,
    hasher: RandomState,
    flying: AtomicUsize,
    waiting: AtomicUsize,
    max_waiting: usize,
}

type Shard<K, S, T> = Mutex<HashMap<K, Vec<Arc<Flight<S, T>>>>>;

struct Flight<S, T> {
    state: Mutex<State<S, T>>,
}

struct State<S, T> {
    sent: Option<S>,
    end: Option<End<T>>,
    waiters: slab::Slab<Option<Waker>>,
    /// Wanted whether or not anybody waits.
    refresh: bool,
    abandoned: bool,
    leader: Option<Waker>,
}

/// How a flight ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End<T> {
    /// With this outcome, an error perhaps.
    Landed(T),
    /// Its leader was dropped before it had one: a panic, or the runtime going down.
    Aborted,
}

/// What became of a reader that came for a key.
pub enum Join<K: Eq + Hash + Clone, S, T: Clone> {
    /// Nobody was rebuilding it: spawn a task with the [`Lead`], and wait.
    Leader(Lead<K, S, T>, Wait<K, S, T>),
    /// Somebody is, and what they bring is sure to do.
    Follower(Wait<K, S, T>),
    /// Two flights are under way that may not do: wait until this one ends, then ask again.
    Blocked(Wait<K, S, T>),
    /// As many wait already as may.
    Full,
}

/// Flights per key: a running one, and one for readers whom it isn't sure to satisfy.
const PER_KEY: usize = 2;

impl<K: Eq + Hash + Clone, S, T: Clone> Flights<K, S, T> {
    /// A table with room for `max_waiting` waiters over all keys; `shards` is rounded up to a power of two.
    pub fn new(max_waiting: usize, shards: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: (0..shards.next_power_of_two()).map(|_| Mutex::new(HashMap::new())).collect(),
            hasher: RandomState::new(),
            flying: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            max_waiting,
        })
    }

    /// Flights under way.
    pub fn flying(&self) -> usize {
        self.flying.load(Ordering::Relaxed)
    }

    /// Readers that wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Joins a flight for `key`, or leads one. `sure` says whether a flight that was sent knowing `S` must meet what
    /// this reader requires.
    pub fn join(self: &Arc<Self>, key: &K, sure: impl Fn(&S) -> bool) -> Join<K, S, T> {
        if !self.admit() {
            return Join::Full;
        }
        let mut shard = lock(self.shard(key));
        if let Some(flights) = shard.get(key) {
            if let Some((flight, slot)) = board(flights, &sure) {
                return Join::Follower(self.wait(key, flight, slot));
            }
            if flights.len() >= PER_KEY {
                let flight = &flights[0];
                let slot = lock(&flight.state).waiters.insert(None);
                return Join::Blocked(self.wait(key, flight, slot));
            }
        }
        let flights = shard.entry(key.clone()).or_default();
        let (lead, slot) = self.take_off(key, flights, Some(()));
        let wait = self.wait(key, &lead.flight, slot.unwrap_or_default());
        Join::Leader(lead, wait)
    }

    /// Joins a flight for `key` that has not been sent or that `sure` holds for. `None`: there is none, or no room; who
    /// only follows has something else to give.
    pub fn follow(self: &Arc<Self>, key: &K, sure: impl Fn(&S) -> bool) -> Option<Wait<K, S, T>> {
        if !self.admit() {
            return None;
        }
        let shard = lock(self.shard(key));
        let Some((flight, slot)) = shard.get(key).and_then(|flights| board(flights, &sure)) else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        };
        Some(self.wait(key, flight, slot))
    }

    /// Leads a flight for `key` that is wanted though nobody waits, unless one is under way.
    pub fn refresh(self: &Arc<Self>, key: &K) -> Option<Lead<K, S, T>> {
        let mut shard = lock(self.shard(key));
        let flights = shard.entry(key.clone()).or_default();
        if let Some(running) = flights.first() {
            // Whoever waits for it may leave; the refresh is still wanted.
            lock(&running.state).refresh = true;
            return None;
        }
        Some(self.take_off(key, flights, None).0)
    }

    /// Counts one more waiter, if there may be one.
    fn admit(&self) -> bool {
        let more = |n| (n < self.max_waiting).then_some(n + 1);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn take_off(
        self: &Arc<Self>,
        key: &K,
        flights: &mut Vec<Arc<Flight<S, T>>>,
        waiter: Option<()>,
    ) -> (Lead<K, S, T>, Option<usize>) {
        let mut waiters = slab::Slab::new();
        let slot = waiter.map(|()| waiters.insert(None));
        let state = State { sent: None, end: None, waiters, refresh: slot.is_none(), abandoned: false, leader: None };
        let flight = Arc::new(Flight { state: Mutex::new(state) });
        flights.push(Arc::clone(&flight));
        self.flying.fetch_add(1, Ordering::Relaxed);
        (Lead { flights: Arc::clone(self), key: key.clone(), flight, ended: false }, slot)
    }

    fn wait(self: &Arc<Self>, key: &K, flight: &Arc<Flight<S, T>>, slot: usize) -> Wait<K, S, T> {
        Wait { flights: Arc::clone(self), key: key.clone(), flight: Arc::clone(flight), slot }
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> &Shard<K, S, T>
    where
        K: Borrow<Q>,
    {
        let hash = self.hasher.hash_one(key);
        // The table within the shard uses the same bits' lower end; these are its upper.
        &self.shards[(hash >> 48) as usize & (self.shards.len() - 1)]
    }

    /// Takes `flight` out of the table if `then` says so, under both locks.
    fn ground(&self, key: &K, flight: &Arc<Flight<S, T>>, then: impl FnOnce(&mut State<S, T>) -> bool) {
        let mut shard = lock(self.shard(key));
        let mut state = lock(&flight.state);
        if !then(&mut state) {
            return;
        }
        if let Some(flights) = shard.get_mut(key) {
            let before = flights.len();
            flights.retain(|f| !Arc::ptr_eq(f, flight));
            self.flying.fetch_sub(before - flights.len(), Ordering::Relaxed);
            if flights.is_empty() {
                shard.remove(key);
            }
        }
    }
}

/// A place in the first flight that has not been sent or that `sure` holds for.
fn board<S, T>(flights: &[Arc<Flight<S, T>>], sure: impl Fn(&S) -> bool) -> Option<(&Arc<Flight<S, T>>, usize)> {
    flights.iter().find_map(|flight| {
        let mut state = lock(&flight.state);
        state.sent.as_ref().is_none_or(&sure).then(|| (flight, state.waiters.insert(None)))
    })
}

/// The right and duty to end a flight. Dropped without [`Lead::land`], the flight is aborted and everybody told.
pub struct Lead<K: Eq + Hash + Clone, S, T: Clone> {
    flights: Arc<Flights<K, S, T>>,
    key: K,
    flight: Arc<Flight<S, T>>,
    ended: bool,
}

impl<K: Eq + Hash + Clone, S, T: Clone> Lead<K, S, T> {
    /// A handle for whoever hands the statement over.
    pub fn sending(&self) -> Sending<S, T> {
        Sending { flight: Arc::clone(&self.flight) }
    }

    /// Ends the flight: everybody who waits gets `outcome`, and who comes now leads a new one. Whatever is to be found
    /// in the store afterwards must be there before.
    pub fn land(mut self, outcome: T) {
        self.end(End::Landed(outcome));
    }

    /// Resolves once nobody waits and no refresh is wanted; by then nobody can join any more. Cancel safe.
    pub async fn abandoned(&self) {
        poll_fn(|cx| {
            let mut state = lock(&self.flight.state);
            if state.abandoned {
                return Poll::Ready(());
            }
            state.leader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Readers that wait for this flight.
    pub fn waiters(&self) -> usize {
        lock(&self.flight.state).waiters.len()
    }

    fn end(&mut self, end: End<T>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let mut wakers = Vec::new();
        self.flights.ground(&self.key, &self.flight, |state| {
            state.end = Some(end);
            wakers.extend(state.waiters.iter_mut().filter_map(|(_, waker)| waker.take()));
            true
        });
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl<K: Eq + Hash + Clone, S, T: Clone> Drop for Lead<K, S, T> {
    fn drop(&mut self) {
        self.end(End::Aborted);
    }
}

/// Marks the moment from which a flight may miss a write.
pub struct Sending<S, T> {
    flight: Arc<Flight<S, T>>,
}

impl<S, T> Sending<S, T> {
    /// Says what is known now, right before the statement is handed over: from here on only those may join whom that
    /// is sure to satisfy. Called again for a statement that is sent again, it replaces what was known.
    pub fn sent(&self, known: S) {
        lock(&self.flight.state).sent = Some(known);
    }
}

/// A reader's place in a flight. Resolves to its end. Cancel safe: dropping it is leaving.
pub struct Wait<K: Eq + Hash + Clone, S, T: Clone> {
    flights: Arc<Flights<K, S, T>>,
    key: K,
    flight: Arc<Flight<S, T>>,
    slot: usize,
}

impl<K: Eq + Hash + Clone, S, T: Clone> Wait<K, S, T> {
    /// Leaves, but wants the flight to go on, whoever else leaves it.
    pub fn leave_running(self) {
        lock(&self.flight.state).refresh = true;
    }
}

impl<K: Eq + Hash + Clone, S, T: Clone> Future for Wait<K, S, T> {
    type Output = End<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<T>> {
        let mut state = lock(&self.flight.state);
        if let Some(end) = &state.end {
            return Poll::Ready(end.clone());
        }
        match &mut state.waiters[self.slot] {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<K: Eq + Hash + Clone, S, T: Clone> Drop for Wait<K, S, T> {
    fn drop(&mut self) {
        self.flights.waiting.fetch_sub(1, Ordering::Relaxed);
        let unwanted =
            |state: &State<S, T>| state.waiters.is_empty() && !state.refresh && state.end.is_none() && !state.abandoned;
        let last = {
            let mut state = lock(&self.flight.state);
            state.waiters.remove(self.slot);
            unwanted(&state)
        };
        if !last {
            return;
        }
        let mut leader = None;
        self.flights.ground(&self.key, &self.flight, |state| {
            let still = unwanted(state);
            if still {
                state.abandoned = true;
                leader = state.leader.take();
            }
            still
        });
        if let Some(leader) = leader {
            leader.wake();
        }
    }
}

/// A panic while a lock is held would be a bug here, and no reason to take every later reader down with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
