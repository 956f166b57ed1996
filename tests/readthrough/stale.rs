//! Old answers: when they are given, who refreshes them, and what a failure changes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use seawall::cache::entry::Freshness;
use seawall::catalog::policy::Policy;
use seawall::readthrough::origin::OriginError;
use seawall::readthrough::{Answer, By, Instead, Led, Look, ReadError, Source};
use seawall::telemetry::metrics::Fallback;

use super::origin::{BOUNDS, Bench, Script, bench, just_before, settle};

const S: fn(u64) -> Duration = Duration::from_secs;
const NANO: Duration = Duration::from_nanos(1);

/// 10 s fresh, then 5 s stale-while-revalidate within 60 s stale-if-error; a second's backoff, nothing by chance.
fn policy() -> Policy {
    Policy {
        ttl: S(10),
        jitter: 0.0,
        stale_while_revalidate: S(5),
        stale_if_error: S(60),
        early_refresh: 0.0,
        timeout: S(30),
        error_backoff: S(1),
        ..Policy::default()
    }
}

/// A bench whose query `a` has an answer `[1]` under `k`, filled now.
async fn filled(policy: Policy) -> Bench {
    let mut bench = bench(BOUNDS, policy.clone(), policy);
    let first = bench.ask("a", b"k");
    bench.begun.recv().await.expect("a statement").end(Script::Answer("l", "[1]"));
    first.await.expect("no panic").expect("an answer");
    bench
}

fn at_once(bench: &Bench) -> Answer {
    match bench.look("a", b"k") {
        Look::Answer(answer) => answer,
        other => panic!("nothing at once: {other:?}"),
    }
}

fn why(bench: &Bench) -> Fallback {
    match bench.look("a", b"k") {
        Look::Rebuild(want) => want.why(),
        other => panic!("no rebuild: {other:?}"),
    }
}

fn stale(past: Duration, by: By) -> Source {
    Source::Memory { stands: Freshness::Stale(past), by }
}

