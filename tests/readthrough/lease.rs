//! Who fills, of all pods: a shared tier whose every claim waits to be told how it ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seawall::cache::entry::Entry;
use seawall::catalog::policy::Policy;
use seawall::readthrough::origin::{OriginError, Pending};
use seawall::readthrough::shared::{
    Away, Claim, Claimed, Ended, Holder, Lease, Looked, Place, Seen, SharedTier, SharedValue, Token,
};
use seawall::readthrough::{Answer, Bounds, Failed, ReadError, Source};
use seawall::stamp::Snapshot;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::events::{fill, followed, policy, poll};
use super::origin::{BOUNDS, Bench, Running, Script, just_before};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// How a lease ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Published,
    Given(Ended),
}

struct Tier {
    claims: mpsc::UnboundedSender<(Claim, oneshot::Sender<Result<Claimed, Away>>)>,
    news: Arc<Notify>,
    renewed: AtomicUsize,
    lost: AtomicUsize,
    ends: Arc<Mutex<Vec<(Token, End)>>>,
}

impl SharedTier for Tier {
    fn take<'a>(&'a self, _: &'a Place) -> Pending<'a, Result<Looked, Away>> {
        Box::pin(async { Ok(Looked::default()) })
    }

    fn claim<'a>(&'a self, _: &'a Place, claim: Claim) -> Pending<'a, Result<Claimed, Away>> {
        let (answer, answered) = oneshot::channel();
        self.claims.send((claim, answer)).expect("the test listens");
        Box::pin(async { answered.await.expect("the test answers every claim") })
    }

    fn renew<'a>(&'a self, _: &'a Place, _: Token, _: Duration) -> Pending<'a, Result<bool, Away>> {
        let nth = self.renewed.fetch_add(1, Ordering::SeqCst) + 1;
        let lost = self.lost.load(Ordering::SeqCst);
        Box::pin(async move { Ok(lost == 0 || nth < lost) })
    }

    fn news(&self, _: &Place) -> Pending<'static, ()> {
        let news = Arc::clone(&self.news);
        Box::pin(async move { news.notified().await })
    }

    fn publish(&self, _: Place, _: &Arc<Entry>, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.ends.lock().expect("not poisoned").push((lease.token(), End::Published));
            lease.is_over();
        }
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

struct Cluster {
    bench: Bench,
    tier: Arc<Tier>,
    claims: mpsc::UnboundedReceiver<(Claim, oneshot::Sender<Result<Claimed, Away>>)>,
}

/// A claim that waits for its answer.
struct Asked {
    claim: Claim,
    answer: oneshot::Sender<Result<Claimed, Away>>,
}

impl Asked {
    fn gets(self, claimed: Claimed) {
        let _ = self.answer.send(Ok(claimed));
    }
}

impl Cluster {
    fn new(bounds: Bounds, policy: Policy) -> Self {
        let bench = followed(bounds, policy);
        let (sender, claims) = mpsc::unbounded_channel();
        let tier = Arc::new(Tier {
            claims: sender,
            news: Arc::default(),
            renewed: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            ends: Arc::default(),
        });
        bench.read.share_by(Arc::clone(&tier) as _);
        Self { bench, tier, claims }
    }

    fn ask(&self) -> JoinHandle<Result<Answer, Failed>> {
        self.bench.ask("a", b"k")
    }

    async fn claimed(&mut self) -> Asked {
        let (claim, answer) = self.claims.recv().await.expect("a claim");
        Asked { claim, answer }
    }

    async fn statement(&mut self) -> Running {
        self.bench.begun.recv().await.expect("a statement")
    }

    fn lease(&self, asked: &Asked) -> Claimed {
        let (token, ends) = (asked.claim.token, Arc::clone(&self.tier.ends));
        Claimed::Leased(Lease::new(token, move |how| {
            ends.lock().expect("not poisoned").push((token, End::Given(how)));
        }))
    }

    async fn is_given_the_lease(&mut self) -> Token {
        let asked = self.claimed().await;
        let (token, lease) = (asked.claim.token, self.lease(&asked));
        asked.gets(lease);
        token
    }

