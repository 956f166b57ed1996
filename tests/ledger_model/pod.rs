//! One process: its ledger, a twin of it without bounds, what the oracle says both must know, and the checks.
//!
//! The twin is exact: it certifies if and only if the value's place is at or after all that it was told of. The ledger
//! itself may forget, and then refuses more than the twin, and never less.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use seawall::clock::Moment;
use seawall::ledger::{Applied, Asked, Bounds, Event, Invalidated, Ledger, Poll, Rows};
use seawall::stamp::{Lineage, Stamp};
use seawall::tag::Tag;

use super::Wrong;
use super::database::{Database, EVERYTHING, LOGGED, Notice, Read, Row};
use super::fault::{Certify, Fault};
use super::tally::Tally;
use super::told::{Brought, Told};
use super::want::Want;

/// An answer: what it was read under, and what it depends on.
#[derive(Clone, Debug)]
pub struct Value {
    pub id: u64,
    pub read: Read,
    pub tags: Vec<usize>,
}

/// A poll asked and not applied yet.
pub struct Asking {
    asked: Asked,
    of_twin: Asked,
    turn: u64,
    sent: u64,
    brought: Option<Brought>,
}

/// An invalidation under way: its notice came, and the snapshot after it is taken.
pub struct Listened {
    pub notice: Notice,
    pub after: Read,
    pub claimed: Option<u64>,
    /// Whether a ledger that has polled is to believe the claim.
    pub credible: bool,
}

pub struct Pod {
    bounds: Bounds,
    ledger: Ledger,
    twin: Ledger,
    /// Whether it reads the log; without, notifications are all that it hears of.
    reads_log: bool,
    told: Told,
    /// All that was logged in a lineage and had committed by then is announced and delivered.
    due: BTreeMap<String, u64>,
    /// Notified and delivered: tag and place. Whatever the ledger made of it.
    delivered: BTreeSet<(usize, u64)>,
    /// Versions that values were last certified at.
    certified: BTreeMap<u64, u64>,
    pub asking: Vec<Asking>,
    pub listened: Vec<Listened>,
    pub heard: usize,
    wants: Vec<Want>,
    order: u64,
    names: Vec<Tag>,
}

impl Pod {
    pub fn new(bounds: Bounds, reads_log: bool, names: &[Tag], heard: usize) -> Self {
        let unbounded = Bounds { tags: 1 << 12, xids: 1 << 40, listed: 1 << 40 };
        let (ledger, twin) = (Ledger::new(bounds), Ledger::new(unbounded));
        ledger.expect_stream();
        twin.expect_stream();
        Self {
            bounds,
            ledger,
            twin,
            reads_log,
            told: Told::default(),
            due: BTreeMap::new(),
            delivered: BTreeSet::new(),
            certified: BTreeMap::new(),
            asking: vec![],
            listened: vec![],
            heard,
            wants: vec![],
            order: 0,
            names: names.to_vec(),
        }
    }

    fn names(&self, tags: &[usize]) -> Vec<Tag> {
        tags.iter().map(|&tag| self.names[tag]).collect()
    }

    pub fn ask(&mut self, now: u64) {
        let (asked, of_twin) = (self.ledger.ask(), self.twin.ask());
        self.asking.push(Asking { asked, of_twin, turn: self.told.turn, sent: now, brought: None });
    }

