//! HTTP: the query endpoint, as a plain hyper service, and the admin listener.
//!
//! The only module that knows `hyper`, `http` and `axum`, and the only one with status codes (`problem.rs`).

pub mod admin;
mod bare;
mod body;
mod cache_status;
pub mod cors;
mod directives;
mod docs;
mod elsewhere;
pub mod gate;
mod invalidate;
pub mod list;
pub mod listener;
mod negotiate;
mod openapi;
pub mod pages;
pub mod problem;
mod pulse;
pub mod read;
pub mod reload;
mod reply;
mod represent;
pub mod response;
pub mod secure;
mod strict;
mod tally;
