//! What a reader needs an answer to contain (rule R3): taken at its arrival, and never changed by anybody after that.
//!
//! A flight that waits to be sent must not take on what its joiners require: each event would then hold it up again, and
//! readers of a key that is written to without end would wait without end. So each reader keeps its own, and looks at what
//! lands.

use std::sync::Arc;

use smallvec::SmallVec;

use super::history::History;
use super::known::Known;
use crate::stamp::{Lineage, Snapshot, Stamp};
use crate::tag::Tag;

/// What the ledger knew of some tags at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Required {
    lineage: Option<Lineage>,
    horizon: Option<Snapshot>,
    barriers: SmallVec<[Snapshot; 1]>,
    xids: SmallVec<[u64; 4]>,
    /// Not required of a stamp. But whoever sends a statement now gets a stamp that covers it.
    cursor: Option<Snapshot>,
}

impl Required {
    /// What is required now of an answer that depends on `tags`: what [`History::certify`] would ask, in the same order.
    pub(super) fn take(history: &History, tags: &[Tag]) -> Self {
        let (mut barriers, mut xids) = (SmallVec::new(), SmallVec::new());
        let mut add = |known: &Arc<Known>| {
            xids.extend_from_slice(&known.xids);
            barriers.extend(known.barrier.iter().map(|barrier| barrier.snapshot.clone()));
        };
        for &tag in tags {
            history.with(tag, &mut add);
        }
        let floor = history.floor.load();
        floor.everything.iter().for_each(add);
        Self {
            lineage: history.lineage.clone(),
            horizon: floor.horizon.clone(),
            barriers,
            xids,
            cursor: Option::clone(&history.cursor.load()),
        }
    }

    /// What a statement is sure to bring that is sent when a ledger of `lineage` has come as far as `cursor`.
    pub fn of_cursor(lineage: Lineage, cursor: Snapshot) -> Self {
        Self {
            lineage: Some(lineage),
            horizon: None,
            barriers: SmallVec::new(),
            xids: SmallVec::new(),
            cursor: Some(cursor),
        }
    }

    /// How far the ledger had come.
    pub fn cursor(&self) -> Option<&Snapshot> {
        self.cursor.as_ref()
    }

    /// The same, and what transaction `xid` wrote: for a client that brings a token.
    pub fn and(mut self, xid: u64) -> Self {
        self.xids.push(xid);
        self
    }

    /// The history that it was taken in; none before one was known.
    pub fn lineage(&self) -> Option<&Lineage> {
        self.lineage.as_ref()
    }

    /// Whether an answer read under `stamp` contains it. False across histories; [`super::Ledger::accepts`] knows what
    /// becomes of a requirement whose history is gone.
    pub fn met_by(&self, stamp: &Stamp) -> bool {
        self.lineage.as_ref().is_none_or(|lineage| *lineage == stamp.lineage)
            && self.snapshots().all(|snapshot| stamp.snapshot.covers(snapshot))
            && self.xids.iter().all(|&xid| stamp.snapshot.sees(xid))
    }

    /// Whether a statement that was handed over when `sent` was required, of the same tags, is sure to meet this. Its
    /// snapshot is taken after that moment, so it covers every snapshot and sees every transaction that was known then.
    pub fn sure_of(&self, sent: &Self) -> bool {
        let covered = |snapshot: &Snapshot| sent.taken().any(|known| known.covers(snapshot));
        let seen = |xid: u64| sent.xids.contains(&xid) || sent.taken().any(|known| known.sees(xid));
        // A lineage that became known since was the first: what was sent before belongs to it, or is not accepted.
        let same = sent.lineage.is_none() || self.lineage.is_none() || sent.lineage == self.lineage;
        same && self.snapshots().all(covered) && self.xids.iter().all(|&xid| seen(xid))
    }

    /// What a stamp must cover.
    fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.horizon.iter().chain(&self.barriers)
    }

    /// Snapshots that had been taken by then.
    fn taken(&self) -> impl Iterator<Item = &Snapshot> {
        self.cursor.iter().chain(self.snapshots())
    }
}