    fn ends(&self) -> Vec<(Token, End)> {
        self.tier.ends.lock().expect("not poisoned").clone()
    }

    /// Acquired, waited, taken over, skipped.
    fn counts(&self) -> [f64; 4] {
        ["acquired", "waited", "taken_over", "skipped"]
            .map(|outcome| self.bench.metric(&format!("seawall_leases_total{{outcome=\"{outcome}\"}}")))
    }
}

fn holder(token: u128, cursor: &str, left: Duration) -> Holder {
    Holder { token: Token(token), cursor: Some(Snapshot::parse(cursor).expect("well-formed")), left }
}

async fn value(snapshot: &str, seen: u8) -> Claimed {
    // What the bench's queries depend on.
    let tags = fill(&mut followed(BOUNDS, policy()), "a", b"k", "100:100:", "[1]").await.entry.tags().to_vec();
    Claimed::Value(Looked {
        value: Some(SharedValue {
            body: Some(b"[7]"[..].into()),
            snapshot: Snapshot::parse(snapshot).expect("well-formed"),
            tags,
            lifetime: Duration::from_secs(100),
            left: Duration::from_secs(99),
            took: MS(1),
        }),
        seen: Seen(vec![seen]),
    })
}

fn in_4s() -> Policy {
    Policy { timeout: MS(4_000), error_backoff: MS(3_000), ..policy() }
}

