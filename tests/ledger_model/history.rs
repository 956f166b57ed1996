//! One random history: writers, pods and readers, a step at a time, in any order.

use std::fmt::Write as _;

use fastrand::Rng;
use seawall::ledger::Bounds;
use seawall::stamp::Snapshot;
use seawall::tag::Tag;

use super::Wrong;
use super::database::{Database, LOGGED, NOTIFIED, Notice, Read, Restart};
use super::fault::{Certify, Fault};
use super::pod::{Listened, Pod, Value};
use super::tally::Tally;

/// What a history may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything.
    Rough,
    /// Polls that bring all there is, of one history, and nothing pruned: no barrier, no gap, no flood.
    Calm,
}

/// Steps of one history.
const STEPS: usize = 250;
/// Values kept; a new one takes the place of any.
const VALUES: usize = 16;
/// Transactions and statements under way at most.
const AT_ONCE: usize = 8;

/// A fill under way: when it was sent is in the wants; this is what it reads, once it has.
struct Fill {
    tags: Vec<usize>,
    read: Option<Read>,
}

struct History<'a> {
    rng: Rng,
    weather: Weather,
    fault: Fault,
    certify: Certify,
    now: u64,
    db: Database,
    pods: Vec<Pod>,
    fills: Vec<Fill>,
    values: Vec<Value>,
    next_value: u64,
    /// Snapshots for pruning, and reads from before.
    olds: Vec<Read>,
    limit: usize,
    bounds: Bounds,
    names: Vec<Tag>,
    tally: &'a mut Tally,
    trace: String,
}

/// Plays the history of `seed`. What was wrong, if anything was, with the steps that led there.
pub fn play(
    seed: u64,
    weather: Weather,
    fault: Fault,
    certify: Certify,
    tally: &mut Tally,
) -> Result<(), (Wrong, String)> {
    let mut rng = Rng::with_seed(seed);
    let mut db = Database::new(&mut rng);
    if weather == Weather::Rough {
        // What happened before the first pod came.
        for _ in 0..rng.usize(..4) {
            db.begin();
        }
    }
    let any = |rng: &mut Rng, from: &[usize]| *rng.choice(from).expect("not empty");
    let bounds = Bounds {
        tags: any(&mut rng, &[1, 2, 4, 100]),
        xids: any(&mut rng, &[1, 6, 30, 10_000]),
        listed: any(&mut rng, &[1, 2, 4, 100]),
    };
    let limit = if weather == Weather::Rough { any(&mut rng, &[3, 12, 1_000]) } else { 100_000 };
    let text = |n: usize| if n == 0 { "*".to_owned() } else { format!("tag {n}") };
    let names: Vec<Tag> = (0..NOTIFIED.end).map(|n| Tag::new(&text(n))).collect();
    let mut history = History {
        rng,
        weather,
        fault,
        certify,
        now: 1,
        db,
        pods: vec![],
        fills: vec![],
        values: vec![],
        next_value: 0,
        olds: vec![],
        limit,
        bounds,
        names,
        tally,
        trace: String::new(),
    };
    for _ in 0..history.rng.usize(1..3) {
        history.start_pod();
    }
    for _ in 0..STEPS {
        history.now += 10;
        if let Err(wrong) = history.step() {
            return Err((wrong, history.trace));
        }
    }
    Ok(())
}

