//! A database as far as snapshots go: transactions with subtransactions, the log of events with its pruning, crashes,
//! restarts and failovers.
//!
//! Its own account of what a snapshot sees is a count. Whenever a snapshot taken now would differ from one taken before,
//! `ended` grows by one, so the snapshots of one lineage lie on a line, and one sees a transaction exactly if it was taken
//! at that transaction's place or later. Nothing of `seawall::stamp` is used to say so.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use seawall::stamp::{Lineage, Snapshot, Stamp};

/// Stands for everything.
pub const EVERYTHING: usize = 0;
/// Tags that triggers write to the log, `*` among them.
pub const LOGGED: std::ops::Range<usize> = 0..8;
/// Tags that only notifications of the user's own announce.
pub const NOTIFIED: std::ops::Range<usize> = 8..11;

/// A transaction under way.
#[derive(Clone, Default)]
struct Running {
    writes: Vec<Write>,
    /// Open savepoints, innermost last.
    savepoints: Vec<u64>,
    /// The latest id handed out to it for a subtransaction; 0 without.
    latest: u64,
    prepared: bool,
    /// Prepared before a crash that emptied the log: what it wrote is announced as everything.
    orphan: bool,
}

#[derive(Clone, Copy)]
struct Write {
    tag: usize,
    /// The subtransaction that it was made in, or the transaction itself.
    by: u64,
    /// The savepoint that it would be undone with.
    under: u64,
}

/// A row of the log.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub xid: u64,
    pub tag: usize,
    /// Where its transaction ended; `None` for an orphan that is pending.
    pub place: Option<u64>,
    /// The id of the subtransaction that wrote it, which must not be what is logged.
    pub by: u64,
}

/// A write that committed.
#[derive(Clone, Debug)]
pub struct Commit {
    pub lineage: Lineage,
    pub tag: usize,
    pub place: u64,
    /// On the clock.
    pub at: u64,
}

/// A notification on its way.
#[derive(Clone, Debug)]
pub struct Notice {
    pub lineage: Lineage,
    pub tags: Vec<usize>,
    pub xid: u64,
    pub place: u64,
}

/// What a statement reads that is sent now.
#[derive(Clone, Debug)]
pub struct Read {
    pub stamp: Stamp,
    pub place: u64,
}

/// How the server goes down and comes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// What was running is aborted; the log stays.
    Clean,
    /// And the log, being UNLOGGED, is empty.
    Crash,
    /// And what the standby had not received never was: its transaction ids are handed out again.
    Failover,
}

#[derive(Clone)]
pub struct Database {
    lineages: usize,
    pub lineage: Lineage,
    next: u64,
    /// The latest that ended.
    latest: u64,
    running: BTreeMap<u64, Running>,
    /// How many different snapshots could have been taken before this one.
    pub place: u64,
    /// Where each transaction ended.
    ends: BTreeMap<u64, u64>,
    pub log: Vec<Row>,
    /// Events of transactions below may have been pruned.
    pub horizon: u64,
    pub commits: Vec<Commit>,
    pub notices: Vec<Notice>,
    standby: Option<Box<Database>>,
}

impl Database {
    pub fn new(rng: &mut Rng) -> Self {
        // Also where 32 bits end, and far beyond.
        let first = *rng.choice(&[3, 700, (1 << 32) - 20, 1 << 40]).expect("not empty");
        Self {
            lineages: 0,
            lineage: Lineage::new("0"),
            next: first,
            latest: first - 1,
            running: BTreeMap::new(),
            place: 1,
            ends: BTreeMap::new(),
            log: vec![],
            horizon: first,
            commits: vec![],
            notices: vec![],
            standby: None,
        }
    }

