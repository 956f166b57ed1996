//! Who may rebuild now, who waits for a turn, and who is turned away.
//!
//! Two semaphores, the query's and everybody's, taken in this order: a query whose statements hang holds its own places
//! and at most as many of everybody's. The queue before them is bounded by count, and each place in it by the rebuild's
//! deadline, which the caller enforces.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};

/// The bound of everybody's rebuilds and of the queue.
#[derive(Debug)]
pub struct Admission {
    all: Semaphore,
    queued: AtomicUsize,
    max_queued: usize,
}

/// A turn; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    _query: SemaphorePermit<'a>,
    _all: SemaphorePermit<'a>,
}

/// The queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// Counts one that waits, also when it is cancelled.
struct Queued<'a>(&'a AtomicUsize);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The semaphores live as long as the read path and are never closed.
const NEVER_CLOSED: &str = "admission is never closed";

impl Admission {
    /// At most `max_fills` turns at a time, and `max_queued` that wait for one.
    pub fn new(max_fills: usize, max_queued: usize) -> Self {
        Self { all: Semaphore::new(max_fills), queued: AtomicUsize::new(0), max_queued }
    }

    /// Waits for a turn within `query`'s bound and everybody's. Cancel safe: leaving the queue frees the place.
    ///
    /// # Errors
    /// [`QueueFull`] at once, where no turn is free and the queue is full.
    pub async fn turn<'a>(&'a self, query: &'a Semaphore) -> Result<Turn<'a>, QueueFull> {
        if let Ok(own) = query.try_acquire()
            && let Ok(all) = self.all.try_acquire()
        {
            return Ok(Turn { _query: own, _all: all });
        }
        self.queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < self.max_queued).then_some(n + 1))
            .map_err(|_| QueueFull)?;
        let _queued = Queued(&self.queued);
        let own = query.acquire().await.expect(NEVER_CLOSED);
        let all = self.all.acquire().await.expect(NEVER_CLOSED);
        Ok(Turn { _query: own, _all: all })
    }

    /// Rebuilds that wait for their turn.
    #[cfg(test)]
    fn queued(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::poll;
    use std::pin::pin;
    use std::task::Poll;

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_a_place_that_is_left_is_free_again() {
        let admission = Admission::new(1, 1);
        let query = Semaphore::new(8);
        let turn = admission.turn(&query).await.expect("free");
        {
            let mut second = pin!(admission.turn(&query));
            assert!(poll!(&mut second).is_pending());
            assert_eq!(admission.queued(), 1);
            assert_eq!(admission.turn(&query).await.err(), Some(QueueFull));
        }
        assert_eq!(admission.queued(), 0, "the second left");
        let mut third = pin!(admission.turn(&query));
        assert!(poll!(&mut third).is_pending());
        drop(turn);
        assert!(matches!(poll!(&mut third), Poll::Ready(Ok(_))));
    }

    #[tokio::test]
    async fn a_query_at_its_own_bound_leaves_the_others_their_turns() {
        let admission = Admission::new(2, 8);
        let (slow, quick) = (Semaphore::new(1), Semaphore::new(1));
        let _held = admission.turn(&slow).await.expect("free");
        let mut waiting = pin!(admission.turn(&slow));
        assert!(poll!(&mut waiting).is_pending());
        assert!(admission.turn(&quick).await.is_ok());
    }
}
