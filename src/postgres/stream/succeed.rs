//! Other queries in the place of those in force, under a stream that is followed and entries that are to stay.
//!
//! New queries are prepared and judged before anybody can ask them, so that there is no moment in which they can't be asked, or
//! in which what they store has no tags. Entries rest on a *basis*, which is the state of the definitions that the verdicts were
//! found in. It stays what it was, and with it every entry of the queries that stay, if it can be shown that no definition has
//! changed in between:
//!
//! 1. what has no verdict yet is analysed, which finds its closure and the hash over it;
//! 2. the hash over both closures together is read, which polls will be held against from now on;
//! 3. the hashes over the new one and over the old one are read once more: the new one is as it was in 1, and the old one as it
//!    was when its verdicts were found.
//!
//! So nothing has changed from before until 2, and what changes later shows in the next poll that looks. The closure of queries
//! that are taken away stays in it: should they come back, nothing has happened behind their entries' back. Where it can't be
//! shown, the stream finds out anew, and everything is refilled.

use std::time::Duration;

use tokio::time::timeout;

use super::schema::{Present, is_judged, shapes};
use crate::catalog::{Catalog, InForce, Shape};
use crate::postgres::Postgres;
use crate::postgres::analyse::{Analysed, Found};
use crate::readthrough::Readthrough;

/// Preparing and judging hold up nobody but who waits for the new queries: as long as at a start.
const WITHIN: Duration = Duration::from_secs(10);

/// What will be known of other queries, once they are in force.
struct Judged {
    /// That it was found out in.
    generation: u64,
    /// Verdicts to be put in force, where those that there are don't do.
    found: Option<Found>,
    present: Present,
}

impl Postgres {
    /// Puts `next` in force in the place of the present catalog, for `read` and for the stream. Queries of both that are the same
    /// objects go on undisturbed. What can't be prepared, since Postgres is away, comes in as at a start: it can't be asked yet.
    ///
    /// One at a time: two that run at once would each keep its own.
    pub async fn succeed(&self, next: Catalog, in_force: &InForce, read: &Readthrough) {
        let unprepared = next.only(|query| matches!(**query.shape(), Shape::Pending));
        if !unprepared.is_empty() && timeout(WITHIN, self.prepare_all(&unprepared)).await.is_err() {
            tracing::warn!("new queries could not be prepared in time: they can be asked once they are");
        }
        let judged = timeout(WITHIN, self.judge(&next)).await.ok().flatten();
        let mut state = self.settled.lock();
        match judged {
            Some(judged) if judged.generation == state.generation => {
                judged.found.map(Found::judge);
                state.put(Some(judged.present));
            }
            // What is known of each is known of its namesake: an analysis under way is of these, too.
            _ if ask_the_same(&next, &in_force.load()) => {}
            _ => {
                // It is of the former ones.
                let present = state.present.take();
                state.put(present);
            }
        }
        read.replace(&next);
        in_force.store(next.into());
        drop(state);
        // Whoever keeps queries prepared looks at those that aren't soon.
        self.shared.broke.notify_one();
    }

    /// What is known of `next`, if it can be known without disturbing what rests on what is known now.
    async fn judge(&self, next: &Catalog) -> Option<Judged> {
        let (generation, former) = {
            let state = self.settled.lock();
            (state.generation, state.present.clone()?)
        };
        let shapes = shapes(next);
        if is_judged(next) {
            // The closure of what is gone stays in what is looked at.
            return Some(Judged { generation, found: None, present: Present { shapes, ..former } });
        }
        // The others' verdicts rest on the former closure. A lock on what they read is none of the new ones' concern.
        let unjudged = next.only(|query| query.verdict().is_none());
        let found = self.shared.find_out(&unjudged).await.ok()?;
        let analysed = &found.analysed;
        let mut closure = former.analysed.closure.clone();
        closure.extend(&analysed.closure);
        let fingerprint = self.schema_fingerprint(&closure).await.ok()?;
        let new_stood = self.schema_fingerprint(&analysed.closure).await.ok()? == analysed.fingerprint;
        let old_stood = self.schema_fingerprint(&former.analysed.closure).await.ok()? == former.analysed.fingerprint;
        let analysed = Analysed { closure, fingerprint };
        let present = Present { analysed, shapes, basis: former.basis };
        (new_stood && old_stood).then_some(Judged { generation, found: Some(found), present })
    }
}

/// Whether each of `one` has what is known of it with its namesake in `other`, and none is missing.
fn ask_the_same(one: &Catalog, other: &Catalog) -> bool {
    one.len() == other.len()
        && one.iter().all(|query| other.get(query.name()).is_some_and(|namesake| query.is_known_as(namesake)))
}
