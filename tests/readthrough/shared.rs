//! What another pod has filled, from a tier that does what it is told: when it is taken, and when it is not.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seawall::cache::entry::Entry;
use seawall::catalog::policy::Policy;
use seawall::readthrough::origin::Pending;
use seawall::readthrough::shared::{Away, Claim, Claimed, Lease, Looked, Place, Seen, SharedTier, SharedValue, Token};
use seawall::readthrough::{Directives, Look, Source};
use seawall::stamp::Snapshot;
use seawall::tag::Tag;

use super::events::{followed, policy, poll};
use super::origin::{BOUNDS, Bench, Script, just_before, settle};

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

#[derive(Default)]
struct Tier {
    value: Mutex<Option<SharedValue>>,
    looks: AtomicUsize,
    published: Mutex<Vec<(Place, Arc<Entry>)>>,
}

impl SharedTier for Tier {
    fn take<'a>(&'a self, _: &'a Place) -> Pending<'a, Result<Looked, Away>> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let value = self.value.lock().expect("not poisoned").clone();
        Box::pin(async { Ok(Looked { value, seen: Seen::default() }) })
    }

    fn claim<'a>(&'a self, _: &'a Place, claim: Claim) -> Pending<'a, Result<Claimed, Away>> {
        Box::pin(async move { Ok(Claimed::Leased(Lease::new(claim.token, drop))) })
    }

    fn renew<'a>(&'a self, _: &'a Place, _: Token, _: Duration) -> Pending<'a, Result<bool, Away>> {
        Box::pin(async { Ok(true) })
    }

    fn news(&self, _: &Place) -> Pending<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn publish(&self, place: Place, entry: &Arc<Entry>, _: Option<Lease>) {
        self.published.lock().expect("not poisoned").push((place, Arc::clone(entry)));
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

impl Tier {
    fn holds(&self, snapshot: &str, tags: &[Tag], left: Duration) {
        *self.value.lock().expect("not poisoned") = Some(SharedValue {
            body: Some(b"[7]"[..].into()),
            snapshot: Snapshot::parse(snapshot).expect("well-formed"),
            tags: tags.to_vec(),
            lifetime: S(100),
            left,
            took: MS(1),
        });
    }

    fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

fn sharing(policy: Policy) -> (Bench, Arc<Tier>) {
    let (bench, tier) = (followed(BOUNDS, policy), Arc::new(Tier::default()));
    bench.read.share_by(Arc::clone(&tier) as _);
    (bench, tier)
}

/// Fills `key` by a statement that takes `took`; what it depends on.
async fn filled(bench: &mut Bench, tier: &Tier, key: &'static [u8], took: Duration) -> Vec<Tag> {
    let asked = bench.ask("a", key);
    let statement = bench.begun.recv().await.expect("a statement");
    bench.clock.advance(took);
    statement.end(Script::Under("100:100:", "[1]"));
    asked.await.expect("no panic").expect("an answer");
    let published = tier.published.lock().expect("not poisoned");
    let (place, entry) = published.last().expect("what was filled is shared");
    assert_eq!((place.lineage.as_str(), place.key.as_bytes(), place.schema), ("l", key, 9));
    entry.tags().to_vec()
}

/// What another pod finds out that the answer of `key` depends on.
async fn tags(key: &'static [u8]) -> Vec<Tag> {
    let (mut bench, tier) = sharing(policy());
    filled(&mut bench, &tier, key, Duration::ZERO).await
}

#[tokio::test]
async fn what_is_certified_is_taken_for_the_rest_of_its_life_and_for_no_longer_than_ones_own_ttl() {
    let tags = tags(b"k").await;
    for (ttl, left, lives) in
        [(S(100), S(40), S(40)), (S(100), S(100), S(100)), (S(100), MS(1), MS(1)), (S(10), S(95), S(5))]
    {
        let (bench, tier) = sharing(Policy { ttl, ..policy() });
        tier.holds("100:100:", &tags, left);
        let answer = bench.ask("a", b"k").await.expect("no panic").expect("an answer");
        assert_eq!(answer.source, Source::Shared { left: lives });
        let Look::Answer(again) = bench.look("a", b"k") else { panic!("it is kept") };
        assert_eq!(
            (again.entry.age(bench.clock.now()), again.entry.body()),
            (S(100).saturating_sub(left), &b"[7]"[..])
        );
        assert_eq!((bench.origin.statements.load(Ordering::SeqCst), tier.looks()), (0, 1));
        assert!(tier.published.lock().expect("not poisoned").is_empty(), "what is there is not shared again");
    }
}

#[tokio::test]
async fn what_lacks_a_write_or_is_over_or_of_other_tags_is_not_taken() {
    let tags = tags(b"k").await;
    let others = [Tag::new("x")];
    for (ttl, snapshot, tags, left, outcome) in [
        (S(100), "100:100:", &tags[..], S(50), "outdated"),
        (S(100), "101:101:", &tags[1..], S(50), "foreign"),
        (S(100), "101:101:", &others[..], S(50), "foreign"),
        (S(10), "101:101:", &tags[..], S(90), "outdated"),
        (S(100), "101:101:", &tags[..], S(50), "hit"),
    ] {
        let (mut bench, tier) = sharing(Policy { ttl, ..policy() });
        poll(&bench, "101:101:", &[(100, "s.t")]);
        tier.holds(snapshot, tags, left);
        let asked = bench.ask("a", b"k");
        if outcome != "hit" {
            bench.begun.recv().await.expect("a statement").end(Script::Under("101:101:", "[1]"));
        }
        let answer = asked.await.expect("no panic").expect("an answer");
        assert_eq!(matches!(answer.source, Source::Fill { .. }), outcome != "hit", "{outcome}");
        assert_eq!(bench.metric(&format!("seawall_shared_values_total{{outcome=\"{outcome}\"}}")), 1.0);
    }
}

#[tokio::test]
async fn blind_nothing_is_certified_and_nothing_is_taken() {
    let (mut bench, tier) = sharing(policy());
    tier.holds("100:100:", &tags(b"k").await, S(50));
    bench.clock.advance(S(2) + MS(1));
    let asked = bench.ask("a", b"k");
    bench.begun.recv().await.expect("a statement").end(Script::Under("100:100:", "[1]"));
    assert!(matches!(asked.await.expect("no panic").expect("an answer").source, Source::Fill { .. }));
}

#[tokio::test]
async fn who_wants_what_is_read_after_its_arrival_does_not_look() {
    let (mut bench, tier) = sharing(policy());
    let tags = filled(&mut bench, &tier, b"1", Duration::ZERO).await;
    tier.holds("100:100:", &tags, S(50));
    bench.clock.advance(S(1));
    poll(&bench, "100:100:", &[]);
    let looks = tier.looks();
    let asked = bench.ask_for("a", b"1", Directives { max_age: Some(Duration::ZERO), ..Directives::default() });
    bench.begun.recv().await.expect("a statement").end(Script::Under("100:100:", "[2]"));
    assert_eq!(asked.await.expect("no panic").expect("an answer").entry.body(), b"[2]");
    assert_eq!(tier.looks(), looks);
}

#[tokio::test]
async fn an_early_refresh_takes_what_is_newer_and_not_its_own_that_was_shared_late() {
    for (late, taken) in [(MS(500), false), (MS(501), true)] {
        let (mut bench, tier) = sharing(Policy { early_refresh: 10.0, max_lag: S(1000), ..policy() });
        // A rebuild that took a moment, so that its end is near enough to draw by.
        let tags = filled(&mut bench, &tier, b"1", S(1)).await;
        bench.clock.advance(just_before(S(100)));
        tier.holds("100:100:", &tags, late);
        settle("a refresh is drawn", || matches!(bench.look("a", b"1"), Look::Answer(_)) && bench.read.flying() == 1)
            .await;
        if taken {
            settle("it has landed", || bench.read.flying() == 0).await;
            assert!(bench.begun.try_recv().is_err(), "no statement");
        } else {
            bench.begun.recv().await.expect("a statement").end(Script::Under("100:100:", "[2]"));
        }
    }
}
