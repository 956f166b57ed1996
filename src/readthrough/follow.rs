//! What whoever follows writes tells the read path: that events were applied, what state of the schema the queries'
//! verdicts were found in, and what is to be forgotten altogether.
//!
//! # Basis
//! An answer's tags come from its query's verdict, and a verdict is true of one state of the schema. So each entry carries
//! the *basis* that its tags rest on, and only entries of the present basis are certified.
//!
//! Where definitions have changed, verdicts are replaced while the basis is none at all:
//! 1. `unsettle`: the basis is gone, the version is raised;
//! 2. every query is judged anew;
//! 3. `rest_on`: the new basis is there, the version is raised.
//!
//! A fill takes the basis first and the verdict second. Between 1 and 3 it takes none, and what it brings is given and not
//! kept; before 1 it takes one that is no longer in force when it lands; after 3 it finds the new verdict.
//!
//! Where queries come, or have another shape, the basis stays in force meanwhile. A verdict that replaces one then says of the same
//! definitions what that said. A query that has none *yet* rests on nothing: the same basis may be that of its verdict in a moment,
//! and what it had filled before would count as fresh without a tag of the tables that it reads. Nor does one that is in force no more,
//! and that a request under way still has: whoever judges queries judges it no longer. (One that differs in its lifetimes alone is
//! known as the one in force.)
//!
//! # What pods share
//! The basis is this process's own: of one analysis of its queries, by a name that outlives reloads. Other pods have other queries and other
//! names, so what is shared of a query stands under the fingerprint of its verdict alone ([`Verdict::found_in`]), which comes with
//! the tags out of one load: whatever happens to the basis meanwhile, an answer is shared under the definitions that its tags were
//! found in, or not at all. Where nothing is known of the schema, the basis' constant is the place's, too.
//!
//! [`Verdict::found_in`]: crate::catalog::verdict::Verdict::found_in

use std::sync::atomic::{AtomicU64, Ordering};

use super::Readthrough;
use super::fill::Rests;
use super::route::Route;
use crate::catalog::verdict::SchemaFingerprint;
use crate::clock::Moment;
use crate::ledger::Ledger;
use crate::tag::Tag;
use crate::telemetry::metrics::Degraded;

/// How the event stream is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StreamState {
    /// There is to be none.
    #[default]
    Off,
    /// It has not come far enough yet, or queries are being judged.
    Starting,
    /// It is followed.
    Following,
    /// Notifications are listened to, which is all that there is to follow.
    Listening,
    /// There is no log that this role may read: every query lives by its ttl.
    NoSchema(String),
    /// The connection is lost, or never was.
    Away(String),
    /// The server is not the primary of the known history.
    Standby(String),
    /// A pooler in transaction mode is in the way: nothing is followed.
    Pooler(String),
}

impl StreamState {
    /// What the trouble is, in a sentence.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Off | Self::Following | Self::Listening => None,
            Self::Starting => Some("what queries depend on is being found out"),
            Self::NoSchema(why) | Self::Away(why) | Self::Standby(why) | Self::Pooler(why) => Some(why),
        }
    }

    /// Under which reason the service is degraded by it.
    pub(super) fn degraded(&self) -> Option<Degraded> {
        match self {
            Self::Off | Self::Following | Self::Listening => None,
            Self::NoSchema(_) => Some(Degraded::NoEvents),
            Self::Starting | Self::Away(_) | Self::Standby(_) => Some(Degraded::EventStream),
            Self::Pooler(_) => Some(Degraded::Pooler),
        }
    }
}

/// No verdict may be relied upon now.
const UNSETTLED: u64 = 0;

/// Nothing is known of the schema, and every query lives by its ttl.
const UNKNOWN: u64 = 1;

fn bits(fingerprint: SchemaFingerprint) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "half of a hash is a hash")]
    let bits = fingerprint.0 as u64;
    bits.max(UNKNOWN + 1)
}

/// What the read path rests on.
pub(super) struct Basis {
    present: AtomicU64,
    /// Purges so far: see [`Readthrough::purge`].
    purges: AtomicU64,
}

