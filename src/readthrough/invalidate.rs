//! Invalidation by hand: what an operator says is wrong.
//!
//! It takes the way of every write, through the log, so that it reaches all pods and is in order with everything else.
//! Where there is no log it reaches this process by a barrier, a snapshot that is taken now, and
//! others by a notification, where these are what pods go by.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::Readthrough;
use super::origin::{Announced, OriginError};
use crate::catalog::tags;
use crate::ledger::Invalidated;
use crate::stamp::Stamp;
use crate::tag::Tag;
use crate::telemetry::metrics;

/// The next poll is some milliseconds away; a stream that is silent for longer is reported, not waited for.
const APPLIED_WITHIN: Duration = Duration::from_secs(1);

/// What becomes of what is invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is not fresh any more; rules for old answers may still give it.
    Expire,
    /// It is never given again.
    Purge,
}

/// How far an invalidation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is in the log, for every pod, and in force here.
    Everywhere,
    /// It is in the log, for every pod, and will be in force here when the event stream has come so far.
    Logged,
    /// It is in force here, and every pod that listens has been notified.
    Notified,
    /// It is in force here. There is no log by which other pods could hear of it.
    Here,
}

impl Readthrough {
    /// Invalidates what depends on one of `texts`, which are tags as the log has them. A table's rows are among it.
    ///
    /// Cancelled midway it may have happened.
    ///
    /// # Errors
    /// The database could not be told: nothing was invalidated.
    pub async fn invalidate(self: &Arc<Self>, texts: &[String], mode: Mode) -> Result<Reach, OriginError> {
        let purges: Vec<String> = match mode {
            Mode::Expire => vec![],
            Mode::Purge => texts.iter().map(|text| tags::purge(text)).collect(),
        };
        let all: Vec<String> = texts.iter().chain(&purges).cloned().collect();
        match self.origin.announce(&all).await? {
            Announced::Logged { xid } => {
                Ok(if self.has_applied(xid).await { Reach::Everywhere } else { Reach::Logged })
            }
            Announced::Notified { after } => self.invalidate_here(texts, mode, &after).map(|()| Reach::Notified),
            Announced::Unlogged { after } => self.invalidate_here(texts, mode, &after).map(|()| Reach::Here),
        }
    }

    /// In this process, for all that was read before `after`.
    fn invalidate_here(&self, texts: &[String], mode: Mode, after: &Stamp) -> Result<(), OriginError> {
        let hash = |text: &str| Tag::new(text);
        let named: Vec<Tag> = texts.iter().flat_map(|text| tags::with_rows(text)).map(|text| hash(&text)).collect();
        let tables = texts.iter().filter_map(|text| tags::table_of(text)).map(hash);
        let all: Vec<Tag> = named.iter().copied().chain(tables).collect();
        if self.ledger.invalidate(after, None, &all) == Invalidated::OtherHistory {
            let history = after.lineage.as_str();
            return Err(OriginError::Behind(format!("its history is {history}, the one in force is another")));
        }
        self.metrics.announced(metrics::Announced::Manual, texts.len());
        if mode == Mode::Purge {
            self.purge(&named);
        }
        Ok(())
    }

    /// Resolves once a poll that sees transaction `xid` was applied; false where none is in time. Cancel safe.
    async fn has_applied(&self, xid: u64) -> bool {
        let mut polls = self.polls.subscribe();
        let seen = async {
            while !self.ledger.cursor().is_some_and(|cursor| cursor.sees(xid)) {
                // The sender is this object's own, so it can't be gone.
                let _ = polls.changed().await;
            }
        };
        timeout(APPLIED_WITHIN, seen).await.is_ok()
    }
}
