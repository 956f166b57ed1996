//! The one place where a test waits: for a condition, with a deadline, and with the last state where it doesn't come.

use std::time::{Duration, Instant};

/// Short enough that a test doesn't dawdle, long enough that polling isn't a load.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Waits until `look` is `Ok`; panics with its last words after `within`.
pub async fn eventually<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(state) => assert!(Instant::now() < deadline, "not within {within:?}: {what}; last: {state}"),
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
