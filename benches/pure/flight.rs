//! What does a flight cost: for a leader whom nobody joins, and with followers?
//!
//! A follower's share, from joining to its outcome, is what a stampede multiplies by the number of its requests; it should
//! not grow with the number of those who wait already.

use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use seawall::cache::flight::{End, Flights, Join, Lead, Wait};
use seawall::cache::key::Key;

type Outcome = Arc<str>;
type Table = Arc<Flights<Key, (), Outcome>>;

const FOLLOWERS: [u64; 3] = [1, 100, 10_000];
const SHARDS: usize = 64;

pub fn ask(c: &mut Criterion) {
    let table: Table = Flights::new(100_000, SHARDS);
    let key = Key::new(b"the key of a query");
    let outcome: Outcome = "an answer".into();

    let mut group = c.benchmark_group("flight");
    group.bench_function("leader alone: join, land, outcome", |b| {
        b.iter(|| {
            let (lead, wait) = lead(&table, &key);
            lead.land(Arc::clone(&outcome));
            landed(wait)
        });
    });
    for followers in FOLLOWERS {
        group.throughput(Throughput::Elements(followers));
        group.bench_function(BenchmarkId::new("followers: join, wait, outcome", followers), |b| {
            b.iter_batched(
                || lead(&table, &key),
                |(lead, wait)| {
                    let mut waits: Vec<_> = (0..followers).map(|_| follow(&table, &key)).collect();
                    for wait in &mut waits {
                        assert!(poll(wait).is_pending());
                    }
                    lead.land(Arc::clone(&outcome));
                    for wait in waits {
                        drop(black_box(landed(wait)));
                    }
                    landed(wait)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn lead(table: &Table, key: &Key) -> (Lead<Key, (), Outcome>, Wait<Key, (), Outcome>) {
    match table.join(black_box(key), |()| true) {
        Join::Leader(lead, wait) => (lead, wait),
        Join::Follower(_) | Join::Blocked(_) | Join::Full => unreachable!("nobody leads it"),
    }
}

fn follow(table: &Table, key: &Key) -> Wait<Key, (), Outcome> {
    match table.join(black_box(key), |()| true) {
        Join::Follower(wait) => wait,
        Join::Leader(..) | Join::Blocked(_) | Join::Full => unreachable!("it is led, and not sent"),
    }
}

fn poll(wait: &mut Wait<Key, (), Outcome>) -> Poll<End<Outcome>> {
    Pin::new(wait).poll(&mut Context::from_waker(Waker::noop()))
}

fn landed(mut wait: Wait<Key, (), Outcome>) -> Outcome {
    match poll(&mut wait) {
        Poll::Ready(End::Landed(outcome)) => outcome,
        Poll::Ready(End::Aborted) | Poll::Pending => unreachable!("it has landed"),
    }
}