impl History<'_> {
    fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let _ = writeln!(self.trace, "{}: {what}", self.now);
    }

    fn start_pod(&mut self) {
        let reads_log = self.weather == Weather::Calm || self.rng.u8(..4) > 0;
        let heard = self.db.notices.len();
        self.pods.push(Pod::new(self.bounds, reads_log, &self.names, heard));
    }

    fn step(&mut self) -> Result<(), Wrong> {
        match self.rng.u8(..100) {
            0..24 => self.write(),
            24..36 => self.end(),
            36..58 => self.poll()?,
            58..74 => self.listen()?,
            74..94 => self.fill(),
            94..97 => {}
            _ if self.weather == Weather::Rough => self.disturb(),
            _ => {}
        }
        self.look()
    }

    fn write(&mut self) {
        let Some(xid) = self.db.any_running(&mut self.rng).filter(|_| self.rng.u8(..3) > 0) else {
            return self.db.begin();
        };
        match self.rng.u8(..10) {
            0 => self.db.open_savepoint(xid),
            1 => self.db.roll_back_savepoint(xid),
            2 => self.db.release_savepoint(xid),
            3 if self.rng.bool() => self.db.prepare(xid),
            _ => {
                let notified = self.rng.u8(..4) == 0;
                let tag = match self.rng.u8(..30) {
                    0 => 0,
                    _ if notified => self.rng.usize(NOTIFIED),
                    _ => self.rng.usize(1..LOGGED.end),
                };
                self.note(format_args!("{xid} writes to {tag}"));
                self.db.write(xid, tag);
            }
        }
    }

    fn end(&mut self) {
        let Some(xid) = self.db.any_running(&mut self.rng) else { return };
        if self.rng.u8(..6) == 0 {
            self.note(format_args!("{xid} aborts"));
            self.db.abort(xid);
        } else {
            self.db.commit(xid, self.now);
            let place = self.db.place;
            self.note(format_args!("{xid} commits at {place}"));
        }
    }

    /// A poll is asked, or read, or applied, or lost.
    fn poll(&mut self) -> Result<(), Wrong> {
        let at = self.rng.usize(..self.pods.len());
        let pod = &mut self.pods[at];
        if pod.asking.is_empty() || self.rng.u8(..8) == 0 && pod.asking.len() < AT_ONCE {
            pod.ask(self.now);
            return Ok(());
        }
        let which = self.rng.usize(..pod.asking.len());
        if !pod.is_read(which) {
            pod.read_log(which, &self.db, self.limit, self.fault, &mut self.rng);
            let place = self.db.place;
            self.note(format_args!("a poll of {at} reads at {place}"));
            return Ok(());
        }
        if self.rng.u8(..20) == 0 {
            pod.asking.swap_remove(which);
            return Ok(());
        }
        let applied = pod.apply(which, self.tally);
        self.note(format_args!("a poll of {at} is applied"));
        applied
    }

    /// A notification comes, or what came is applied: in any order, and some twice.
    fn listen(&mut self) -> Result<(), Wrong> {
        let at = self.rng.usize(..self.pods.len());
        let pod = &mut self.pods[at];
        if let Some(notice) = self.db.notices.get(pod.heard).filter(|_| pod.listened.len() < AT_ONCE) {
            pod.heard += 1;
            // The connection of a server that is gone brings nothing any more.
            if notice.lineage == self.db.lineage {
                let listened = claim(&self.db, notice, self.weather, self.fault, &self.olds, &mut self.rng);
                pod.listened.extend(listened);
            }
            return Ok(());
        }
        // Before its first poll a ledger believes no claim, and makes a barrier.
        if pod.listened.is_empty() || self.weather == Weather::Calm && !pod.has_polled() {
            return Ok(());
        }
        let which = self.rng.usize(..pod.listened.len());
        let listened = if self.rng.u8(..5) == 0 {
            let it = &pod.listened[which];
            Listened { notice: it.notice.clone(), after: it.after.clone(), ..*it }
        } else {
            pod.listened.swap_remove(which)
        };
        let done = pod.invalidate(&listened, self.tally)?;
        let (place, tags) = (listened.after.place, listened.notice.tags.clone());
        if !done {
            self.tally.met("other history");
            // Of a history that is gone it is moot; of one that no poll has found yet it must come again.
            if listened.after.stamp.lineage == self.db.lineage {
                self.pods[at].listened.push(listened);
            }
        }
        self.note(format_args!("{at} hears of {tags:?}, seen at {place}: {done}"));
        Ok(())
    }

    /// A fill is sent, or reads, or lands.
    fn fill(&mut self) {
        let which = self.rng.usize(..AT_ONCE);
        match self.fills.get_mut(which) {
            None => {
                let tags = self.rng.choose_multiple(1..NOTIFIED.end, 2);
                for pod in &mut self.pods {
                    let of_history = pod.follows(&self.db.lineage);
                    let token = self.db.any_ended(&mut self.rng).filter(|_| of_history && self.rng.u8(..4) == 0);
                    let token = token.and_then(|xid| Some((xid, self.db.end_of(xid)?)));
                    pod.want(&tags, token, &self.db);
                }
                self.fills.push(Fill { tags, read: None });
            }
            Some(Fill { read: read @ None, .. }) => *read = Some(self.db.read()),
            Some(_) => {
                let Fill { tags, read } = self.fills.swap_remove(which);
                let read = read.expect("read");
                if self.rng.bool() {
                    let at = self.rng.usize(..self.pods.len());
                    self.pods[at].adopt(&read);
                }
                self.next_value += 1;
                let value = Value { id: self.next_value, read, tags };
                if self.values.len() < VALUES {
                    self.values.push(value);
                } else {
                    let gone = self.rng.usize(..VALUES);
                    self.values[gone] = value;
                }
            }
        }
        self.olds.push(self.db.read());
    }

    /// What seldom happens.
    fn disturb(&mut self) {
        match self.rng.u8(..12) {
            0 => {
                let at = self.rng.usize(..self.pods.len());
                self.note(format_args!("{at} starts anew"));
                self.pods.swap_remove(at);
                self.start_pod();
            }
            1 => self.db.back_up(),
            2 => self.restart(Restart::Clean, "clean restart"),
            3 => self.restart(Restart::Crash, "crash"),
            4 => self.restart(Restart::Failover, "failover"),
            5 => {
                let at = self.rng.usize(..self.pods.len());
                self.pods[at].flush(&self.db.read());
            }
            _ => {
                let lineage = self.db.lineage.clone();
                let earlier: Vec<_> = self.olds.iter().filter(|read| read.stamp.lineage == lineage).collect();
                let Some(horizon) = self.rng.choice(earlier).map(|read| read.stamp.snapshot.clone()) else { return };
                self.prune(&horizon);
            }
        }
    }

    fn prune(&mut self, horizon: &Snapshot) {
        self.db.prune(horizon, self.now);
        self.note(format_args!("pruned up to {horizon}"));
    }

    fn restart(&mut self, how: Restart, named: &'static str) {
        self.db.restart(how);
        self.tally.met(named);
        self.note(format_args!("{named}"));
    }

    fn look(&mut self) -> Result<(), Wrong> {
        for pod in &mut self.pods {
            if self.fault == Fault::None {
                pod.settle(&self.db, self.now)?;
            }
            let Some(value) = self.rng.choice(&self.values) else { continue };
            pod.look(value, &self.db, self.now, self.certify, self.tally)?;
            if self.weather == Weather::Calm {
                pod.look_calmly(value, &self.db)?;
            }
            if self.rng.u8(..4) == 0 {
                pod.compare(value, self.tally)?;
            }
        }
        Ok(())
    }
}

