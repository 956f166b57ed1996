//! `POST /reload`: what another configuration has changed, or why it has changed nothing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::problem::{Code, Problem};
use super::response::{self, Response};
use crate::catalog::args::BadParam;

/// What a reload has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Queries that there were not.
    pub added: Vec<String>,
    /// Queries that are declared otherwise.
    pub changed: Vec<String>,
    /// Queries that there are no more.
    pub removed: Vec<String>,
    /// Queries that Postgres refuses, and why.
    pub broken: Vec<(String, String)>,
    /// Queries that Postgres has not been asked about.
    pub unprepared: Vec<String>,
    /// Keys that differ from what is in force, which a restart alone changes.
    pub needs_restart: Vec<String>,
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its key; empty: the file as a whole.
    pub key: String,
    /// Its line.
    pub line: Option<usize>,
    /// What is wrong, and the remedy. Nothing secret.
    pub message: String,
}

/// Reloads, and says what came of it. A request that is dropped stops nothing.
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<Reloaded, Vec<Fault>>> + Send>> + Send + Sync>;

/// Reloads, if there is anything to reload from.
pub(super) async fn respond(reload: Option<&Reload>, headers: &HeaderMap) -> Response {
    let Some(reload) = reload else {
        return Problem::new(Code::BadConfig, "this process was started without a file").respond(headers);
    };
    match reload().await {
        Ok(reloaded) => response::json(StatusCode::OK, &document(&reloaded)),
        Err(faults) => {
            let errors = faults.into_iter().map(|fault| BadParam {
                param: fault.key,
                detail: fault.message,
                hint: fault.line.map_or_else(String::new, |line| format!("line {line}")),
            });
            Problem::new(Code::BadConfig, "nothing has changed").listing(errors.collect()).respond(headers)
        }
    }
}

fn document(reloaded: &Reloaded) -> Value {
    let broken: Vec<Value> =
        reloaded.broken.iter().map(|(name, reason)| json!({ "query": name, "reason": reason })).collect();
    json!({
        "reloaded": true,
        "added": reloaded.added,
        "changed": reloaded.changed,
        "removed": reloaded.removed,
        "broken": broken,
        "unprepared": reloaded.unprepared,
        "needs_restart": reloaded.needs_restart,
    })
}
