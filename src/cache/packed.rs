//! Packed forms of bodies, beside the store: bounded by bytes of their own, and never given without their entry.
//!
//! A form is kept under its entry's key and its coding, and belongs to one body: who looks it up compares the body's tag. So an
//! unchanged refill keeps its forms, and one that has changed can't be answered with the old ones.

use std::hash::{Hash, Hasher};

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, Equivalent, Lifecycle, OptionsBuilder, Weighter};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::entry::{ETAG_BYTES, Entry};
use super::key::Key;
use crate::coding::{CODINGS, Coding};

/// What a form costs beyond its bytes, tag and key, in bytes, as measured by keeping 100,000 of them (`tests/packed_size.rs`):
/// itself with its reference counts, the slots of the table and slab with their slack, and the key's; and a little for the
/// allocator's headers.
pub const BOOKKEEPING_BYTES: u64 = 216;

/// A body in a coding.
#[derive(Debug)]
pub struct Packed {
    coding: Coding,
    of: [u8; ETAG_BYTES],
    etag: Box<[u8]>,
    bytes: Box<[u8]>,
}

impl Packed {
    /// `bytes` are `entry`'s body in `coding`.
    pub fn new(entry: &Entry, coding: Coding, bytes: Box<[u8]>) -> Self {
        let of = *entry.etag();
        Self { coding, of, etag: etag(&of, coding).into(), bytes }
    }

    /// Its coding.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Its own strong entity tag: the body's, with the coding's name before the closing quote.
    pub fn etag(&self) -> &[u8] {
        &self.etag
    }

    /// The body, packed.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The tag of the form in `coding` of the body with the tag `of`: another representation has another strong tag (RFC 9110
/// section 8.8.3.3).
pub fn etag(of: &[u8; ETAG_BYTES], coding: Coding) -> Vec<u8> {
    [&of[..ETAG_BYTES - 1], b"-", coding.as_str().as_bytes(), b"\""].concat()
}

#[derive(Clone, PartialEq, Eq)]
struct Form(Key, Coding);

impl Form {
    /// What it counts for with what is kept under it.
    fn weight(&self, packed: &Packed) -> u64 {
        BOOKKEEPING_BYTES + (self.0.as_bytes().len() + packed.bytes.len() + packed.etag.len()) as u64
    }
}

/// The same, borrowed.
struct Named<'a>(&'a [u8], Coding);

impl Hash for Form {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Named(self.0.as_bytes(), self.1).hash(state);
    }
}

impl Hash for Named<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
        self.1.hash(state);
    }
}

impl Equivalent<Form> for Named<'_> {
    fn equivalent(&self, form: &Form) -> bool {
        self.1 == form.1 && self.0 == form.0.as_bytes()
    }
}

#[derive(Clone)]
struct Weigher;

impl Weighter<Form, Arc<Packed>> for Weigher {
    fn weight(&self, form: &Form, packed: &Arc<Packed>) -> u64 {
        form.weight(packed)
    }
}

#[derive(Clone)]
struct Dropped;

impl Lifecycle<Form, Arc<Packed>> for Dropped {
    type RequestState = Vec<(Form, Arc<Packed>)>;

    fn on_evict(&self, out: &mut Self::RequestState, form: Form, packed: Arc<Packed>) {
        out.push((form, packed));
    }
}

/// Where packed forms are kept.
pub struct PackedForms {
    forms: Cache<Form, Arc<Packed>, Weigher, DefaultHashBuilder, Dropped>,
    bytes: [AtomicU64; CODINGS],
}

/// A form is smaller than a result may be, and a shard should hold several.
const SHARD_BYTES: u64 = 8 << 20;

impl PackedForms {
    /// Room for `max_bytes` of them; with 0 none is ever kept.
    pub fn new(max_bytes: u64) -> Self {
        let shards = usize::try_from(max_bytes / SHARD_BYTES).unwrap_or(1).clamp(1, 16);
        let options = OptionsBuilder::new()
            .shards(1 << shards.ilog2())
            .weight_capacity(max_bytes)
            .estimated_items_capacity(usize::try_from(max_bytes / 1024).unwrap_or(usize::MAX).max(512))
            .build()
            .expect("capacity and estimate are set");
        let forms = Cache::with_options(options, Weigher, DefaultHashBuilder::default(), Dropped);
        Self { forms, bytes: Default::default() }
    }

