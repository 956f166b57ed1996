//! What requests' directives can and can't cause.

use std::sync::atomic::Ordering;
use std::time::Duration;

use seawall::cache::entry::Freshness;
use seawall::catalog::policy::Policy;
use seawall::readthrough::origin::OriginError;
use seawall::readthrough::{By, Directives, Led, Look, Source, Stored};
use seawall::telemetry::metrics::Fallback;

use super::origin::{BOUNDS, Bench, Script, bench, just_before, settle};

const S: fn(u64) -> Duration = Duration::from_secs;
const NANO: Duration = Duration::from_nanos(1);

const NO_CACHE: Directives = Directives { max_age: Some(Duration::ZERO), max_stale: None, only_if_cached: false };

fn max_age(seconds: u64) -> Directives {
    Directives { max_age: Some(S(seconds)), ..Directives::default() }
}

fn max_stale(most: Duration) -> Directives {
    Directives { max_stale: Some(most), ..Directives::default() }
}

fn only_if_cached(directives: Directives) -> Directives {
    Directives { only_if_cached: true, ..directives }
}

/// 100 s fresh, 5 s stale-while-revalidate, 60 s stale-if-error, directives may force a fill every 2 s.
fn policy() -> Policy {
    Policy {
        ttl: S(100),
        jitter: 0.0,
        stale_while_revalidate: S(5),
        stale_if_error: S(60),
        early_refresh: 0.0,
        timeout: S(30),
        min_refill_interval: S(2),
        ..Policy::default()
    }
}

async fn filled() -> Bench {
    let mut bench = bench(BOUNDS, policy(), policy());
    let first = bench.ask("a", b"k");
    bench.begun.recv().await.expect("a statement").end(Script::Answer("l", "[1]"));
    first.await.expect("no panic").expect("an answer");
    bench
}

fn statements(bench: &Bench) -> usize {
    bench.origin.statements.load(Ordering::SeqCst)
}

fn forced(led: Led) -> Source {
    Source::Fill { led, why: Fallback::Directive, stored: Stored::Kept }
}

#[tokio::test]
async fn no_cache_forces_a_fill_at_most_once_per_interval_whoever_asks() {
    let mut bench = filled().await;
    bench.clock.advance(just_before(S(2)));
    let limited = bench.ask_for("a", b"k", NO_CACHE).await.expect("no panic").expect("the stored answer");
    let stands = Freshness::Fresh(S(98) + NANO);
    assert_eq!(limited.source, Source::Memory { stands, by: By::RefillLimited }, "the fill itself counts");
    bench.clock.advance(NANO);
    let first = bench.ask_for("a", b"k", NO_CACHE);
    let statement = bench.begun.recv().await.expect("a forced fill");
    // It has been sent: what it brings may have been read before these arrive.
    for _ in 0..100 {
        let other = bench.ask_for("a", b"k", NO_CACHE).await.expect("no panic").expect("the stored answer");
        assert!(matches!(other.source, Source::Memory { by: By::RefillLimited, .. }), "{:?}", other.source);
        assert_eq!(other.entry.body(), b"[1]");
    }
    statement.end(Script::Answer("l", "[2]"));
    let answer = first.await.expect("no panic").expect("an answer");
    assert_eq!((answer.entry.body(), answer.source), (&b"[2]"[..], forced(Led::Own)));
    assert_eq!(statements(&bench), 2);
    assert_eq!(bench.metric("seawall_rebuilds_total{query=\"a\",reason=\"manual\"}"), 1.0);
    assert_eq!(bench.metric("seawall_db_fallbacks_total{query=\"a\",reason=\"directive\"}"), 1.0);
}

#[tokio::test]
async fn who_validates_joins_a_flight_that_has_not_been_sent_and_none_that_has() {
    // One turn, so that the second query's flight waits before it is sent.
    let bounds = seawall::readthrough::Bounds { max_fills: 1, ..BOUNDS };
    let mut bench = bench(bounds, policy(), policy());
    let other = bench.ask("b", b"x");
    let held = bench.begun.recv().await.expect("the turn is taken");
    let readers: Vec<_> = (0..5).map(|_| bench.ask_for("a", b"k", NO_CACHE)).collect();
    settle("all wait", || bench.read.waiting() == 6).await;
    assert_eq!(bench.read.flying(), 2, "one flight, not yet sent, for all five");
    held.end(Script::Answer("l", "[0]"));
    other.await.expect("no panic").expect("an answer");
    let sent = bench.begun.recv().await.expect("the five's");
    let late = bench.ask_for("a", b"k", NO_CACHE);
    settle("the late one leads its own", || bench.read.flying() == 2).await;
    sent.end(Script::Answer("l", "[1]"));
    for reader in readers {
        assert_eq!(reader.await.expect("no panic").expect("an answer").entry.body(), b"[1]");
    }
    // What the five brought was sent before the late one came.
    bench.begun.recv().await.expect("the late one's").end(Script::Answer("l", "[2]"));
    assert_eq!(late.await.expect("no panic").expect("an answer").entry.body(), b"[2]");
    assert_eq!(statements(&bench), 3);
}

