//! What writes change: which answers they make wrong, for whom, and what is given meanwhile.

use std::sync::Arc;
use std::time::Duration;

use seawall::cache::entry::Freshness;
use seawall::catalog::policy::{OnBlind, Policy};
use seawall::catalog::verdict::{Closure, Dependency, Kind, Member, Relation, SchemaFingerprint, Triggers, Verdict};
use seawall::ledger::{Applied, Event, Poll, Rows};
use seawall::readthrough::origin::{Announced, OriginError};
use seawall::readthrough::{Answer, Bounds, By, Instead, Look, Mode, Reach, ReadError, Source, Stored};
use seawall::tag::Tag;
use seawall::telemetry::metrics::Fallback;

use super::origin::{BOUNDS, Bench, Script, bench, just_before, settle, stamp};

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

pub fn policy() -> Policy {
    Policy { ttl: S(100), jitter: 0.0, early_refresh: 0.0, timeout: S(30), max_lag: S(2), ..Policy::default() }
}

/// That a query depends on all of this table of schema `s`.
pub fn verdict(table: &str) -> Arc<Verdict> {
    let relation = Relation { schema: "s".into(), name: table.into(), oid: 1 };
    let installed = Triggers::Installed { tag: format!("s.{table}").into(), columns: vec![] };
    let member = Member { relation: relation.clone(), columns: vec![], triggers: installed };
    Arc::new(Verdict {
        shape: 1,
        at_best: Kind::Exact,
        reasons: vec![],
        dependencies: vec![Dependency { relation, rows: None, family: vec![member] }],
        closure: Closure::default(),
        schema: SchemaFingerprint(9),
    })
}

/// A bench whose queries depend on all of `s.t`, with an event stream that has seen everything below 100.
pub fn followed(bounds: Bounds, policy: Policy) -> Bench {
    let bench = bench(bounds, policy.clone(), policy);
    for query in bench.catalog.iter() {
        query.judge(verdict("t"));
    }
    bench.read.ledger().expect_stream();
    bench.read.rest_on(Some(SchemaFingerprint(7)));
    assert_eq!(poll(&bench, "100:100:", &[]), Applied::Events { tags: 0 });
    bench
}

pub fn poll(bench: &Bench, snapshot: &str, events: &[(u64, &str)]) -> Applied {
    let ledger = bench.read.ledger();
    let events = events.iter().map(|&(xid, text)| Event { tag: Tag::new(text), xid }).collect();
    let brought =
        Poll { sent: bench.clock.now(), stamp: stamp("l", snapshot), pruned: Some(90), events, rows: Rows::All };
    let applied = ledger.apply(&ledger.ask(), brought);
    bench.read.polled(bench.clock.now());
    applied
}

/// Fills `key` of query `name` under `snapshot`.
pub async fn fill(
    bench: &mut Bench,
    name: &str,
    key: &'static [u8],
    snapshot: &'static str,
    body: &'static str,
) -> Answer {
    let asked = bench.ask(name, key);
    let statement = tokio::time::timeout(S(10), bench.begun.recv()).await.expect("memory answered instead");
    statement.expect("a statement").end(Script::Under(snapshot, body));
    asked.await.expect("no panic").expect("an answer")
}

pub fn is_fresh(bench: &Bench, name: &str, key: &[u8]) -> bool {
    matches!(
        bench.look(name, key),
        Look::Answer(Answer { source: Source::Memory { stands: Freshness::Fresh(_), by: By::Lifetime }, .. })
    )
}

fn why(bench: &Bench) -> Fallback {
    match bench.look("a", b"k") {
        Look::Rebuild(want) => want.why(),
        other => panic!("no rebuild: {other:?}"),
    }
}

fn given(bench: &Bench) -> By {
    match bench.look("a", b"k") {
        Look::Answer(Answer { source: Source::Memory { by, .. }, .. }) => by,
        other => panic!("nothing at once: {other:?}"),
    }
}

