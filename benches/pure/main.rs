//! What do the pure parts of a request cost, each by itself, in nanoseconds?
//!
//! One question a file; `cargo bench --bench pure` asks them all, `cargo bench --bench pure -- key` those whose name has
//! `key` in it. No IO, no runtime, one thread: contention is what `service` measures. A figure here is to be compared with
//! the same figure of another day on the same machine; a whole hit is about 6 us, most of it the kernel's.

mod certify;
mod entry;
mod flight;
mod key;
mod sample;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Long enough for a percent on a quiet machine, and short enough that the whole takes under a minute.
fn criterion() -> Criterion {
    Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_millis(1_500))
}

criterion_group! {
    name = questions;
    config = criterion();
    targets = key::ask, certify::ask, flight::ask, entry::ask
}
criterion_main!(questions);
