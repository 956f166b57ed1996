//! One stored answer.
//!
//! An entry is immutable but for the ledger version it was last certified at. Everything that a hit sends is made when
//! the entry is: the body in a buffer of exactly its size, and the text of its ETag.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;
use crate::stamp::Stamp;

/// `"`, 128 bits in base64url, `"`.
pub const ETAG_BYTES: usize = 24;

/// What an entry costs beyond its body and key, in bytes, as measured by filling 100,000 of them: the entry with its
/// reference counts, the slots of the store's slab and table with their slack, and the allocator's headers.
pub const BOOKKEEPING_BYTES: u64 = 300;

/// An answer with what it was read under and how long it lives.
#[derive(Debug)]
pub struct Entry {
    etag: [u8; ETAG_BYTES],
    absent: bool,
    route: u32,
    body: Box<[u8]>,
    stamp: Stamp,
    filled: Moment,
    expires: Moment,
    /// The ledger's version at the last certification. It only grows, and a lost race costs one certification.
    certified: AtomicU64,
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
    /// An entry of `body` (`None`: the query found no row), read under `stamp`, certified at ledger version `certified`.
    pub fn new(
        route: u32,
        body: Option<Box<[u8]>>,
        stamp: Stamp,
        filled: Moment,
        lifetime: Duration,
        certified: u64,
    ) -> Self {
        let absent = body.is_none();
        let body = body.unwrap_or_default();
        Self {
            etag: etag(&body, absent),
            absent,
            route,
            body,
            stamp,
            filled,
            expires: filled + lifetime,
            certified: AtomicU64::new(certified),
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

    /// The number of the query that it belongs to, for whoever counts evictions.
    pub fn route(&self) -> u32 {
        self.route
    }

    /// What it was read under.
    pub fn stamp(&self) -> &Stamp {
        &self.stamp
    }

    /// Time since the fill.
    pub fn age(&self, now: Moment) -> Duration {
        now.since(self.filled)
    }

    /// When its lifetime ends.
    pub fn expires(&self) -> Moment {
        self.expires
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

    /// Bytes that the entry and a key of `key_bytes` occupy.
    pub fn weight(&self, key_bytes: usize) -> u64 {
        let listed = self.stamp.snapshot.running() * size_of::<u64>();
        BOOKKEEPING_BYTES + (self.body.len() + key_bytes + listed) as u64
    }
}

/// The tag of a body. "No row" is a representation of its own, not that of the empty body.
fn etag(body: &[u8], absent: bool) -> [u8; ETAG_BYTES] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut bits = if absent { u128::MAX } else { xxhash_rust::xxh3::xxh3_128(body) };
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
        Entry::new(0, body.map(|b| b.as_bytes().into()), stamp, Moment::from_nanos(100), Duration::from_nanos(50), 3)
    }

    #[test]
    fn it_is_fresh_until_its_expiry_and_not_at_it() {
        let e = entry(Some("{}"));
        assert_eq!(e.freshness(Moment::from_nanos(149)), Freshness::Fresh(Duration::from_nanos(1)));
        assert_eq!(e.freshness(Moment::from_nanos(150)), Freshness::Stale(Duration::ZERO));
        assert_eq!(e.age(Moment::from_nanos(160)), Duration::from_nanos(60));
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
    fn running_transactions_of_the_stamp_are_weighed() {
        assert_eq!(entry(Some("12345")).weight(10), BOOKKEEPING_BYTES + 5 + 10 + 8);
    }
}
