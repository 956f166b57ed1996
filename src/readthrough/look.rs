//! What is given at once: from memory, without an await.
//!
//! A fresh entry is the answer (R2). An old one is where a rule of the query allows it, and at most one refresh of it is
//! begun in the background. Whatever else there is to say about a key takes a [`Want`] to [`Readthrough::read`].

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Readthrough;
use super::answer::{Answer, By, Source};
use super::directives::Directives;
use super::error::ReadError;
use super::fill::{Fill, Unless};
use super::origin::OriginState;
use super::route::Route;
use super::strict::Token;
use crate::cache::early;
use crate::cache::entry::{Entry, Freshness};
use crate::cache::key::Key;
use crate::catalog::Prepared;
use crate::catalog::policy::OnBlind;
use crate::clock::Moment;
use crate::sabotage::{self, Sabotage};
use crate::telemetry::metrics::{Fallback, Rebuild};

/// A question: which query, which key, asked when and how.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The query.
    pub route: &'a Arc<Route>,
    /// Its shape, which the key belongs to.
    pub prepared: &'a Arc<Prepared>,
    /// The canonical key.
    pub key: &'a [u8],
    /// When the request arrived.
    pub arrived: Moment,
    /// What it asks of the answer's age.
    pub directives: Directives,
}

/// What memory has to say.
#[derive(Debug)]
pub enum Look {
    /// This answer.
    Answer(Answer),
    /// Nothing that may be given at once.
    Rebuild(Want),
    /// Nothing that may be given, and the request wants nothing that isn't stored.
    Withheld,
}

/// What a reader wants of a rebuild.
#[derive(Debug)]
pub struct Want {
    /// Why it is needed.
    pub(super) why: Fallback,
    /// What may be given where it fails or takes too long.
    pub(super) old: Option<Arc<Entry>>,
    /// Given at once where no suitable flight is under way: the request may not cause one now.
    pub(super) limited: Option<Arc<Entry>>,
    /// Which flights will do.
    pub(super) joins: Joins,
    /// A transaction that the answer must contain; of the history that it names, if it does.
    pub(super) after: Option<Token>,
}

/// What is known of writes since an answer was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vouched {
    /// It contains all of them.
    Current,
    /// It contains all that were announced before the event stream fell silent.
    Blindly,
    /// It lacks one, or is of another history or another schema.
    Outdated,
}

/// Which flights a reader joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Joins {
    /// Those that are sure to bring what the ledger requires (R3).
    Sure,
    /// The same where every write to what the query depends on is announced; else as [`Joins::Unsent`]: of a query that lives by
    /// its ttl, or is being judged, the ledger knows nothing that a flight could be sure by.
    Known,
    /// Those whose statement has not been sent yet: what they bring was read after the request arrived.
    Unsent,
}

impl Want {
    /// A rebuild because of `why`, with nothing to fall back on.
    pub fn new(why: Fallback) -> Self {
        Self { why, old: None, limited: None, joins: Joins::Sure, after: None }
    }

    /// Bounds what a directive can cause. Once per `min_refill_interval` it has its fill, in the place of `stored`; in
    /// between it may join a flight that is under way, and is given `instead` where there is none. Where nothing may be
    /// given instead, a rebuild is due in any case, and this is an ordinary reader.
    fn bounded(mut self, ask: &Ask<'_>, stored: &Entry, instead: Option<Arc<Entry>>) -> Self {
        let forced = stored.force(ask.arrived, ask.route.query().policy().min_refill_interval);
        if forced || instead.is_some() {
            self.joins = joins(&ask.directives);
        }
        if !forced {
            self.limited = instead;
        }
        self
    }

    /// Why it is needed.
    pub fn why(&self) -> Fallback {
        self.why
    }
}

impl Readthrough {
    /// What memory has to say to `ask`. For a fresh entry: one look-up, no lock that others wait on, no allocation.
    #[inline]
    pub fn look(self: &Arc<Self>, ask: &Ask<'_>) -> Look {
        let Some(entry) = self.store.get(ask.key) else { return missing(ask) };
        let vouched = self.vouch(&entry, ask.arrived);
        match entry.freshness(ask.arrived) {
            stands @ Freshness::Fresh(_) if vouched == Vouched::Current && ask.directives.are_none() => {
                self.fresh(ask, entry, stands)
            }
            stands => self.look_closer(ask, entry, stands, vouched),
        }
    }

