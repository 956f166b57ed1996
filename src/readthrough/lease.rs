//! Who fills, of all pods: a lease in the shared tier, and the wait of those that don't have it.
//!
//! A lease is a hint and no lock: whatever comes of it, answers certify themselves. It is short, and renewed for as long as
//! its holder's fill runs, so that a holder that dies is found out long before those that wait for it run out of time.
//!
//! # Whom to wait for (R3, over pods)
//! A lease says how far its holder's ledger had come when it was claimed; the holder's statement is sent after that, so its
//! snapshot covers the cursor. A lease that was not there at an earlier look was claimed after it, so its holder's statement
//! sees all that was known here then. Either makes it *sure* to bring what this flight needs, and then it is waited for. With
//! a holder that is not sure the second lease is claimed, and with two, whichever ends first. (With one lease a write after the
//! claim would leave every pod but the holder without one.)
//!
//! # How a wait ends
//! By a notice that something has become of the place, else with the holder's lease; then the place is looked at again, and
//! claimed where nobody holds it, by exactly one. A flight that has used half of its time fills without a lease.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::error::ReadError;
use super::fill::{Fill, Flight};
use super::origin::OriginError;
use super::shared::{Away, Claim, Claimed, Ended, Holder, Lease, Looked, Place, SharedTier, Token};
use crate::cache::entry::Entry;
use crate::ledger::Required;
use crate::telemetry::metrics::LeaseOutcome;

/// How long a lease lasts, of a query's timeout: half of the time until those that wait would fill for themselves.
const OF_TIMEOUT: u32 = 4;

/// A lease is never shorter: renewals and the network's hiccups must fit into it.
const SHORTEST: Duration = Duration::from_millis(50);

/// A lease is never longer: so much later another pod takes over from one that has died.
const LONGEST: Duration = Duration::from_secs(1);

/// Renewals within a lease: two may be late or lost.
const RENEWALS: u32 = 3;

/// The shared tier counts whole milliseconds: who comes when a lease has ended must find it gone.
const AFTER: Duration = Duration::from_millis(2);

/// At a place whose answer is too large to be shared: nobody is to wait for anybody.
const UNSHARED: &str = "unshared";

/// For so long it is taken for too large: a fill's length would be too short, and an answer's lifetime too long to hear that it
/// has shrunk.
const UNSHARED_FOR: Duration = Duration::from_secs(30);

/// What other pods bring to a flight.
pub(super) enum Elsewhere {
    /// One has filled it.
    Found(Arc<Entry>),
    /// One has failed to, in a way that is not its own; so long it is to be left alone.
    Failed(ReadError, Duration),
    /// Nothing: this process is to fill it.
    Nothing(Standing),
}

/// As what a process fills.
pub(super) enum Standing {
    /// With other pods waiting for it.
    Holder(Held),
    /// For itself.
    Alone,
    /// For itself, since the shared tier was away.
    Away,
}

/// A lease, and what renews it.
pub(super) struct Held {
    tier: Arc<dyn SharedTier>,
    pub(super) place: Place,
    lease: Lease,
    life: Duration,
}

/// Holders that a flight has seen at its last look, with what was known here at the one before it saw them first.
#[derive(Default)]
struct Holders(Vec<(Holder, Option<Required>)>);

impl Holders {
    /// Takes note of who holds a lease `now`; `before` was known here at the look before, if there was one.
    fn are(&mut self, now: Vec<Holder>, before: Option<&Required>) {
        let known = |holder: &Holder| match self.0.iter().find(|(seen, _)| seen.token == holder.token) {
            Some((_, known)) => known.clone(),
            None => before.cloned(),
        };
        self.0 =
            now.into_iter().map(|holder| (known(&holder), holder)).map(|(known, holder)| (holder, known)).collect();
    }

    /// How long the lease lasts of one that is sure to bring what is `required`, and what its statement was sent knowing.
    fn sure(&self, required: &Required, place: &Place) -> Option<(Duration, Required)> {
        self.0.iter().find_map(|(holder, known)| {
            let by_cursor = || Some(Required::of_cursor(place.lineage.clone(), holder.cursor.clone()?));
            let sure = |sent: &Required| required.sure_of(sent);
            let sent = known.clone().filter(sure).or_else(|| by_cursor().filter(sure))?;
            Some((holder.left, sent))
        })
    }

    /// When the first of them ends.
    fn first_end(&self) -> Duration {
        self.0.iter().map(|(holder, _)| holder.left).min().unwrap_or_default()
    }

