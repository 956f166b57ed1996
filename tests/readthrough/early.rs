//! Early refresh, simulated: what XFetch promises, through the real read path, with chance and time in the test's hand.

use std::sync::atomic::Ordering;
use std::time::Duration;

use seawall::catalog::policy::Policy;
use seawall::chance::Chance;
use seawall::readthrough::{By, Look, Source};

use super::origin::{BOUNDS, SEED, Script, bench, just_before, settle};

const EXPIRIES: usize = 10_000;
const READS_PER_SECOND: f64 = 100.0;
const DELTA: Duration = Duration::from_millis(100);
const TTL: Duration = Duration::from_secs(3);

/// Poisson arrivals: the time to the next read.
fn pause(chance: &Chance) -> Duration {
    Duration::from_secs_f64(-(1.0 - chance.draw()).ln() / READS_PER_SECOND)
}

#[tokio::test]
async fn hot_keys_are_refreshed_before_they_expire_once_and_as_early_as_theory_says() {
    let policy = Policy {
        ttl: TTL,
        jitter: 0.0,
        stale_while_revalidate: Duration::ZERO,
        early_refresh: 1.0,
        timeout: Duration::from_secs(600),
        ..Policy::default()
    };
    let mut bench = bench(BOUNDS, policy.clone(), policy);
    let arrivals = Chance::seeded(SEED + 1);
    let mut leads = 0.0;
    let (mut misses, mut blocked, mut reads) = (0u32, 0u32, 0u32);
    let mut early = 0;
    // The first fill, which takes DELTA as every rebuild does.
    let first = bench.ask("a", b"k");
    let statement = bench.begun.recv().await.expect("a statement");
    bench.clock.advance(DELTA);
    statement.end(Script::Answer("l", "[0]"));
    first.await.expect("no panic").expect("an answer");
    let mut expires = bench.clock.now() + TTL;
    for _ in 0..EXPIRIES {
        let rebuild = loop {
            bench.clock.advance(pause(&arrivals));
            reads += 1;
            match bench.look("a", b"k") {
                Look::Answer(answer) => {
                    assert!(matches!(answer.source, Source::Memory { by: By::Lifetime, .. }));
                    if bench.read.flying() == 1 {
                        early += 1;
                        leads += expires.since(bench.clock.now()).as_secs_f64();
                        break bench.begun.recv().await.expect("the refresh");
                    }
                }
                Look::Rebuild(_) => {
                    misses += 1;
                    blocked += 1;
                    bench.ask("a", b"k");
                    break bench.begun.recv().await.expect("the miss");
                }
                Look::Withheld => panic!("nobody said only-if-cached"),
            }
        };
        // While it runs, readers go on coming, and none of them begins another.
        let lands = bench.clock.now() + DELTA;
        loop {
            let next = bench.clock.now() + pause(&arrivals);
            if next >= lands {
                break;
            }
            bench.clock.advance(next.since(bench.clock.now()));
            reads += 1;
            if let Look::Rebuild(_) = bench.look("a", b"k") {
                blocked += 1;
            }
        }
        bench.clock.advance(lands.since(bench.clock.now()));
        rebuild.end(Script::Answer("l", "[1]"));
        settle("it has landed", || bench.read.flying() == 0).await;
        expires = bench.clock.now() + TTL;
    }
    let rebuilds = bench.origin.statements.load(Ordering::SeqCst) - 1;
    assert_eq!(rebuilds, EXPIRIES, "one rebuild per expiry");
    // Expiries whose rebuild a waiting reader had to lead, and readers that waited for one that began too late.
    assert!(f64::from(misses) < 0.01 * EXPIRIES as f64, "{misses} blocking misses in {EXPIRIES} expiries");
    assert!(f64::from(blocked) < 0.01 * f64::from(reads), "{blocked} of {reads} reads waited");
    // The mean lead of Poisson reads at rate r: delta * (ln(r * delta) + Euler's constant).
    let theory = DELTA.as_secs_f64() * ((READS_PER_SECOND * DELTA.as_secs_f64()).ln() + 0.577);
    let mean = leads / f64::from(early);
    assert!((0.8 * theory..=1.2 * theory).contains(&mean), "mean lead {mean:.3} s, by theory {theory:.3} s");
    assert_eq!(bench.metric("seawall_rebuilds_total{query=\"a\",reason=\"early\"}"), f64::from(early));
    println!(
        "mean lead {mean:.3} s (theory {theory:.3} s), {misses} blocking misses, {blocked} of {reads} reads waited, {rebuilds} rebuilds"
    );
}

#[tokio::test]
async fn a_cold_key_and_a_beta_of_zero_are_not_refreshed_early() {
    let quick = Policy { ttl: TTL, jitter: 0.0, ..Policy::default() };
    let mut bench = bench(BOUNDS, quick.clone(), Policy { early_refresh: 0.0, ..quick });
    for (name, key) in [("a", b"1"), ("b", b"2")] {
        let first = bench.ask(name, key);
        let statement = bench.begun.recv().await.expect("a statement");
        bench.clock.advance(DELTA);
        statement.end(Script::Answer("l", "[0]"));
        first.await.expect("no panic").expect("an answer");
    }
    // Query a is read once, further from its expiry than any draw reaches: the rebuild took 0.1 s, and 3 s minus 0.1 s
    // for the other's fill are left, where chance says yes once in 10^12. Query b is read to the end.
    assert!(matches!(bench.look("a", b"1"), Look::Answer(_)));
    bench.clock.advance(just_before(TTL));
    for _ in 0..1_000 {
        assert!(matches!(bench.look("b", b"2"), Look::Answer(_)));
    }
    assert_eq!(bench.read.flying(), 0);
}
