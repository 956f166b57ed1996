//! Waiting for a condition with a deadline: the one place where a test sleeps.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Polls `look` until it is `Ok`, or panics with its last error when `within` is over.
pub async fn eventually<T, E: Debug>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(state) if Instant::now() >= deadline => panic!("not within {within:?}: {what}; last: {state:?}"),
            Err(_) => sleep(Duration::from_millis(2)).await,
        }
    }
}