    fn are_two(&self) -> bool {
        self.0.len() >= 2
    }
}

impl Fill {
    /// What other pods have, or are about to have; waits for it for at most half of the flight's time. Cancel safe: what was
    /// claimed is given back.
    pub(super) async fn elsewhere(&self, lead: &Flight) -> Elsewhere {
        let Some((tier, place)) = self.shares() else { return Elsewhere::Nothing(Standing::Alone) };
        let begun = Instant::now();
        let patience = begun + self.deadline.saturating_duration_since(begun) / 2;
        let (brought, outcome) = self.bring_from(&tier, &place, lead, patience).await;
        if let Some(outcome) = outcome {
            self.read.metrics.lease(outcome);
        }
        brought
    }

    async fn bring_from(
        &self,
        tier: &Arc<dyn SharedTier>,
        place: &Place,
        lead: &Flight,
        patience: Instant,
    ) -> (Elsewhere, Option<LeaseOutcome>) {
        let away = || (Elsewhere::Nothing(Standing::Away), Some(LeaseOutcome::Skipped));
        let alone = || (Elsewhere::Nothing(Standing::Alone), Some(LeaseOutcome::Skipped));
        let purges = self.read.purges();
        let Ok(Looked { value, mut seen }) = tier.take(place).await else { return away() };
        if let Some(entry) = value.and_then(|value| self.accept(place, value, purges, false)) {
            return (Elsewhere::Found(entry), None);
        }
        let life = (self.route.query().policy().timeout / OF_TIMEOUT).clamp(SHORTEST, LONGEST);
        let (mut second, mut waited) = (false, None::<Waited>);
        let (mut known, mut holders) = (None::<Required>, Holders::default());
        let token = Token(self.read.chance.token());
        loop {
            if Instant::now() >= patience {
                return alone();
            }
            let purges = self.read.purges();
            // Before the claim: an end that comes while that is on its way is heard.
            let news = tier.news(place);
            let now_known = self.read.ledger.required(&self.rests.tags);
            let claim = Claim { token, seen: seen.clone(), cursor: now_known.cursor().cloned(), life, second };
            match tier.claim(place, claim).await {
                Err(Away) => return away(),
                Ok(Claimed::Leased(lease)) => {
                    let outcome =
                        if waited == Some(Waited::InVain) { LeaseOutcome::TakenOver } else { LeaseOutcome::Acquired };
                    let held = Held { tier: Arc::clone(tier), place: place.clone(), lease, life };
                    return (Elsewhere::Nothing(Standing::Holder(held)), Some(outcome));
                }
                Ok(Claimed::Value(looked)) => {
                    seen = looked.seen;
                    let accept = |value| self.accept(place, value, purges, waited.is_some());
                    if let Some(entry) = looked.value.and_then(accept) {
                        return (Elsewhere::Found(entry), waited.map(|_| LeaseOutcome::Waited));
                    }
                    waited = waited.map(|_| Waited::ForLess);
                }
                Ok(Claimed::Marked { word, left }) => {
                    let longest = self.route.query().policy().error_backoff;
                    // Whoever writes there keeps a question from being asked no longer than a failure would.
                    let Some(error) = of_word(&word).filter(|_| left <= longest) else { return alone() };
                    return (Elsewhere::Failed(error, left), waited.map(|_| LeaseOutcome::Waited));
                }
                // None of ours: nobody is kept waiting by it.
                Ok(Claimed::Held(held)) if held.iter().any(|holder| holder.left > LONGEST) => return alone(),
                Ok(Claimed::Held(held)) => {
                    holders.are(held, known.replace(now_known).as_ref());
                    // As of now, with those who have joined meanwhile.
                    let required = self.read.ledger.required(&self.rests.tags);
                    let left = match holders.sure(&required, place) {
                        Some((left, sent)) => {
                            lead.sending().sent(sent);
                            left
                        }
                        None if !holders.are_two() && !second => {
                            second = true;
                            continue;
                        }
                        None => holders.first_end(),
                    };
                    let until = (Instant::now() + left + AFTER).min(patience);
                    let _told_or_over = timeout_at(until, news).await;
                    waited = Some(Waited::InVain);
                }
            }
        }
    }
}

/// What a wait for others has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// The holder brought nothing yet.
    InVain,
    /// What came would not do.
    ForLess,
}

