//! What has become of every row: the changes that writers committed, in order, and when each was certain to be visible.
//!
//! A writer holds a row's lease from before its transaction until it knows the outcome, so the changes of one row follow
//! each other, and their order here is Postgres's. A change stands here from the moment before its COMMIT is sent (an
//! answer may show it from then on) and has a moment of visibility once the COMMIT was acknowledged or an answer showed it
//! (from then on promises count). What is rolled back is never here, so an answer that shows it matches nothing.
//!
//! All moments are of this process's monotonic clock, taken before a request or COMMIT is sent and after its reply has
//! come: what is imprecise about them is always in the service's favour.
//!
//! Pure: no clock, no IO.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Since the run began.
pub type Moment = Duration;

/// Changes of one row that are kept; beyond them those are forgotten that no request under way could still be given.
const KEPT_AT_MOST: usize = 256;

/// No request is under way for longer: the client gives up after half of it.
const OLDEST_REQUEST: Duration = Duration::from_secs(120);

/// What rows belong to, and what stands for DDL: a definition is a row that DDL changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    Item,
    Note,
    Part,
    Animal,
    Bulk,
    BulkChild,
    /// A partitioned table that gets new partitions.
    Grown,
    /// Definitions, by number: see `ddl`.
    Definition,
}

/// A row by its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Relation, pub i64);

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Absent,
    Row {
        /// What queries select it by beside its identity: a column, or the table that it is in.
        group: Option<i64>,
        /// The number of the write that it is from.
        version: i64,
    },
}

impl State {
    /// Its version, where it is.
    pub fn version(self) -> Option<i64> {
        match self {
            Self::Absent => None,
            Self::Row { version, .. } => Some(version),
        }
    }

    /// Its group, where it is and has one.
    pub fn group(self) -> Option<i64> {
        match self {
            Self::Absent => None,
            Self::Row { group, .. } => group,
        }
    }
}

/// One change of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which transaction.
    pub commit: u64,
    pub state: State,
    /// Before its COMMIT was sent.
    pub sent: Moment,
    /// When it was certain to be visible; `None` while its outcome is open.
    pub visible: Option<Moment>,
    /// An answer has shown it.
    pub shown: bool,
}

/// The histories of all rows.
#[derive(Default)]
pub struct Histories {
    rows: BTreeMap<Key, VecDeque<Change>>,
    open: BTreeMap<u64, Vec<Key>>,
    commits: u64,
    losses: Vec<Loss>,
}

/// What an answer must contain.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// All that was visible by then; `None`: nothing for its age.
    pub needed: Option<Moment>,
    /// What this transaction wrote, in the history in which it did.
    pub own: Option<Commit>,
}

/// The rows as they were when the database was copied.
#[derive(Clone, Debug)]
pub struct Copied {
    states: BTreeMap<Key, State>,
    commits: u64,
}

/// The database was replaced by a copy: these transactions are in no history any more.
#[derive(Clone, Copy, Debug)]
struct Loss {
    /// The last that the copy has.
    copied: u64,
    /// The one that stands for the replacement.
    replaced: u64,
}

/// A transaction whose COMMIT is about to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit(pub u64);

/// Of a transaction that was rolled back, a row that an answer has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShownAndRolledBack(pub Key);

impl Histories {
    /// A row as it was at the beginning.
    pub fn initial(&mut self, key: Key, state: State) {
        let change = Change { commit: 0, state, sent: Moment::ZERO, visible: Some(Moment::ZERO), shown: false };
        self.rows.insert(key, VecDeque::from([change]));
    }

    /// The row's last state. Exact for who holds its lease.
    pub fn current(&self, key: Key) -> State {
        self.past(key).back().expect("it has an initial state").state
    }

    /// All rows with their last states.
    pub fn all(&self) -> BTreeMap<Key, State> {
        self.rows.keys().map(|key| (*key, self.current(*key))).collect()
    }

    /// The rows of a relation.
    pub fn keys_of(&self, relation: Relation) -> Vec<Key> {
        self.rows.range(Key(relation, i64::MIN)..=Key(relation, i64::MAX)).map(|(key, _)| *key).collect()
    }

    /// These changes may be visible from now on.
    pub fn send(&mut self, writes: &BTreeMap<Key, State>, sent: Moment) -> Commit {
        self.commits += 1;
        let commit = self.commits;
        for (key, state) in writes {
            let past = self.rows.get_mut(key).unwrap_or_else(|| panic!("{key:?} is no row of this schema"));
            let last = past.back().expect("never empty");
            assert!(last.visible.is_some(), "{key:?} has two writers at once: {last:?}");
            past.push_back(Change { commit, state: *state, sent, visible: None, shown: false });
        }
        self.open.insert(commit, writes.keys().copied().collect());
        Commit(commit)
    }

