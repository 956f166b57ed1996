//! What packed forms take, in bytes that are really allocated: no more than they are counted as.

use std::sync::Arc;
use std::time::Duration;

use peak_alloc::PeakAlloc;
use seawall::cache::entry::{Draft, Entry};
use seawall::cache::key::Key;
use seawall::cache::packed::{Packed, PackedForms};
use seawall::clock::Moment;
use seawall::coding::Coding;
use seawall::stamp::{Lineage, Snapshot, Stamp};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const BYTES: usize = 500;
const FORMS: u64 = 100_000;

fn entry() -> Entry {
    let stamp = Stamp { lineage: Lineage::new("l"), snapshot: Snapshot::parse("5:5:").expect("well-formed") };
    Entry::new(Draft {
        etag_seed: 0,
        route: 0,
        body: Some(vec![b'x'; BYTES].into_boxed_slice()),
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
    })
}

#[test]
fn forms_take_what_they_are_counted_as() {
    let entry = entry();
    let before = ALLOCATED.current_usage();
    let forms = PackedForms::new(1 << 30);
    for n in 0..FORMS {
        let (key, bytes) = (Key::new(&n.to_le_bytes()), vec![b'y'; BYTES].into_boxed_slice());
        assert!(forms.insert(&key, Packed::new(&entry, Coding::Zstd, bytes)), "there is room for all of them");
    }
    let (taken, counted) = ((ALLOCATED.current_usage() - before) as u64, forms.bytes(Coding::Zstd));
    println!("{FORMS} forms: {} bytes each, counted as {}", taken / FORMS, counted / FORMS);
    assert!(taken <= counted, "{taken} bytes were allocated, and {counted} are counted");
    assert!(counted * 3 / 4 <= taken, "{counted} are counted, and {taken} bytes were allocated");
}