fn statements(bench: &Bench) -> usize {
    bench.origin.statements.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_stale_hit_answers_before_the_refresh_ends_and_one_refresh_serves_all() {
    let mut bench = filled(policy()).await;
    bench.clock.advance(S(12));
    for _ in 0..200 {
        let answer = at_once(&bench);
        assert_eq!((answer.entry.body(), answer.source), (&b"[1]"[..], stale(S(2), By::WhileRevalidate)));
    }
    let refresh = bench.begun.recv().await.expect("the refresh");
    assert_eq!((bench.read.flying(), bench.read.waiting()), (1, 0), "one flies, and nobody waits");
    refresh.end(Script::Answer("l", "[2]"));
    settle("the refresh has landed", || bench.read.flying() == 0).await;
    let answer = at_once(&bench);
    assert_eq!(answer.entry.body(), b"[2]");
    assert_eq!(answer.source, Source::Memory { stands: Freshness::Fresh(S(10)), by: By::Lifetime });
    assert_eq!(statements(&bench), 2);
    assert_eq!(bench.metric("seawall_rebuilds_total{query=\"a\",reason=\"expired\"}"), 1.0);
    assert_eq!(bench.metric("seawall_db_fallbacks_total{query=\"a\",reason=\"expired\"}"), 0.0, "nobody waited");
}

#[tokio::test]
async fn stale_while_revalidate_ends_at_its_end_and_not_before() {
    let bench = filled(policy()).await;
    bench.clock.advance(just_before(S(15)));
    assert_eq!(at_once(&bench).source, stale(just_before(S(5)), By::WhileRevalidate));
    bench.clock.advance(NANO);
    assert_eq!(why(&bench), Fallback::Expired);
}

#[tokio::test]
async fn a_failed_refresh_neither_extends_nor_deletes_and_the_first_success_ends_the_backoff() {
    let mut bench = filled(policy()).await;
    bench.clock.advance(S(10));
    at_once(&bench);
    let away = || Script::Fail(OriginError::Away("down".into()));
    bench.begun.recv().await.expect("the refresh").end(away());
    settle("the refresh has failed", || bench.read.flying() == 0).await;
    // Within the backoff the answer says that rebuilds fail, and nothing is asked.
    assert_eq!(at_once(&bench).source, stale(S(0), By::IfError));
    assert_eq!(statements(&bench), 2);
    // After it, the next refresh begins, and fails as well.
    bench.clock.advance(Duration::from_millis(1_201));
    assert_eq!(at_once(&bench).source, stale(Duration::from_millis(1_201), By::WhileRevalidate));
    bench.begun.recv().await.expect("a second refresh").end(away());
    settle("the second has failed", || bench.read.flying() == 0).await;
    // The windows are where they were: at 15 s readers wait for a try again.
    bench.clock.advance(Duration::from_millis(3_799));
    assert_eq!(why(&bench), Fallback::Expired);
    let reader = bench.ask("a", b"k");
    bench.begun.recv().await.expect("the reader's").end(Script::Answer("l", "[2]"));
    assert_eq!(reader.await.expect("no panic").expect("an answer").entry.body(), b"[2]");
    // The success has ended the backoff: the next expiry is refreshed at once.
    bench.clock.advance(S(10));
    assert_eq!(at_once(&bench).source, stale(S(0), By::WhileRevalidate));
    assert!(bench.begun.recv().await.is_some());
}

#[tokio::test]
async fn after_a_failed_try_the_old_answer_is_given_within_stale_if_error_and_not_at_its_end() {
    let mut bench = filled(policy()).await;
    bench.clock.advance(just_before(S(70)));
    let readers: Vec<_> = (0..3).map(|_| bench.ask("a", b"k")).collect();
    settle("three wait", || bench.read.waiting() == 3).await;
    let failure = OriginError::Away("down".into());
    bench.begun.recv().await.expect("one try").end(Script::Fail(failure.clone()));
    let mut led = 0;
    for reader in readers {
        let answer = reader.await.expect("no panic").expect("the old answer");
        assert_eq!(answer.entry.body(), b"[1]");
        let Source::Old { led: whose, why: Fallback::Expired, instead: Instead::Failure(error) } = answer.source else {
            panic!("{:?}", answer.source)
        };
        assert_eq!(error, ReadError::Origin(failure.clone()));
        led += usize::from(whose == Led::Own);
    }
    assert_eq!((led, statements(&bench)), (1, 2));
    // In the backoff it is given from memory, until its window ends.
    assert_eq!(at_once(&bench).source, stale(just_before(S(60)), By::IfError));
    bench.clock.advance(NANO);
    let failed = bench.ask("a", b"k").await.expect("no panic").expect_err("the window is over");
    assert_eq!(failed.error, ReadError::Origin(failure));
    assert_eq!(statements(&bench), 2, "the failure is remembered");
}

#[tokio::test]
async fn what_says_something_of_the_question_itself_is_not_hidden_by_an_old_answer() {
    for (failure, hidden) in [
        (OriginError::TooManyRows { limit: 1 }, false),
        (OriginError::TooLarge { bytes: 2, limit: 1 }, false),
        (OriginError::Refused("no".into()), false),
        (OriginError::Broken("no".into()), true),
        (OriginError::Timeout, true),
        (OriginError::Behind("standby".into()), true),
    ] {
        let mut bench = filled(policy()).await;
        bench.clock.advance(S(20));
        let reader = bench.ask("a", b"k");
        bench.begun.recv().await.expect("a try").end(Script::Fail(failure.clone()));
        assert_eq!(reader.await.expect("no panic").is_ok(), hidden, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_wait_at_most_the_old_answer_is_given_and_the_rebuild_runs_on() {
    let mut bench = filled(Policy { wait_at_most: Some(Duration::from_millis(50)), ..policy() }).await;
    bench.clock.advance(S(20));
    let reader = bench.ask("a", b"k");
    let rebuild = bench.begun.recv().await.expect("the rebuild");
    let answer = reader.await.expect("no panic").expect("the old answer");
    assert_eq!(answer.entry.body(), b"[1]");
    assert_eq!(answer.source, Source::Old { led: Led::Own, why: Fallback::Expired, instead: Instead::Nothing });
    assert_eq!((bench.read.flying(), bench.read.waiting()), (1, 0), "nobody waits, and it is not cancelled");
    rebuild.end(Script::Answer("l", "[2]"));
    settle("the rebuild has landed", || bench.read.flying() == 0).await;
    assert_eq!(at_once(&bench).entry.body(), b"[2]");
}

#[tokio::test(start_paused = true)]
async fn without_an_old_answer_wait_at_most_changes_nothing() {
    let soft = Duration::from_millis(50);
    let mut bench = bench(BOUNDS, Policy { wait_at_most: Some(soft), ..policy() }, policy());
    let reader = bench.ask("a", b"k");
    let rebuild = bench.begun.recv().await.expect("the rebuild");
    tokio::time::advance(S(29)).await;
    assert!(!reader.is_finished());
    rebuild.end(Script::Answer("l", "[1]"));
    assert!(reader.await.expect("no panic").is_ok());
}

#[tokio::test]
async fn a_value_that_has_become_too_large_takes_the_old_one_with_it() {
    let bounds = seawall::readthrough::Bounds { entry_max_bytes: 1024, ..BOUNDS };
    let mut bench = bench(bounds, policy(), policy());
    let first = bench.ask("a", b"k");
    bench.begun.recv().await.expect("a statement").end(Script::Answer("l", "[1]"));
    first.await.expect("no panic").expect("an answer");
    bench.clock.advance(S(12));
    at_once(&bench);
    let large: &'static str = Box::leak("x".repeat(2048).into_boxed_str());
    bench.begun.recv().await.expect("the refresh").end(Script::Answer("l", large));
    settle("the refresh has landed", || bench.read.flying() == 0).await;
    assert_eq!(why(&bench), Fallback::Miss, "the old one is known to be out of date");
}

#[tokio::test]
async fn a_stop_ends_refreshes_that_nobody_waits_for() {
    let mut bench = filled(policy()).await;
    bench.clock.advance(S(12));
    at_once(&bench);
    let refresh = bench.begun.recv().await.expect("the refresh");
    bench.read.stop();
    refresh.cancelled().await;
    settle("it has landed", || bench.read.flying() == 0).await;
}

#[tokio::test]
async fn a_query_slower_than_its_ttl_advances_one_statement_at_a_time() {
    let slow = Policy { ttl: S(1), stale_while_revalidate: S(30), ..policy() };
    let mut bench = filled(slow).await;
    for n in 2..12u32 {
        bench.clock.advance(S(1));
        for _ in 0..10 {
            at_once(&bench);
        }
        let refresh = bench.begun.recv().await.expect("a refresh");
        // It takes three lifetimes; readers come all the while.
        for _ in 0..3 {
            bench.clock.advance(S(1));
            at_once(&bench);
            assert_eq!(bench.read.flying(), 1);
        }
        let body: &'static str = Box::leak(format!("[{n}]").into_boxed_str());
        refresh.end(Script::Answer("l", body));
        settle("it has landed", || bench.read.flying() == 0).await;
        assert_eq!(at_once(&bench).entry.body(), body.as_bytes());
        assert_eq!(statements(&bench), n as usize);
    }
}
