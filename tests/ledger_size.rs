//! What the ledger takes, in bytes that are really allocated and in time: a day of events, and a table with a million
//! entries that depend on it.
//!
//! `SEAWALL_LEDGER_EVENTS` sets how many events a day has (default 400,000, which is three times what a ledger keeps;
//! `make soak` sends all 8.64 million: a hundred in each second of twenty-four hours).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use peak_alloc::PeakAlloc;
use seawall::cache::entry::{Draft, Entry};
use seawall::cache::key::Key;
use seawall::cache::store::Store;
use seawall::clock::{Clock, Moment};
use seawall::ledger::{Applied, Bounds, Event, Ledger, Poll, Rows};
use seawall::stamp::{Lineage, Snapshot, Stamp};
use seawall::tag::Tag;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// One test at a time: what is allocated is counted for the process.
static ALONE: Mutex<()> = Mutex::new(());

/// What may be allocated for a ledger at its default bounds, whose documentation says 25 MiB and 8 MiB: those, and the
/// shards, which are there from the start.
const BYTES: usize = 36 << 20;

const PER_SECOND: u64 = 100;
/// Polls in a second.
const POLLS: u64 = 10;
/// Transactions running at every poll.
const RUNNING: u64 = 8;
const FIRST: u64 = 1_000;
/// Transactions after which the oldest of them ends, and another begins that will run as long.
const LONG: u64 = 100;
/// Writes are spread over this many rows.
const ROWS: u64 = 10_000_000;

fn lineage() -> Lineage {
    Lineage::new("7412345678901234567/00000001/16384/2026-01-01 00:00:00.000000+00")
}

/// What sees everything up to `last` but those that are `running`.
fn stamp(last: u64, running: impl IntoIterator<Item = u64>) -> Stamp {
    let xip: Arc<[u64]> = running.into_iter().collect();
    let snapshot = Snapshot::checked(xip[0], last + 1, xip).expect("in order");
    Stamp { lineage: lineage(), snapshot }
}

/// A stamp of the test with a million entries, in which the same few run for ever.
fn up_to(last: u64) -> Stamp {
    stamp(last, FIRST..FIRST + RUNNING)
}

fn apply(ledger: &Ledger, sent: Moment, stamp: Stamp, events: Vec<Event>) -> Applied {
    ledger.apply(&ledger.ask(), Poll { sent, stamp, pruned: Some(1), events, rows: Rows::All })
}

#[test]
fn a_day_of_events_takes_no_more_than_the_bounds_say() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let day: u64 = std::env::var("SEAWALL_LEDGER_EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(400_000);
    let (clock, began) = (Clock::manual(), Instant::now());
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let ledger = Ledger::default();
    ledger.expect_stream();
    let table = Tag::new("shop.products");
    // Tags are hashes; a row's needs no text to be spread as evenly.
    let row = |n: u64| Tag::of_bytes(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ROWS).to_le_bytes());
    let mut running: VecDeque<u64> = (FIRST..FIRST + RUNNING).collect();
    let (mut xid, mut announced, mut full, mut last) = (FIRST + RUNNING, 0, None, 0);
    while announced < day {
        clock.advance(Duration::from_secs(1) / u32::try_from(POLLS).expect("few"));
        let first = xid;
        // A write to a row announces it and its table: one transaction, two events.
        let events: Vec<Event> = (first..first + PER_SECOND / POLLS / 2)
            .flat_map(|xid| [table, row(xid)].map(|tag| Event { tag, xid }))
            .collect();
        xid += PER_SECOND / POLLS / 2;
        announced += events.len() as u64;
        if announced % LONG == 0 {
            running.pop_front();
            running.push_back(xid);
            xid += 1;
        }
        let applied = apply(&ledger, clock.now(), stamp(xid - 1, running.iter().copied()), events);
        assert!(matches!(applied, Applied::Events { .. }), "{applied:?}");
        last = first;
        if full.is_none() && announced >= day / 4 * 3 {
            full = Some(ALLOCATED.current_usage() - before);
        }
    }
    let (end, peak) = (ALLOCATED.current_usage() - before, ALLOCATED.peak_usage() - before);
    let (bounds, full) = (Bounds::default(), full.expect("three quarters went by"));
    println!(
        "{announced} events in {:?} of {:?} by the clock: {} tags, {} transaction ids, {} KiB after three quarters, \
         {} KiB at the end, {} KiB at most",
        began.elapsed(),
        clock.now().since(Clock::manual().now()),
        ledger.tags(),
        ledger.xids(),
        full >> 10,
        end >> 10,
        peak >> 10,
    );
    assert!(ledger.tags() <= bounds.tags && ledger.xids() <= bounds.xids as u64);
    assert!(peak <= BYTES, "{peak} bytes");
    // It was full by then; what differs is which rows it keeps.
    assert!(end <= full + full / 20, "{full} bytes grew to {end}");
    assert_eq!(ledger.lag(clock.now()), Some(Duration::ZERO));
    // What was read just now is certified, and what lacks the last write is not.
    let running = || running.iter().copied().filter(|&xid| xid < last);
    assert!(ledger.certify(&stamp(xid, running()), &[table, row(last)]));
    assert!(!ledger.certify(&stamp(last - 1, running()), &[row(last)]));
}

