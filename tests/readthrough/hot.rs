//! Hot answers are refreshed as soon as they are invalidated, and only those.

use std::sync::Arc;
use std::time::Duration;

use seawall::cache::entry::Freshness;
use seawall::catalog::Shape;
use seawall::catalog::policy::Policy;
use seawall::catalog::verdict::SchemaFingerprint;
use seawall::readthrough::{Bounds, Touched};
use seawall::tag::Tag;
use tokio::sync::mpsc::error::TryRecvError;

use super::events::{fill, followed, is_fresh, policy, poll, verdict};
use super::origin::{BOUNDS, Bench, Running, Script, declare, settle, stamp};

fn proactive() -> Policy {
    Policy { proactive_refresh: true, ..policy() }
}

/// A bench of hot queries, of which so many entries are refreshed at a time, one statement after the other.
fn bench(proactive_at_most: usize) -> Bench {
    followed(Bounds { proactive: proactive_at_most, max_fills: 2, ..BOUNDS }, proactive())
}

fn read(bench: &Bench, key: &[u8], times: usize) {
    for _ in 0..times {
        assert!(is_fresh(bench, "a", key));
    }
}

/// A write to `s.t` by `xid` is applied, and its followers refresh.
fn write(bench: &Bench, xid: u64) {
    bench.clock.advance(Duration::from_nanos(1));
    poll(bench, &format!("{0}:{0}:", xid + 1), &[(xid, "s.t")]);
    bench.read.refresh_hot(Touched::Tags(&[Tag::new("s.t")]));
}

async fn begun(bench: &mut Bench) -> Running {
    tokio::time::timeout(Duration::from_secs(10), bench.begun.recv()).await.expect("no refresh").expect("a statement")
}

fn count(bench: &Bench, outcome: &str) -> f64 {
    bench.metric(&format!("seawall_proactive_refreshes_total{{outcome=\"{outcome}\"}}"))
}

/// Lets the refresh be stored.
async fn refreshed(bench: &mut Bench, key: &[u8], snapshot: &'static str) {
    let running = begun(bench).await;
    assert_eq!(&*running.key, key);
    running.end(Script::Under(snapshot, "[9]"));
    let stored = stamp("l", snapshot);
    settle("it is stored", || bench.read.store().peek(key).is_some_and(|entry| *entry.stamp() == stored)).await;
}

#[tokio::test]
async fn what_was_read_twice_is_refreshed_before_anybody_asks_and_nothing_else() {
    let mut bench = bench(2);
    for key in [b"hot", b"two", b"one"] {
        fill(&mut bench, "a", key, "100:100:", "[1]").await;
    }
    // Its fill was asked for, which is a first time.
    read(&bench, b"hot", 5);
    read(&bench, b"two", 1);
    assert!(bench.read.watches());
    write(&bench, 105);
    refreshed(&mut bench, b"hot", "106:106:").await;
    refreshed(&mut bench, b"two", "106:106:").await;
    assert!(matches!(bench.begun.try_recv(), Err(TryRecvError::Empty)), "nobody had read it again");
    assert!(is_fresh(&bench, "a", b"hot") && is_fresh(&bench, "a", b"two") && !is_fresh(&bench, "a", b"one"));
    assert_eq!((count(&bench, "begun"), count(&bench, "damped"), count(&bench, "refused")), (2.0, 0.0, 0.0));
    // It has that write, and another table is no concern of its.
    write(&bench, 105);
    poll(&bench, "108:108:", &[(107, "s.u")]);
    bench.read.refresh_hot(Touched::Tags(&[Tag::new("s.u")]));
    bench.read.refresh_hot(Touched::Everything);
    tokio::task::yield_now().await;
    assert!(matches!(bench.begun.try_recv(), Err(TryRecvError::Empty)));
}

#[tokio::test]
async fn after_a_reload_what_was_hot_is_refreshed_by_what_is_in_force() {
    let mut bench = bench(2);
    fill(&mut bench, "a", b"hot", "100:100:", "[1]").await;
    read(&bench, b"hot", 5);
    assert!(bench.read.watches());
    // Another bound, so another query, of the same shape: its answers are those of the former one's keys.
    let changed = Policy { max_rows: 7, ttl: Duration::from_secs(50), ..proactive() };
    let next = bench.catalog.succeed(vec![declare("a", changed), declare("b", proactive())]);
    let query = next.get("a").expect("declared");
    query.reshape(Shape::Ready(Arc::clone(&bench.prepared)));
    query.judge(verdict("u"));
    bench.read.rest_on(Some(SchemaFingerprint(8)));
    bench.read.replace(&next);
    fill(&mut bench, "a", b"hot", "100:100:", "[1]").await;
    read(&bench, b"hot", 5);

    let touched = |bench: &Bench, xid: u64| {
        bench.clock.advance(Duration::from_nanos(1));
        poll(bench, &format!("{0}:{0}:", xid + 1), &[(xid, "s.u")]);
    };
    touched(&bench, 105);
    bench.read.refresh_hot(Touched::Tags(&[Tag::new("s.u")]));
    refreshed(&mut bench, b"hot", "106:106:").await;
    assert!(is_fresh(&bench, "a", b"hot"));
    let entry = bench.read.store().peek(b"hot").expect("stored");
    assert_eq!(entry.freshness(bench.clock.now()), Freshness::Fresh(Duration::from_secs(50)));
    touched(&bench, 107);
    assert!(!is_fresh(&bench, "a", b"hot"), "it is known to depend on that table");
}

