//! The port to what pods share: answers with their stamps, out of which a fill is spared.
//!
//! Nothing that comes out of it is believed. It passes the rules of the store and of the flights (R2, R3) like what came from
//! Postgres, by this process's own ledger; so the shared tier never has to be invalidated, what a slow pod writes there late is
//! harmless, and losing it costs statements and no answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Readthrough;
use super::fill::{Fill, Unless};
use super::origin::Pending;
use crate::cache::entry::{Draft, Entry, Freshness};
use crate::cache::key::Key;
use crate::sabotage::{self, Sabotage};
use crate::stamp::{Lineage, Snapshot, Stamp};
use crate::tag::Tag;
use crate::telemetry::metrics::Shared as Outcome;

/// Which answer: of which key, in which history, by which state of its query's schema. What differs in one of these is another's;
/// which queries a pod has beside it makes no difference.
#[derive(Clone, Debug)]
pub struct Place {
    /// Whose transaction ids its stamp has.
    pub lineage: Lineage,
    /// What its query's verdict was found in, and says: the tags are in it. Not the basis, which is of all queries of a process.
    pub schema: u64,
    /// The canonical key, the shape's fingerprint in it.
    pub key: Key,
}

/// A shared answer. Whether it is fresh, its reader finds out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedValue {
    /// The answer; `None`: the query found no row.
    pub body: Option<Box<[u8]>>,
    /// What it was read under, in the history of its place.
    pub snapshot: Snapshot,
    /// What it depends on, by the pod that filled it.
    pub tags: Vec<Tag>,
    /// How long it was to live when it was filled: durations travel, and clock readings never.
    pub lifetime: Duration,
    /// How much of that is left, as counted by the shared tier.
    pub left: Duration,
    /// What its rebuild took.
    pub took: Duration,
}

/// The tier is away or slow, or would not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Away;

/// Which bytes were found at a place, so that others are told from them: the last ones, which are a sum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(pub Vec<u8>);

/// What was found at a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// `None`: nothing, or nothing that can be read.
    pub value: Option<SharedValue>,
    /// Of whatever is there.
    pub seen: Seen,
}

/// Of one claim of one flight; no two are equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u128);

/// What a flight wants that found nothing that will do: to fill, with other pods waiting for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Who claims.
    pub token: Token,
    /// What it knows to be there. Something else is its answer, and no lease.
    pub seen: Seen,
    /// How far its ledger has come.
    pub cursor: Option<Snapshot>,
    /// How long the lease lasts unless it is renewed.
    pub life: Duration,
    /// Whether the second lease will do where the first is held.
    pub second: bool,
}

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// By which claim.
    pub token: Token,
    /// How far its ledger had come then.
    pub cursor: Option<Snapshot>,
    /// How long it lasts unless it is renewed.
    pub left: Duration,
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// The lease is the claimer's.
    Leased(Lease),
    /// There is another value than the claimer knew.
    Value(Looked),
    /// A holder has left word of how it ended, which lasts so much longer.
    Marked {
        /// As in [`Ended::Marked`].
        word: String,
        /// Of it.
        left: Duration,
    },
    /// Others hold what it would have: one or two.
    Held(Vec<Holder>),
}

/// How a lease ends that no value ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Somebody else may fill.
    Free,
    /// Nobody need to for so long; the word says why. No text of anybody's.
    Marked {
        /// Why.
        word: String,
        /// How long that is true.
        lasts: Duration,
    },
}

/// The right to fill a place while others wait. Dropped, it is given back: at once where the tier can be reached, else it ends by
/// itself.
pub struct Lease {
    token: Token,
    at_end: Option<Box<dyn FnOnce(Ended) + Send + Sync>>,
}

impl Lease {
    /// The lease of `token`; `at_end` gives it back, and returns at once.
    pub fn new(token: Token, at_end: impl FnOnce(Ended) + Send + Sync + 'static) -> Self {
        Self { token, at_end: Some(Box::new(at_end)) }
    }

    /// Whose it is.
    pub fn token(&self) -> Token {
        self.token
    }

    /// Gives it back.
    pub fn end(mut self, how: Ended) {
        if let Some(at_end) = self.at_end.take() {
            at_end(how);
        }
    }

    /// Something else has ended it.
    pub fn is_over(mut self) {
        self.at_end = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end(Ended::Free);
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.token).finish()
    }
}

