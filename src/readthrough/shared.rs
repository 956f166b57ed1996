//! The port to what pods share: answers with their stamps, out of which a fill is spared.
//!
//! Nothing that comes out of it is believed. It passes the rules of the store and of the flights (R2, R3) like what came from
//! Postgres, by this process's own ledger; so the shared tier never has to be invalidated, what a slow pod writes there late is
//! harmless, and losing it costs statements and no answer.

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

/// Which answer: of which key, in which history, by which state of the schema. What differs in one of these is another's.
#[derive(Clone, Debug)]
pub struct Place {
    /// Whose transaction ids its stamp has.
    pub lineage: Lineage,
    /// The state of the schema in which its tags were found.
    pub basis: u64,
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

/// Where answers are shared: Redis, in production.
pub trait SharedTier: Send + Sync + 'static {
    /// What is shared at `place`; `None` where there is nothing, or nothing that can be read, or the tier is away. Takes no
    /// longer than the tier's own bound. Cancel safe.
    fn take<'a>(&'a self, place: &'a Place) -> Pending<'a, Option<SharedValue>>;

    /// Shares `entry` for the rest of its lifetime, unless what is there covers it. Returns at once.
    fn publish(&self, place: Place, entry: &Arc<Entry>);

    /// Why it is away, if it is (no secret in it).
    fn trouble(&self) -> Option<String>;
}

/// The shared tier counts a lifetime from when it is told of it, and so does who finds the value there. What seems to have been
/// filled so shortly after this process's own may be just that, shared a moment late; `redis.timeout` is at most 400 ms.
const LATE: Duration = Duration::from_millis(500);

impl Fill {
    /// What another pod has filled, where this fill's readers may be given it: certified, within its lifetime, and kept in this
    /// process's store from now on.
    pub(super) async fn shared(&self) -> Option<Arc<Entry>> {
        let read = &self.read;
        let tier = read.shared.get()?;
        if let Unless::BegunAfter(_) = self.unless {
            // How long ago another pod began to read can't be said on this one's clock.
            return None;
        }
        // Version and purges first, as for what comes from Postgres.
        let purges = read.purges();
        let place = self.place(read.ledger.lineage()?)?;
        let value = tier.take(&place).await?;
        let (entry, outcome) = self.judge(&place, value);
        read.metrics.shared(outcome);
        let entry = entry?;
        read.failures.forget(self.key.as_bytes());
        self.keep(&entry, purges);
        Some(entry)
    }

    /// Where this fill's answer is shared. `None`: queries are being judged, and nobody would find it.
    fn place(&self, lineage: Lineage) -> Option<Place> {
        let rests = &self.rests;
        self.read.rests_on(rests.basis).then(|| Place { lineage, basis: rests.basis, key: self.key.clone() })
    }

    fn judge(&self, place: &Place, value: SharedValue) -> (Option<Arc<Entry>>, Outcome) {
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
        let newer = match self.unless {
            Unless::FilledAfter(moment) => Unless::FilledAfter(moment + LATE),
            other => other,
        };
        if !lives || !newer.met_by(&entry) {
            return (None, Outcome::Outdated);
        }
        (Some(Arc::new(entry)), Outcome::Hit)
    }

    /// Shares what was filled, certified and kept.
    pub(super) fn publish(&self, entry: &Arc<Entry>) {
        if let Some(tier) = self.read.shared.get()
            && let Some(place) = self.place(entry.stamp().lineage.clone())
        {
            tier.publish(place, entry);
        }
    }
}

impl Readthrough {
    /// Shares answers with other pods by `tier` from now on. Once; a second call is ignored.
    pub fn share_by(&self, tier: Arc<dyn SharedTier>) {
        let _ = self.shared.set(tier);
    }
}
