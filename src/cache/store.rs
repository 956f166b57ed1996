//! Where entries are kept: bounded by bytes, with eviction that a scan can't flush.
//!
//! Locking rule: a look-up takes one shard's lock for reading and holds it while it clones a reference. Only an insert
//! takes it for writing. Eviction (S3-FIFO with a ghost list, by `quick_cache`) happens inside of inserts; what it
//! evicted is dropped after the lock is released.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use super::entry::{Entry, Packing};
use super::key::Key;
use super::packed::{Packed, PackedForms};
use crate::coding::Coding;
use crate::tag::Tag;

/// The store.
pub struct Store {
    entries: Cache<Key, Arc<Entry>, Weigher, DefaultHashBuilder, Dropped>,
    entry_max_bytes: u64,
    /// What is packed of these. A form goes when its entry does.
    forms: PackedForms,
}

/// What became of an entry.
#[derive(Debug, PartialEq, Eq)]
pub enum Insert {
    /// It is kept; these others (by the number of their query) were evicted for it.
    Kept(Vec<u32>),
    /// It is larger than an entry may be, and nothing has changed.
    TooLarge,
}

#[derive(Clone)]
struct Weigher;

impl Weighter<Key, Arc<Entry>> for Weigher {
    fn weight(&self, key: &Key, entry: &Arc<Entry>) -> u64 {
        entry.weight(key.as_bytes().len())
    }
}

/// Collects what an insert pushed out, so that it is dropped outside of the shard's lock.
#[derive(Clone)]
struct Dropped;

impl Lifecycle<Key, Arc<Entry>> for Dropped {
    type RequestState = Vec<(Key, Arc<Entry>)>;

    fn on_evict(&self, out: &mut Self::RequestState, key: Key, entry: Arc<Entry>) {
        out.push((key, entry));
    }
}

/// A shard must hold several of the largest entries, or one of them would empty it.
const LARGEST_PER_SHARD: u64 = 4;

impl Store {
    /// A store of `max_bytes`, in which one entry has `entry_max_bytes` at most (body and key and bookkeeping), and beside it
    /// `packed_max_bytes` of packed forms.
    pub fn new(max_bytes: u64, entry_max_bytes: u64, packed_max_bytes: u64) -> Self {
        // Shards divide the bytes between them: few enough that each holds some of the largest entries, and enough
        // that cores seldom meet.
        let cores = std::thread::available_parallelism().map_or(4, std::num::NonZero::get) as u64;
        let shards = (max_bytes / (LARGEST_PER_SHARD * entry_max_bytes).max(1)).clamp(1, cores * 4);
        let shards = 1 << shards.ilog2();
        let options = OptionsBuilder::new()
            .shards(usize::try_from(shards).unwrap_or(1))
            .weight_capacity(max_bytes)
            // Sizes the ghost list, which remembers keys only: answers of about a kilobyte.
            .estimated_items_capacity(usize::try_from((max_bytes / 1024).max(shards * 32)).unwrap_or(usize::MAX))
            .build()
            .expect("capacity and estimate are set");
        let entries = Cache::with_options(options, Weigher, DefaultHashBuilder::default(), Dropped);
        Self { entries, entry_max_bytes, forms: PackedForms::new(packed_max_bytes) }
    }

    /// The entry under `key`, fresh or not.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.entries.get(key)
    }

    /// The entry under `key`, without counting as a use.
    pub fn peek(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.entries.peek(key)
    }

    /// Keeps `entry` under `key` in place of what was there.
    pub fn insert(&self, key: &Key, entry: &Arc<Entry>) -> Insert {
        if entry.weight(key.as_bytes().len()) > self.entry_max_bytes {
            return Insert::TooLarge;
        }
        let mut out = Vec::new();
        self.entries.insert_with_lifecycle(key.clone(), Arc::clone(entry), &mut out);
        for (gone, old) in &out {
            if gone != key || old.etag() != entry.etag() {
                self.drop_forms(gone.as_bytes(), old);
            } else {
                // An unchanged body's forms are its successor's.
                for coding in packed_in(old) {
                    entry.packs(coding, Packing::Made);
                }
            }
        }
        if out.iter().any(|(_, dropped)| Arc::ptr_eq(dropped, entry)) {
            return Insert::TooLarge;
        }
        // A predecessor under the same key was replaced, not evicted.
        Insert::Kept(out.iter().filter(|(k, _)| k != key).map(|(_, e)| e.route()).collect())
    }

    /// Drops what is under `key`.
    pub fn remove(&self, key: &[u8]) {
        if let Some((_, entry)) = self.entries.remove(key) {
            self.drop_forms(key, &entry);
        }
    }

    /// `entry`'s form in `coding`, where it is kept; `entry` is the one under `key`.
    #[inline]
    pub fn packed(&self, key: &[u8], entry: &Entry, coding: Coding) -> Option<Arc<Packed>> {
        self.forms.get(key, entry, coding)
    }

    /// Keeps a form of `entry` under `key`, if that is still the one there; whether there was room for it.
    pub fn keep_packed(&self, key: &Key, entry: &Arc<Entry>, packed: Packed) -> bool {
        let coding = packed.coding();
        // Said before it is so: who replaces the entry from here on passes the form on or drops it, and who did before is seen below.
        entry.packs(coding, Packing::Made);
        let kept = self.forms.insert(key, packed);
        match self.entries.peek(key.as_bytes()).filter(|now| now.etag() == entry.etag()) {
            Some(now) => now.packs(coding, if kept { Packing::Made } else { Packing::Pointless }),
            None => self.forms.remove(key.as_bytes(), coding),
        }
        kept
    }

    /// Bytes of packed forms held in `coding`.
    pub fn packed_bytes(&self, coding: Coding) -> u64 {
        self.forms.bytes(coding)
    }

    fn drop_forms(&self, key: &[u8], entry: &Entry) {
        for coding in packed_in(entry) {
            self.forms.remove(key, coding);
        }
    }

    /// Drops every entry that depends on one of `tags`; how many. A reader waits for no longer than it takes to look at
    /// one entry.
    pub fn remove_tagged(&self, tags: &[Tag]) -> usize {
        let concerned = |entry: &Entry| entry.tags().iter().any(|tag| tags.contains(tag));
        let tagged = self.entries.iter().filter(|(_, entry)| concerned(entry));
        let removed = |(key, entry): (Key, Arc<Entry>)| {
            let gone = self.entries.remove_if(&key, |now| Arc::ptr_eq(now, &entry) || concerned(now));
            gone.inspect(|(_, entry)| self.drop_forms(key.as_bytes(), entry))
        };
        tagged.filter_map(removed).count()
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes held: bodies, keys and bookkeeping.
    pub fn bytes(&self) -> u64 {
        self.entries.weight()
    }

    /// Every entry's moment of expiry, for tests of their distribution.
    pub fn expiries(&self) -> Vec<crate::clock::Moment> {
        self.entries.iter().map(|(_, e)| e.expires()).collect()
    }
}

