//! Seawall: a Postgres-aware read-through cache that runs as a service.
//!
//! One question, one statement: operators declare named SQL queries, clients call them over HTTP and get the JSON that
//! Postgres made, and however many ask, Postgres runs each question once. Every value carries the MVCC snapshot it was
//! read under, so that freshness is proved and not hoped for.
//!
//! # Layout
//!
//! - [`cli`]: the commands, one file each.
//! - [`config`]: `config.toml`, raw and then checked, with every problem at once.
//! - [`app`]: the composition root; owns the tasks, starts and stops them in order.
//! - [`http`]: the query listener (plain hyper), the admin listener, problems and pages.
//! - [`postgres`]: the origin: pool, TLS, preparing, the one statement, cancellation; the embedded server.
//! - [`redis`]: the shared tier: answers that one pod has filled, for all; its breaker.
//! - [`readthrough`]: the read path from a key to an answer: look, join, fill, admission. Owns the ports `Origin` and
//!   `SharedTier`.
//! - [`access`]: who asks and what they may: API tokens, JWTs, claims, limits.
//! - [`catalog`]: named queries: SQL and its parameters, types, canonical keys, policies.
//! - [`cache`]: key, entry, store, jitter, flights, remembered failures. No IO, no timers.
//! - [`ledger`]: what is known of writes, and what therefore is fresh.
//! - [`telemetry`]: metrics, with handles resolved once.
//! - [`tls`]: certificates of the listeners, and handshakes.
//! - [`stamp`]: snapshots and lineages: sees, covers. Pure.
//! - [`tag`]: the names of what writes change and answers depend on. Pure.
//! - [`coding`]: content codings, and what they make of a body. Pure.
//! - [`clock`]: time, and the only place that reads it. [`chance`]: the only place that draws it.
//! - `sabotage`: faults on purpose, in no release: whether a test would notice.
//!
//! # Layers
//!
//! ```text
//! main -> cli -> app -> { http, postgres, redis } -> { readthrough, access } -> { cache, ledger, catalog, telemetry } -> { stamp, tag, coding, clock, chance, tls, sabotage }
//! ```
//!
//! Arrows point downwards only, siblings never use each other, and `config` is known to `cli` and `app` alone;
//! `tests/tidy.rs` keeps it so.
//!
//! # The walk of one request
//!
//! 1. [`http::read::Service::answer`] finds the route by name and the query's shape, and
//!    [`catalog::args::key_from_uri`] builds the canonical key on the stack.
//! 2. [`readthrough::Readthrough::look`]: an entry within its lifetime and certified by the ledger is the answer; its
//!    body is sent from where it lies.
//! 3. Else [`readthrough::Readthrough::read`] joins the key's flight ([`cache::flight`]), or leads one: a detached task
//!    that looks again, takes its turn, and asks the origin.
//! 4. [`postgres::Postgres`] runs the one statement that brings rows, stamp and lineage under one snapshot.
//! 5. The fill certifies and stores the entry, then lands the flight; everybody who waited gets the outcome.
//!
//! # Glossary
//!
//! - *fill*, *refresh*, *rebuild*: on a miss; in the background; either.
//! - *flight*, *leader*, *follower*: one rebuild of one key and those who wait for it.
//! - *stamp*: the snapshot a value was read under, with its *lineage*, the one history of one database.
//! - *certify*: to find that a stamp sees all that the ledger knows of.
//! - *required*: what a reader needs an answer to contain, taken at its arrival.
//! - *fresh*: within its lifetime and certified. *Stale*: kept, and not fresh.
//! - *origin*: Postgres. *Pod*: one process of Seawall. *Verdict*: what a query's freshness rests on.

pub mod access;
pub mod app;
pub mod cache;
pub mod catalog;
pub mod chance;
pub mod cli;
pub mod clock;
pub mod coding;
pub mod config;
pub mod http;
pub mod ledger;
pub mod postgres;
pub mod readthrough;
pub mod redis;
#[doc(hidden)]
pub mod sabotage;
pub mod stamp;
pub mod tag;
pub mod telemetry;
pub mod tls;