#[tokio::test]
async fn max_age_takes_what_is_young_enough_and_any_flight_under_way_else() {
    let mut bench = filled().await;
    bench.clock.advance(S(10));
    assert!(matches!(bench.look_for("a", b"k", max_age(10)), Look::Answer(_)));
    bench.clock.advance(NANO);
    let first = bench.ask_for("a", b"k", max_age(10));
    let statement = bench.begun.recv().await.expect("a forced fill");
    let second = bench.ask_for("a", b"k", max_age(10));
    settle("both wait", || bench.read.waiting() == 2).await;
    statement.end(Script::Answer("l", "[2]"));
    assert_eq!(first.await.expect("no panic").expect("an answer").source, forced(Led::Own));
    assert_eq!(second.await.expect("no panic").expect("an answer").source, forced(Led::Others));
    assert_eq!(statements(&bench), 2);
}

#[tokio::test]
async fn who_bounds_the_age_takes_no_stale_answer_unless_it_says_how_stale() {
    let bench = filled().await;
    bench.clock.advance(S(103));
    let within = |directives| matches!(bench.look_for("a", b"k", directives), Look::Answer(_));
    assert!(!within(max_age(1_000)));
    assert!(within(Directives { max_stale: Some(S(3)), ..max_age(1_000) }));
    assert!(!within(Directives { max_stale: Some(just_before(S(3))), ..max_age(1_000) }));
}

#[tokio::test]
async fn max_stale_reaches_as_far_as_the_querys_own_windows_and_begins_a_refresh() {
    let mut bench = filled().await;
    bench.clock.advance(just_before(S(160)));
    match bench.look_for("a", b"k", max_stale(Duration::MAX)) {
        Look::Answer(answer) => {
            let stands = Freshness::Stale(just_before(S(60)));
            assert_eq!(answer.source, Source::Memory { stands, by: By::MaxStale });
        }
        other => panic!("{other:?}"),
    }
    assert!(bench.begun.recv().await.is_some(), "a refresh");
    bench.clock.advance(NANO);
    assert!(matches!(bench.look_for("a", b"k", max_stale(Duration::MAX)), Look::Rebuild(_)));
}

#[tokio::test]
async fn only_if_cached_is_given_what_is_stored_and_never_causes_a_statement() {
    let bench = filled().await;
    let stored = |directives| matches!(bench.look_for("a", b"k", only_if_cached(directives)), Look::Answer(_));
    assert!(stored(Directives::default()));
    assert!(!stored(NO_CACHE));
    assert!(matches!(bench.look_for("a", b"other", only_if_cached(Directives::default())), Look::Withheld));
    bench.clock.advance(S(105));
    assert!(!stored(Directives::default()));
    assert_eq!((statements(&bench), bench.read.flying()), (1, 0));
}

#[tokio::test]
async fn a_failure_is_the_answer_for_who_validates_and_the_old_answer_for_who_bounds_the_age() {
    let mut bench = filled().await;
    bench.clock.advance(S(10));
    let validating = bench.ask_for("a", b"k", NO_CACHE);
    bench.begun.recv().await.expect("a try").end(Script::Fail(OriginError::Away("down".into())));
    assert!(validating.await.expect("no panic").is_err());
    let bounding = bench.ask_for("a", b"k", max_age(5)).await.expect("no panic").expect("the old answer");
    assert!(matches!(bounding.source, Source::Old { why: Fallback::Directive, .. }), "{:?}", bounding.source);
    assert_eq!(statements(&bench), 2, "the failure is remembered");
}

#[tokio::test]
async fn a_thousand_clients_that_validate_all_the_time_cost_one_statement_per_interval() {
    let mut bench = filled().await;
    let mut expected = 1;
    for n in 0..20 {
        bench.clock.advance(S(1));
        let readers: Vec<_> = (0..50).map(|_| bench.ask_for("a", b"k", NO_CACHE)).collect();
        if n % 2 == 1 {
            expected += 1;
            bench.begun.recv().await.expect("a forced fill").end(Script::Answer("l", "[1]"));
        }
        for reader in readers {
            assert!(reader.await.expect("no panic").is_ok());
        }
        assert_eq!(statements(&bench), expected);
    }
}