    /// The entry under `key` if it is within its lifetime and certified at the present version of the ledger (R2).
    pub(super) fn peek_fresh(&self, key: &[u8], now: Moment) -> Option<Arc<Entry>> {
        let entry = self.store.peek(key)?;
        let fresh = matches!(entry.freshness(now), Freshness::Fresh(_)) && self.vouch(&entry, now) == Vouched::Current;
        fresh.then_some(entry)
    }

    /// Whether `entry` is certified now, and somebody vouches for it.
    pub(super) fn is_current(&self, entry: &Entry, now: Moment) -> bool {
        self.vouch(entry, now) == Vouched::Current
    }

    /// What is known of writes since `entry` was read (R2, R6). Where nothing was announced since it was last asked: two
    /// atomic loads and the clock's arithmetic.
    #[inline]
    pub(super) fn vouch(&self, entry: &Entry, now: Moment) -> Vouched {
        match self.ledger.version_unless_blind(now, entry.max_lag()) {
            Some(_) if sabotage::is(Sabotage::NoCertify) => Vouched::Current,
            Some(version) if entry.certified() == version || self.certifies(entry, version) => Vouched::Current,
            Some(_) => Vouched::Outdated,
            None => self.vouch_blindly(entry),
        }
    }

    /// What was known when the event stream fell silent.
    #[cold]
    fn vouch_blindly(&self, entry: &Entry) -> Vouched {
        let version = self.ledger.version();
        let certified = entry.certified() == version || self.certifies(entry, version);
        if certified { Vouched::Blindly } else { Vouched::Outdated }
    }

    /// Certifies `entry`, and remembers that for `version`, which was read before.
    pub(super) fn certifies(&self, entry: &Entry, version: u64) -> bool {
        let certified = self.rests_on(entry.basis()) && self.ledger.certify(entry.stamp(), entry.tags());
        if certified {
            entry.certify_at(version);
        }
        certified
    }

    #[inline]
    fn fresh(self: &Arc<Self>, ask: &Ask<'_>, entry: Arc<Entry>, stands: Freshness) -> Look {
        if entry.is_counted() {
            self.hot.given(ask, &entry);
        }
        if entry.is_nearly_due(ask.arrived) {
            self.refresh_early(ask, &entry);
        }
        Look::Answer(Answer { entry, source: Source::Memory { stands, by: By::Lifetime } })
    }

    #[cold]
    fn look_closer(self: &Arc<Self>, ask: &Ask<'_>, entry: Arc<Entry>, stands: Freshness, vouched: Vouched) -> Look {
        let directives = &ask.directives;
        let policy = ask.route.query().policy();
        let age = entry.age(ask.arrived);
        let past = match stands {
            Freshness::Fresh(_) => None,
            Freshness::Stale(past) => Some(past),
        };
        let given = |entry, by| Look::Answer(Answer { entry, source: Source::Memory { stands, by } });
        // What the stream no longer vouches for is as good as ever where the query says so, but for its label.
        let certified = match vouched {
            Vouched::Current => true,
            Vouched::Blindly => policy.on_blind == OnBlind::Serve,
            Vouched::Outdated => false,
        };
        if certified && past.is_none() && !directives.refuse_age(age) {
            return match vouched {
                Vouched::Blindly => given(entry, By::Blind),
                _ => self.fresh(ask, entry, stands),
            };
        }
        let failing = || self.failing(ask.key, ask.arrived).is_some();
        if vouched == Vouched::Outdated && self.may_outlive(ask, &entry, past) {
            if !failing() {
                self.refresh(ask, &entry, Rebuild::Invalidated);
            }
            return given(entry, By::Invalidated);
        }
        if let Some(past) = past.filter(|_| certified && !directives.validate()) {
            // A failure a moment ago is answered for from memory, and not repeated.
            let failing = failing();
            if failing && past < policy.stale_if_error {
                return given(entry, By::IfError);
            }
            if directives.take_stale(age, past) {
                let by = match directives.max_stale {
                    _ if past < policy.stale_while_revalidate => Some(By::WhileRevalidate),
                    Some(_) if past < policy.stale_at_most() => Some(By::MaxStale),
                    _ => None,
                };
                if let Some(by) = by {
                    if !failing {
                        self.refresh(ask, &entry, Rebuild::Expired);
                    }
                    return given(entry, by);
                }
            }
        }
        if directives.only_if_cached {
            return Look::Withheld;
        }
        let why = match (vouched, past) {
            (Vouched::Outdated, _) => Fallback::Invalidated,
            (Vouched::Blindly, _) if !certified => Fallback::Blind,
            (_, Some(_)) => Fallback::Expired,
            (_, None) => Fallback::Directive,
        };
        let usable = past.is_none_or(|past| past < policy.stale_if_error) && !directives.validate();
        let want = Want { old: usable.then(|| Arc::clone(&entry)), ..Want::new(why) };
        if !certified {
            return Look::Rebuild(Want { joins: joins(directives), ..want });
        }
        if !directives.refuse_age(age) {
            return Look::Rebuild(want);
        }
        let may_do = past.is_none_or(|past| past < policy.stale_while_revalidate);
        Look::Rebuild(want.bounded(ask, &entry, may_do.then(|| Arc::clone(&entry))))
    }

