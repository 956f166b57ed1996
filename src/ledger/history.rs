//! What readers follow: one history of one database, with the tags written to, the horizon and the cursor.
//!
//! Tags are spread over shards; a shard is a short sorted list that is replaced whole. Readers follow pointers and never
//! wait; the writer, of whom there is one at a time, copies about sixteen pairs for a tag.
//!
//! # Why a reader is right that meets a change half made
//! Let a reader read version `v` and then certify while the writer is about to raise it to `v + 1`.
//!
//! 1. All that belongs to `v` was in place before the reader looked: the version is raised last and read first. What it
//!    meets of `v + 1` can only ask for more, because for each tag the invariant holds at every moment between:
//!    - a list that is replaced implies the one before;
//!    - a list that is dropped for a barrier goes with it in one replacement;
//!    - a list that is dropped for the horizon goes *after* the horizon was raised, and the reader reads the horizon
//!      *after* the tags. A reader that no longer finds the list so finds the horizon that stands for it.
//! 2. What it misses of `v + 1` it will ask for at its next look: it remembers `v`.
//!
//! A new history is filled first and put in place whole, then the version is raised; a reader that still holds the old
//! one certifies for the version that it read, under which that one was in force.

use std::sync::Arc;

use super::known::Known;
use super::shim::Swap;
use crate::stamp::{Lineage, Snapshot};
use crate::tag::Tag;

/// Tags in a shard where all that may be kept are: copied for every event, so few; at eight bytes a shard, no fewer.
const SHARD_TAGS: usize = 16;

/// Tags of one shard, ascending.
type Shard = Vec<(Tag, Arc<Known>)>;

/// What every stamp must meet, whatever it depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct Floor {
    /// Every stamp must cover it. None before anything was missed, pruned or flushed.
    pub(super) horizon: Option<Snapshot>,
    /// What is known of the tag `*`.
    pub(super) everything: Option<Arc<Known>>,
}

impl Floor {
    fn met_by(&self, stamp: &Snapshot) -> bool {
        self.horizon.as_ref().is_none_or(|horizon| stamp.covers(horizon))
            && self.everything.as_ref().is_none_or(|everything| everything.met_by(stamp))
    }
}

/// One history, or none yet.
pub(super) struct History {
    pub(super) lineage: Option<Lineage>,
    shards: Box<[Swap<Shard>]>,
    pub(super) floor: Swap<Floor>,
    /// The snapshot of the last poll. None before the first.
    pub(super) cursor: Swap<Option<Snapshot>>,
}

impl History {
    /// A history of which nothing is known but its name, with room for about `tags`.
    pub(super) fn new(lineage: Option<Lineage>, tags: usize) -> Self {
        let shards = (tags / SHARD_TAGS).max(1).next_power_of_two();
        Self {
            lineage,
            shards: (0..shards).map(|_| Swap::new(Shard::new())).collect(),
            floor: Swap::new(Floor::default()),
            cursor: Swap::new(None),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the low bits choose, and those remain")]
    fn shard(&self, tag: Tag) -> &Swap<Shard> {
        &self.shards[tag.bits() as usize & (self.shards.len() - 1)]
    }

    /// Whether a value read under `stamp` contains every announced write to `tags`. Takes no lock.
    #[inline]
    pub(super) fn certify(&self, stamp: &Snapshot, tags: &[Tag]) -> bool {
        // Tags first, the horizon last: see the head of this file.
        tags.iter().all(|&tag| self.with(tag, |known| known.met_by(stamp)).unwrap_or(true))
            && self.floor.load().met_by(stamp)
    }

    /// What `look` makes of what is known of `tag`, if anything is.
    #[inline]
    pub(super) fn with<R>(&self, tag: Tag, look: impl FnOnce(&Arc<Known>) -> R) -> Option<R> {
        let shard = self.shard(tag).load();
        let at = shard.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        Some(look(&shard[at].1))
    }

    /// What is known of `tag`, `*` included. For the writer.
    pub(super) fn known(&self, tag: Tag) -> Option<Arc<Known>> {
        if tag == Tag::everything() { self.floor.load().everything.clone() } else { self.with(tag, Arc::clone) }
    }

    /// Puts `known` in place of what was known of `tag`, or takes that away. For the writer alone: two would lose one
    /// of their changes.
    pub(super) fn put(&self, tag: Tag, known: Option<Arc<Known>>) {
        if tag == Tag::everything() {
            let horizon = self.floor.load().horizon.clone();
            return self.floor.store(Arc::new(Floor { horizon, everything: known }));
        }
        let shard = self.shard(tag);
        let present = shard.load();
        let mut next = Shard::with_capacity(present.len() + 1);
        let at = present.partition_point(|(other, _)| *other < tag);
        let rest = at + usize::from(present.get(at).is_some_and(|(other, _)| *other == tag));
        next.extend_from_slice(&present[..at]);
        next.extend(known.map(|known| (tag, known)));
        next.extend_from_slice(&present[rest..]);
        shard.store(Arc::new(next));
    }
}