    /// The statement of a poll: snapshot, horizon and rows in one.
    pub fn read_log(&mut self, which: usize, db: &Database, limit: usize, fault: Fault, rng: &mut Rng) {
        let asking = &mut self.asking[which];
        let read = db.read();
        let snapshot = read.stamp.snapshot.clone();
        if !self.reads_log {
            let none = Brought { read, pruned: None, pruned_place: 0, rows: vec![], more: Rows::All };
            asking.brought = Some(none);
            return;
        }
        let asked_for = |xid: u64| match &asking.asked.cursor {
            None => true,
            Some(cursor) => {
                xid >= cursor.xmax() || (fault != Fault::RunningForgotten && cursor.xip().binary_search(&xid).is_ok())
            }
        };
        let mut rows: Vec<Row> = db.log.iter().copied().filter(|row| asked_for(row.xid)).collect();
        // Postgres leaves these out within the LIMIT. The ledger does so, too.
        let filtered = rng.bool();
        rows.retain(|row| row.place.is_some() || !filtered);
        rng.shuffle(&mut rows);
        let more = if rows.len() > limit && fault != Fault::FloodUnnoticed { Rows::More } else { Rows::All };
        rows.truncate(limit);
        if more == Rows::All && fault != Fault::FloodUnnoticed {
            // Late and twice: what was brought long ago, and what was brought just now.
            rows.extend(rng.choose_multiple(db.log.iter().filter(|row| snapshot.sees(row.xid)), 2));
            rows.extend(rng.choice(&rows).copied());
        }
        if fault == Fault::SubtransactionsLogged {
            for row in &mut rows {
                row.xid = row.by;
            }
        }
        if fault == Fault::EverythingOverlooked {
            rows.retain(|row| row.tag != EVERYTHING);
        }
        let pruned = if fault == Fault::PruningUnnoticed { 1 } else { db.horizon };
        let pruned_place = db.all_ended_below(pruned);
        asking.brought = Some(Brought { read, pruned: Some(pruned), pruned_place, rows, more });
    }

    pub fn is_read(&self, which: usize) -> bool {
        self.asking[which].brought.is_some()
    }

    /// Applies it to both, and holds the outcome against what it must be.
    pub fn apply(&mut self, which: usize, tally: &mut Tally) -> Result<(), Wrong> {
        let Asking { asked, of_twin, turn, sent, brought } = self.asking.swap_remove(which);
        let brought = brought.expect("read");
        let Brought { read, pruned, rows, more, .. } = &brought;
        let event = |row: &Row| Event { tag: self.names[row.tag], xid: row.xid };
        let poll = Poll {
            sent: Moment::from_nanos(sent),
            stamp: read.stamp.clone(),
            pruned: *pruned,
            events: rows.iter().map(event).collect(),
            rows: *more,
        };
        let (applied, by_twin) = (self.ledger.apply(&asked, poll.clone()), self.twin.apply(&of_twin, poll));
        let expected = self.told.poll(turn, sent, &brought);
        if expected != Applied::Superseded && self.reads_log {
            self.due.insert(read.stamp.lineage.as_str().to_owned(), read.place);
        }
        let alike = |applied: &Applied| std::mem::discriminant(applied) == std::mem::discriminant(&expected);
        if !alike(&applied) || !alike(&by_twin) {
            return Err(Wrong::Outcome(format!("{applied:?} and {by_twin:?} where {expected:?} was right")));
        }
        tally.applied(&applied);
        let cursors = (self.ledger.cursor(), self.twin.cursor());
        if applied != Applied::Superseded
            && (cursors.0.as_ref() != Some(&read.stamp.snapshot) || cursors.0 != cursors.1)
        {
            return Err(Wrong::Outcome(format!("cursors {cursors:?} after {:?}", read.stamp)));
        }
        self.within_bounds()
    }

    /// Applies an invalidation to both. `false` if the ledger is in another history, and it must be brought again.
    pub fn invalidate(&mut self, listened: &Listened, tally: &mut Tally) -> Result<bool, Wrong> {
        let Listened { notice, after, claimed, credible } = listened;
        let names = self.names(&notice.tags);
        let done = self.ledger.invalidate(&after.stamp, *claimed, &names);
        if self.twin.invalidate(&after.stamp, *claimed, &names) != done {
            return Err(Wrong::Outcome(format!("{done:?}, and not so by the twin")));
        }
        let told = &mut self.told;
        match &told.lineage {
            None => told.begin_anew(&after.stamp.lineage),
            Some(lineage) if *lineage != after.stamp.lineage => {
                return match done {
                    Invalidated::OtherHistory => Ok(false),
                    _ => Err(Wrong::Outcome(format!("{done:?} by a snapshot of another history"))),
                };
            }
            Some(_) => {}
        }
        let believed = *credible && told.cursor.is_some();
        let expected = if believed { Invalidated::Exactly } else { Invalidated::Barred };
        if done != expected {
            return Err(Wrong::Outcome(format!("{done:?} where {expected:?} was right")));
        }
        tally.invalidated(done);
        told.running += after.stamp.snapshot.running();
        for &tag in &notice.tags {
            self.delivered.insert((tag, notice.place));
            told.tell(tag, if believed { notice.place } else { after.place });
            *told.listed.entry(tag).or_default() += usize::from(believed);
        }
        self.within_bounds().map(|()| true)
    }