#[tokio::test]
async fn an_event_refills_what_lacks_its_write_and_nothing_else() {
    let mut bench = followed(BOUNDS, policy());
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    fill(&mut bench, "a", b"other", "100:100:", "[1]").await;
    fill(&mut bench, "b", b"of b", "100:100:", "[1]").await;
    poll(&bench, "106:106:", &[(105, &Tag::key_text(b"k"))]);
    assert!(!is_fresh(&bench, "a", b"k") && is_fresh(&bench, "b", b"of b") && is_fresh(&bench, "a", b"other"));
    poll(&bench, "107:107:", &[(106, "query:b")]);
    assert!(is_fresh(&bench, "a", b"other") && !is_fresh(&bench, "b", b"of b"));
    fill(&mut bench, "a", b"k", "107:107:", "[2]").await;
    assert!(is_fresh(&bench, "a", b"k"));
    poll(&bench, "108:108:", &[(106, "s.t"), (105, "s.t")]);
    assert!(is_fresh(&bench, "a", b"k"), "it contains both writes, however late they are announced");
    assert!(!is_fresh(&bench, "a", b"other"));
    poll(&bench, "110:110:", &[(109, "s.u")]);
    assert!(is_fresh(&bench, "a", b"k"), "another table");
    poll(&bench, "112:112:", &[(111, "*")]);
    assert!(!is_fresh(&bench, "a", b"k"));
}

#[tokio::test]
async fn who_comes_after_an_event_is_not_given_what_was_read_before_it() {
    let mut bench = followed(BOUNDS, policy());
    let before = bench.ask("a", b"k");
    let early = bench.begun.recv().await.expect("a statement");
    poll(&bench, "106:106:", &[(105, "s.t")]);
    let after = bench.ask("a", b"k");
    let late = bench.begun.recv().await.expect("a statement of its own");
    early.end(Script::Under("100:100:", "[1]"));
    let answer = before.await.expect("no panic").expect("an answer");
    assert_eq!(answer.entry.body(), b"[1]", "it came before");
    assert!(matches!(answer.source, Source::Fill { stored: Stored::Passed, .. }), "and it is wrong for the next");
    late.end(Script::Under("106:106:", "[2]"));
    assert_eq!(after.await.expect("no panic").expect("an answer").entry.body(), b"[2]");
    assert!(is_fresh(&bench, "a", b"k"));
}

#[tokio::test]
async fn who_comes_while_a_sure_flight_is_under_way_joins_it() {
    let mut bench = followed(BOUNDS, policy());
    poll(&bench, "106:106:", &[(105, "s.t")]);
    let leader = bench.ask("a", b"k");
    let only = bench.begun.recv().await.expect("a statement");
    // Nothing that this answer depends on.
    poll(&bench, "108:108:", &[(107, "s.u")]);
    let follower = bench.ask("a", b"k");
    settle("the follower waits", || bench.read.waiting() == 2).await;
    only.end(Script::Under("106:106:", "[1]"));
    for reader in [leader, follower] {
        assert_eq!(reader.await.expect("no panic").expect("an answer").entry.body(), b"[1]");
    }
    assert!(bench.begun.try_recv().is_err(), "one statement");
}

#[tokio::test]
async fn a_silent_stream_vouches_for_nothing_beyond_max_lag_and_postgres_is_asked() {
    let mut bench = followed(BOUNDS, policy());
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    bench.clock.advance(S(2));
    assert!(is_fresh(&bench, "a", b"k"), "max_lag ago");
    bench.clock.advance(Duration::from_nanos(1));
    assert_eq!(why(&bench), Fallback::Blind);
    let answer = fill(&mut bench, "a", b"k", "100:100:", "[2]").await;
    assert!(matches!(answer.source, Source::Fill { why: Fallback::Blind, stored: Stored::Kept, .. }));
    assert_eq!(why(&bench), Fallback::Blind, "as long as it is silent");
    poll(&bench, "100:100:", &[]);
    assert!(is_fresh(&bench, "a", b"k"));
}

