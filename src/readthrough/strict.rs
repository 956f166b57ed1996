//! Reads as consistent as the primary, at the price of a shared probe.
//!
//! A reader that must not miss a write which was acknowledged before it came waits for a poll that was sent after its
//! arrival. Once that is applied the ledger knows of every such write, and what is stored is as good as a new answer if it is
//! certified. One poll serves all who came before it was sent: group commit, for reads.
//!
//! Where the stream can't be asked (there is none, or it is interrupted) such a reader takes no stored answer and joins no
//! flight whose statement has been sent: Postgres answers, or nobody does. So it is with a query that lives by its ttl, or whose
//! verdict is being found out: of what is written to its tables no poll says anything.
//!
//! # Tokens
//! A client that has written brings the id of its transaction. It is looked for in the polls' snapshots, without a fill: until
//! one of them sees it, no statement could. From then on a certified answer of a query with verdict has what that transaction
//! wrote to it; of a query that lives by its ttl nothing is known, so its stamp itself must see the transaction.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, By, Source};
use super::error::ReadError;
use super::look::{Ask, Joins, Look, Want};
use super::{Readthrough, StreamState};
use crate::cache::entry::Freshness;
use crate::catalog::policy::Consistency;
use crate::sabotage::{self, Sabotage};
use crate::stamp::Lineage;
use crate::telemetry::metrics::Fallback;

/// What a client that has written brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The history that it wrote in, if it says so.
    pub lineage: Option<Box<str>>,
    /// Its top-level transaction.
    pub xid: u64,
}

impl Token {
    /// Reads `<xid8>` or `<lineage>:<xid8>`, as `seawall.token()` gives it. `None`: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (lineage, xid): (Option<Box<str>>, &str) = match text.rsplit_once(':') {
            Some((lineage, xid)) => (Some(Box::from(lineage)), xid),
            None => (None, text),
        };
        let digits = !xid.is_empty() && xid.bytes().all(|byte| byte.is_ascii_digit());
        let named = lineage.as_ref().is_none_or(|lineage| !lineage.is_empty());
        xid.parse().ok().filter(|_| digits && named).map(|xid| Self { lineage, xid })
    }

    /// Whether it names this history, or none.
    pub(super) fn may_be_of(&self, lineage: &Lineage) -> bool {
        self.lineage.as_deref().is_none_or(|own| own == lineage.as_str())
    }
}

/// What the event stream said to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probe {
    /// All that was acknowledged before the reader came is known.
    Applied,
    /// It could not be asked.
    Unasked,
}

impl Readthrough {
    /// What there is to say to `ask` that has to be as good as what Postgres would say: after a probe, and after `token` has
    /// become visible. Waits until the query's `timeout` at most. Cancel safe.
    ///
    /// # Errors
    /// [`ReadError::LineageChanged`] and [`ReadError::NotVisible`], of the token.
    pub async fn look_strictly(self: &Arc<Self>, ask: &Ask<'_>, token: Option<&Token>) -> Result<Look, ReadError> {
        let deadline = Instant::now() + ask.route.query().policy().timeout;
        let probe = self.probe(ask, deadline).await;
        let consistency = ask.route.query().policy().consistency;
        match (probe, token) {
            (Probe::Applied, Some(token)) => self.wait_for(token, deadline).await?,
            // Who only validates, and can't be told for the price of a poll, has a fill within the query's bounds.
            (_, None) if consistency == Consistency::Bounded && !(probe == Probe::Applied && self.are_known(ask)) => {
                return Ok(self.look(ask));
            }
            _ => {}
        }
        // Who brings a token and asks for nothing else is content with that write.
        let token_alone = token.filter(|_| consistency == Consistency::Bounded && !ask.directives.validate());
        let entry = self.store.get(ask.key);
        let now = self.clock.now();
        let mut why = Fallback::Miss;
        if let Some(entry) = &entry {
            let stands = entry.freshness(now);
            why = match stands {
                _ if probe == Probe::Unasked => Fallback::Strict,
                _ if !self.is_current(entry, now) => Fallback::Invalidated,
                Freshness::Stale(_) => Fallback::Expired,
                Freshness::Fresh(_) if ask.directives.refuse_all_but_validated(entry.age(now)) => Fallback::Directive,
                // What it depends on is known, or it has what the client wrote.
                Freshness::Fresh(_)
                    if entry.max_lag() < Duration::MAX
                        || token_alone.is_some_and(|token| entry.stamp().snapshot.sees(token.xid)) =>
                {
                    // Another history may have taken over since it was waited for.
                    if token.is_some_and(|token| !token.may_be_of(&entry.stamp().lineage)) {
                        return Err(ReadError::LineageChanged);
                    }
                    let source = Source::Memory { stands, by: By::Lifetime };
                    return Ok(Look::Answer(Answer { entry: Arc::clone(entry), source }));
                }
                Freshness::Fresh(_) => Fallback::Strict,
            };
        }
        if ask.directives.only_if_cached {
            return Ok(Look::Withheld);
        }
        let joins = match probe {
            Probe::Applied if token_alone.is_some() => Joins::Sure,
            Probe::Applied => Joins::Known,
            Probe::Unasked => Joins::Unsent,
        };
        // Before a poll of the log fills may say the lineage without its epoch, which a token has.
        let known = self.polls.borrow().is_some();
        let after = token.map(|token| Token { lineage: token.lineage.clone().filter(|_| known), xid: token.xid });
        Ok(Look::Rebuild(Want { joins, after, ..Want::new(why) }))
    }

