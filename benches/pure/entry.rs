//! What does it cost to make an entry of a body, its ETag included, by the body's size?
//!
//! Paid once per fill. The body is taken over and not copied, so the hash is all that should grow: some ten GB/s where the
//! body is in the cache, a few microseconds for 100 kB.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};

use super::sample;

const BODY_BYTES: [usize; 4] = [100, 1_000, 10_000, 100_000];

pub fn ask(c: &mut Criterion) {
    let mut group = c.benchmark_group("entry");
    for bytes in BODY_BYTES {
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(BenchmarkId::new("of a body, bytes", bytes), |b| {
            b.iter_batched(
                || (Box::<[u8]>::from(vec![b'x'; bytes]), sample::stamp(0)),
                |(body, stamp)| sample::entry(body, stamp, 1),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}