    /// The form of `entry`, which is the one under `key`. Takes a shard's lock as the store does: for reading.
    #[inline]
    pub fn get(&self, key: &[u8], entry: &Entry, coding: Coding) -> Option<Arc<Packed>> {
        self.forms.get(&Named(key, coding)).filter(|packed| packed.of == *entry.etag())
    }

    /// Keeps `packed` under `key`; false where there is no room for it.
    pub fn insert(&self, key: &Key, packed: Packed) -> bool {
        let (form, packed) = (Form(key.clone(), packed.coding), Arc::new(packed));
        self.bytes[packed.coding as usize].fetch_add(form.weight(&packed), Ordering::Relaxed);
        let mut out = vec![];
        self.forms.insert_with_lifecycle(form, Arc::clone(&packed), &mut out);
        for (form, gone) in &out {
            self.gone(form, gone);
        }
        !out.iter().any(|(_, gone)| Arc::ptr_eq(gone, &packed))
    }

    /// Drops the form under `key`.
    pub fn remove(&self, key: &[u8], coding: Coding) {
        if let Some((form, packed)) = self.forms.remove(&Named(key, coding)) {
            self.gone(&form, &packed);
        }
    }

    fn gone(&self, form: &Form, packed: &Packed) {
        self.bytes[packed.coding as usize].fetch_sub(form.weight(packed), Ordering::Relaxed);
    }

