//! Keeping queries prepared: at the start, while the database comes and goes, and while its schema changes.
//!
//! One task. It prepares every query; while that fails it tries again with growing, jittered pauses of at most
//! `reconnect_max`, or as soon as a probe finds the database back; afterwards it looks again every [`RECHECK`], which is when a repaired query comes back and a changed
//! column becomes known, every [`RECHECK_BROKEN`] while one is broken, and at once when the database has been away.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::catalog::{Catalog, InForce, Query, Shape};
use crate::readthrough::origin::{Connection, OriginError, OriginState};

use super::Shared;
use super::connect::FIRST_STATEMENT_TIMEOUT_MS;
use super::failure::Failure;
use super::prepare;
use super::session::Session;
use super::sqlstate::Decision;

/// How often every query is prepared again. Each costs about five round trips, so a hundred take well under a second.
const RECHECK: Duration = Duration::from_secs(30);

/// The same while a query is broken: most likely its table is just being made, or was replaced by a migration.
const RECHECK_BROKEN: Duration = Duration::from_secs(5);

/// Pauses begin here.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Queries that are prepared at a time: few enough to leave connections to fills, and one that waits for a lock doesn't
/// hold up the others.
const AT_A_TIME: usize = 4;

/// A start waits no longer than this for all queries to be prepared.
const FIRST_ATTEMPT: Duration = Duration::from_secs(10);

/// For one query, all statements of its preparation together: a little longer than `statement_timeout` of a session that
/// prepares.
const PREPARE_WITHIN: Duration = Duration::from_secs(10);

impl Shared {
    /// Prepares each query of `catalog` and gives it its shape. A query that can't be prepared leaves the others alone.
    pub(super) async fn prepare_all(&self, catalog: &Catalog) -> Result<(), OriginError> {
        let mut first_failure = None;
        let queries: Vec<Arc<Query>> = catalog.iter().cloned().collect();
        let all = stream::iter(queries).map(|query| async move { self.prepare(&query).await });
        let mut prepared = pin!(all.buffer_unordered(AT_A_TIME));
        while let Some(outcome) = prepared.next().await {
            match outcome {
                Ok(()) => {}
                Err(away @ OriginError::Away(_)) => return Err(away),
                Err(other) => {
                    first_failure.get_or_insert(other);
                }
            }
        }
        first_failure.map_or(Ok(()), Err)
    }

    /// Prepares one query and gives it its shape, [`Shape::Broken`] included.
    pub(super) async fn prepare(&self, query: &Query) -> Result<(), OriginError> {
        let mut connection = Connection::Pooled;
        loop {
            let (failure, reused) = match self.prepare_over(connection, query).await {
                Ok(()) => {
                    self.pool.reach().up();
                    return Ok(());
                }
                Err(failed) => failed,
            };
            if failure.decision == Decision::Away {
                if reused && connection == Connection::Pooled {
                    // It died in the pool.
                    connection = Connection::New;
                    continue;
                }
                self.pool.reach().away(&failure.text);
            }
            tracing::debug!(query = query.name(), reason = failure.text, "a query could not be prepared");
            return Err(failure.to_error(0, self.result_max_bytes));
        }
    }

    /// On failure, also whether the connection was one that had been in the pool.
    async fn prepare_over(&self, connection: Connection, query: &Query) -> Result<(), (Failure, bool)> {
        let turn = self.pool.turn().await;
        let mut lease = self.pool.session(&turn, connection).await.map_err(|failure| (failure, false))?;
        let reused = lease.is_reused();
        let trips = lease.session().trips();
        let prepared = tokio::select! {
            biased;
            prepared = timeout(PREPARE_WITHIN, self.prepare_bounded(lease.session(), query)) => prepared
                .unwrap_or_else(|_| Err(Failure::new(Decision::Timeout, "preparing took too long"))),
            () = self.pool.reach().tripped(trips) => Err(Failure::new(Decision::Away, "the server fell silent")),
        };
        match &prepared {
            // Away, or something of it may still be running.
            Err(failure) if matches!(failure.decision, Decision::Away | Decision::Timeout) => drop(lease),
            _ => lease.give_back(),
        }
        prepared.map_err(|failure| (failure, reused))
    }

    async fn prepare_bounded(&self, session: &mut Session, query: &Query) -> Result<(), Failure> {
        session.bound(FIRST_STATEMENT_TIMEOUT_MS).await.map_err(|error| Failure::from(&error))?;
        self.prepare_on(session, query).await
    }

    /// Prepares one query on this session.
    pub(super) async fn prepare_on(&self, session: &mut Session, query: &Query) -> Result<(), Failure> {
        let settings = self.pool.reach().fingerprint();
        let shape = prepare::shape(session, query, self.bounds(query), &settings).await?;
        let former = query.shape();
        if prepare::same(&former, &shape) {
            return Ok(());
        }
        match (&**former, &shape) {
            (_, Shape::Broken(broken)) => {
                tracing::warn!(query = query.name(), reason = broken.reason, "a query is broken");
                self.broke.notify_one();
            }
            (Shape::Pending, Shape::Ready(prepared)) => {
                tracing::debug!(query = query.name(), "a query is prepared");
                for warning in &prepared.warnings {
                    tracing::info!(query = query.name(), warning, "a query works, but");
                }
            }
            (Shape::Broken(_), _) => tracing::info!(query = query.name(), "a broken query works again"),
            _ => tracing::info!(query = query.name(), "a query has another shape: its entries are no longer found"),
        }
        drop(former);
        query.reshape(shape);
        Ok(())
    }

    /// Never ends.
    pub(super) async fn supervise(&self, in_force: &InForce, reconnect_max: Duration) {
        let mut state = self.pool.reach().follow();
        let mut pause = FIRST_PAUSE;
        loop {
            let catalog = in_force.load_full();
            let mut preparing = pin!(self.prepare_all(&catalog));
            let in_time = timeout(FIRST_ATTEMPT, &mut preparing).await;
            self.attempted.send_replace(true);
            let prepared = match in_time {
                Ok(prepared) => prepared,
                Err(_) => preparing.await,
            };
            state.mark_unchanged();
            if prepared.is_err() {
                if self.pool.reach().is_open() {
                    // It is probed, and there is nothing to ask before.
                    self.pool.reach().closed().await;
                } else {
                    sleep(jittered(pause)).await;
                    pause = (pause * 2).min(reconnect_max);
                }
                continue;
            }
            let broken = catalog.iter().any(|query| matches!(**query.shape(), Shape::Broken(_)));
            let recheck = if broken { RECHECK_BROKEN } else { RECHECK };
            tokio::select! {
                () = sleep(jittered(recheck)) => pause = FIRST_PAUSE,
                // From here on it is looked at more often.
                () = self.broke.notified() => sleep(jittered(RECHECK_BROKEN)).await,
                () = went_away(&mut state) => {
                    // A database that goes away as often as it comes back is not asked more often than this.
                    sleep(jittered(pause)).await;
                    pause = (pause * 2).min(reconnect_max);
                }
            }
        }
    }
}

async fn went_away(state: &mut watch::Receiver<OriginState>) {
    // The sender is the caller's own, so it can't be gone.
    let _ = state.wait_for(|state| matches!(state, OriginState::Away(_))).await;
}

/// Between half of `pause` and all of it.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.5 + fastrand::f64() / 2.0)
}
