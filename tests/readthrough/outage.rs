//! The origin can't be reached, and is reached again: what is remembered of that, and for how long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use seawall::catalog::policy::Policy;
use seawall::readthrough::ReadError;
use seawall::readthrough::origin::OriginError;

use crate::origin::{BOUNDS, Bench, Script, bench};

const TTL: Duration = Duration::from_secs(10);

fn policy(stale_while_revalidate: Duration) -> Policy {
    Policy { ttl: TTL, jitter: 0.0, stale_while_revalidate, early_refresh: 0.0, ..Policy::default() }
}

fn away() -> Script {
    Script::Fail(OriginError::Away("nobody listens".into()))
}

impl Bench {
    fn sent(&self) -> usize {
        self.origin.statements.load(Ordering::SeqCst)
    }

    /// A statement that `end` ends, and what it brought to whoever asked.
    async fn one(&mut self, query: &str, key: &'static [u8], end: Script) -> Result<String, ReadError> {
        let asked = self.ask(query, key);
        self.begun.recv().await.expect("a statement").end(end);
        let answer = asked.await.expect("no panic").map_err(|failed| failed.error)?;
        Ok(String::from_utf8_lossy(answer.entry.body()).into_owned())
    }
}

#[tokio::test]
async fn a_backoff_because_nothing_was_reached_ends_when_something_is() {
    let mut bench = bench(BOUNDS, policy(Duration::ZERO), policy(Duration::ZERO));
    bench.one("a", b"k", away()).await.expect_err("away");
    let again = bench.ask("a", b"k").await.expect("no panic").expect_err("remembered");
    assert!(matches!(again.error, ReadError::Origin(OriginError::Away(_))), "{again:?}");
    assert_eq!(bench.sent(), 1, "nothing was asked a second time");
    bench.one("b", b"another", Script::Answer("l", "[1]")).await.expect("it is back");
    assert_eq!(bench.one("a", b"k", Script::Answer("l", "[2]")).await.as_deref(), Ok("[2]"), "no time has passed");
}

#[tokio::test]
async fn a_backoff_for_the_questions_own_failure_outlasts_what_others_reach() {
    let mut bench = bench(BOUNDS, policy(Duration::ZERO), policy(Duration::ZERO));
    bench.one("a", b"k", Script::Fail(OriginError::Broken("no such table".into()))).await.expect_err("broken");
    bench.one("b", b"another", Script::Answer("l", "[1]")).await.expect("others work");
    bench.ask("a", b"k").await.expect("no panic").expect_err("remembered");
    assert_eq!(bench.sent(), 2);
}

#[tokio::test]
async fn a_refresh_that_reached_nothing_begins_again_once_something_is_reached() {
    let mut bench = bench(BOUNDS, policy(TTL), policy(TTL));
    bench.one("a", b"k", Script::Answer("l", "[1]")).await.expect("filled");
    bench.clock.advance(TTL);
    let old = bench.one("a", b"k", away()).await;
    assert_eq!(old.as_deref(), Ok("[1]"), "within its window");
    // The refresh fails in the background; what it leaves behind is what the next reader finds.
    while bench.read.flying() > 0 {
        tokio::task::yield_now().await;
    }
    bench.ask("a", b"k").await.expect("no panic").expect("the old answer");
    assert_eq!(bench.sent(), 2, "not a second time while it is away");
    bench.one("b", b"another", Script::Answer("l", "[1]")).await.expect("it is back");
    let old = bench.one("a", b"k", Script::Answer("l", "[2]")).await;
    assert_eq!(old.as_deref(), Ok("[1]"), "still the old one, and a refresh at once");
    while bench.read.flying() > 0 {
        tokio::task::yield_now().await;
    }
    let new = bench.ask("a", b"k").await.expect("no panic").expect("an answer");
    assert_eq!(new.entry.body(), b"[2]");
}
