//! One stored answer.
//!
//! An entry is immutable but for three moments, the ledger version it was last certified at, when a refresh of it may
//! begin, and when a directive last forced a fill in its place, and for how its packed forms stand. Each is one atomic
//! word; a lost race costs a certification, a look at the flights, a directive that waits its turn, or a form that is
//! packed once more. Everything that a hit sends is made when the entry is: the body in a buffer of exactly its size, and
//! the text of its ETag.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::early;
use crate::clock::Moment;
use crate::coding::{CODINGS, Coding};
use crate::stamp::Stamp;
use crate::tag::Tag;

/// `"`, 128 bits in base64url, `"`.
pub const ETAG_BYTES: usize = 24;

/// What an entry costs beyond its body and key, in bytes, as measured by filling 100,000 of them: the entry with its
/// reference counts, the slots of the store's slab and table with their slack, and the allocator's headers.
pub const BOOKKEEPING_BYTES: u64 = 408;

/// An answer with what it was read under and how long it lives.
#[derive(Debug)]
pub struct Entry {
    etag: [u8; ETAG_BYTES],
    absent: bool,
    packing: [AtomicU8; CODINGS],
    /// Whether it counts how often it is given.
    counted: bool,
    /// How often it was, where that is counted.
    uses: AtomicU32,
    route: u32,
    body: Box<[u8]>,
    stamp: Stamp,
    tags: Arc<[Tag]>,
    basis: u64,
    max_lag: Duration,
    filled: Moment,
    expires: Moment,
    /// What the rebuild took, in whole microseconds rounded up; over an hour counts as an hour.
    took_us: u32,
    /// From here on an early refresh may be drawn.
    early_from: Moment,
    /// The ledger's version at the last certification. It only grows, and a lost race costs one certification.
    certified: AtomicU64,
    /// The moment from which a refresh may begin, in nanoseconds; [`UNDER_WAY`] while one runs.
    refresh_from: AtomicU64,
    /// When a directive last forced a fill in this entry's place, or when it was filled.
    forced: AtomicU64,
}

/// A refresh of the entry is running.
const UNDER_WAY: u64 = u64::MAX;

/// An hour: longer rebuilds are beyond the longest `timeout`.
const LONGEST_US: u128 = 3_600_000_000;

/// What an entry is made of.
#[derive(Debug)]
pub struct Draft {
    /// The number of the query that it belongs to.
    pub route: u32,
    /// The answer; `None`: the query found no row.
    pub body: Option<Box<[u8]>>,
    /// What it was read under.
    pub stamp: Stamp,
    /// What it depends on.
    pub tags: Arc<[Tag]>,
    /// Which state of the schema `tags` were found in.
    pub basis: u64,
    /// How long the event stream may have been silent for it to count as fresh.
    pub max_lag: Duration,
    /// When the rebuild ended.
    pub filled: Moment,
    /// How long it took.
    pub took: Duration,
    /// Its ttl with its jitter.
    pub lifetime: Duration,
    /// XFetch's beta; 0 turns early refresh off.
    pub early_refresh: f64,
    /// The ledger's version that it was certified at.
    pub certified: u64,
    /// Of whom it is for, where answers differ by their caller; 0: everybody. Equal bodies of different callers have different
    /// tags then, so that nobody learns of another's from a 304.
    pub etag_seed: u64,
    /// How often it has been given so far; `None`: that is not counted.
    pub uses: Option<u32>,
}

/// How an entry's form in a coding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Nobody has asked for it, or there was no place to make it.
    Untried,
    /// It is being made.
    UnderWay,
    /// It was made, and is kept while there is room.
    Made,
    /// It was made, and is not worth keeping.
    Pointless,
}

impl Packing {
    const ALL: [Self; 4] = [Self::Untried, Self::UnderWay, Self::Made, Self::Pointless];
}

/// Where an entry stands at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Its lifetime runs for this much longer.
    Fresh(Duration),
    /// Its lifetime ended this long ago.
    Stale(Duration),
}

impl Entry {
    /// The entry that `draft` describes.
    pub fn new(draft: Draft) -> Self {
        let absent = draft.body.is_none();
        let body = draft.body.unwrap_or_default();
        let took_us = draft.took.as_nanos().div_ceil(1_000).min(LONGEST_US) as u32;
        let expires = draft.filled + draft.lifetime;
        let reach = early::reach(Duration::from_micros(took_us.into()), draft.early_refresh);
        Self {
            etag: etag(&body, absent, draft.etag_seed),
            absent,
            packing: Default::default(),
            counted: draft.uses.is_some(),
            uses: AtomicU32::new(draft.uses.unwrap_or_default()),
            route: draft.route,
            body,
            stamp: draft.stamp,
            tags: draft.tags,
            basis: draft.basis,
            max_lag: draft.max_lag,
            filled: draft.filled,
            expires,
            took_us,
            early_from: expires - reach,
            certified: AtomicU64::new(draft.certified),
            refresh_from: AtomicU64::new(0),
            forced: AtomicU64::new(draft.filled.as_nanos()),
        }
    }

