//! What a process was told, as the oracle has it: places on the line of its history, and nothing of snapshots.

use std::collections::BTreeMap;

use seawall::ledger::{Applied, Bounds, Rows};
use seawall::stamp::Lineage;

use super::database::{EVERYTHING, Read, Row};

/// What a poll brought.
pub struct Brought {
    pub read: Read,
    pub pruned: Option<u64>,
    /// Where everything below that had ended.
    pub pruned_place: u64,
    pub rows: Vec<Row>,
    pub more: Rows,
}

/// What the oracle says the twin was told.
#[derive(Default)]
pub struct Told {
    pub lineage: Option<Lineage>,
    pub cursor: Option<u64>,
    pub horizon: u64,
    pub tags: BTreeMap<usize, u64>,
    pub polled: Option<u64>,
    pub turn: u64,
    /// Fills left another history before the first poll.
    pub abandoned: bool,
    /// How often all was begun anew.
    pub era: u64,
    /// The most that a ledger can have been told to hold: transaction ids of each tag, and running ones.
    pub listed: BTreeMap<usize, usize>,
    pub running: usize,
}

impl Told {
    pub fn begin_anew(&mut self, lineage: &Lineage) {
        let Self { turn, polled, abandoned, era, .. } = *self;
        *self = Self { lineage: Some(lineage.clone()), turn, polled, abandoned, era: era + 1, ..Self::default() };
    }

    /// A poll is applied that was asked at `turn`: what becomes of it.
    pub fn poll(&mut self, turn: u64, sent: u64, brought: &Brought) -> Applied {
        if turn != self.turn {
            return Applied::Superseded;
        }
        let Brought { read, pruned, pruned_place, rows, more } = brought;
        let cursor = self.cursor;
        let same = self.lineage.as_ref() == Some(&read.stamp.lineage);
        if !same {
            self.begin_anew(&read.stamp.lineage);
        }
        self.turn += 1;
        self.polled = self.polled.max(Some(sent));
        self.cursor = Some(read.place);
        let flushed = match cursor {
            Some(_) if !same => Some(Applied::NewHistory),
            _ if *more == Rows::More => Some(Applied::Flood),
            Some(cursor) if pruned.is_some() && cursor < *pruned_place => Some(Applied::Gap),
            _ => None,
        };
        // Without a log nobody knows what was announced before the first poll.
        let unknown = cursor.is_none() && (pruned.is_none() || std::mem::take(&mut self.abandoned));
        if flushed.is_some() || unknown {
            self.horizon = self.horizon.max(read.place);
        } else if cursor.is_none() {
            self.horizon = self.horizon.max(*pruned_place);
        }
        if let Some(flushed) = flushed {
            return flushed;
        }
        if unknown {
            return Applied::Events { tags: 0 };
        }
        self.running += read.stamp.snapshot.running();
        for row in rows {
            if let Some(place) = row.place {
                self.tell(row.tag, place);
                *self.listed.entry(row.tag).or_default() += 1;
            }
        }
        Applied::Events { tags: 0 }
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
