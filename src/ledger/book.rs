//! What the one writer keeps beside what readers follow: what was learned when, how much is held, and how it forgets.
//!
//! Memory is bounded in tags and in transaction ids, those in the snapshots behind the tags included. Beyond either bound
//! the oldest is forgotten: what has not been written to for longest is what the fewest entries lack. Forgetting raises
//! the horizon to the snapshot that had brought it, so that nothing is lost and some answers are refilled without cause.
//! What the horizon stands for anyway is swept a little at a time, so that a flush costs the same however much is known.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::history::{Floor, History};
use super::known::{Batch, Known, Xids, later};
use crate::stamp::Snapshot;
use crate::tag::Tag;

/// How much a ledger holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Tags.
    pub tags: usize,
    /// Transaction ids in all: in lists, and running ones in the snapshots that stand behind them.
    pub xids: usize,
    /// Transaction ids of one tag. A poll that brings more makes a barrier.
    pub listed: usize,
}

impl Default for Bounds {
    /// About 25 MiB for the tags, as measured with a snapshot each, and 8 MiB for the transaction ids. With a thousand
    /// rows written in a second, each another, the horizon trails by two minutes. 64 transactions of one tag between
    /// two polls are 12,800 a second at 5 ms; to look through them takes a reader some 100 ns.
    fn default() -> Self {
        Self { tags: 1 << 17, xids: 1 << 20, listed: 64 }
    }
}

/// Swept at each change, beside twice what it touched: the work of a change is proportional to it, and sweeping is
/// faster than learning.
const SWEPT_AT_LEAST: usize = 16;

/// The writer's own account of a history.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) bounds: Bounds,
    /// Polls that moved the cursor, of every history, and histories that were abandoned: a poll asked before is recognised
    /// by it.
    pub(super) turn: u64,
    /// Whether a history was left without a poll to say so. Should a first poll find it again, it stands for what had been
    /// announced in it.
    pub(super) abandoned: bool,
    /// Of the next batch.
    next: u64,
    /// Tags by when they were last added to.
    order: BTreeSet<(u64, Tag)>,
    /// How many tags each batch stands behind.
    users: HashMap<u64, usize, foldhash::fast::FixedState>,
    /// Transaction ids held.
    xids: usize,
}

impl Book {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// Begins the account of another history, of which nothing is known.
    pub(super) fn begin_anew(&mut self) {
        let Self { bounds, turn, abandoned, next, .. } = *self;
        *self = Self { bounds, turn, abandoned, next, ..Self::default() };
    }

    /// Forgets a history that no poll has ended. A poll that was asked before can't stand for what is forgotten: it may
    /// have been read before that came.
    pub(super) fn abandon(&mut self) {
        self.begin_anew();
        self.abandoned = true;
        self.turn += 1;
    }

    /// Transaction ids held.
    pub(super) fn xids(&self) -> usize {
        self.xids
    }

    /// Tags held.
    pub(super) fn tags(&self) -> usize {
        self.order.len()
    }

    fn hold(&mut self, tag: Tag, known: &Known) {
        self.order.extend(known.touched().map(|touched| (touched, tag)));
        self.xids += known.xids.len();
        for batch in known.batches() {
            let users = self.users.entry(batch.number).or_default();
            *users += 1;
            self.xids += if *users == 1 { batch.snapshot.running() } else { 0 };
        }
    }

    fn release(&mut self, tag: Tag, known: &Known) {
        if let Some(touched) = known.touched() {
            self.order.remove(&(touched, tag));
        }
        self.xids -= known.xids.len();
        for batch in known.batches() {
            let users = self.users.get_mut(&batch.number).expect("held until released");
            *users -= 1;
            if *users == 0 {
                self.users.remove(&batch.number);
                self.xids -= batch.snapshot.running();
            }
        }
    }
}

/// A change under way: the writer with its book and the history that it writes to.
pub(super) struct Writing<'a> {
    pub(super) history: &'a History,
    pub(super) book: &'a mut Book,
    /// Tags of which more is required than before.
    pub(super) touched: usize,
    /// Whether more is required of every stamp.
    pub(super) raised: bool,
}

impl<'a> Writing<'a> {
    pub(super) fn new(history: &'a History, book: &'a mut Book) -> Self {
        Self { history, book, touched: 0, raised: false }
    }

    /// A batch under `snapshot`, which sees all that is learned by it.
    pub(super) fn learn(&mut self, snapshot: &Snapshot) -> Arc<Batch> {
        self.book.next += 1;
        Arc::new(Batch { number: self.book.next, snapshot: snapshot.clone() })
    }