#[tokio::test]
async fn a_query_that_says_so_serves_blindly_with_a_label_but_nothing_known_to_be_wrong() {
    let mut bench = followed(BOUNDS, Policy { on_blind: OnBlind::Serve, ..policy() });
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    bench.clock.advance(S(3));
    assert_eq!(given(&bench), By::Blind);
    bench.read.ledger().invalidate(&stamp("l", "106:106:"), None, &[Tag::new("s.t")]);
    assert_eq!(why(&bench), Fallback::Invalidated);
}

#[tokio::test]
async fn what_postgres_fails_to_bring_while_the_stream_is_silent_is_given_and_labelled() {
    let mut bench = followed(BOUNDS, policy());
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    bench.clock.advance(S(3));
    let asked = bench.ask("a", b"k");
    let away = OriginError::Away("gone".into());
    bench.begun.recv().await.expect("a statement").end(Script::Fail(away.clone()));
    let answer = asked.await.expect("no panic").expect("the old answer");
    let instead = Instead::Failure(ReadError::Origin(away));
    assert!(matches!(answer.source, Source::Old { why: Fallback::Blind, instead: i, .. } if i == instead));
}

#[tokio::test]
async fn what_lives_by_its_ttl_is_never_blind_and_reached_by_hand() {
    let mut bench = followed(BOUNDS, policy());
    bench.read.rest_on(None);
    for query in bench.catalog.iter() {
        query.unjudge();
    }
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    bench.clock.advance(S(99));
    assert!(is_fresh(&bench, "a", b"k"));
    poll(&bench, "106:106:", &[(105, "s.t")]);
    assert!(is_fresh(&bench, "a", b"k"), "nothing is known of tables");
    poll(&bench, "107:107:", &[(106, "query:a")]);
    assert_eq!(why(&bench), Fallback::Invalidated);
}

#[tokio::test]
async fn an_outdated_answer_outlives_its_write_for_as_long_as_the_query_says_while_one_refresh_runs() {
    let mut bench = followed(BOUNDS, Policy { serve_invalidated: S(1), ..policy() });
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    bench.clock.advance(MS(500));
    poll(&bench, "100:100:", &[]);
    bench.clock.advance(MS(100));
    // Its write was visible after the last poll was sent, and that counts.
    poll(&bench, "106:106:", &[(105, "s.t")]);
    bench.clock.advance(just_before(MS(900)));
    assert_eq!(given(&bench), By::Invalidated);
    assert_eq!(given(&bench), By::Invalidated);
    let refresh = bench.begun.recv().await.expect("a refresh");
    assert!(bench.begun.try_recv().is_err(), "one");
    bench.clock.advance(Duration::from_nanos(1));
    assert_eq!(why(&bench), Fallback::Invalidated, "a second after the last poll that did not have it");
    refresh.end(Script::Under("106:106:", "[2]"));
    settle("the refresh is stored", || is_fresh(&bench, "a", b"k")).await;
}

#[tokio::test]
async fn while_verdicts_are_found_out_nothing_is_fresh_and_nothing_is_kept() {
    let mut bench = followed(BOUNDS, policy());
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    let asked = bench.ask("a", b"during");
    let during = bench.begun.recv().await.expect("a statement");
    bench.read.unsettle();
    assert_eq!(why(&bench), Fallback::Invalidated);
    let answer = fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    assert!(matches!(answer.source, Source::Fill { stored: Stored::Passed, .. }));
    bench.read.rest_on(Some(SchemaFingerprint(8)));
    during.end(Script::Under("100:100:", "[1]"));
    let answer = asked.await.expect("no panic").expect("an answer");
    assert!(matches!(answer.source, Source::Fill { stored: Stored::Passed, .. }), "its tags were the old verdict's");
    assert_eq!(why(&bench), Fallback::Invalidated, "its tags were the old verdict's");
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    assert!(is_fresh(&bench, "a", b"k"));
    bench.read.rest_on(Some(SchemaFingerprint(8)));
    assert!(is_fresh(&bench, "a", b"k"), "the same");
}