/// The codings that there may be a form of `entry` in. One that is being made is looked after by its maker.
fn packed_in(entry: &Entry) -> impl Iterator<Item = Coding> {
    Coding::ALL.into_iter().filter(|&coding| entry.packing(coding) == Packing::Made)
}

#[cfg(test)]
mod tests {
    use super::super::entry::Draft;
    use super::*;
    use crate::clock::Moment;
    use crate::stamp::{Lineage, Snapshot, Stamp};
    use std::time::Duration;

    fn entry(route: u32, bytes: usize) -> Arc<Entry> {
        let stamp = Stamp { lineage: Lineage::new("l"), snapshot: Snapshot::parse("5:5:").expect("well-formed") };
        let body = vec![b'x'; bytes].into_boxed_slice();
        Arc::new(Entry::new(Draft {
            etag_seed: 0,
            route,
            body: Some(body),
            stamp,
            tags: Arc::default(),
            basis: 0,
            max_lag: Duration::MAX,
            filled: Moment::from_nanos(0),
            took: Duration::ZERO,
            lifetime: Duration::from_secs(1),
            early_refresh: 1.0,
            uses: None,
            certified: 0,
        }))
    }

    fn key(n: u32) -> Key {
        Key::new(&n.to_le_bytes())
    }

    #[test]
    fn it_stays_under_its_bytes_and_says_whose_entries_were_evicted() {
        let store = Store::new(1 << 20, 64 << 10, 1 << 20);
        let mut evicted = 0;
        for n in 0..2_000 {
            match store.insert(&key(n), &entry(3, 1_000)) {
                Insert::Kept(out) => {
                    assert!(out.iter().all(|&route| route == 3));
                    evicted += out.len();
                }
                Insert::TooLarge => panic!("1 kB is no large entry"),
            }
            assert!(store.bytes() <= 1 << 20, "after {n}: {}", store.bytes());
        }
        assert!(evicted > 1_000, "{evicted}");
        assert_eq!(store.len() + evicted, 2_000);
    }

    #[test]
    fn replacing_is_no_eviction() {
        let store = Store::new(1 << 20, 64 << 10, 1 << 20);
        assert_eq!(store.insert(&key(1), &entry(0, 10)), Insert::Kept(vec![]));
        assert_eq!(store.insert(&key(1), &entry(0, 20)), Insert::Kept(vec![]));
        assert_eq!(store.len(), 1);
        assert_eq!(store.get(key(1).as_bytes()).expect("kept").body().len(), 20);
    }

    #[test]
    fn an_entry_over_the_bound_leaves_the_old_one_alone() {
        let limit = 4096;
        let store = Store::new(1 << 20, limit, 1 << 20);
        let overhead = usize::try_from(entry(0, 0).weight(4)).expect("small");
        let fits = usize::try_from(limit).expect("small") - overhead;
        assert_eq!(store.insert(&key(1), &entry(0, fits)), Insert::Kept(vec![]));
        assert_eq!(store.insert(&key(1), &entry(0, fits + 1)), Insert::TooLarge);
        assert_eq!(store.get(key(1).as_bytes()).expect("kept").body().len(), fits);
    }

    #[test]
    fn a_scan_does_not_flush_what_is_asked_for_again_and_again() {
        let store = Store::new(1 << 20, 64 << 10, 1 << 20);
        for n in 0..100 {
            store.insert(&key(n), &entry(0, 1_000));
        }
        for _ in 0..4 {
            for n in 0..100 {
                store.get(key(n).as_bytes());
            }
        }
        for n in 1_000..20_000 {
            store.insert(&key(n), &entry(0, 1_000));
        }
        let left = (0..100).filter(|&n| store.peek(key(n).as_bytes()).is_some()).count();
        assert!(left >= 90, "{left} of 100 popular entries survived 19,000 that were asked for once");
    }
}
