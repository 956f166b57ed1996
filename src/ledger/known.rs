//! What is known of one tag, and the snapshots that stand behind it. Immutable: a change is a new one in its place.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::stamp::Snapshot;

/// Transactions in a list. One or two are the rule, and take no allocation.
pub(super) type Xids = SmallVec<[u64; 2]>;

/// The snapshot under which something was learned: of a poll, or taken after a notification. Shared by all the tags that
/// it brought.
#[derive(Debug)]
pub(super) struct Batch {
    /// Its place in the order of things that were learned.
    pub(super) number: u64,
    pub(super) snapshot: Snapshot,
}

/// What is known of one tag.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// Announced, and not implied by a later announcement: a stamp must see each.
    pub(super) xids: Xids,
    /// Sees all of `xids`; there while they are.
    pub(super) brought: Option<Arc<Batch>>,
    /// A stamp must cover it.
    pub(super) barrier: Option<Arc<Batch>>,
}

impl Known {
    /// Whether a value read under `stamp` contains all of it.
    #[inline]
    pub(super) fn met_by(&self, stamp: &Snapshot) -> bool {
        self.xids.iter().all(|&xid| stamp.sees(xid))
            && self.barrier.as_ref().is_none_or(|barrier| stamp.covers(&barrier.snapshot))
    }

    /// The snapshots that together see all that is known.
    pub(super) fn batches(&self) -> impl Iterator<Item = &Arc<Batch>> {
        self.brought.iter().chain(&self.barrier)
    }

    /// When it was last added to; nothing is known of no tag.
    pub(super) fn touched(&self) -> Option<u64> {
        self.batches().map(|batch| batch.number).max()
    }
}

/// The later of two snapshots of one primary. `None` where neither covers the other, which no primary's do.
pub(super) fn later<'a>(one: &'a Arc<Batch>, other: &'a Arc<Batch>) -> Option<&'a Arc<Batch>> {
    if one.snapshot.covers(&other.snapshot) {
        Some(one)
    } else if other.snapshot.covers(&one.snapshot) {
        Some(other)
    } else {
        None
    }
}