/// What a listener makes of a notification that just came: a snapshot after it, and the transaction if the payload names it.
fn claim(
    db: &Database,
    notice: &Notice,
    weather: Weather,
    fault: Fault,
    olds: &[Read],
    rng: &mut Rng,
) -> Option<Listened> {
    let after = db.read();
    let notice = notice.clone();
    let snapshot = &after.stamp.snapshot;
    let (claimed, credible) = match rng.u8(..8) {
        _ if weather == Weather::Calm => (Some(notice.xid), true),
        0..4 => (Some(notice.xid), true),
        // Of the future, running, or so old that 32 bits don't tell it apart.
        4 => (Some(snapshot.xmax() + rng.u64(..3)), false),
        5 => (snapshot.xip().first().copied(), false),
        6 => (Some(snapshot.xmin().saturating_sub(1 << 32)), false),
        _ => (None, false),
    };
    let before = |read: &&Read| read.place < notice.place && read.stamp.lineage == notice.lineage;
    match fault {
        Fault::BarrierTooEarly => {
            let after = olds.iter().rev().find(before)?.clone();
            Some(Listened { notice, after, claimed: None, credible: false })
        }
        Fault::WrongClaim => {
            let other = db.any_ended(rng).filter(|&xid| db.end_of(xid) < Some(notice.place))?;
            Some(Listened { notice, after, claimed: Some(other), credible: true })
        }
        _ => Some(Listened { notice, after, claimed, credible }),
    }
}