    /// The answer, as Postgres made it.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether the query found no row, in a form that needs one.
    pub fn is_absent(&self) -> bool {
        self.absent
    }

    /// A strong entity tag, quotes included: a hash of the body, so that an unchanged refill still matches.
    pub fn etag(&self) -> &[u8; ETAG_BYTES] {
        &self.etag
    }

    /// How its form in `coding` stands.
    #[inline]
    pub fn packing(&self, coding: Coding) -> Packing {
        Packing::ALL[usize::from(self.packing[coding as usize].load(Ordering::Relaxed))]
    }

    /// Begins to pack it, if it stands as `from`. Whoever gets `true` must say how it ended, by [`Entry::packs`].
    pub fn begin_packing(&self, coding: Coding, from: Packing) -> bool {
        let (from, to) = (from as u8, Packing::UnderWay as u8);
        self.packing[coding as usize].compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Its form in `coding` stands like this from now on.
    pub fn packs(&self, coding: Coding, now: Packing) {
        self.packing[coding as usize].store(now as u8, Ordering::Relaxed);
    }

    /// The number of the query that it belongs to, for whoever counts evictions.
    pub fn route(&self) -> u32 {
        self.route
    }

    /// What it was read under.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// What it depends on.
    pub fn tags(&self) -> &Arc<[Tag]> {
        &self.tags
    }

    /// Which state of the schema its tags were found in. In another one they say nothing.
    pub fn basis(&self) -> u64 {
        self.basis
    }

    /// How long the event stream may have been silent for it to count as fresh (R6).
    #[inline]
    pub fn max_lag(&self) -> Duration {
        self.max_lag
    }

    /// Time since the fill.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(self.filled)
    }

    /// When its lifetime ends.
    pub fn expires(&self) -> Moment {
        self.expires
    }

    /// When the rebuild ended.
    pub fn filled(&self) -> Moment {
        self.filled
    }

    /// When the rebuild began: nothing that was committed before is missing from it, unless a poll says so.
    pub fn begun(&self) -> Moment {
        self.filled - self.took()
    }

    /// What the rebuild took.
    pub fn took(&self) -> Duration {
        Duration::from_micros(self.took_us.into())
    }

    /// Whether an early refresh may be drawn at `now`: false for most of an entry's life, at the cost of a comparison.
    #[inline]
    pub fn is_nearly_due(&self, now: Moment) -> bool {
        now >= self.early_from
    }