    /// `xids`, each once, wrote to `tag`, and `batch` sees them all. `cursor` is the one that they were asked from; none
    /// where they came on another way.
    pub(super) fn list(&mut self, tag: Tag, xids: &[u64], batch: &Arc<Batch>, cursor: Option<&Snapshot>) {
        let before = self.history.known(tag);
        let mut next = before.as_deref().cloned().unwrap_or_default();
        // A stamp that sees one that the cursor had not seen covers the cursor, and so sees what the cursor saw.
        let implied = cursor.filter(|cursor| xids.iter().any(|&xid| !cursor.sees(xid)));
        if let Some(cursor) = implied {
            next.xids.retain(|xid| !cursor.sees(*xid));
            next.barrier = next.barrier.filter(|barrier| !cursor.covers(&barrier.snapshot));
        }
        if next.xids.is_empty() {
            next.brought = None;
        }
        let floor = self.history.floor.load();
        let required_of_all = |xid: u64| floor.horizon.as_ref().is_some_and(|horizon| horizon.sees(xid));
        let barred = |xid: u64| next.barrier.as_ref().is_some_and(|barrier| barrier.snapshot.sees(xid));
        let kept = next.xids.len();
        let news: Xids = xids
            .iter()
            .copied()
            .filter(|&xid| !next.xids.contains(&xid) && !barred(xid) && !required_of_all(xid))
            .collect();
        if news.is_empty() {
            // Known already; the list that it was to replace is as good.
            return;
        }
        let brought = match &next.brought {
            None => Some(batch),
            Some(earlier) => later(batch, earlier),
        };
        let Some(brought) = brought.cloned() else { return self.give_up(tag, &next, batch) };
        if kept + news.len() > self.book.bounds.listed {
            return self.bar_over(tag, before.as_deref(), next, &brought);
        }
        next.xids.extend(news);
        next.brought = Some(brought);
        self.put(tag, before.as_deref(), Some(next));
        self.touched += 1;
    }

    /// Whatever `batch` sees, written to `tag`, must be seen: a barrier.
    pub(super) fn bar(&mut self, tag: Tag, batch: &Arc<Batch>) {
        let before = self.history.known(tag);
        let floor = self.history.floor.load();
        let stands = before.as_ref().and_then(|known| known.barrier.as_ref()).map(|barrier| &barrier.snapshot);
        if stands.into_iter().chain(&floor.horizon).any(|present| present.covers(&batch.snapshot)) {
            return;
        }
        let next = before.as_deref().cloned().unwrap_or_default();
        self.bar_over(tag, before.as_deref(), next, batch);
    }

    /// Puts a barrier over `next`, which is to take the place of `before`.
    fn bar_over(&mut self, tag: Tag, before: Option<&Known>, mut next: Known, batch: &Arc<Batch>) {
        if tag == Tag::everything() {
            // The horizon is its barrier. What came late may see less than what is listed.
            self.raise(&batch.snapshot);
            next.xids.retain(|xid| !batch.snapshot.sees(*xid));
            return self.put(tag, before, (!next.xids.is_empty()).then_some(next));
        }
        let barrier = match &next.barrier {
            None => Some(batch),
            Some(present) => later(present, batch),
        };
        let Some(barrier) = barrier.cloned() else { return self.give_up(tag, &next, batch) };
        next.xids.retain(|xid| !barrier.snapshot.sees(*xid));
        if next.xids.is_empty() {
            next.brought = None;
        }
        next.barrier = Some(barrier);
        self.put(tag, before, Some(next));
        self.touched += 1;
    }

    /// Snapshots that are of no one primary: the horizon takes them all in, and no event is lost whoever was wrong.
    fn give_up(&mut self, tag: Tag, known: &Known, batch: &Arc<Batch>) {
        let all = known.batches().fold(batch.snapshot.clone(), |all, other| all.join(&other.snapshot));
        self.raise(&all);
        let before = self.history.known(tag);
        self.put(tag, before.as_deref(), None);
    }

    /// Every stamp must cover `snapshot`, too.
    pub(super) fn raise(&mut self, snapshot: &Snapshot) {
        let floor = self.history.floor.load();
        let horizon = match &floor.horizon {
            Some(present) if present.covers(snapshot) => return,
            Some(present) => present.join(snapshot),
            None => snapshot.clone(),
        };
        self.history.floor.store(Arc::new(Floor { horizon: Some(horizon), everything: floor.everything.clone() }));
        self.raised = true;
    }

    fn put(&mut self, tag: Tag, before: Option<&Known>, next: Option<Known>) {
        if let Some(before) = before {
            self.book.release(tag, before);
        }
        if let Some(next) = &next {
            self.book.hold(tag, next);
        }
        self.history.put(tag, next.map(Arc::new));
    }

    /// Ends the change: forgets what is beyond the bounds, oldest first, and sweeps what the horizon stands for.
    pub(super) fn forget(&mut self) {
        let mut sweep = SWEPT_AT_LEAST + 2 * self.touched;
        while let Some(&(_, tag)) = self.book.order.first() {
            let over = self.book.tags() > self.book.bounds.tags || self.book.xids > self.book.bounds.xids;
            let known = self.history.known(tag).expect("what is in order is known");
            let horizon = self.history.floor.load();
            let stands_in =
                |batch: &Arc<Batch>| horizon.horizon.as_ref().is_some_and(|horizon| horizon.covers(&batch.snapshot));
            let redundant = known.batches().all(stands_in);
            if !over && (sweep == 0 || !redundant) {
                return;
            }
            sweep = sweep.saturating_sub(1);
            for batch in known.batches() {
                self.raise(&batch.snapshot);
            }
            // After the horizon was raised, not before: a reader looks for the tag first.
            self.put(tag, Some(&known), None);
        }
    }
}
