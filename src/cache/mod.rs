//! Entries, where they are kept, and who waits for one that isn't there.
//!
//! Nothing here does IO, sets a timer or counts a metric: functions return what happened, and the read path acts on it.

pub mod early;
pub mod entry;
pub mod failures;
pub mod flight;
pub mod jitter;
pub mod key;
pub mod packed;
mod shim;
pub mod store;
