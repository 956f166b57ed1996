//! What the operator's own triggers notify of, once it is in force: counted, said once in a while, and forgotten where that is
//! what they ask for.

use std::time::Duration;

use super::Follower;
use crate::ledger::{Beside, Payload, Poll};
use crate::tag::Tag;
use crate::telemetry::metrics::Announced;

/// After a warning of the same kind.
const SAY_AGAIN: Duration = Duration::from_secs(60);

impl Follower {
    /// What others notified of is in force: counts it, and forgets what is to be forgotten.
    pub(super) fn notified(&mut self, texts: &[Box<str>], heard: &[Payload]) {
        let metrics = self.read.metrics();
        let mut malformed: usize = heard.iter().map(|payload| payload.malformed).sum();
        if !self.has_log() {
            // Nothing is named by it, and there is nothing to look for.
            malformed += texts.iter().filter(|text| text.is_empty()).count();
        }
        metrics.malformed_notifications.inc_by(malformed as u64);
        let now = self.read.clock().now();
        if malformed > 0 && self.said_malformed.is_none_or(|said| now.since(said) >= SAY_AGAIN) {
            self.said_malformed = Some(now);
            tracing::warn!(
                parts = malformed,
                "a notification has parts that can't be read, which are taken as they stand: a payload is tags between spaces, \
                 percent-encoded, and perhaps xid=N"
            );
        }
        for payload in heard {
            metrics.announced(Announced::Notify, payload.tags.len());
            if !payload.purged.is_empty() {
                self.read.purge(&payload.purged);
            }
        }
    }
}

/// What a poll, and what came beside it, touches: sorted.
pub(super) fn tags_of(poll: &Poll, beside: Beside<'_>) -> Vec<Tag> {
    let mut tags: Vec<Tag> = poll.events.iter().map(|event| event.tag).collect();
    if let Beside::Heard(payloads) = beside {
        tags.extend(payloads.iter().flat_map(|payload| &payload.tags));
    }
    tags.sort_unstable();
    tags.dedup();
    tags
}