    /// Whether an outdated answer may be given while it is refreshed: within `serve_invalidated`, counted from a moment at
    /// which it was certified still, and within the windows of one that no write made wrong.
    fn may_outlive(&self, ask: &Ask<'_>, entry: &Entry, past: Option<Duration>) -> bool {
        let policy = ask.route.query().policy();
        let directives = &ask.directives;
        !policy.serve_invalidated.is_zero()
            // Who says anything of the answer's age wants no wrong one.
            && directives.max_age.is_none()
            && directives.max_stale.is_none()
            && past.is_none_or(|past| past < policy.stale_while_revalidate)
            && self.rests_on(entry.basis())
            && self
                .ledger
                .outdated_for(entry.certified(), ask.arrived)
                .is_some_and(|outdated| outdated < policy.serve_invalidated)
    }

    /// The failure of `key` that is in force at `now`, and until when.
    ///
    /// That the origin could not be reached is in force only until it is reached, by whatever request or probe: an outage
    /// that is over is nobody's reason to wait out a backoff.
    pub(super) fn failing(&self, key: &[u8], now: Moment) -> Option<(ReadError, Moment)> {
        let (error, until) = self.failures.in_force(key, now)?;
        if error.is_over_when_reached() && self.origin.state() == OriginState::Up {
            self.failures.forget(key);
            return None;
        }
        Some((error, until))
    }

    #[cold]
    fn refresh_early(self: &Arc<Self>, ask: &Ask<'_>, entry: &Arc<Entry>) {
        let beta = ask.route.query().policy().early_refresh;
        if early::is_due(ask.arrived, entry.expires(), entry.took(), beta, self.chance.draw()) {
            self.refresh(ask, entry, Rebuild::Early);
        }
    }

    /// Begins a refresh of `entry` in the background, unless one is under way or the last has just failed; its task, if it
    /// did. Readers never wait for it.
    pub(super) fn refresh(
        self: &Arc<Self>,
        ask: &Ask<'_>,
        entry: &Arc<Entry>,
        reason: Rebuild,
    ) -> Option<JoinHandle<()>> {
        if !entry.begin_refresh(ask.arrived) {
            return None;
        }
        let policy = ask.route.query().policy();
        let key = Key::new(ask.key);
        let Some(lead) = self.flights.refresh(&key) else {
            // A flight is under way, and wanted from now on whoever leaves it. It replaces this entry, or fails and is
            // remembered; should it do neither, the next refresh may begin after a backoff. One that was sent before the
            // write brings what is outdated too, so there the next reader looks again.
            let pause = if reason == Rebuild::Invalidated { Duration::ZERO } else { policy.error_backoff };
            entry.end_refresh(ask.arrived + pause);
            return None;
        };
        let unless = match reason {
            Rebuild::Early => Unless::FilledAfter(entry.filled()),
            _ => Unless::Fresh,
        };
        let fill = Fill {
            read: Arc::clone(self),
            route: Arc::clone(ask.route),
            prepared: Arc::clone(ask.prepared),
            key,
            rests: self.rests(ask.route, ask.key),
            reason,
            unless,
            refreshes: Some(Arc::clone(entry)),
            deadline: tokio::time::Instant::now() + policy.timeout,
        };
        Some(tokio::spawn(fill.run(lead)))
    }
}

/// Nothing is stored.
#[cold]
fn missing(ask: &Ask<'_>) -> Look {
    if ask.directives.only_if_cached {
        return Look::Withheld;
    }
    Look::Rebuild(Want { joins: joins(&ask.directives), ..Want::new(Fallback::Miss) })
}

/// Who validates joins no flight that may have been read before the request arrived.
fn joins(directives: &Directives) -> Joins {
    if directives.validate() { Joins::Unsent } else { Joins::Sure }
}
