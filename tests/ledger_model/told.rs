//! What a process was told, as the oracle has it: places on the line of its history, and nothing of snapshots.

use std::collections::BTreeMap;

use seawall::ledger::Bounds;
use seawall::stamp::Lineage;

use super::database::EVERYTHING;

/// What the oracle says the twin was told.
#[derive(Default)]
pub struct Told {
    pub lineage: Option<Lineage>,
    pub cursor: Option<u64>,
    pub horizon: u64,
    pub tags: BTreeMap<usize, u64>,
    pub polled: Option<u64>,
    pub turn: u64,
    /// The most that a ledger can have been told to hold: transaction ids of each tag, and running ones.
    pub listed: BTreeMap<usize, usize>,
    pub running: usize,
}

impl Told {
    pub fn begin_anew(&mut self, lineage: &Lineage) {
        *self = Self { lineage: Some(lineage.clone()), turn: self.turn, polled: self.polled, ..Self::default() };
    }

    pub fn tell(&mut self, tag: usize, place: u64) {
        let known = self.tags.entry(tag).or_default();
        *known = place.max(*known);
    }

    pub fn requires(&self, tags: &[usize]) -> u64 {
        let of = |tag: &usize| self.tags.get(tag).copied().unwrap_or(0);
        tags.iter().map(of).max().unwrap_or(0).max(of(&EVERYTHING)).max(self.horizon)
    }

    /// Whether a ledger of `bounds` can have had to forget.
    pub fn exceeds(&self, bounds: Bounds) -> bool {
        self.listed.len() > bounds.tags
            || self.listed.values().any(|&listed| listed > bounds.listed)
            || self.listed.values().sum::<usize>() + self.running > bounds.xids
    }
}
