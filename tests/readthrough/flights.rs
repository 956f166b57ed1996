//! One question, one statement: who waits, who is told what, and what nobody waits for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use seawall::catalog::policy::Policy;
use seawall::readthrough::origin::{Connection, OriginError};
use seawall::readthrough::{Answer, Bounds, Failed, Led, Look, ReadError, Source, Want};
use seawall::telemetry::metrics::Fallback;
use tokio::task::JoinHandle;

use super::origin::{BOUNDS, Bench, Script, bench};

fn policy() -> Policy {
    Policy { timeout: Duration::from_secs(60), ..Policy::default() }
}

fn ask(bench: &Bench, name: &str, key: &'static [u8]) -> JoinHandle<Result<Answer, Failed>> {
    bench.fill(name, key, Want::new(Fallback::Miss))
}

/// Lets every task run until so many wait.
async fn settle(bench: &Bench, waiting: usize) {
    super::origin::settle("so many wait", || bench.read.waiting() == waiting).await;
}

#[tokio::test]
async fn all_who_wait_share_one_statement_and_one_answer() {
    let mut bench = bench(BOUNDS, policy(), policy());
    let readers: Vec<_> = (0..2_000).map(|_| ask(&bench, "a", b"k")).collect();
    settle(&bench, 2_000).await;
    bench.begun.recv().await.expect("a statement").end(Script::Answer("l", "[1]"));
    let mut led = 0;
    for reader in readers {
        let answer = reader.await.expect("no panic").expect("an answer");
        assert_eq!(answer.entry.body(), b"[1]");
        led += usize::from(matches!(answer.source, Source::Fill { led: Led::Own, .. }));
    }
    assert_eq!(led, 1);
    assert_eq!(bench.origin.statements.load(Ordering::SeqCst), 1);
    assert_eq!(bench.metric("seawall_shared_requests_total{query=\"a\"}"), 1_999.0);
    assert_eq!(bench.metric("seawall_db_queries_total{query=\"a\"}"), 1.0);
    assert_eq!((bench.read.flying(), bench.read.waiting()), (0, 0));
    assert!(matches!(bench.look("a", b"k"), Look::Answer(..)));
}

#[tokio::test]
async fn a_panic_in_the_fill_is_an_outcome_for_all_and_the_next_request_fills() {
    let mut bench = bench(BOUNDS, policy(), policy());
    let readers: Vec<_> = (0..10).map(|_| ask(&bench, "a", b"k")).collect();
    settle(&bench, 10).await;
    bench.begun.recv().await.expect("a statement").end(Script::Panic);
    for reader in readers {
        assert_eq!(reader.await.expect("no panic").err().map(|f| f.error), Some(ReadError::Panicked));
    }
    assert_eq!(bench.metric("seawall_rebuild_errors_total{query=\"a\",reason=\"panic\"}"), 1.0);
    let next = ask(&bench, "a", b"k");
    bench.begun.recv().await.expect("a second statement").end(Script::Answer("l", "[2]"));
    assert_eq!(next.await.expect("no panic").expect("an answer").entry.body(), b"[2]");
}