    /// Whether every write to what the query depends on is announced, as far as is known now.
    fn are_known(&self, ask: &Ask<'_>) -> bool {
        self.rests_on(self.basis()) && ask.route.has_verdict()
    }

    /// Waits for a poll that was sent after `ask` arrived.
    async fn probe(&self, ask: &Ask<'_>, deadline: Instant) -> Probe {
        let mut polls = self.polls.subscribe();
        let mut stream = self.stream.subscribe();
        let applied = async {
            loop {
                let came = polls
                    .borrow_and_update()
                    .is_some_and(|sent| sent >= ask.arrived || sabotage::is(Sabotage::StrictOldProbe));
                if came {
                    return Probe::Applied;
                }
                if !stream.borrow_and_update().is_asked() {
                    return Probe::Unasked;
                }
                self.probes.notify_one();
                tokio::select! {
                    // The senders are this object's own, so they can't be gone.
                    _ = polls.changed() => {}
                    _ = stream.changed() => {}
                }
            }
        };
        timeout_at(deadline, applied).await.unwrap_or(Probe::Unasked)
    }

    /// Waits until a poll's snapshot sees what `token` names.
    ///
    /// Another history may take over meanwhile:
    /// 1. its transaction runs, and no poll sees it;
    /// 2. the primary is gone, and it with it; a standby takes over, and gives out its id again;
    /// 3. a poll of the new history sees that id.
    ///
    /// So the lineage is looked at each time, after the cursor: it is never an older one.
    async fn wait_for(&self, token: &Token, deadline: Instant) -> Result<(), ReadError> {
        let mut polls = self.polls.subscribe();
        let seen = async {
            loop {
                let cursor = self.ledger.cursor();
                let known = self.ledger.lineage();
                if token.lineage.is_some() && !known.is_some_and(|known| token.may_be_of(&known)) {
                    return Err(ReadError::LineageChanged);
                }
                if cursor.is_some_and(|cursor| cursor.sees(token.xid)) {
                    return Ok(());
                }
                // The sender is this object's own, so it can't be gone.
                let _ = polls.changed().await;
            }
        };
        timeout_at(deadline, seen).await.unwrap_or(Err(ReadError::NotVisible))
    }

    /// Resolves when a reader waits for a poll. Cancel safe.
    pub async fn probe_wanted(&self) {
        self.probes.notified().await;
    }
}

impl StreamState {
    /// Whether a poll can be expected.
    fn is_asked(&self) -> bool {
        matches!(self, Self::Following | Self::Starting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_transaction_and_perhaps_a_lineage() {
        let token = |lineage: Option<&str>, xid| Some(Token { lineage: lineage.map(Box::from), xid });
        assert_eq!(Token::parse("725"), token(None, 725));
        assert_eq!(Token::parse("7/0001/5/17.5/ab-c:725"), token(Some("7/0001/5/17.5/ab-c"), 725));
        assert_eq!(Token::parse("18446744073709551615"), token(None, u64::MAX));
        for text in ["", "x", ":5", "a:", "-1", "+1", "18446744073709551616", " 5", "5 ", "a:b"] {
            assert_eq!(Token::parse(text), None, "{text:?}");
        }
    }
}