#[tokio::test]
async fn a_query_that_has_no_verdict_yet_keeps_nothing_and_the_others_do() {
    let mut bench = followed(BOUNDS, policy());
    let query = Arc::clone(bench.catalog.get("b").expect("declared"));
    query.unjudge();
    let answer = fill(&mut bench, "b", b"of b", "100:100:", "[1]").await;
    assert!(matches!(answer.source, Source::Fill { stored: Stored::Passed, .. }));
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    assert!(is_fresh(&bench, "a", b"k"));
    // What it is judged by may be the same state of definitions, and the same basis.
    query.judge(verdict("t"));
    bench.read.rest_on(Some(SchemaFingerprint(7)));
    fill(&mut bench, "b", b"of b", "100:100:", "[1]").await;
    assert!(is_fresh(&bench, "b", b"of b"));
    poll(&bench, "106:106:", &[(105, "s.t")]);
    assert!(!is_fresh(&bench, "b", b"of b"));
}

#[tokio::test]
async fn what_is_purged_is_given_by_no_rule_whoever_stores_it_late() {
    let mut bench = followed(BOUNDS, policy());
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    fill(&mut bench, "a", b"other", "100:100:", "[1]").await;
    poll(&bench, "106:106:", &[(105, &Tag::key_text(b"k"))]);
    let asked = bench.ask("a", b"k");
    let statement = bench.begun.recv().await.expect("a statement");
    assert_eq!(bench.read.purge(&[Tag::key(b"k")]), 1);
    statement.end(Script::Fail(OriginError::Away("gone".into())));
    asked.await.expect("no panic").expect_err("there is no old answer");
    assert!(is_fresh(&bench, "a", b"other"));
}

#[tokio::test]
async fn by_hand_the_log_is_written_and_the_poll_that_has_it_awaited() {
    let bench = followed(BOUNDS, policy());
    *bench.origin.announces.lock().expect("not poisoned") = Ok(Announced::Logged { xid: 105 });
    let read = Arc::clone(&bench.read);
    let asked = tokio::spawn(async move { read.invalidate(&["s.t".into()], Mode::Purge).await });
    let announced = Arc::clone(&bench.origin.announced);
    settle("it is announced", || !announced.lock().expect("not poisoned").is_empty()).await;
    poll(&bench, "105:105:", &[]);
    assert!(!asked.is_finished());
    poll(&bench, "106:106:", &[(105, "s.t")]);
    assert_eq!(asked.await.expect("no panic"), Ok(Reach::Everywhere));
    assert_eq!(*announced.lock().expect("not poisoned"), ["s.t", "!s.t"]);
}

#[tokio::test]
async fn by_hand_without_a_log_what_was_read_before_is_refilled() {
    let mut bench = followed(BOUNDS, policy());
    fill(&mut bench, "a", b"k", "100:100:", "[1]").await;
    *bench.origin.announces.lock().expect("not poisoned") = Ok(Announced::Unlogged { after: stamp("l", "106:106:") });
    assert_eq!(bench.read.invalidate(&["s.t".into()], Mode::Expire).await, Ok(Reach::Here));
    assert_eq!(why(&bench), Fallback::Invalidated);
    fill(&mut bench, "a", b"k", "106:106:", "[2]").await;
    assert!(is_fresh(&bench, "a", b"k"));
    assert_eq!(bench.read.invalidate(&["s.t".into()], Mode::Purge).await, Ok(Reach::Here));
    assert_eq!(bench.read.store().len(), 0);
    *bench.origin.announces.lock().expect("not poisoned") = Ok(Announced::Unlogged { after: stamp("m", "9:9:") });
    let refused = bench.read.invalidate(&["s.t".into()], Mode::Expire).await;
    assert!(matches!(refused, Err(OriginError::Behind(_))));
}
