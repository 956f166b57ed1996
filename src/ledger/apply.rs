//! How events come in: with polls of the log, and without.
//!
//! A poll is asked from a cursor and answers with a snapshot, and with every event that this snapshot sees and the cursor
//! did not. So its result means something for that cursor alone, and is passed over if another was applied in between.

use std::sync::Arc;

use super::book::Writing;
use super::history::History;
use super::payload::Payload;
use super::state::Invalidated;
use super::state::Ledger;
use crate::clock::Moment;
use crate::sabotage::{self, Sabotage};
use crate::stamp::{Lineage, Snapshot, Stamp};
use crate::tag::Tag;

/// A write, announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Event {
    /// What was written to.
    pub tag: Tag,
    /// The top-level transaction that wrote.
    pub xid: u64,
}

/// What a poll is to ask for.
#[derive(Clone, Debug)]
pub struct Asked {
    pub(super) turn: u64,
    /// The history that the cursor belongs to.
    pub lineage: Option<Lineage>,
    /// Events that it doesn't see are asked for; without one, all.
    pub cursor: Option<Snapshot>,
}

/// What a poll brought. All of it but `sent` is from one statement.
#[derive(Clone, Debug)]
pub struct Poll {
    /// Taken before the statement was handed to the socket.
    pub sent: Moment,
    /// Its snapshot, and whose.
    pub stamp: Stamp,
    /// The log's pruning horizon: events of transactions below may be gone. `None` for a source that keeps no log.
    pub pruned: Option<u64>,
    /// Events, in any order, also twice. Those that the poll's own snapshot doesn't see are passed over: the next poll asks
    /// for them again.
    pub events: Vec<Event>,
    /// Whether these are all.
    pub rows: Rows,
}

/// Whether a bounded poll brought all that there was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// It did.
    All,
    /// There was a row more than its bound.
    More,
}

/// What came beside the log since the last poll, before this one was sent.
#[derive(Clone, Copy, Debug)]
pub enum Beside<'a> {
    /// These notifications, and no other.
    Heard(&'a [Payload]),
    /// Some may have been lost: everything that was read before the poll's snapshot is refilled (R5).
    Lost,
}

/// What became of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Its events are in force: the first poll of a history, or the next.
    Events {
        /// Tags of which more is required than before.
        tags: usize,
    },
    /// Events were pruned that the cursor had not seen. The horizon stands for them now.
    Gap,
    /// There were more events than a poll may bring. The horizon stands for them now.
    Flood,
    /// Another lineage than the stream's last. Everything begins anew, from this poll's snapshot.
    NewHistory,
    /// Of the same lineage, and yet its snapshot does not cover the cursor: another history all the same. Nothing was
    /// applied, and the poll doesn't count as one.
    OtherHistory,
    /// Another poll was applied since it was asked, or the history abandoned. Nothing was applied.
    Superseded,
}

impl Ledger {
    /// What the next poll is to ask for.
    pub fn ask(&self) -> Asked {
        let book = self.book();
        let history = self.history.load();
        Asked { turn: book.turn, lineage: history.lineage.clone(), cursor: Option::clone(&history.cursor.load()) }
    }

    /// [`Ledger::apply_beside`], where nothing came beside the log.
    pub fn apply(&self, asked: &Asked, poll: Poll) -> Applied {
        self.apply_beside(asked, poll, Beside::Heard(&[]))
    }

