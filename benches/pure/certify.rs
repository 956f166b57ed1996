//! What does a look cost: finding the entry, and knowing that it is fresh, without and with an event since? And an event?
//!
//! Without one, freshness is an atomic load and a comparison of versions; with one, the stamp is certified once and the
//! version remembered. The store's part should not grow with the entries in it beyond what the processor's caches make of it.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion};
use seawall::cache::key::Key;
use seawall::cache::store::Store;
use seawall::ledger::{Applied, Event, Ledger, Poll, Rows};
use seawall::stamp::{Lineage, Snapshot, Stamp};
use seawall::tag::Tag;

use super::sample;

const ENTRIES: [u64; 3] = [1_000, 10_000, 100_000];
/// Tags that events are announced for, in turn: twice what a ledger keeps, so that it forgets one for each.
const TAGS: u64 = 1 << 18;
/// Transactions before the first of them.
const LAST: u64 = 10_000;
/// Bytes of each body: small, since a look doesn't touch it.
const BODY_BYTES: usize = 64;
/// More than the entries take, so that none is evicted.
const STORE_BYTES: u64 = 256 << 20;

pub fn ask(c: &mut Criterion) {
    let ledger = Ledger::default();
    ledger.adopt(&Lineage::new(sample::LINEAGE));
    let version = ledger.version();

    let mut group = c.benchmark_group("look");
    for entries in ENTRIES {
        let store = Store::new(STORE_BYTES, 1 << 20, 1 << 20);
        let stamp = ledger.share(sample::stamp(0));
        let keys: Vec<Key> = (0..entries).map(|n| Key::new(&key(n))).collect();
        for key in &keys {
            store.insert(key, &Arc::new(sample::entry(body(), stamp.clone(), version)));
        }
        // A stride that is prime to the number of entries visits each, and none soon after its neighbour.
        let mut n = 0;
        group.bench_function(BenchmarkId::new("store get", entries), |b| {
            b.iter(|| {
                n = (n + 7_919) % entries;
                store.get(black_box(&key(n))).expect("stored")
            });
        });
    }
    let entry = sample::entry(body(), ledger.share(sample::stamp(0)), version);
    let now = sample::FILLED + Duration::from_secs(1);
    group.bench_function("freshness at the same version", |b| {
        b.iter(|| (black_box(&entry).freshness(black_box(now)), entry.certified() == ledger.version()));
    });
    let tags = sample::tags();
    let all: Vec<Tag> = (0..TAGS).map(|n| Tag::new(&format!("shop.products:id={n}"))).collect();
    for running in [0, 64] {
        let stamp = ledger.share(sample::stamp(running));
        group.bench_function(BenchmarkId::new("certify, running transactions", running), |b| {
            b.iter(|| ledger.certify(black_box(&stamp), black_box(&tags)));
        });
    }
    let (mut xid, mut announced) = (LAST, 0_usize);
    group.bench_function("an event applied", |b| {
        b.iter(|| {
            (xid, announced) = (xid + 1, (announced + 1) % all.len());
            announce(&ledger, xid, all[announced])
        });
    });
    let stamp = ledger.share(sample::stamp(0));
    group.bench_function("certify, with as many tags known as there may be", |b| {
        b.iter(|| ledger.certify(black_box(&stamp), black_box(&tags)));
    });
    group.finish();
}

/// As a poll does that finds one.
fn announce(ledger: &Ledger, xid: u64, tag: Tag) -> Applied {
    let snapshot = Snapshot::checked(xid + 1, xid + 1, Arc::default()).expect("in order");
    let stamp = Stamp { lineage: Lineage::new(sample::LINEAGE), snapshot };
    let poll = Poll { sent: sample::FILLED, stamp, pruned: Some(1), events: vec![Event { tag, xid }], rows: Rows::All };
    ledger.apply(&ledger.ask(), poll)
}

fn body() -> Box<[u8]> {
    [b'x'; BODY_BYTES].into()
}

/// As long as the key of a query with one int4: a fingerprint, a tag, a length, four digits.
fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[8..].copy_from_slice(&n.to_le_bytes());
    key
}
