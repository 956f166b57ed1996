//! The synchronisation that the ledger is built on. The race test compiles the ledger against shuttle's in its place, and
//! so runs the very code under every interleaving that it tries.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

pub(super) use std::sync::atomic::{AtomicU64, Ordering};
pub(super) use std::sync::{Mutex, MutexGuard, PoisonError};

/// A pointer that readers follow without a lock. Replacing it releases what was written before; following it acquires.
pub(super) struct Swap<T>(ArcSwap<T>);

impl<T> Swap<T> {
    pub(super) fn new(value: T) -> Self {
        Self(ArcSwap::from_pointee(value))
    }

    #[inline]
    pub(super) fn load(&self) -> Guard<Arc<T>> {
        self.0.load()
    }

    pub(super) fn store(&self, value: Arc<T>) {
        self.0.store(value);
    }
}