#[tokio::test]
async fn the_leaders_client_leaves_and_the_others_get_their_answer() {
    let mut bench = bench(BOUNDS, policy(), policy());
    let leader = ask(&bench, "a", b"k");
    settle(&bench, 1).await;
    let statement = bench.begun.recv().await.expect("a statement");
    let follower = ask(&bench, "a", b"k");
    settle(&bench, 2).await;
    leader.abort();
    settle(&bench, 1).await;
    statement.end(Script::Answer("l", "[1]"));
    assert_eq!(follower.await.expect("no panic").expect("an answer").entry.body(), b"[1]");
    assert_eq!(bench.origin.statements.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn when_all_have_left_the_statement_is_dropped_and_nothing_is_remembered() {
    let mut bench = bench(BOUNDS, policy(), policy());
    let readers: Vec<_> = (0..3).map(|_| ask(&bench, "a", b"k")).collect();
    settle(&bench, 3).await;
    let statement = bench.begun.recv().await.expect("a statement");
    readers.iter().for_each(JoinHandle::abort);
    statement.cancelled().await;
    settle(&bench, 0).await;
    let next = ask(&bench, "a", b"k");
    bench.begun.recv().await.expect("a second statement").end(Script::Answer("l", "[2]"));
    assert!(next.await.expect("no panic").is_ok());
    assert_eq!(bench.metric("seawall_rebuild_errors_total{query=\"a\",reason=\"cancelled\"}"), 1.0);
}

#[tokio::test]
async fn a_failure_is_shared_remembered_for_the_backoff_and_ended_by_the_first_success() {
    let backoff = Duration::from_secs(1);
    let mut bench = bench(BOUNDS, Policy { error_backoff: backoff, ..policy() }, policy());
    let readers: Vec<_> = (0..5).map(|_| ask(&bench, "a", b"k")).collect();
    settle(&bench, 5).await;
    let broken = OriginError::Broken("no such table".into());
    bench.begun.recv().await.expect("a statement").end(Script::Fail(broken.clone()));
    for reader in readers {
        let failed = reader.await.expect("no panic").expect_err("a failure");
        assert_eq!(failed.error, ReadError::Origin(broken.clone()));
        assert!(failed.until.is_some());
    }
    // Within the shortest backoff, 0.8 s: the same failure, and no statement.
    bench.clock.advance(Duration::from_millis(799));
    let again = ask(&bench, "a", b"k").await.expect("no panic").expect_err("remembered");
    assert_eq!(again.error, ReadError::Origin(broken));
    assert_eq!(bench.origin.statements.load(Ordering::SeqCst), 1);
    // After the longest, 1.2 s: a new try.
    bench.clock.advance(Duration::from_millis(402));
    let retry = ask(&bench, "a", b"k");
    bench.begun.recv().await.expect("a second statement").end(Script::Answer("l", "[1]"));
    assert!(retry.await.expect("no panic").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_outlives_the_timeout_ends_for_all_and_is_dropped() {
    let mut bench = bench(BOUNDS, Policy { timeout: Duration::from_secs(2), ..policy() }, policy());
    let readers: Vec<_> = (0..10).map(|_| ask(&bench, "a", b"k")).collect();
    let statement = bench.begun.recv().await.expect("a statement");
    statement.cancelled().await;
    for reader in readers {
        assert_eq!(reader.await.expect("no panic").err().map(|f| f.error), Some(ReadError::Deadline));
    }
    assert_eq!(bench.origin.statements.load(Ordering::SeqCst), 1);
    assert_eq!(bench.metric("seawall_rebuild_errors_total{query=\"a\",reason=\"timeout\"}"), 1.0);
}

#[tokio::test]
async fn a_full_queue_and_full_waiters_refuse_at_once_and_are_counted() {
    let bounds = Bounds { max_fills: 1, max_queued_fills: 1, max_waiters: 3, ..BOUNDS };
    let mut bench = bench(bounds, policy(), policy());
    let held = ask(&bench, "a", b"1");
    let statement = bench.begun.recv().await.expect("a statement");
    let queued = ask(&bench, "a", b"2");
    settle(&bench, 2).await;
    let refused = ask(&bench, "a", b"3").await.expect("no panic").expect_err("the queue is full");
    assert_eq!(refused.error, ReadError::QueueFull);
    let third = ask(&bench, "a", b"2");
    settle(&bench, 3).await;
    let refused = ask(&bench, "a", b"1").await.expect("no panic").expect_err("three wait");
    assert_eq!(refused.error, ReadError::TooManyWaiters);
    statement.end(Script::Answer("l", "[1]"));
    bench.begun.recv().await.expect("the queued one's").end(Script::Answer("l", "[2]"));
    for reader in [held, queued, third] {
        assert!(reader.await.expect("no panic").is_ok());
    }
    assert_eq!(bench.metric("seawall_refused_total{reason=\"queue_full\"}"), 1.0);
    assert_eq!(bench.metric("seawall_refused_total{reason=\"waiters\"}"), 1.0);
}

#[tokio::test]
async fn a_hanging_query_leaves_another_its_turns() {
    let bounds = Bounds { max_fills: 3, ..BOUNDS };
    let mut bench = bench(bounds, Policy { max_fills: 2, ..policy() }, policy());
    let hanging: Vec<_> = [b"1", b"2", b"3", b"4"].map(|key| ask(&bench, "a", key)).into();
    settle(&bench, 4).await;
    let mut held = vec![bench.begun.recv().await, bench.begun.recv().await];
    assert!(held.iter().all(Option::is_some));
    let quick = ask(&bench, "b", b"x");
    bench.begun.recv().await.expect("the other query's").end(Script::Answer("l", "[1]"));
    assert!(quick.await.expect("no panic").is_ok());
    assert_eq!(bench.origin.statements.load(Ordering::SeqCst), 3);
    held.clear();
    hanging.iter().for_each(JoinHandle::abort);
}

#[tokio::test]
async fn an_answer_of_another_history_is_asked_again_on_a_new_connection_and_makes_all_older_ones_stale() {
    let mut bench = bench(BOUNDS, policy(), policy());
    let first = ask(&bench, "a", b"k");
    let statement = bench.begun.recv().await.expect("a statement");
    assert_eq!(statement.connection, Connection::Pooled);
    statement.end(Script::Answer("old", "[1]"));
    assert!(first.await.expect("no panic").is_ok());
    assert!(matches!(bench.look("a", b"k"), Look::Answer(..)));
    let other = ask(&bench, "b", b"x");
    bench.begun.recv().await.expect("a statement").end(Script::Answer("new", "[2]"));
    let again = bench.begun.recv().await.expect("once more");
    assert_eq!(again.connection, Connection::New);
    again.end(Script::Answer("new", "[3]"));
    assert_eq!(other.await.expect("no panic").expect("an answer").entry.body(), b"[3]");
    // R2: the entry of the old history is within its ttl and not fresh.
    match bench.look("a", b"k") {
        Look::Rebuild(want) => assert_eq!(want.why(), Fallback::Invalidated),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_pooled_connection_of_a_former_primary_does_not_bring_the_old_history_back() {
    let mut bench = bench(BOUNDS, policy(), policy());
    let first = ask(&bench, "a", b"k");
    bench.begun.recv().await.expect("a statement").end(Script::Answer("new", "[1]"));
    assert!(first.await.expect("no panic").is_ok());
    let second = ask(&bench, "a", b"j");
    bench.begun.recv().await.expect("pooled").end(Script::Answer("old", "[0]"));
    bench.begun.recv().await.expect("on a new connection").end(Script::Answer("new", "[2]"));
    assert_eq!(second.await.expect("no panic").expect("an answer").entry.body(), b"[2]");
    assert!(matches!(bench.look("a", b"k"), Look::Answer(..)), "nothing was flushed");
}