    /// Begins a refresh, if nobody has and the last failure is long enough ago. Whoever gets `true` must call
    /// [`Entry::end_refresh`] where no newer entry takes this one's place.
    pub fn begin_refresh(&self, now: Moment) -> bool {
        let from = self.refresh_from.load(Ordering::Relaxed);
        from <= now.as_nanos()
            && from != UNDER_WAY
            && self.refresh_from.compare_exchange(from, UNDER_WAY, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The refresh brought nothing; the next may begin at `next`. The lifetime stays what it was.
    pub fn end_refresh(&self, next: Moment) {
        self.refresh_from.store(next.as_nanos().min(UNDER_WAY - 1), Ordering::Relaxed);
    }

    /// Takes the right to a fill that a directive forces in this entry's place: once per `interval`, the entry's own
    /// fill included.
    pub fn force(&self, now: Moment, interval: Duration) -> bool {
        let last = self.forced.load(Ordering::Relaxed);
        now >= Moment::from_nanos(last) + interval
            && self.forced.compare_exchange(last, now.as_nanos(), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Whether its lifetime runs at `now`. That alone doesn't make it fresh: it must be certified too.
    pub fn freshness(&self, now: Moment) -> Freshness {
        if now < self.expires {
            Freshness::Fresh(self.expires.since(now))
        } else {
            Freshness::Stale(now.since(self.expires))
        }
    }

    /// The ledger's version that it was last certified at.
    pub fn certified(&self) -> u64 {
        self.certified.load(Ordering::Relaxed)
    }

    /// Remembers that it was certified at `version`: the one read *before* certifying, never a newer one.
    pub fn certify_at(&self, version: u64) {
        self.certified.fetch_max(version, Ordering::Relaxed);
    }

    /// Whether it counts how often it is given.
    #[inline]
    pub fn is_counted(&self) -> bool {
        self.counted
    }

    /// Counts that it is given, and says how often it was by now.
    #[inline]
    pub fn count_use(&self) -> u32 {
        self.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// How often it was given, where that is counted.
    pub fn uses(&self) -> u32 {
        self.uses.load(Ordering::Relaxed)
    }

    /// Bytes that the entry and a key of `key_bytes` occupy.
    pub fn weight(&self, key_bytes: usize) -> u64 {
        let listed = self.stamp.snapshot.running() * size_of::<u64>();
        BOOKKEEPING_BYTES + (self.body.len() + key_bytes + listed + size_of_val(&*self.tags)) as u64
    }
}

/// The tag of a body. "No row" is a representation of its own, not that of the empty body.
fn etag(body: &[u8], absent: bool, seed: u64) -> [u8; ETAG_BYTES] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = match (absent, seed) {
        (true, 0) => u128::MAX,
        // No body is this: it is no JSON.
        (true, _) => xxhash_rust::xxh3::xxh3_128_with_seed(b"absent", seed),
        (false, _) => xxhash_rust::xxh3::xxh3_128_with_seed(body, seed),
    };
    let mut text = [b'"'; ETAG_BYTES];
    for place in &mut text[1..ETAG_BYTES - 1] {
        *place = ALPHABET[(bits & 63) as usize];
        bits >>= 6;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::{Lineage, Snapshot};

    fn entry(body: Option<&str>) -> Entry {
        let stamp = Stamp { lineage: Lineage::new("l"), snapshot: Snapshot::parse("5:9:6").expect("well-formed") };
        Entry::new(Draft {
            etag_seed: 0,
            route: 0,
            body: body.map(|b| b.as_bytes().into()),
            stamp,
            tags: Arc::new([Tag::everything()]),
            basis: 0,
            max_lag: Duration::MAX,
            filled: Moment::from_nanos(1_000_000),
            took: Duration::from_nanos(2_001),
            lifetime: Duration::from_micros(500),
            early_refresh: 1.0,
            uses: None,
            certified: 3,
        })
    }

    #[test]
    fn it_is_fresh_until_its_expiry_and_not_at_it() {
        let e = entry(Some("{}"));
        assert_eq!(e.freshness(Moment::from_nanos(1_499_999)), Freshness::Fresh(Duration::from_nanos(1)));
        assert_eq!(e.freshness(Moment::from_nanos(1_500_000)), Freshness::Stale(Duration::ZERO));
        assert_eq!(e.age(Moment::from_nanos(1_600_000)), Duration::from_micros(600));
    }

    #[test]
    fn what_a_rebuild_took_is_kept_in_microseconds_and_never_too_short() {
        let e = entry(None);
        assert_eq!(e.took(), Duration::from_micros(3));
        assert_eq!(e.begun(), Moment::from_nanos(997_000));
        assert!(e.is_nearly_due(Moment::from_nanos(1_500_000 - 36 * 3_000)));
        assert!(!e.is_nearly_due(Moment::from_nanos(1_500_000 - 38 * 3_000)));
    }

    #[test]
    fn one_refresh_at_a_time_and_none_before_its_moment() {
        let e = entry(None);
        let at = Moment::from_nanos;
        assert!(e.begin_refresh(at(5)));
        assert!(!e.begin_refresh(at(u64::MAX)), "one is under way");
        e.end_refresh(at(100));
        assert!(!e.begin_refresh(at(99)));
        assert!(e.begin_refresh(at(100)));
    }

    #[test]
    fn a_directive_forces_once_per_interval_from_the_fill_on() {
        let e = entry(None);
        let (filled, interval) = (1_000_000, Duration::from_nanos(50));
        let at = |after: u64| Moment::from_nanos(filled + after);
        assert!(!e.force(at(49), interval));
        assert!(e.force(at(50), interval));
        assert!(!e.force(at(99), interval));
        assert!(e.force(at(100), interval));
        assert!(e.force(at(100), Duration::ZERO), "no interval, no limit");
    }

    #[test]
    fn equal_bodies_have_equal_tags_and_no_row_has_its_own() {
        assert_eq!(entry(Some("[1]")).etag(), entry(Some("[1]")).etag());
        assert_ne!(entry(Some("[1]")).etag(), entry(Some("[2]")).etag());
        assert_ne!(entry(Some("")).etag(), entry(None).etag());
        let tag = *entry(Some("[1]")).etag();
        assert!(tag.starts_with(b"\"") && tag.ends_with(b"\"") && tag[1..23].iter().all(u8::is_ascii_graphic));
    }

    #[test]
    fn certification_never_goes_back() {
        let e = entry(Some("{}"));
        e.certify_at(7);
        e.certify_at(5);
        assert_eq!(e.certified(), 7);
    }

    #[test]
    fn running_transactions_of_the_stamp_and_tags_are_weighed() {
        assert_eq!(entry(Some("12345")).weight(10), BOOKKEEPING_BYTES + 5 + 10 + 8 + 8);
    }
}
