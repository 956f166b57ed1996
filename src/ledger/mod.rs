//! What is known of writes, and what therefore is fresh.
//!
//! Pure and bounded: no IO, no timers, and time comes from outside. Events arrive from wherever they arrive from, late,
//! twice or in another order, and answers are certified against all of them: exactly those that lack an announced write
//! to what they depend on are refused.
//!
//! - [`Payload`]: what a notification of a user's own says.
//! - [`Ledger`]: what readers ask ([`Ledger::version`], [`Ledger::certify`], [`Ledger::required`], [`Ledger::accepts`]).
//! - [`Poll`], [`Asked`], [`Applied`]: how events come in, in `apply.rs`; invalidations without a poll as well.
//! - `history.rs`: what readers follow. `book.rs`: what the one writer keeps, and how it forgets.
//!
//! # Invariant
//! Every event ever announced is in its tag's list, or older than all of it, or seen by the tag's barrier, or seen by the
//! horizon. "Older than all of it": the list holds what the last poll brought, none of which the cursor before had seen; a
//! stamp that sees one of them was therefore taken after that cursor, and sees whatever the cursor saw.
//!
//! # Order
//! One writer at a time, under a lock that no reader takes. It puts lists and barriers in place first, raises the horizon
//! *before* it drops what the horizon stands for, then moves the cursor, raises `version` (Release), and notes the poll's
//! moment last of all. Readers go the other way: blindness first, then `version` (Acquire), then the tags, then the
//! horizon; and they remember the version that they read, never a newer one. `history.rs` says why that is right.

mod apply;
mod book;
mod history;
mod known;
mod payload;
mod required;
mod shim;
mod state;

pub use apply::{Applied, Asked, Beside, Event, Poll, Rows};
pub use book::Bounds;
pub use payload::Payload;
pub use required::Required;
pub use state::{Adopted, Invalidated, Ledger};

#[cfg(test)]
mod tests;
