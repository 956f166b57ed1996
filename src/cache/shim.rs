//! The synchronisation that flights are built on. The model test compiles `flight.rs` against shuttle's in its place,
//! and so runs the very code under every interleaving that it tries.

pub(super) use std::sync::atomic::{AtomicUsize, Ordering};
pub(super) use std::sync::{Arc, Mutex, MutexGuard};