    fn hand_out(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    /// As `GetSnapshotData` does: up to the latest that ended, without subtransactions.
    pub fn read(&self) -> Read {
        let xmax = self.latest + 1;
        let xip: Arc<[u64]> = self.running.keys().copied().filter(|&xid| xid < xmax).collect();
        let xmin = xip.first().copied().unwrap_or(xmax);
        let snapshot = Snapshot::checked(xmin, xmax, xip).expect("in order");
        Read { stamp: Stamp { lineage: self.lineage.clone(), snapshot }, place: self.place }
    }

    /// The place from which on all transactions below `xid` have ended.
    pub fn all_ended_below(&self, xid: u64) -> u64 {
        self.ends.range(..xid).map(|(_, &place)| place).max().unwrap_or(0)
    }

    /// Where `xid` ended, if it did.
    pub fn end_of(&self, xid: u64) -> Option<u64> {
        self.ends.get(&xid).copied()
    }

    pub fn begin(&mut self) {
        let xid = self.hand_out();
        self.running.insert(xid, Running::default());
    }

    pub fn any_running(&self, rng: &mut Rng) -> Option<u64> {
        rng.choice(self.running.keys().copied())
    }

    pub fn any_ended(&self, rng: &mut Rng) -> Option<u64> {
        rng.choice(self.ends.keys().copied())
    }

    fn is_prepared(&self, xid: u64) -> bool {
        self.running[&xid].prepared
    }

    pub fn write(&mut self, xid: u64, tag: usize) {
        if self.is_prepared(xid) {
            return;
        }
        let running = self.running.get_mut(&xid).expect("runs");
        let by = running.savepoints.last().copied().unwrap_or(xid);
        running.writes.push(Write { tag, by, under: by });
    }

    pub fn open_savepoint(&mut self, xid: u64) {
        if !self.is_prepared(xid) {
            let subtransaction = self.hand_out();
            let running = self.running.get_mut(&xid).expect("runs");
            running.savepoints.push(subtransaction);
            running.latest = subtransaction;
        }
    }

    /// Rolls back to the innermost savepoint: its writes never were. A snapshot shows it where it moves the latest that
    /// ended.
    pub fn roll_back_savepoint(&mut self, xid: u64) {
        let running = self.running.get_mut(&xid).expect("runs");
        if running.prepared {
            return;
        }
        let Some(undone) = running.savepoints.pop() else { return };
        running.writes.retain(|write| write.under != undone);
        if undone > self.latest {
            self.latest = undone;
            self.place += 1;
        }
    }

    pub fn release_savepoint(&mut self, xid: u64) {
        let running = self.running.get_mut(&xid).expect("runs");
        if running.prepared {
            return;
        }
        let Some(released) = running.savepoints.pop() else { return };
        let parent = running.savepoints.last().copied().unwrap_or(xid);
        for write in running.writes.iter_mut().filter(|write| write.under == released) {
            write.under = parent;
        }
    }

    /// One that has notified can't be prepared.
    pub fn prepare(&mut self, xid: u64) {
        let running = self.running.get_mut(&xid).expect("runs");
        running.prepared = running.writes.iter().all(|write| LOGGED.contains(&write.tag));
    }

    pub fn abort(&mut self, xid: u64) {
        let running = self.running.remove(&xid).expect("runs");
        self.end(xid, &running);
    }

    fn end(&mut self, xid: u64, running: &Running) {
        self.latest = self.latest.max(running.latest).max(xid);
        self.place += 1;
        self.ends.insert(xid, self.place);
        // Only an orphan has its row already, and keeps it though it aborts: nobody knows better.
        for row in self.log.iter_mut().filter(|row| row.xid == xid) {
            row.place = Some(self.place);
        }
    }

    /// Commits at `at`. What notifies is delivered from here on.
    pub fn commit(&mut self, xid: u64, at: u64) {
        let running = self.running.remove(&xid).expect("runs");
        self.end(xid, &running);
        let place = self.place;
        let mut notified = vec![];
        for Write { tag, by, .. } in running.writes {
            self.commits.push(Commit { lineage: self.lineage.clone(), tag, place, at });
            if NOTIFIED.contains(&tag) {
                notified.push(tag);
            } else if !running.orphan {
                self.log.push(Row { xid, tag, place: Some(place), by });
            }
            // A user's own trigger may say again what the log says.
            if LOGGED.contains(&tag) && xid.is_multiple_of(2) && !running.prepared {
                notified.push(tag);
            }
        }
        if !notified.is_empty() {
            self.notices.push(Notice { lineage: self.lineage.clone(), tags: notified, xid, place });
        }
    }

    /// Prunes up to a snapshot that was taken earlier, in a transaction of its own.
    pub fn prune(&mut self, before: &Snapshot, at: u64) {
        self.begin();
        let own = self.next - 1;
        if self.horizon < before.xmin() {
            self.horizon = before.xmin();
            self.log.retain(|row| row.xid >= before.xmin());
        }
        self.commit(own, at);
    }

    pub fn back_up(&mut self) {
        self.standby = None;
        self.standby = Some(Box::new(self.clone()));
    }

    pub fn restart(&mut self, how: Restart) {
        let (lineages, place, commits, notices) =
            (self.lineages + 1, self.place + 1, self.commits.clone(), self.notices.clone());
        if how == Restart::Failover {
            let Some(standby) = self.standby.take() else { return };
            // Writes are remembered with their lineage; what the standby lacks was read under another.
            *self = Self { commits, notices, ..*standby };
        }
        self.lineages = lineages;
        self.lineage = Lineage::new(&lineages.to_string());
        self.place = place;
        for xid in self.running.keys().copied().collect::<Vec<_>>() {
            if !self.is_prepared(xid) {
                let running = self.running.remove(&xid).expect("runs");
                self.end(xid, &running);
            }
        }
        self.latest = self.next - 1;
        self.place += 1;
        if how != Restart::Clean {
            self.log = self.running.keys().map(|&xid| Row { xid, tag: EVERYTHING, place: None, by: xid }).collect();
            self.running.values_mut().for_each(|prepared| prepared.orphan = true);
            self.horizon = self.read().stamp.snapshot.xmin();
        }
    }
}
