//! Calling a statement off in Postgres.
//!
//! A cancel travels over a connection of its own and hits whatever the session runs when it arrives:
//!
//! 1. the statement is handed to the socket; nobody wants it any more; a cancel is sent;
//! 2. the cancel overtakes the statement: it finds the session idle and does nothing, and the statement runs on;
//! 3. or the statement ends just before the cancel arrives, the connection goes back to the pool, and the cancel hits
//!    the next one's statement.
//!
//! Against 2 the cancel is repeated until the statement ends. Against 3 the connection is never used again, not even if
//! the statement was seen to end with 57014: a neighbour was once seen cancelled all the same (the server signals a
//! backend twice, the process and then its group; see docs/decisions/0006). A new connection costs some milliseconds,
//! and cancels are rare.
//!
//! The connection's place in the pool is kept until the statement has ended, so Postgres never runs more statements
//! than the pool has places; unless Postgres can't be told, since it is silent ([`super::reach`]): then its
//! `statement_timeout` ends the statement, and the place is needed by whoever comes when it is back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_postgres::CancelToken;

use super::reach::Reach;

/// The first repetition comes after this: longer than Postgres needs to read a statement, too short to be noticed.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Pauses double up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// After this the connection is closed whatever its statement does; `statement_timeout` ends it in Postgres.
const PATIENCE: Duration = Duration::from_secs(5);

/// Cancels what `token`'s session runs until `work`, which waits for it, ends, or the server is found silent once more
/// than `trips` times. Its connection must be closed then.
pub(super) async fn call_off(work: impl Future, token: &CancelToken, reach: &Arc<Reach>, trips: u64) {
    let repeat = async {
        let mut pause = FIRST_PAUSE;
        loop {
            // A cancel that can't be delivered is repeated like one that came too early.
            reach.cancel(token).await;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    };
    let ended = timeout(PATIENCE, async {
        tokio::select! {
            biased;
            _ = work => {}
            () = reach.tripped(trips) => {}
            () = repeat => {}
        }
    });
    if ended.await.is_err() {
        tracing::debug!("a statement that was cancelled did not end; its connection is closed");
    }
}