#[tokio::test]
async fn who_does_not_ask_for_it_gets_none() {
    for (bounds, policy) in [(BOUNDS, policy()), (Bounds { proactive: 0, ..BOUNDS }, proactive())] {
        let mut bench = followed(bounds, policy);
        fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
        read(&bench, b"k", 100);
        assert!(!bench.read.watches());
        write(&bench, 105);
        tokio::task::yield_now().await;
        assert!(matches!(bench.begun.try_recv(), Err(TryRecvError::Empty)));
    }
}

#[tokio::test]
async fn a_key_that_is_read_as_often_as_written_is_refreshed_each_time() {
    let mut bench = bench(1);
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    read(&bench, b"k", 1);
    for xid in 105..125_u64 {
        write(&bench, xid);
        refreshed(&mut bench, b"k", format!("{0}:{0}:", xid + 1).leak()).await;
        read(&bench, b"k", 1);
    }
    assert_eq!((count(&bench, "begun"), count(&bench, "damped")), (20.0, 0.0));
}

#[tokio::test]
async fn a_key_that_is_written_more_often_than_read_is_not_refreshed() {
    let mut bench = bench(1);
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    // As hot as may be: a lull costs four statements and no more.
    read(&bench, b"k", 1_000);
    for (xid, snapshot) in (105..).zip(["106:106:", "107:107:", "108:108:"]) {
        write(&bench, xid);
        refreshed(&mut bench, b"k", snapshot).await;
    }
    for xid in 108..120 {
        write(&bench, xid);
    }
    tokio::task::yield_now().await;
    assert!(matches!(bench.begun.try_recv(), Err(TryRecvError::Empty)), "damped");
    assert_eq!((count(&bench, "begun"), count(&bench, "damped")), (3.0, 12.0));
    // Every other write is read once: that is not enough either.
    let mut xid = 120;
    for _ in 0..10 {
        bench.origin.always.lock().expect("not poisoned").replace(("l", "[2]"));
        bench.origin.under.lock().expect("not poisoned").replace(format!("{xid}:{xid}:"));
        bench.ask("a", b"k").await.expect("no panic").expect("an answer");
        bench.origin.always.lock().expect("not poisoned").take();
        for _ in 0..2 {
            write(&bench, xid);
            xid += 1;
        }
    }
    tokio::task::yield_now().await;
    assert!(matches!(bench.begun.try_recv(), Err(TryRecvError::Empty)), "damped");
    assert_eq!(count(&bench, "begun"), 3.0);
}

#[tokio::test]
async fn the_most_read_come_first_and_no_more_than_the_bound() {
    let mut bench = bench(2);
    for (key, reads) in [(b"cool", 2), (b"warm", 10), (b"hot!", 50)] {
        fill(&mut bench, "a", key, "100:100:", "[1]").await;
        read(&bench, key, reads);
    }
    write(&bench, 105);
    refreshed(&mut bench, b"hot!", "106:106:").await;
    refreshed(&mut bench, b"warm", "106:106:").await;
    tokio::task::yield_now().await;
    assert!(matches!(bench.begun.try_recv(), Err(TryRecvError::Empty)), "the third is beyond the bound");
    assert_eq!((count(&bench, "begun"), count(&bench, "refused")), (2.0, 1.0));
}

#[tokio::test]
async fn a_reader_does_not_wait_for_the_turns_of_refreshes() {
    let mut bench = bench(2);
    for key in [b"hot", b"too"] {
        fill(&mut bench, "a", key, "100:100:", "[1]").await;
    }
    read(&bench, b"hot", 9);
    read(&bench, b"too", 3);
    write(&bench, 105);
    let first = begun(&mut bench).await;
    assert_eq!(&*first.key, b"hot", "the only turn");
    let asked = bench.ask("a", b"too");
    let own = begun(&mut bench).await;
    assert_eq!(&*own.key, b"too", "its own statement, beside the refresh");
    own.end(Script::Under("106:106:", "[2]"));
    assert_eq!(asked.await.expect("no panic").expect("an answer").entry.body(), b"[2]");
    first.end(Script::Under("106:106:", "[2]"));
    settle("both are stored", || bench.read.flying() == 0).await;
    tokio::task::yield_now().await;
    assert!(matches!(bench.begun.try_recv(), Err(TryRecvError::Empty)), "nothing is left for the second turn");
}
