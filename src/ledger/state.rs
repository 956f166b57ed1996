//! The ledger of a process: what readers ask of it, and invalidations that come without a poll.

use std::time::Duration;

use std::sync::Arc;

use super::book::{Book, Bounds, Writing};
use super::history::History;
use super::required::Required;
use super::shim::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, Swap};
use crate::clock::Moment;
use crate::sabotage::{self, Sabotage};
use crate::stamp::{Lineage, Snapshot, Stamp};
use crate::tag::Tag;

/// [`Ledger::polled`] where no stream is followed: no moment is later, so nothing is ever older than it allows.
const NO_STREAM: u64 = u64::MAX;

/// Versions whose moments are remembered: five seconds of polls that each bring something.
const MOMENTS: u64 = 1024;

/// The ledger of a process.
pub struct Ledger {
    pub(super) version: AtomicU64,
    /// When the last applied poll was sent, in nanoseconds since boot; 0 before the first, [`NO_STREAM`] without a stream.
    pub(super) polled: AtomicU64,
    /// For each of the last versions a moment that it is not older than, as `polled`; 0 where none is known.
    moments: Box<[AtomicU64]>,
    /// Of the book, for whoever gauges it.
    xids: AtomicU64,
    pub(super) history: Swap<History>,
    book: Mutex<Book>,
}

/// What [`Ledger::adopt`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// It was in force already.
    Same,
    /// There was none.
    First,
    /// There was another: everything older is another history's.
    Replaced,
    /// The event stream says that another is in force, and the stream alone decides.
    Refused,
}

/// What became of an invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalidated {
    /// In force, exactly for what lacks the transaction.
    Exactly,
    /// In force for all that was read before its snapshot.
    Barred,
    /// Its snapshot is of another history than the one in force. Nothing was done.
    OtherHistory,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::new(Bounds::default())
    }
}