    /// Applies what a poll brought that was `asked`, and what came `beside` it, which is in force before the stream counts as
    /// having come so far. Takes about a microsecond for an event, however many entries depend
    /// on its tag.
    ///
    /// A poll of another lineage than the last asked with a cursor that means nothing there, so its events say nothing:
    /// its snapshot becomes horizon and cursor, as after a gap (R5).
    pub fn apply_beside(&self, asked: &Asked, poll: Poll, beside: Beside<'_>) -> Applied {
        let mut book = self.book();
        if asked.turn != book.turn {
            return Applied::Superseded;
        }
        let Poll { sent, stamp: Stamp { lineage, snapshot }, pruned, events, rows } = poll;
        let present = self.history.load();
        let cursor = Option::clone(&present.cursor.load());
        let same = present.lineage.as_ref() == Some(&lineage)
            || present.lineage.is_some() && sabotage::is(Sabotage::NoLineage);
        let goes_back = cursor.as_ref().is_some_and(|cursor| !snapshot.covers(cursor));
        if same && goes_back && !sabotage::is(Sabotage::NoLineage) {
            return Applied::OtherHistory;
        }
        let fresh = (!same).then(|| Arc::new(History::new(Some(lineage), book.bounds.tags)));
        if fresh.is_some() {
            book.begin_anew();
        }
        let history = fresh.as_ref().unwrap_or(&present);
        let mut writing = Writing::new(history, &mut book);
        let applied = match (&cursor, pruned) {
            (Some(_), _) if !same => Applied::NewHistory,
            _ if rows == Rows::More => Applied::Flood,
            (Some(cursor), Some(pruned)) if !cursor.covers(&Snapshot::before(pruned)) => Applied::Gap,
            _ => Applied::Events { tags: 0 },
        };
        match (&cursor, pruned) {
            _ if !matches!(applied, Applied::Events { .. }) => writing.raise(&snapshot),
            (Some(_), _) => writing.learn_events(events, &snapshot, cursor.as_ref()),
            // The log's horizon stands for what was pruned before this first poll.
            (None, Some(pruned)) if !writing.book.abandoned => {
                writing.raise(&Snapshot::before(pruned));
                writing.learn_events(events, &snapshot, None);
            }
            // No log: what was announced before this process listened is anybody's guess. So is with one what came on
            // another way before fills went to a second history, and back to this one.
            (None, _) => writing.raise(&snapshot),
        }
        match beside {
            Beside::Lost => writing.raise(&snapshot),
            Beside::Heard(payloads) => {
                for payload in payloads {
                    writing.hear(&snapshot, payload.xid, &payload.tags);
                }
            }
        }
        writing.forget();
        let (tags, raised) = (writing.touched, writing.raised);
        history.cursor.store(Arc::new(Some(snapshot)));
        book.turn += 1;
        book.abandoned = false;
        let anew = fresh.is_some();
        if let Some(fresh) = fresh {
            self.history.store(fresh);
        }
        self.gauge(&book);
        if anew || raised || tags > 0 {
            self.raise();
        }
        // Last of all: who finds the stream seeing finds what it saw.
        self.saw(sent);
        if let Applied::Events { .. } = applied { Applied::Events { tags } } else { applied }
    }
}

/// A claim about a transaction this much older than the cursor is none: the 32-bit id that a user's trigger may have
/// sent has two meanings beyond.
const OLDEST_CLAIM: u64 = 1 << 31;

impl Writing<'_> {
    /// Lists `tags` with the transaction that is `claimed` to have written, or raises their barriers to `after`, which was
    /// taken after the word of it had arrived.
    pub(super) fn hear(&mut self, after: &Snapshot, claimed: Option<u64>, tags: &[Tag]) -> Invalidated {
        let batch = self.learn(after);
        let cursor = Option::clone(&self.history.cursor.load());
        let claim = claimed
            .zip(cursor)
            .filter(|(xid, cursor)| *xid > cursor.xmin().saturating_sub(OLDEST_CLAIM) && after.sees(*xid));
        for &tag in tags {
            match claim {
                Some((xid, _)) => self.list(tag, &[xid], &batch, None),
                None => self.bar(tag, &batch),
            }
        }
        if claim.is_some() { Invalidated::Exactly } else { Invalidated::Barred }
    }

    fn learn_events(&mut self, mut events: Vec<Event>, snapshot: &Snapshot, cursor: Option<&Snapshot>) {
        events.retain(|event| snapshot.sees(event.xid));
        if events.is_empty() {
            return;
        }
        events.sort_unstable();
        events.dedup();
        let batch = self.learn(snapshot);
        let mut xids = Vec::new();
        for of_one_tag in events.chunk_by(|a, b| a.tag == b.tag) {
            xids.clear();
            xids.extend(of_one_tag.iter().map(|event| event.xid));
            self.list(of_one_tag[0].tag, &xids, &batch, cursor);
        }
    }
}