#[tokio::test(start_paused = true)]
async fn who_is_given_the_lease_asks_and_ends_it_with_its_answer() {
    let mut cluster = Cluster::new(BOUNDS, in_4s());
    let asked = [cluster.ask(), cluster.ask()];
    let claim = cluster.claimed().await;
    assert_eq!((claim.claim.second, claim.claim.life), (false, MS(1_000)), "a quarter of the timeout");
    assert_eq!(claim.claim.cursor, Some(Snapshot::parse("100:100:").expect("well-formed")));
    let (token, lease) = (claim.claim.token, cluster.lease(&claim));
    claim.gets(lease);
    cluster.statement().await.end(Script::Under("100:100:", "[1]"));
    for one in asked {
        assert_eq!(one.await.expect("no panic").expect("an answer").entry.body(), b"[1]");
    }
    assert_eq!(cluster.ends(), [(token, End::Published)]);
    assert_eq!(cluster.counts(), [1.0, 0.0, 0.0, 0.0]);
    assert!(cluster.claims.try_recv().is_err(), "one claim for one process");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_three_times_within_its_life_while_the_statement_runs_and_not_once_it_is_lost() {
    for (lost, renewed) in [(0, 5), (2, 2)] {
        let mut cluster = Cluster::new(BOUNDS, in_4s());
        cluster.tier.lost.store(lost, Ordering::SeqCst);
        let asked = cluster.ask();
        cluster.is_given_the_lease().await;
        let statement = cluster.statement().await;
        // On the paused clock, which goes from one renewal to the next.
        let _ = tokio::time::timeout(MS(5_000 / 3 + 20), std::future::pending::<()>()).await;
        assert_eq!(cluster.tier.renewed.load(Ordering::SeqCst), renewed);
        statement.end(Script::Under("100:100:", "[1]"));
        assert_eq!(asked.await.expect("no panic").expect("an answer").entry.body(), b"[1]", "all the same");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sure_holder_is_waited_for_and_what_it_brings_is_the_answer() {
    let mut cluster = Cluster::new(BOUNDS, in_4s());
    let asked = [cluster.ask(), cluster.ask()];
    cluster.claimed().await.gets(Claimed::Held(vec![holder(1, "100:100:", MS(1_000))]));
    let before = Instant::now();
    cluster.tier.news.notify_one();
    let again = cluster.claimed().await;
    assert!(before.elapsed() < MS(1), "it is told, and does not wait out the lease");
    again.gets(value("100:100:", 1).await);
    for one in asked {
        let answer = one.await.expect("no panic").expect("an answer");
        assert!(matches!(answer.source, Source::Shared { .. }) && answer.entry.body() == b"[7]");
    }
    assert_eq!(cluster.counts(), [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(cluster.bench.metric("seawall_db_fallbacks_total{query=\"a\",reason=\"miss\"}"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn when_a_holders_lease_ends_it_is_claimed_and_by_who_gets_it_taken_over() {
    let mut cluster = Cluster::new(BOUNDS, in_4s());
    let asked = cluster.ask();
    cluster.claimed().await.gets(Claimed::Held(vec![holder(1, "100:100:", MS(700))]));
    let before = Instant::now();
    let token = cluster.is_given_the_lease().await;
    assert!((MS(700)..MS(710)).contains(&before.elapsed()), "{:?}", before.elapsed());
    cluster.statement().await.end(Script::Under("100:100:", "[1]"));
    asked.await.expect("no panic").expect("an answer");
    assert_eq!(cluster.ends(), [(token, End::Published)]);
    assert_eq!(cluster.counts(), [0.0, 0.0, 1.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn who_has_used_half_of_its_time_fills_without_and_once_in_a_process() {
    let mut cluster = Cluster::new(BOUNDS, in_4s());
    let before = Instant::now();
    let asked = [cluster.ask(), cluster.ask(), cluster.ask()];
    let statement = loop {
        tokio::select! {
            biased;
            // A holder that lives and renews, and does not come to an end.
            claimed = cluster.claims.recv() => {
                let (_, answer) = claimed.expect("a claim");
                let _ = answer.send(Ok(Claimed::Held(vec![holder(1, "100:100:", MS(600))])));
            }
            statement = cluster.bench.begun.recv() => break statement.expect("a statement"),
        }
    };
    let waited = before.elapsed();
    assert!((MS(1_980)..MS(2_010)).contains(&waited), "{waited:?} of 4 s");
    statement.end(Script::Under("100:100:", "[1]"));
    for one in asked {
        one.await.expect("no panic").expect("an answer");
    }
    assert_eq!((cluster.counts(), cluster.bench.origin.statements.load(Ordering::SeqCst)), ([0.0, 0.0, 0.0, 1.0], 1));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_may_lack_a_write_is_not_waited_for_where_the_second_lease_is_free() {
    let mut cluster = Cluster::new(BOUNDS, in_4s());
    poll(&cluster.bench, "101:101:", &[(100, "s.t")]);
    let asked = cluster.ask();
    // It had come as far as before the write. Its statement may have been sent before that, too.
    cluster.claimed().await.gets(Claimed::Held(vec![holder(1, "100:100:", MS(700))]));
    let before = Instant::now();
    let second = cluster.claimed().await;
    assert!(second.claim.second && before.elapsed() < MS(1));
    let (token, lease) = (second.claim.token, cluster.lease(&second));
    second.gets(lease);
    cluster.statement().await.end(Script::Under("101:101:", "[1]"));
    asked.await.expect("no panic").expect("an answer");
    assert_eq!((cluster.ends(), cluster.counts()), (vec![(token, End::Published)], [1.0, 0.0, 0.0, 0.0]));
}

#[tokio::test(start_paused = true)]
async fn of_two_that_may_lack_it_the_first_to_end_is_waited_for_and_one_that_came_since_is_sure() {
    let mut cluster = Cluster::new(BOUNDS, in_4s());
    poll(&cluster.bench, "101:101:", &[(100, "s.t")]);
    let asked = cluster.ask();
    let old = |left| holder(1, "100:100:", left);
    cluster.claimed().await.gets(Claimed::Held(vec![old(MS(700)), holder(2, "100:100:", MS(300))]));
    let before = Instant::now();
    let again = cluster.claimed().await;
    assert!((MS(300)..MS(310)).contains(&before.elapsed()), "{:?}", before.elapsed());
    // Another process was quicker. Its claim was made after the first look, so its statement sees the write, whatever its
    // ledger knew.
    again.gets(Claimed::Held(vec![old(MS(400)), holder(3, "100:100:", MS(900))]));
    let before = Instant::now();
    let again = cluster.claimed().await;
    assert!((MS(900)..MS(910)).contains(&before.elapsed()), "the sure one: {:?}", before.elapsed());
    again.gets(value("101:101:", 1).await);
    assert!(matches!(asked.await.expect("no panic").expect("an answer").source, Source::Shared { .. }));
    assert_eq!(cluster.counts(), [0.0, 1.0, 0.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn readers_who_need_more_than_the_holder_is_sure_to_bring_lead_a_second_flight() {
    let mut cluster = Cluster::new(BOUNDS, in_4s());
    let first = cluster.ask();
    cluster.claimed().await.gets(Claimed::Held(vec![holder(1, "100:100:", MS(1_000))]));
    tokio::task::yield_now().await;
    // Those who need no more wait with it.
    let with_it = cluster.ask();
    tokio::task::yield_now().await;
    assert!(cluster.claims.try_recv().is_err());
    poll(&cluster.bench, "101:101:", &[(100, "s.t")]);
    let later = cluster.ask();
    let second = cluster.claimed().await;
    second.gets(Claimed::Held(vec![holder(1, "100:100:", MS(900))]));
    let second = cluster.claimed().await;
    assert!(second.claim.second, "of a flight of its own");
    let lease = cluster.lease(&second);
    second.gets(lease);
    cluster.statement().await.end(Script::Under("101:101:", "[2]"));
    assert_eq!(later.await.expect("no panic").expect("an answer").entry.body(), b"[2]");
    // The first flight's was read before the write. Its readers came before that, too, and the store has a newer one.
    cluster.tier.news.notify_one();
    cluster.claimed().await.gets(value("101:101:", 1).await);
    for one in [first, with_it] {
        one.await.expect("no panic").expect("an answer");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_and_will_not_do_is_told_apart_from_the_next_by_its_last_bytes() {
    let mut cluster = Cluster::new(BOUNDS, in_4s());
    poll(&cluster.bench, "101:101:", &[(100, "s.t")]);
    let asked = cluster.ask();
    cluster.claimed().await.gets(Claimed::Held(vec![holder(1, "101:101:", MS(1_000))]));
    cluster.tier.news.notify_one();
    cluster.claimed().await.gets(value("100:100:", 1).await);
    let again = cluster.claimed().await;
    assert_eq!(again.claim.seen, Seen(vec![1]));
    again.gets(Claimed::Value(Looked { value: None, seen: Seen(vec![2]) }));
    let again = cluster.claimed().await;
    assert_eq!(again.claim.seen, Seen(vec![2]));
    let lease = cluster.lease(&again);
    again.gets(lease);
    cluster.statement().await.end(Script::Under("101:101:", "[1]"));
    asked.await.expect("no panic").expect("an answer");
    assert_eq!(cluster.counts(), [1.0, 0.0, 0.0, 0.0], "nobody died");
}

#[tokio::test(start_paused = true)]
async fn a_holder_says_how_it_failed_where_that_is_the_questions_fault_and_else_lets_another_try() {
    let marked = |word: &str| End::Given(Ended::Marked { word: word.into(), lasts: MS(3_000) });
    let free = || End::Given(Ended::Free);
    for (script, end) in [
        (Script::Fail(OriginError::Timeout), marked("timeout")),
        (Script::Fail(OriginError::TooManyRows { limit: 9 }), marked("too_many_rows 9")),
        (Script::Fail(OriginError::Broken("secret".into())), marked("broken")),
        (Script::Fail(OriginError::Away("gone".into())), free()),
        (Script::Fail(OriginError::Pool), free()),
        (Script::Panic, free()),
        // Read before the write that is known here: given, and of no use to others.
        (Script::Under("100:100:", "[1]"), free()),
    ] {
        let mut cluster = Cluster::new(BOUNDS, in_4s());
        poll(&cluster.bench, "101:101:", &[(100, "s.t")]);
        let asked = cluster.ask();
        let token = cluster.is_given_the_lease().await;
        cluster.statement().await.end(script);
        while cluster.ends().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(cluster.ends()[0], (token, end));
        asked.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_statement_that_does_not_end_in_time_is_the_questions_fault_and_one_that_nobody_waits_for_is_not() {
    let mut cluster = Cluster::new(BOUNDS, in_4s());
    let asked = cluster.ask();
    let token = cluster.is_given_the_lease().await;
    let statement = cluster.statement().await;
    let failed = asked.await.expect("no panic").expect_err("none in time");
    assert_eq!(failed.error, ReadError::Deadline);
    let word = End::Given(Ended::Marked { word: "deadline".into(), lasts: MS(3_000) });
    assert_eq!(cluster.ends(), [(token, word)]);
    statement.cancelled().await;

    let mut cluster = Cluster::new(BOUNDS, in_4s());
    let asked = cluster.ask();
    let token = cluster.is_given_the_lease().await;
    let statement = cluster.statement().await;
    asked.abort();
    statement.cancelled().await;
    assert_eq!(cluster.ends(), [(token, End::Given(Ended::Free))]);
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_another_pod_tells_of_is_the_answer_for_what_is_left_of_its_backoff() {
    // Of 3 s. Longer than a backoff lasts is none of ours.
    for (left, believed) in [(MS(2_000), true), (MS(3_000), true), (MS(3_001), false)] {
        let mut cluster = Cluster::new(BOUNDS, in_4s());
        let asked = cluster.ask();
        cluster.claimed().await.gets(Claimed::Marked { word: "timeout".into(), left });
        if !believed {
            cluster.statement().await.end(Script::Under("100:100:", "[1]"));
            asked.await.expect("no panic").expect("an answer");
            assert_eq!(cluster.counts(), [0.0, 0.0, 0.0, 1.0]);
            continue;
        }
        let failed = asked.await.expect("no panic").expect_err("a failure");
        assert_eq!(failed.error, ReadError::Origin(OriginError::Timeout));
        assert_eq!(failed.until, Some(cluster.bench.clock.now() + left));
        cluster.bench.clock.advance(just_before(left));
        cluster.ask().await.expect("no panic").expect_err("within the backoff");
        assert!(cluster.claims.try_recv().is_err());
        let failures = "seawall_rebuild_errors_total{query=\"a\",reason=\"timeout\"}";
        assert_eq!(cluster.bench.metric(failures), 0.0, "it is counted where it happened");
        cluster.bench.clock.advance(left.saturating_sub(just_before(left)));
        poll(&cluster.bench, "100:100:", &[]);
        let asked = cluster.ask();
        cluster.is_given_the_lease().await;
        cluster.statement().await.end(Script::Under("100:100:", "[1]"));
        asked.await.expect("no panic").expect("an answer");
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_too_large_to_be_shared_is_said_to_be_and_strange_words_and_holders_are_not_waited_for() {
    let mut cluster = Cluster::new(Bounds { entry_max_bytes: 1, ..BOUNDS }, in_4s());
    let asked = cluster.ask();
    let token = cluster.is_given_the_lease().await;
    cluster.statement().await.end(Script::Under("100:100:", "[1]"));
    asked.await.expect("no panic").expect("an answer");
    let word = "unshared".to_owned();
    let unshared = End::Given(Ended::Marked { word: word.clone(), lasts: MS(30_000) });
    assert_eq!(cluster.ends(), [(token, unshared)]);
    for strange in [
        Claimed::Marked { word, left: MS(10) },
        Claimed::Marked { word: "new".into(), left: MS(10) },
        Claimed::Held(vec![holder(1, "100:100:", MS(1_001))]),
    ] {
        let before = Instant::now();
        let asked = cluster.ask();
        cluster.claimed().await.gets(strange);
        cluster.statement().await.end(Script::Under("100:100:", "[1]"));
        asked.await.expect("no panic").expect("an answer");
        assert!(before.elapsed() < MS(1));
    }
    assert_eq!(cluster.counts(), [1.0, 0.0, 0.0, 3.0]);
}