    /// Bytes held in `coding`: forms, tags, keys and bookkeeping.
    pub fn bytes(&self, coding: Coding) -> u64 {
        self.bytes[coding as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::entry::{Draft, Packing};
    use super::super::store::{Insert, Store};
    use super::*;
    use crate::clock::Moment;
    use crate::stamp::{Lineage, Snapshot, Stamp};
    use crate::tag::Tag;

    const ROOM: u64 = 1 << 20;

    fn entry(body: &str, tags: &[Tag]) -> Arc<Entry> {
        let stamp = Stamp { lineage: Lineage::new("l"), snapshot: Snapshot::parse("5:5:").expect("well-formed") };
        Arc::new(Entry::new(Draft {
            etag_seed: 0,
            route: 0,
            body: Some(body.as_bytes().into()),
            stamp,
            tags: tags.into(),
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

    fn form(entry: &Entry, coding: Coding, bytes: usize) -> Packed {
        Packed::new(entry, coding, vec![7; bytes].into_boxed_slice())
    }

    fn key(n: u32) -> Key {
        Key::new(&n.to_le_bytes())
    }

    /// A store that holds `entry` under key 1 with a form in each coding of `codings`.
    fn store(entry: &Arc<Entry>, codings: &[Coding]) -> Store {
        let store = Store::new(ROOM, ROOM / 4, ROOM);
        assert_eq!(store.insert(&key(1), entry), Insert::Kept(vec![]));
        for &coding in codings {
            assert!(entry.begin_packing(coding, Packing::Untried));
            assert!(store.keep_packed(&key(1), entry, form(entry, coding, 100)));
            assert_eq!(entry.packing(coding), Packing::Made);
        }
        store
    }

    /// What a form of `bytes` under a key of four counts for.
    fn weight(coding: Coding, bytes: u64) -> u64 {
        BOOKKEEPING_BYTES + 4 + bytes + (ETAG_BYTES + 1 + coding.as_str().len()) as u64
    }

    fn held(store: &Store) -> [u64; CODINGS] {
        Coding::ALL.map(|coding| store.packed_bytes(coding))
    }

    #[test]
    fn a_form_has_its_own_tag_and_is_found_with_its_body_alone() {
        let (one, other) = (entry("one", &[]), entry("other", &[]));
        let store = store(&one, &[Coding::Brotli]);
        let packed = store.packed(key(1).as_bytes(), &one, Coding::Brotli).expect("kept");
        let tag = std::str::from_utf8(packed.etag()).expect("a tag");
        assert_eq!(tag.replace("-br\"", "\"").as_bytes(), one.etag());
        assert!(store.packed(key(1).as_bytes(), &other, Coding::Brotli).is_none());
        assert!(store.packed(key(1).as_bytes(), &one, Coding::Zstd).is_none());
        assert!(store.packed(key(2).as_bytes(), &one, Coding::Brotli).is_none());
        assert_eq!(held(&store), [0, weight(Coding::Brotli, 100), 0]);
    }

    #[test]
    fn forms_go_with_their_entry_however_that_goes() {
        let tag = Tag::new("public.t");
        let goes: [(_, fn(&Store)); 3] = [
            ("removed", |store| store.remove(key(1).as_bytes())),
            ("purged", |store| assert_eq!(store.remove_tagged(&[Tag::new("public.t")]), 1)),
            ("replaced", |store| assert_eq!(store.insert(&key(1), &entry("other", &[])), Insert::Kept(vec![]))),
        ];
        for (how, go) in goes {
            let store = store(&entry("one", std::slice::from_ref(&tag)), &Coding::ALL);
            assert_eq!(held(&store), Coding::ALL.map(|coding| weight(coding, 100)), "{how}");
            go(&store);
            assert_eq!(held(&store), [0; CODINGS], "{how}");
        }
        // Evicted: entries that fill the store several times over push each other out, and each took its form along.
        let small = Store::new(64 << 10, 16 << 10, ROOM);
        for n in 0..1_000 {
            let entry = entry(&"x".repeat(1_000), &[]);
            small.insert(&key(n), &entry);
            small.keep_packed(&key(n), &entry, form(&entry, Coding::Gzip, 100));
        }
        assert!(small.len() < 100);
        assert_eq!(small.packed_bytes(Coding::Gzip), small.len() as u64 * weight(Coding::Gzip, 100));
    }

    #[test]
    fn an_unchanged_refill_keeps_its_forms_even_those_that_are_being_made() {
        let (old, new) = (entry("same", &[]), entry("same", &[]));
        let store = store(&old, &[Coding::Zstd]);
        assert!(old.begin_packing(Coding::Gzip, Packing::Untried));
        assert_eq!(store.insert(&key(1), &new), Insert::Kept(vec![]));
        assert_eq!(new.packing(Coding::Zstd), Packing::Made);
        assert!(store.packed(key(1).as_bytes(), &new, Coding::Zstd).is_some());
        assert_eq!(new.packing(Coding::Gzip), Packing::Untried);
        assert!(store.keep_packed(&key(1), &old, form(&old, Coding::Gzip, 100)));
        assert_eq!(new.packing(Coding::Gzip), Packing::Made);
        assert!(store.packed(key(1).as_bytes(), &new, Coding::Gzip).is_some());
    }

    #[test]
    fn a_form_whose_entry_has_gone_is_not_kept() {
        let (old, new) = (entry("old", &[]), entry("new", &[]));
        let store = store(&old, &[]);
        assert!(old.begin_packing(Coding::Zstd, Packing::Untried));
        store.insert(&key(1), &new);
        store.keep_packed(&key(1), &old, form(&old, Coding::Zstd, 100));
        assert_eq!((held(&store), new.packing(Coding::Zstd)), ([0; CODINGS], Packing::Untried));
        store.remove(key(1).as_bytes());
        store.keep_packed(&key(1), &new, form(&new, Coding::Zstd, 100));
        assert_eq!(held(&store), [0; CODINGS]);
    }

    #[test]
    fn one_of_many_packs_it() {
        let entry = entry("one", &[]);
        assert!(entry.begin_packing(Coding::Zstd, Packing::Untried));
        assert!(!entry.begin_packing(Coding::Zstd, Packing::Untried));
        assert!(entry.begin_packing(Coding::Gzip, Packing::Untried), "each coding is one of its own");
    }

    #[test]
    fn forms_stay_under_their_bytes_and_one_that_is_too_large_is_refused() {
        let forms = PackedForms::new(64 << 10);
        let entry = entry("one", &[]);
        for n in 0..1_000 {
            assert!(forms.insert(&key(n), form(&entry, Coding::Zstd, 1_000)));
            assert!(forms.bytes(Coding::Zstd) <= 64 << 10, "after {n}");
        }
        assert!(forms.bytes(Coding::Zstd) > 32 << 10);
        assert!(!forms.insert(&key(9_999), form(&entry, Coding::Gzip, 64 << 10)));
        assert_eq!(forms.bytes(Coding::Gzip), 0);
        let none = PackedForms::new(0);
        assert!(!none.insert(&key(1), form(&entry, Coding::Zstd, 1)));
        assert_eq!(none.bytes(Coding::Zstd), 0);
    }
}