    pub fn has_polled(&self) -> bool {
        self.told.cursor.is_some()
    }

    /// Whether it takes `lineage` for the one in force.
    pub fn follows(&self, lineage: &Lineage) -> bool {
        self.told.lineage.as_ref() == Some(lineage)
    }

    /// Flushes both, as an invalidation of everything by hand does.
    pub fn flush(&mut self, after: &Read) {
        self.ledger.flush(&after.stamp);
        self.twin.flush(&after.stamp);
        if self.told.lineage.is_none() {
            self.told.begin_anew(&after.stamp.lineage);
        }
        if self.told.lineage.as_ref() == Some(&after.stamp.lineage) {
            self.told.horizon = self.told.horizon.max(after.place);
        }
    }

    /// A fill says which history it read.
    pub fn adopt(&mut self, read: &Read) {
        self.ledger.adopt(&read.stamp.lineage);
        self.twin.adopt(&read.stamp.lineage);
        if self.told.cursor.is_none() && self.told.lineage.as_ref() != Some(&read.stamp.lineage) {
            if self.told.lineage.is_some() {
                self.told.abandoned = true;
                self.told.turn += 1;
            }
            self.told.begin_anew(&read.stamp.lineage);
        }
    }

    fn within_bounds(&self) -> Result<(), Wrong> {
        let held = (self.ledger.tags(), self.ledger.xids());
        if held.0 > self.bounds.tags || held.1 > self.bounds.xids as u64 {
            return Err(Wrong::Unbounded(format!("{held:?} held within {:?}", self.bounds)));
        }
        Ok(())
    }

    /// A write that `value` depends on and lacks, though it was announced here: when the first was committed.
    fn missing(&self, value: &Value, db: &Database) -> Option<u64> {
        let lineage = self.told.lineage.as_ref()?;
        let due = self.due.get(lineage.as_str()).copied().unwrap_or(0);
        let depends = |tag: usize| tag == EVERYTHING || value.tags.contains(&tag);
        let announced =
            |tag: usize, place: u64| LOGGED.contains(&tag) && place <= due || self.delivered.contains(&(tag, place));
        db.commits
            .iter()
            .filter(|commit| commit.lineage == *lineage && commit.place > value.read.place)
            .filter(|commit| depends(commit.tag) && announced(commit.tag, commit.place))
            .map(|commit| commit.at)
            .min()
    }