impl Default for Basis {
    fn default() -> Self {
        Self { present: AtomicU64::new(UNKNOWN), purges: AtomicU64::new(0) }
    }
}

impl Readthrough {
    /// The ledger, which the event stream writes.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// How the event stream is now.
    pub fn stream(&self) -> StreamState {
        self.stream.borrow().clone()
    }

    /// Says how the event stream is.
    pub fn stream_is(&self, state: StreamState) {
        if *self.stream.borrow() == state {
            return;
        }
        match &state {
            StreamState::Starting => tracing::debug!("queries are being judged"),
            StreamState::Following => tracing::info!("the event stream is followed"),
            StreamState::Listening => tracing::info!("notifications are listened to"),
            state => {
                if let Some(reason) = state.reason() {
                    tracing::warn!(reason, "the event stream has trouble");
                }
            }
        }
        self.stream.send_replace(state);
    }

    /// Resolves once the event stream is followed, or known not to be for now. Cancel safe.
    pub async fn stream_settled(&self) {
        // The sender is this object's own, so it can't be gone.
        let _ = self.stream.subscribe().wait_for(|state| *state != StreamState::Starting).await;
    }

    /// A poll of the log was applied that had been `sent` then: wakes who waits for one.
    pub fn polled(&self, sent: Moment) {
        self.polls.send_replace(Some(sent));
    }

    /// The queries' verdicts are being found out again: until [`Readthrough::rest_on`] nothing that is filled counts as
    /// fresh, and nothing older does.
    pub fn unsettle(&self) {
        self.basis.present.store(UNSETTLED, Ordering::Release);
        self.ledger.recertify();
    }

    /// Every query has the verdict that was found for it in this state of the schema. `None`: nothing is known of it.
    pub fn rest_on(&self, fingerprint: Option<SchemaFingerprint>) {
        let basis = fingerprint.map_or(UNKNOWN, bits);
        if self.basis.present.swap(basis, Ordering::AcqRel) != basis {
            self.ledger.recertify();
        }
    }

    /// What the answer of `key` rests on, as far as is known now.
    pub(super) fn rests(&self, route: &Route, key: &[u8]) -> Rests {
        // The basis first, the verdict second.
        let basis = self.basis();
        let (tags, max_lag, schema) = route.rests_on(key);
        if basis == UNKNOWN {
            return Rests { tags, basis, schema: Some(UNKNOWN), max_lag };
        }
        let in_force = self.routes();
        let is_judged = in_force.find(route.query().name()).is_some_and(|it| it.query().is_known_as(route.query()));
        let basis = if is_judged && schema.is_some() { basis } else { UNSETTLED };
        Rests { tags, basis, schema: schema.map(bits), max_lag }
    }

    /// What an answer's tags rest on that are taken after this call.
    pub(super) fn basis(&self) -> u64 {
        self.basis.present.load(Ordering::Acquire)
    }

    /// Whether verdicts may be relied upon now.
    pub(super) fn is_settled(&self) -> bool {
        self.basis() != UNSETTLED
    }

    /// Whether `basis` is in force.
    pub(super) fn rests_on(&self, basis: u64) -> bool {
        basis != UNSETTLED && self.basis() == basis
    }

    /// Takes what depends on one of `tags` out of memory, so that no rule for old answers gives it; how many entries. The
    /// ledger must have applied the invalidation before.
    ///
    /// A fill may be about to store what it had certified before that:
    /// 1. the fill certifies its answer;
    /// 2. the invalidation is applied, and the purge looks through the store;
    /// 3. the fill stores the answer.
    ///
    /// So purges are counted before the store is looked through, and a fill that finds another count after it has stored
    /// certifies once more.
    pub fn purge(&self, tags: &[Tag]) -> usize {
        self.basis.purges.fetch_add(1, Ordering::AcqRel);
        self.store.remove_tagged(tags)
    }

    /// Purges so far.
    pub(super) fn purges(&self) -> u64 {
        self.basis.purges.load(Ordering::Acquire)
    }
}