impl Held {
    /// Renews the lease until `work` has ended, or it is known to be lost. Cancel safe where `work` is.
    pub(super) async fn renewed_while<T>(&self, work: impl Future<Output = T>) -> T {
        let renewals = async {
            loop {
                tokio::time::sleep(self.life / RENEWALS).await;
                if self.tier.renew(&self.place, self.lease.token(), self.life).await == Ok(false) {
                    tracing::debug!("a lease was lost: another pod may fill what this one fills");
                    return;
                }
            }
        };
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            ended = &mut work => ended,
            () = renewals => work.await,
        }
    }

    /// Shares `entry`; the lease ends with that.
    pub(super) fn publish(self, entry: &Arc<Entry>) {
        self.tier.publish(self.place, entry, Some(self.lease));
    }

    /// The fill has failed: other pods are told, where it would fail for them, too; else one of them may try.
    pub(super) fn failed(self, error: &ReadError, backoff: Duration) {
        self.lease.end(match to_word(error) {
            Some(word) if !backoff.is_zero() => Ended::Marked { word, lasts: backoff },
            _ => Ended::Free,
        });
    }

    /// The answer is too large for others to be given it.
    pub(super) fn has_grown_too_large(self) {
        self.lease.end(Ended::Marked { word: UNSHARED.to_owned(), lasts: UNSHARED_FOR });
    }
}

/// What other pods are told of a failure. No text of the database's: it may quote what is nobody else's business. `None`: it
/// says nothing of the question, and another pod may fare better.
fn to_word(error: &ReadError) -> Option<String> {
    Some(match error {
        ReadError::Deadline => "deadline".to_owned(),
        ReadError::Origin(origin) => match origin {
            OriginError::Timeout => "timeout".to_owned(),
            OriginError::TooManyRows { limit } => format!("too_many_rows {limit}"),
            OriginError::TooLarge { bytes, limit } => format!("too_large {bytes} {limit}"),
            OriginError::NotOneRow => "not_one_row".to_owned(),
            OriginError::Refused(_) => "refused".to_owned(),
            OriginError::Broken(_) => "broken".to_owned(),
            OriginError::Conflict(_) => "conflict".to_owned(),
            OriginError::Away(_) | OriginError::Pool | OriginError::Behind(_) => return None,
        },
        ReadError::QueueFull
        | ReadError::QueueDeadline
        | ReadError::TooManyWaiters
        | ReadError::Panicked
        | ReadError::Cancelled
        | ReadError::Unprepared
        | ReadError::BrokenQuery
        | ReadError::OriginBehind
        | ReadError::LineageChanged
        | ReadError::NotVisible => return None,
    })
}

/// The failure of another pod's that `word` tells of; `None`: it tells of none that this version knows.
fn of_word(word: &str) -> Option<ReadError> {
    let mut words = word.split(' ');
    let (name, mut number) = (words.next()?, || words.next()?.parse().ok());
    let found = || "as another pod has found".to_owned();
    Some(ReadError::Origin(match name {
        "deadline" => return Some(ReadError::Deadline),
        "timeout" => OriginError::Timeout,
        "too_many_rows" => OriginError::TooManyRows { limit: u32::try_from(number()?).ok()? },
        "too_large" => OriginError::TooLarge { bytes: number()?, limit: number()? },
        "not_one_row" => OriginError::NotOneRow,
        "refused" => OriginError::Refused(found()),
        "broken" => OriginError::Broken(found()),
        "conflict" => OriginError::Conflict(found()),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_the_question_is_told_and_one_of_the_pod_is_not() {
        let text = || "as another pod has found".to_owned();
        for error in [
            ReadError::Deadline,
            OriginError::Timeout.into(),
            OriginError::TooManyRows { limit: 7 }.into(),
            OriginError::TooLarge { bytes: u64::MAX, limit: 9 }.into(),
            OriginError::NotOneRow.into(),
            OriginError::Refused(text()).into(),
            OriginError::Broken(text()).into(),
            OriginError::Conflict(text()).into(),
        ] {
            let word = to_word(&error).expect("a word");
            assert_eq!(of_word(&word), Some(error), "{word}");
        }
        let broken = to_word(&OriginError::Broken("secret".into()).into());
        assert_eq!(broken.as_deref(), Some("broken"), "no word of the database's");
        for own in
            [OriginError::Pool.into(), OriginError::Away(text()).into(), ReadError::Panicked, ReadError::Cancelled]
        {
            assert_eq!(to_word(&own), None, "{own:?}");
        }
        for strange in ["", "new", "too_large", "too_large 1", "too_many_rows x", "too_many_rows 4294967296", UNSHARED]
        {
            assert_eq!(of_word(strange), None, "{strange}");
        }
    }
}