/// Where answers are shared: Redis, in production. No call takes longer than the tier's own bound, or waits for anybody's fill.
pub trait SharedTier: Send + Sync + 'static {
    /// What is shared at `place`. Cancel safe.
    ///
    /// # Errors
    /// [`Away`]
    fn take<'a>(&'a self, place: &'a Place) -> Pending<'a, Result<Looked, Away>>;

    /// Claims the right to fill `place`. Cancel safe: a lease that nobody takes out of it is given back.
    ///
    /// # Errors
    /// [`Away`]; a lease that was given all the same ends by itself.
    fn claim<'a>(&'a self, place: &'a Place, claim: Claim) -> Pending<'a, Result<Claimed, Away>>;

    /// Lets the lease of `token` last for `life` from now on; false where it is no longer that claim's. Cancel safe.
    ///
    /// # Errors
    /// [`Away`]
    fn renew<'a>(&'a self, place: &'a Place, token: Token, life: Duration) -> Pending<'a, Result<bool, Away>>;

    /// Resolves when something has become of `place` since the call: a value, a failure, a lease given back. Or for another
    /// reason: whoever waits looks again, and sets a bound of its own, since news may be lost. Cancel safe.
    fn news(&self, place: &Place) -> Pending<'static, ()>;

    /// Shares `entry` for the rest of its lifetime, unless what is there covers it, and ends `lease`. Returns at once.
    fn publish(&self, place: Place, entry: &Arc<Entry>, lease: Option<Lease>);

    /// Why it is away, if it is (no secret in it).
    fn trouble(&self) -> Option<String>;
}

/// The shared tier counts a lifetime from when it is told of it, and so does who finds the value there. What seems to have been
/// filled so shortly after this process's own may be just that, shared a moment late; `redis.timeout` is at most 400 ms.
const LATE: Duration = Duration::from_millis(500);

impl Fill {
    /// Where this fill looks before it fills. `None`: nowhere.
    pub(super) fn shares(&self) -> Option<(Arc<dyn SharedTier>, Place)> {
        let tier = self.read.shared.get()?;
        if let Unless::BegunAfter(_) = self.unless {
            // How long ago another pod began to read can't be said on this one's clock.
            return None;
        }
        Some((Arc::clone(tier), self.place(self.read.ledger.lineage()?)?))
    }

    /// `value`, where this fill's readers may be given it: certified, within its lifetime, and kept in this process's store from
    /// now on. There had been so many `purges` before it was asked for; it is `newer` where it was not there when this
    /// flight began.
    pub(super) fn accept(&self, place: &Place, value: SharedValue, purges: u64, newer: bool) -> Option<Arc<Entry>> {
        let (entry, outcome) = self.judge(place, value, newer);
        self.read.metrics.shared(outcome);
        let entry = entry?;
        self.read.failures.forget(self.key.as_bytes());
        self.keep(&entry, purges);
        Some(entry)
    }

    /// Where this fill's answer is shared. `None`: queries are being judged, or this one has yet to be, and nobody would find it.
    fn place(&self, lineage: Lineage) -> Option<Place> {
        let rests = &self.rests;
        let schema = rests.schema?;
        self.read.rests_on(rests.basis).then(|| Place { lineage, schema, key: self.key.clone() })
    }

    fn judge(&self, place: &Place, value: SharedValue, newer: bool) -> (Option<Arc<Entry>>, Outcome) {
        let (read, rests) = (&self.read, &self.rests);
        let policy = self.route.query().policy();
        if value.tags != *rests.tags {
            // A version that tells dependencies apart in another way, and writes no other format.
            return (None, Outcome::Foreign);
        }
        let now = read.clock.now();
        let Some(version) = read.ledger.version_unless_blind(now, rests.max_lag) else {
            return (None, Outcome::Outdated);
        };
        let stamp = Stamp { lineage: place.lineage.clone(), snapshot: value.snapshot };
        let certified = read.rests_on(rests.basis) && read.ledger.certify(&stamp, &rests.tags);
        if !certified && !sabotage::is(Sabotage::NoCertify) {
            return (None, Outcome::Outdated);
        }
        // A pod that has been told of a shorter ttl keeps nothing for the longer one of a pod that has not.
        let longest = policy.ttl.mul_f64(1.0 + policy.jitter);
        let age = value.lifetime.saturating_sub(value.left);
        let entry = Entry::new(Draft {
            etag_seed: self.etag_seed(),
            route: self.route.number(),
            body: value.body,
            stamp: read.ledger.share(stamp),
            tags: Arc::clone(&rests.tags),
            basis: rests.basis,
            max_lag: rests.max_lag,
            filled: now - age,
            took: value.took,
            lifetime: value.lifetime.min(longest),
            early_refresh: policy.early_refresh,
            uses: (policy.proactive_refresh).then(|| u32::from(self.refreshes.is_none())),
            certified: version,
        });
        let lives = matches!(entry.freshness(now), Freshness::Fresh(_));
        let met = match self.unless {
            Unless::FilledAfter(_) if newer => true,
            Unless::FilledAfter(moment) => Unless::FilledAfter(moment + LATE).met_by(&entry),
            other => other.met_by(&entry),
        };
        if !lives || !met {
            return (None, Outcome::Outdated);
        }
        (Some(Arc::new(entry)), Outcome::Hit)
    }

    /// Shares what was filled, certified and kept without a lease.
    pub(super) fn publish(&self, entry: &Arc<Entry>) {
        if let Some(tier) = self.read.shared.get()
            && let Some(place) = self.place(entry.stamp().lineage.clone())
        {
            tier.publish(place, entry, None);
        }
    }
}

impl Readthrough {
    /// Shares answers with other pods by `tier` from now on. Once; a second call is ignored.
    pub fn share_by(&self, tier: Arc<dyn SharedTier>) {
        let _ = self.shared.set(tier);
    }
}
