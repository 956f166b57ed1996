//! The oracle of invalidation: over HTTP, against real PostgreSQL, no answer that says it is fresh lacks a write that the
//! promise says it has.
//!
//! Writers of every kind note what they commit, readers ask everything, and each answer is judged by what was committed
//! when (`judge`). Some readers are strict, and may miss nothing that was acknowledged before they asked (`strict`). Then the same with what goes wrong in the world. A run takes some seconds, or as many as
//! `SEAWALL_ORACLE_SECONDS` says, with the chance of `SEAWALL_SEED`, which is printed; a seed brings the same writes and
//! questions again, not the same interleaving.
//!
//! What can't fail proves nothing: a run without events, and builds that are broken on purpose (feature `sabotage`), must
//! each be caught.

mod calm;
mod changes;
#[path = "../support/chaos.rs"]
mod chaos;
mod cluster;
mod ddl;
mod draft;
#[path = "../support/eventually.rs"]
mod eventually;
mod faults;
mod history;
#[path = "../support/http.rs"]
mod http;
mod judge;
mod judged;
mod label;
mod lull;
mod news;
#[path = "../support/pod.rs"]
#[expect(dead_code, reason = "others ask their pods for more")]
mod pod;
#[path = "../support/ports.rs"]
mod ports;
mod questions;
mod reader;
#[path = "../support/redis.rs"]
#[expect(dead_code, reason = "others ask it for more")]
mod redis;
mod relay;
mod run;
#[cfg(feature = "sabotage")]
mod sabotage;
mod schema;
mod shared;
mod sharing;
mod strict;
mod tally;
#[path = "../support/topology.rs"]
mod topology;
mod world;
mod writer;