impl Ledger {
    /// A ledger that knows nothing, and will hold so much.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            version: AtomicU64::new(0),
            polled: AtomicU64::new(NO_STREAM),
            moments: (0..MOMENTS).map(|_| AtomicU64::new(0)).collect(),
            xids: AtomicU64::new(0),
            history: Swap::new(History::new(None, 0)),
            book: Mutex::new(Book::new(bounds)),
        }
    }

    /// The version now. It only grows, and grows with everything that could make a certified answer uncertified.
    #[inline]
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The version now, unless the stream has been silent for longer than `max_lag` (R6); [`Duration::MAX`] is never exceeded.
    ///
    /// Blindness first, the version second. The other way round: 1. a reader takes version 7; 2. a stream that was blind
    /// for long comes back, and its poll raises the version to 8 and ends the blindness; 3. the reader finds the stream
    /// seeing, and its entry certified at 7.
    #[inline]
    pub fn version_unless_blind(&self, now: Moment, max_lag: Duration) -> Option<u64> {
        (self.lag(now).unwrap_or(Duration::MAX) <= max_lag).then(|| self.version())
    }

    /// How long before `now` the last applied poll was sent; zero where no stream is followed. `None` before the first.
    ///
    /// Take it *before* [`Ledger::version`], or use [`Ledger::version_unless_blind`].
    #[inline]
    pub fn lag(&self, now: Moment) -> Option<Duration> {
        let polled = self.polled.load(Ordering::Acquire);
        (polled > 0).then(|| now.since(Moment::from_nanos(polled)))
    }

    /// From here on answers count as fresh only while polls come (R6): none before the first.
    pub fn expect_stream(&self) {
        let _book = self.book();
        let _ = self.polled.compare_exchange(NO_STREAM, 0, Ordering::Release, Ordering::Relaxed);
    }

    /// No stream is followed: nothing is ever blind, and fills say which history is in force. Where one was followed
    /// until now, what it knew is gone, and so is everything that it vouched for.
    pub fn forgo_stream(&self) {
        let mut book = self.book();
        if self.polled.swap(NO_STREAM, Ordering::Release) == NO_STREAM {
            return;
        }
        if self.history.load().cursor.load().is_some() {
            book.abandon();
            self.history.store(Arc::new(History::new(None, 0)));
            self.gauge(&book);
        }
        self.raise();
    }

    /// Whether a stream is followed.
    pub fn follows(&self) -> bool {
        self.polled.load(Ordering::Acquire) != NO_STREAM
    }

    /// Has every answer certified anew: what certification rests on beside the ledger has changed, before this call.
    pub fn recertify(&self) {
        let _book = self.book();
        self.raise();
    }

    /// At most how long before `now` an answer stopped being certified that was last certified at `version`: the time since
    /// the next version. `None` where that is not known any more.
    pub fn outdated_for(&self, version: u64, now: Moment) -> Option<Duration> {
        let next = version + 1;
        let moment = self.moments[(next % MOMENTS) as usize].load(Ordering::Acquire);
        // Read after the moment: had that place been taken by a later version, this would be so late, too.
        let known = self.version().checked_sub(next)? < MOMENTS - 1 && moment != 0;
        known.then(|| now.since(Moment::from_nanos(moment)))
    }

    /// Notes that a poll was applied that was `sent` then, under the writer's lock.
    pub(super) fn saw(&self, sent: Moment) {
        let before = self.polled.load(Ordering::Relaxed);
        let latest = if before == NO_STREAM { sent.as_nanos() } else { sent.as_nanos().max(before) };
        self.polled.store(latest, Ordering::Release);
    }

    /// Raises the version, under the writer's lock.
    pub(super) fn raise(&self) {
        let next = self.version.load(Ordering::Relaxed) + 1;
        let polled = self.polled.load(Ordering::Relaxed);
        let moment = if polled == NO_STREAM { 0 } else { polled };
        self.moments[(next % MOMENTS) as usize].store(moment, Ordering::Release);
        self.version.store(next, Ordering::Release);
    }

    /// Whether what was read under `stamp` contains every announced write to `tags`. Read [`Ledger::version`] before. Takes
    /// no lock. Before the first poll there may be writes that nobody has announced here; that is what blindness says.
    #[inline]
    pub fn certify(&self, stamp: &Stamp, tags: &[Tag]) -> bool {
        let history = self.history.load();
        (history.lineage.as_ref() == Some(&stamp.lineage) || sabotage::is(Sabotage::NoLineage))
            && history.certify(&stamp.snapshot, tags)
    }

    /// What a reader requires that arrives now, or a statement that is sent now is sure to bring, of an answer that depends
    /// on `tags`. Takes no lock.
    pub fn required(&self, tags: &[Tag]) -> Required {
        Required::take(&self.history.load(), tags)
    }

    /// Whether an answer read under `stamp` contains all that is `required`. Where another history has taken over since,
    /// what was required of the old one is moot, and an answer of the new one will do.
    pub fn accepts(&self, required: &Required, stamp: &Stamp) -> bool {
        required.met_by(stamp)
            || required.lineage().is_some_and(|lineage| *lineage != stamp.lineage)
                && self.history.load().lineage.as_ref() == Some(&stamp.lineage)
    }

    /// The history in force.
    pub fn lineage(&self) -> Option<Lineage> {
        self.history.load().lineage.clone()
    }

    /// The snapshot of the last poll. What it sees, the ledger knows of.
    pub fn cursor(&self) -> Option<Snapshot> {
        Option::clone(&self.history.load().cursor.load())
    }

    /// Transaction ids held, which the bounds limit.
    pub fn xids(&self) -> u64 {
        self.xids.load(Ordering::Relaxed)
    }

    /// Tags held, which the bounds limit.
    pub fn tags(&self) -> usize {
        self.book().tags()
    }

    /// `stamp` with the ledger's own copy of its lineage where they are equal: stored stamps share one text, and are
    /// compared by address.
    pub fn share(&self, mut stamp: Stamp) -> Stamp {
        let history = self.history.load();
        if let Some(lineage) = history.lineage.as_ref().filter(|known| **known == stamp.lineage) {
            stamp.lineage = lineage.clone();
        }
        stamp
    }

    /// Takes `lineage`, which a fill found, for the history in force. If that is another than before, no older stamp
    /// certifies any more. Once a poll was applied the stream alone decides, and fills are refused.
    pub fn adopt(&self, lineage: &Lineage) -> Adopted {
        let known = self.lineage();
        if known.as_ref() == Some(lineage) || known.is_some() && sabotage::is(Sabotage::NoLineage) {
            return Adopted::Same;
        }
        let mut book = self.book();
        let present = self.history.load();
        let adopted = match &present.lineage {
            Some(present) if present == lineage => return Adopted::Same,
            Some(_) if present.cursor.load().is_some() => return Adopted::Refused,
            Some(_) => Adopted::Replaced,
            None => Adopted::First,
        };
        if adopted == Adopted::Replaced {
            book.abandon();
        }
        self.begin_anew(&mut book, lineage);
        adopted
    }

    fn begin_anew(&self, book: &mut Book, lineage: &Lineage) {
        book.begin_anew();
        self.history.store(Arc::new(History::new(Some(lineage.clone()), book.bounds.tags)));
        self.gauge(book);
        self.raise();
    }

    /// Applies an invalidation of `tags` that came on another way than the log. `after` was taken after it was delivered,
    /// so it sees what was written; `claimed` is the transaction that wrote, if that was said.
    ///
    /// The claim is believed where `after` sees that transaction, as it must, and it is not older than half of what 32
    /// bits tell apart. Otherwise all that was read before `after` is refilled: safe, and not exact.
    pub fn invalidate(&self, after: &Stamp, claimed: Option<u64>, tags: &[Tag]) -> Invalidated {
        self.change(after, |writing| writing.hear(&after.snapshot, claimed, tags))
    }

    /// Requires of every stamp that it covers `after`: after a gap in a stream that keeps no log (R5), and where everything
    /// is invalidated by hand. Costs the same however much is stored.
    pub fn flush(&self, after: &Stamp) -> Invalidated {
        self.change(after, |writing| {
            writing.raise(&after.snapshot);
            Invalidated::Barred
        })
    }

    fn change(&self, after: &Stamp, how: impl FnOnce(&mut Writing<'_>) -> Invalidated) -> Invalidated {
        let mut book = self.book();
        match &self.history.load().lineage {
            Some(lineage) if *lineage == after.lineage => {}
            Some(_) => return Invalidated::OtherHistory,
            // A fill may be under way that was sent before the write. Its stamp must find this.
            None => self.begin_anew(&mut book, &after.lineage),
        }
        let history = self.history.load();
        let mut writing = Writing::new(&history, &mut book);
        let invalidated = how(&mut writing);
        writing.forget();
        let changed = writing.raised || writing.touched > 0;
        self.gauge(&book);
        if changed {
            self.raise();
        }
        invalidated
    }

    pub(super) fn gauge(&self, book: &Book) {
        self.xids.store(book.xids() as u64, Ordering::Relaxed);
    }

    /// The writer's lock. A panic under it would be a bug here, and no reason to take every later reader down.
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