    /// It was committed: visible at `at` at the latest. The rows that it changed.
    pub fn committed(&mut self, commit: Commit, at: Moment) -> Vec<Key> {
        let keys = self.open.remove(&commit.0).expect("an open commit");
        for key in &keys {
            let past = self.rows.get_mut(key).expect("it was there");
            let change = past.back_mut().expect("the lease is held");
            assert_eq!(change.commit, commit.0, "{key:?} has two writers at once");
            change.visible = Some(change.visible.map_or(at, |seen| seen.min(at)));
            forget(past, at);
        }
        keys
    }

    /// It was not committed after all.
    ///
    /// # Errors
    /// An answer has shown it.
    pub fn rolled_back(&mut self, commit: Commit) -> Result<(), ShownAndRolledBack> {
        let mut wrong = Ok(());
        for key in self.open.remove(&commit.0).expect("an open commit") {
            let change = self.rows.get_mut(&key).and_then(VecDeque::pop_back).expect("the lease is held");
            assert_eq!(change.commit, commit.0, "{key:?} has two writers at once");
            if change.shown {
                wrong = Err(ShownAndRolledBack(key));
            }
        }
        wrong
    }

    /// The states that an answer may show which comes at `received` and must contain what is demanded; the first is the
    /// least of them. Before the beginning, that is the initial one.
    ///
    /// Who brings what a transaction has written is answered in its history or not at all: where that is lost, nothing from
    /// the loss on will do.
    pub fn window(&self, key: Key, demand: Demand, received: Moment) -> Vec<Change> {
        let past = self.past(key);
        let is_needed = |change: &Change| demand.needed.zip(change.visible).is_some_and(|(needed, at)| at <= needed);
        let by_time = past.iter().rposition(is_needed).unwrap_or(0);
        let own = demand.own.and_then(|own| past.iter().position(|change| change.commit == own.0));
        let lost = demand.own.filter(|_| own.is_some()).and_then(|own| self.lost(own));
        let first = match own {
            Some(own) if lost.is_some() => own,
            _ => by_time.max(own.unwrap_or(0)),
        };
        let may_show = |change: &&Change| change.sent <= received && lost.is_none_or(|lost| change.commit < lost);
        past.range(first..=first).chain(past.range(first + 1..).filter(may_show)).copied().collect()
    }

    /// What stands for the replacement of the database that has lost `commit`, if one has.
    pub fn lost(&self, commit: Commit) -> Option<u64> {
        let lost = |loss: &&Loss| loss.copied < commit.0 && commit.0 < loss.replaced;
        self.losses.iter().find(lost).map(|loss| loss.replaced)
    }

    /// All changes that are remembered, the oldest first.
    pub fn past(&self, key: Key) -> &VecDeque<Change> {
        self.rows.get(&key).unwrap_or_else(|| panic!("{key:?} is no row of this schema"))
    }

    /// An answer that came at `received` shows the change of `commit`: it is visible, and so is all before it.
    pub fn show(&mut self, key: Key, commit: u64, received: Moment) {
        let Some(past) = self.rows.get_mut(&key) else { return };
        for change in past.iter_mut().take_while(|change| change.commit <= commit) {
            change.shown |= change.commit == commit;
            change.visible = Some(change.visible.map_or(received, |at| at.min(received)));
        }
    }

    /// The database is copied; no transaction is under way.
    pub fn copied(&self) -> Copied {
        Copied { states: self.all(), commits: self.commits }
    }

    /// The database was replaced by a copy of an earlier time. The rows that are others now.
    pub fn replaced(&mut self, copy: &Copied, sent: Moment, at: Moment) -> Vec<Key> {
        let current = self.all();
        let differs = |(key, state): &(&Key, &State)| current.get(key) != Some(state);
        let undone: BTreeMap<Key, State> = copy.states.iter().filter(differs).map(|(k, s)| (*k, *s)).collect();
        let commit = self.send(&undone, sent);
        self.losses.push(Loss { copied: copy.commits, replaced: commit.0 });
        self.committed(commit, at)
    }
}

fn forget(past: &mut VecDeque<Change>, now: Moment) {
    let Some(oldest) = now.checked_sub(OLDEST_REQUEST) else { return };
    while past.len() > KEPT_AT_MOST && past.get(1).is_some_and(|next| next.visible.is_some_and(|at| at < oldest)) {
        past.pop_front();
    }
}
