//! The read path over an origin that does what it is told: orders that a real Postgres can't be made to take.
//! What it does over real Postgres is in the integration tests.

mod directives;
mod early;
mod events;
mod flights;
mod hot;
mod lease;
mod lifetimes;
mod origin;
mod outage;
mod reload;
mod shared;
mod stale;
