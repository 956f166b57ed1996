//! Analysing all queries until the catalogs have stood still meanwhile.
//!
//! Why twice:
//! 1. A query is analysed; a policy that it is subject to is dropped; the fingerprint is read.
//! 2. From then on the fingerprint stays as it is, and the verdict lacks the table that matters now.
//!
//! So a verdict counts only if the fingerprint of its closure was the same before and after a whole round that came to the
//! same verdicts: whatever that round read, it read between two readings that agree.
//!
//! Each verdict's own fingerprint (`fingerprint`) is read with that of all, under one snapshot. Rows of one query's closure are
//! rows of all queries', so where the hash over all has stood still, so have theirs: no other comparison is due.

use std::sync::Arc;

use tokio::time::timeout;

use crate::catalog::verdict::{Closure, SchemaFingerprint, Verdict};
use crate::catalog::{Catalog, Prepared, Query};
use crate::postgres::Shared;
use crate::postgres::connect::FIRST_STATEMENT_TIMEOUT_MS;
use crate::postgres::failure::Failure;
use crate::postgres::session::Session;
use crate::postgres::settings::Announcers;
use crate::postgres::sqlstate::Decision;
use crate::readthrough::origin::{Connection, OriginError};

use super::{analyse, fingerprint};

/// Rounds in which definitions may go on changing before the analysis is given up for now.
const ROUNDS: usize = 6;

/// For one query, all statements of its analysis together: about twenty, none longer than `statement_timeout`.
const WITHIN: std::time::Duration = std::time::Duration::from_secs(10);

/// What the verdicts of a catalog were found in.
#[derive(Clone, Debug)]
pub struct Analysed {
    /// Rows of the catalogs that any of them rests on.
    pub closure: Closure,
    /// The hash over these. As long as it is the same, so are the verdicts.
    pub fingerprint: SchemaFingerprint,
}

type Judged = Vec<(Arc<Query>, Verdict)>;

/// Verdicts that are not in force yet.
#[derive(Debug)]
pub struct Found {
    judged: Judged,
    /// What they were found in.
    pub analysed: Analysed,
}

impl Found {
    /// Puts them in force: each is its query's from now on.
    pub fn judge(self) -> Analysed {
        for (query, verdict) in self.judged {
            if query.verdict().is_none_or(|former| !former.says_as(&verdict)) {
                let kind = verdict.kind().as_str();
                let missing = verdict.missing().map(|(relation, why)| format!("{relation}: {why}"));
                let reasons: Vec<String> = missing.chain(verdict.reasons.iter().cloned()).collect();
                tracing::info!(query = query.name(), verdict = kind, reasons = reasons.join("; "), "a query is judged");
            }
            query.judge(Arc::new(verdict));
        }
        self.analysed
    }
}

impl Shared {
    /// Finds the verdict of every query of `catalog` that is prepared, and puts none of them in force: what they would rest on
    /// may be another's by now.
    ///
    /// # Errors
    /// [`OriginError::Away`], or [`OriginError::Timeout`] and [`OriginError::Conflict`] where something holds a lock on
    /// what a query reads, or definitions keep changing.
    pub(in crate::postgres) async fn find_out(&self, catalog: &Catalog) -> Result<Found, OriginError> {
        self.agree(catalog).await.map_err(|failure| {
            tracing::debug!(reason = failure.text, "queries could not be analysed");
            failure.to_error(0, self.result_max_bytes)
        })
    }

    /// The hash over `closure` as the catalogs are now.
    pub(in crate::postgres) async fn schema_fingerprint(
        &self,
        closure: &Closure,
    ) -> Result<SchemaFingerprint, OriginError> {
        let read = async {
            let turn = self.pool.turn().await;
            let mut lease = self.pool.session(&turn, Connection::Pooled).await?;
            let read = fingerprint::read(lease.session().client(), closure).await.map_err(|e| Failure::from(&e));
            if read.is_ok() {
                lease.give_back();
            }
            read
        };
        read.await.map_err(|failure: Failure| failure.to_error(0, self.result_max_bytes))
    }

    async fn agree(&self, catalog: &Catalog) -> Result<Found, Failure> {
        let turn = self.pool.turn().await;
        // A new one: it is about to make catalog entries of its own. Dropped, it is closed.
        let mut lease = self.pool.session(&turn, Connection::New).await?;
        let session = lease.session();
        session.bound(FIRST_STATEMENT_TIMEOUT_MS).await.map_err(|error| Failure::from(&error))?;
        let mut former: Option<(Judged, Analysed, Vec<SchemaFingerprint>)> = None;
        for round in 0..ROUNDS {
            let judged = judge(session, catalog, round, &self.announcers).await?;
            if let Some((earlier, analysed, each)) = &former {
                let now =
                    fingerprint::read(session.client(), &analysed.closure).await.map_err(|e| Failure::from(&e))?;
                if now == analysed.fingerprint && same(earlier, &judged) {
                    let found = judged.into_iter().zip(each);
                    let judged = found.map(|((query, verdict), definitions)| (query, verdict.found_in(*definitions)));
                    return Ok(Found { judged: judged.collect(), analysed: analysed.clone() });
                }
            }
            let mut closure = Closure::default();
            for (_, verdict) in &judged {
                closure.extend(&verdict.closure);
            }
            let closures = std::iter::once(&closure).chain(judged.iter().map(|(_, verdict)| &verdict.closure));
            let mut each =
                fingerprint::read_each(session.client(), closures).await.map_err(|e| Failure::from(&e))?.into_iter();
            let fingerprint = each.next().expect("as many as closures");
            former = Some((judged, Analysed { closure, fingerprint }, each.collect()));
        }
        Err(Failure::new(Decision::Conflict, "definitions kept changing while queries were analysed"))
    }
}

async fn judge(session: &Session, catalog: &Catalog, round: usize, announcers: &Announcers) -> Result<Judged, Failure> {
    let prepared: Vec<(Arc<Query>, Arc<Prepared>)> =
        catalog.iter().filter_map(|query| Some((Arc::clone(query), query.prepared()?))).collect();
    let mut judged = vec![];
    for (place, (query, prepared)) in prepared.iter().enumerate() {
        let number = round * catalog.len() + place;
        let verdict = timeout(WITHIN, analyse(session.client(), query, prepared, number, announcers))
            .await
            .unwrap_or_else(|_| Err(Failure::new(Decision::Timeout, "analysing took too long")))?;
        judged.push((Arc::clone(query), verdict));
    }
    Ok(judged)
}

fn same(one: &Judged, other: &Judged) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|((a, of_a), (b, of_b))| Arc::ptr_eq(a, b) && of_a == of_b)
}