/// Entries that depend on one table.
const ENTRIES: u64 = 1_000_000;

fn entry(tags: &Arc<[Tag]>, stamp: &Stamp) -> Entry {
    Entry::new(Draft {
        etag_seed: 0,
        route: 0,
        body: Some([b'x'; 16].into()),
        stamp: stamp.clone(),
        tags: Arc::clone(tags),
        basis: 1,
        max_lag: Duration::from_secs(3_600),
        filled: Moment::from_nanos(1),
        took: Duration::from_millis(1),
        lifetime: Duration::from_secs(3_600),
        early_refresh: 1.0,
        uses: None,
        certified: 0,
    })
}

/// Bytes that a thousand events of one table leave allocated, and the least time that one of them took.
fn thousand_events(ledger: &Ledger, from: u64) -> (isize, Duration) {
    let before = ALLOCATED.current_usage();
    let table = Tag::new("shop.products");
    let mut least = Duration::MAX;
    for xid in from..from + 1_000 {
        let (stamp, events) = (up_to(xid), vec![Event { tag: table, xid }]);
        let began = Instant::now();
        assert_eq!(apply(ledger, Moment::from_nanos(1), stamp, events), Applied::Events { tags: 1 });
        least = least.min(began.elapsed());
    }
    (ALLOCATED.current_usage().cast_signed() - before.cast_signed(), least)
}

#[test]
fn an_event_of_a_table_with_a_million_entries_costs_what_one_of_a_table_with_none_does() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let ledger = Ledger::default();
    let table: Arc<[Tag]> = [Tag::new("shop.products")].into();
    apply(&ledger, Moment::from_nanos(1), up_to(10_000), vec![]);
    let _first = thousand_events(&ledger, 11_000);
    let (alone, without) = thousand_events(&ledger, 12_000);
    let read = ledger.share(up_to(13_000));
    let store = Store::new(1 << 30, 1 << 20, 1 << 20);
    for n in 0..ENTRIES {
        store.insert(&Key::new(&n.to_le_bytes()), &Arc::new(entry(&table, &read)));
    }
    assert!(store.get(&0u64.to_le_bytes()).is_some() && store.get(&(ENTRIES - 1).to_le_bytes()).is_some());
    assert!(ledger.certify(&read, &table), "all of them are fresh");
    let (beside, with) = thousand_events(&ledger, 14_000);
    assert!(!ledger.certify(&read, &table), "and none is any more");
    println!("an event takes {without:?} where nothing depends on it, {with:?} where {ENTRIES} entries do");
    assert_eq!(beside, alone, "nothing is kept for entries");
    assert!(with < Duration::from_micros(10), "{with:?}");
}
