//! Lifetimes over many keys, with time in the test's hand.

use std::sync::Arc;
use std::time::Duration;

use seawall::cache::entry::Freshness;
use seawall::catalog::policy::Policy;
use seawall::clock::Moment;
use seawall::readthrough::{Ask, By, Directives, Look, Source, Want};
use seawall::telemetry::metrics::Fallback;

use super::origin::{BOUNDS, Bench, bench};

const KEYS: u32 = 50_000;
const TTL: Duration = Duration::from_secs(100);

async fn fill(bench: &Bench, name: &str, prefix: u8) {
    let route = bench.route(name);
    let arrived = bench.clock.now();
    for n in 0..KEYS {
        let mut key = vec![prefix];
        key.extend_from_slice(&n.to_le_bytes());
        let directives = Directives::default();
        let ask = Ask { route: &route, prepared: &bench.prepared, key: &key, arrived, directives };
        assert!(bench.read.read(&ask, Want::new(Fallback::Miss)).await.is_ok());
    }
}

/// Lifetimes as shares of the ttl, from the store itself.
fn shares(bench: &Bench, filled: Moment) -> Vec<f64> {
    bench.read.store().expiries().iter().map(|e| e.since(filled).as_secs_f64() / TTL.as_secs_f64()).collect()
}

#[tokio::test]
async fn what_is_filled_at_one_instant_expires_evenly_over_the_whole_band_and_never_beyond_it() {
    let policy = |jitter| Policy { ttl: TTL, jitter, ..Policy::default() };
    for (jitter, name) in [(0.1, "a"), (0.5, "b")] {
        let bench = bench(BOUNDS, policy(0.1), policy(0.5));
        *bench.origin.always.lock().expect("not poisoned") = Some(("l", "[1]"));
        let filled = bench.clock.now();
        fill(&bench, name, 1).await;
        fill(&bench, name, 2).await;
        let shares = shares(&bench, filled);
        assert_eq!(shares.len(), 2 * KEYS as usize);
        let (low, high) = (1.0 - jitter, 1.0 + jitter);
        // Nanoseconds of rounding aside.
        assert!(shares.iter().all(|s| (low - 1e-9..=high + 1e-9).contains(s)), "beyond the band");
        // 20 slices of 5,000 expected each: a binomial's deviation is 69, and seven of them are 483.
        let mut slices = [0u32; 20];
        for share in &shares {
            let at = (1..20).take_while(|&n| share - low >= (high - low) * f64::from(n) / 20.0).count();
            slices[at] += 1;
        }
        assert!(slices.iter().all(|n| (4_517..=5_483).contains(n)), "jitter {jitter}: {slices:?}");
    }
}

#[tokio::test]
async fn an_answer_is_fresh_to_the_end_of_its_lifetime_and_not_at_it() {
    let policy = Policy { ttl: TTL, jitter: 0.0, stale_while_revalidate: Duration::ZERO, ..Policy::default() };
    let bench = bench(BOUNDS, policy.clone(), policy);
    *bench.origin.always.lock().expect("not poisoned") = Some(("l", "[1]"));
    bench.ask("a", b"k").await.expect("no panic").expect("an answer");
    bench.clock.advance(TTL.saturating_sub(Duration::from_nanos(1)));
    match bench.look("a", b"k") {
        Look::Answer(answer) => {
            let stands = Freshness::Fresh(Duration::from_nanos(1));
            assert_eq!(answer.source, Source::Memory { stands, by: By::Lifetime });
            assert_eq!(Arc::strong_count(&answer.entry), 2);
        }
        other => panic!("{other:?}"),
    }
    bench.clock.advance(Duration::from_nanos(1));
    match bench.look("a", b"k") {
        Look::Rebuild(want) => assert_eq!(want.why(), Fallback::Expired),
        other => panic!("{other:?}"),
    }
}