    /// What a reader does that finds `value`, with all that must hold of it.
    pub fn look(
        &mut self,
        value: &Value,
        db: &Database,
        now: u64,
        certify: Certify,
        tally: &mut Tally,
    ) -> Result<(), Wrong> {
        let names = self.names(&value.tags);
        let stamp = &value.read.stamp;
        let version = self.ledger.version();
        let fresh = certify(&self.ledger, stamp, &names);
        let by_twin = certify(&self.twin, stamp, &names);
        let same = self.told.lineage.as_ref() == Some(&stamp.lineage);
        // Before the first poll all are blind, and nothing is served as fresh (R6).
        let missing = self.missing(value, db).filter(|_| self.has_polled());
        let describe = || format!("{value:?}, required {} of {:?}", self.told.requires(&value.tags), self.told.lineage);
        if (fresh || by_twin) && (missing.is_some() || !same) {
            return Err(Wrong::Fresh(describe()));
        }
        if by_twin != (same && value.read.place >= self.told.requires(&value.tags)) {
            return Err(Wrong::WithoutCause(describe()));
        }
        if fresh && !by_twin {
            return Err(Wrong::Fresh(describe()));
        }
        let exceeded = self.told.exceeds(self.bounds);
        if !fresh && by_twin && !exceeded {
            return Err(Wrong::WithoutCause(format!("{}, within bounds", describe())));
        }
        if same {
            tally.looked(fresh, by_twin, missing.is_some());
        }
        if let Some(&remembered) = self.certified.get(&value.id) {
            if remembered == version && !fresh {
                return Err(Wrong::Version(describe()));
            }
            // Since when it is out of date is known, or not; never too late.
            let outdated = self.ledger.outdated_for(remembered, Moment::from_nanos(now));
            let logged = self.reads_log && value.tags.iter().all(|tag| LOGGED.contains(tag));
            if let (Some(since), Some(missing), true) = (outdated, missing, logged)
                && Duration::from_nanos(now - missing) > since
            {
                return Err(Wrong::Outdated(format!("for {since:?} at {now}, missing {missing}: {}", describe())));
            }
            tally.outdated(outdated.is_some() && missing.is_some());
        }
        if fresh {
            self.certified.insert(value.id, version);
        }
        Ok(())
    }

    /// Without barriers, gaps and floods nothing but a missing write refuses a value that the twin knows of.
    pub fn look_calmly(&self, value: &Value, db: &Database) -> Result<(), Wrong> {
        let (names, ours) = (self.names(&value.tags), self.told.lineage.as_ref() == Some(&value.read.stamp.lineage));
        if ours && !self.twin.certify(&value.read.stamp, &names) && self.missing(value, db).is_none() {
            return Err(Wrong::WithoutCause(format!("nothing is missing in {value:?}")));
        }
        Ok(())
    }

    /// What must hold at every moment: a fill sent now will do, and blindness is told from polls.
    pub fn settle(&self, db: &Database, now: u64) -> Result<(), Wrong> {
        let Read { stamp, .. } = db.read();
        let all: Vec<usize> = (0..self.names.len()).collect();
        if self.told.lineage.as_ref() == Some(&stamp.lineage) && !self.ledger.certify(&stamp, &self.names(&all)) {
            return Err(Wrong::WithoutCause(format!("read just now: {stamp:?}")));
        }
        let lag = self.told.polled.map(|sent| Duration::from_nanos(now - sent));
        if self.ledger.lag(Moment::from_nanos(now)) != lag {
            return Err(Wrong::Outcome(format!("polled {lag:?} ago")));
        }
        Ok(())
    }

    /// A reader arrives, or a flight is sent: it takes what it requires, perhaps with a client's token.
    pub fn want(&mut self, tags: &[usize], token: Option<(u64, u64)>, db: &Database) {
        let names = self.names(tags);
        let (mut required, mut of_twin) = (self.ledger.required(&names), self.twin.required(&names));
        if let Some((xid, _)) = token {
            (required, of_twin) = (required.and(xid), of_twin.and(xid));
        }
        self.order += 1;
        self.wants.push(Want {
            required,
            of_twin,
            lineage: self.told.lineage.clone(),
            tags: tags.to_vec(),
            place: self.told.requires(tags).max(token.map_or(0, |(_, place)| place)),
            token: token.is_some(),
            order: self.order,
            era: self.told.era,
            at_once: db.read(),
        });
        if self.wants.len() > 12 {
            self.wants.remove(0);
        }
    }

    /// R3, for every pair of a reader and a flight, and for every reader and `value`.
    pub fn compare(&self, value: &Value, tally: &mut Tally) -> Result<(), Wrong> {
        for reader in &self.wants {
            reader.accept(&value.read, &self.ledger, self.told.lineage.as_ref())?;
            for flight in self.wants.iter().filter(|flight| flight.tags == reader.tags) {
                reader.join(flight, tally)?;
            }
        }
        Ok(())
    }
}

/// As readers do.
pub fn certify(ledger: &Ledger, stamp: &Stamp, tags: &[Tag]) -> bool {
    ledger.certify(stamp, tags)
}
