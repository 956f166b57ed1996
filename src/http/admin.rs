//! The admin listener: health, metrics, status, invalidation. Nothing secret is in any of them.
//!
//! Readiness turns 503 only before the first good start and while draining. Whatever else is wrong is 200 with reasons:
//! all pods unready at once would turn stale answers into none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::problem::{Code, Problem};
use super::reload::{self, Reload};
use super::response::{self, Response, ResponseBody};
use super::{invalidate, list};
use crate::catalog::verdict::Verdict;
use crate::readthrough::Readthrough;
use crate::readthrough::origin::OriginState;
use crate::telemetry::metrics::Outcome;

/// How far the process is in its life.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

const STARTING: u8 = 0;
const SERVING: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// It serves; a service that has once started never goes back.
    pub fn serve(&self) {
        let _ = self.0.compare_exchange(STARTING, SERVING, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// It is about to stop.
    pub fn drain(&self) {
        self.0.store(DRAINING, Ordering::Relaxed);
    }

    /// Whether it is about to stop.
    pub fn is_draining(&self) -> bool {
        self.0.load(Ordering::Relaxed) == DRAINING
    }

    /// The answer of `/readyz`.
    pub fn respond(&self, read: &Readthrough) -> Response {
        self.say(&read.degraded().into_iter().map(|(_, sentence)| sentence).collect::<Vec<_>>())
    }

    /// The same without the sentences, which name queries: how many reasons there are.
    pub fn respond_briefly(&self, read: &Readthrough) -> Response {
        self.say(&read.degraded().into_iter().map(|(reason, _)| reason.as_str().to_owned()).collect::<Vec<_>>())
    }

    fn say(&self, reasons: &[String]) -> Response {
        let (status, word) = match self.0.load(Ordering::Relaxed) {
            STARTING => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
            DRAINING => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
            _ if reasons.is_empty() => (StatusCode::OK, "ok"),
            _ => (StatusCode::OK, "degraded"),
        };
        response::json(status, &json!({ "status": word, "reasons": reasons }))
    }
}

/// The answer of `/livez`: that there is one.
pub fn alive() -> Response {
    response::json(StatusCode::OK, &json!({ "status": "alive" }))
}

/// What of the admin listener a reload changes.
#[derive(Default)]
pub struct Token {
    sha256: ArcSwapOption<[u8; 32]>,
    needs_restart: ArcSwap<Vec<String>>,
}

impl Token {
    /// The token of this digest is asked for from now on; `None`: none is.
    pub fn set(&self, sha256: Option<[u8; 32]>) {
        self.sha256.store(sha256.map(Arc::new));
    }

    /// Keys of the configuration that are not in force, for `/status`.
    pub fn needs_restart(&self, keys: Vec<String>) {
        self.needs_restart.store(Arc::new(keys));
    }
}

struct Admin {
    read: Arc<Readthrough>,
    ready: Arc<Readiness>,
    token: Arc<Token>,
    reload: Option<Reload>,
}

/// The admin listener's routes. What isn't health or metrics needs the token where there is one.
pub fn router(read: Arc<Readthrough>, ready: Arc<Readiness>, token: Arc<Token>, reload: Option<Reload>) -> Router {
    Router::new()
        .route("/livez", get(|| async { into_axum(alive()) }))
        .route(
            "/readyz",
            get(|State(admin): State<Arc<Admin>>| async move { into_axum(admin.ready.respond(&admin.read)) }),
        )
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/v1/invalidate", post(invalidate))
        .route("/reload", post(reloaded))
        .layer(DefaultBodyLimit::max(invalidate::BODY_MAX_BYTES))
        .fallback(|headers: HeaderMap| async move {
            into_axum(
                Problem::new(
                    Code::UnknownPath,
                    "here are /livez, /readyz, /metrics, /status, /v1/invalidate and /reload",
                )
                .respond(&headers),
            )
        })
        .method_not_allowed_fallback(
            |method: axum::http::Method, uri: axum::http::Uri, headers: HeaderMap| async move {
                let allow = if matches!(uri.path(), "/v1/invalidate" | "/reload") { "POST" } else { "GET, HEAD" };
                into_axum(Problem::method(&method, allow).respond(&headers))
            },
        )
        .with_state(Arc::new(Admin { read, ready, token, reload }))
}

async fn metrics(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    admin.read.gauge();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], admin.read.metrics().text())
}

async fn status(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> axum::response::Response {
    if let Err(refused) = admin.admit(&headers) {
        return refused;
    }
    let mut document = document(&admin.read);
    document["needs_restart"] = json!(**admin.token.needs_restart.load());
    into_axum(response::json(StatusCode::OK, &document))
}

async fn reloaded(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> axum::response::Response {
    if let Err(refused) = admin.admit(&headers) {
        return refused;
    }
    into_axum(reload::respond(admin.reload.as_ref(), &headers).await)
}

async fn invalidate(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> axum::response::Response {
    if let Err(refused) = admin.admit(&headers) {
        return refused;
    }
    let Ok(body) = body else {
        let detail = format!("it has more than {} bytes; send several", invalidate::BODY_MAX_BYTES);
        return into_axum(Problem::new(Code::BodyTooLarge, detail).respond(&headers));
    };
    into_axum(invalidate::respond(&admin.read, &headers, &body).await)
}

impl Admin {
    /// Lets a request in that has the token, where there is one.
    #[expect(clippy::result_large_err, reason = "it is sent at once")]
    fn admit(&self, headers: &HeaderMap) -> Result<(), axum::response::Response> {
        if self.token.sha256.load().as_ref().is_none_or(|expected| presents(headers, expected)) {
            return Ok(());
        }
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        let refusal = "the admin token is required: Authorization: Bearer <token>\n";
        Err((StatusCode::UNAUTHORIZED, challenge, refusal).into_response())
    }
}

/// Whether the request presents the token of this digest; compared in constant time.
fn presents(headers: &HeaderMap, expected: &[u8; 32]) -> bool {
    let Some(Ok(value)) = headers.get(header::AUTHORIZATION).map(|v| v.to_str()) else { return false };
    let Some((scheme, token)) = value.split_once(' ') else { return false };
    let digest: [u8; 32] = Sha256::digest(token.trim().as_bytes()).into();
    scheme.eq_ignore_ascii_case("bearer") && bool::from(digest.ct_eq(expected))
}

fn document(read: &Readthrough) -> Value {
    let pool = read.origin().pool();
    let queries: Vec<Value> = read
        .routes()
        .iter()
        .map(|route| {
            let requests: serde_json::Map<String, Value> = Outcome::ALL
                .iter()
                .map(|&outcome| (outcome.as_str().to_owned(), route.metrics().requests_by(outcome).into()))
                .collect();
            json!({
                "name": route.query().name(),
                "status": list::status(&route.query().shape()),
                "verdict": route.verdict(),
                "reasons": route.query().verdict().map(|verdict| reasons(&verdict)),
                "requests": requests,
                "shared": route.metrics().shared.get(),
                "statements": route.metrics().statements.get(),
            })
        })
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "degraded": read.degraded().into_iter().map(|(_, sentence)| sentence).collect::<Vec<_>>(),
        "lineage": read.ledger().lineage().map(|l| l.as_str().to_owned()),
        "events": {
            "followed": read.ledger().follows(),
            "lag_seconds": read.ledger().follows().then(|| read.ledger().lag(read.clock().now()).map(|lag| lag.as_secs_f64())),
            "tags": read.ledger().tags(),
        },
        "database": match read.origin().state() {
            OriginState::Unknown => "unknown",
            OriginState::Up => "up",
            OriginState::Away(_) => "away",
        },
        "pool": { "idle": pool.idle, "busy": pool.busy, "waiting": pool.waiting },
        "store": { "entries": read.store().len(), "bytes": read.store().bytes() },
        "flights": read.flying(),
        "waiters": read.waiting(),
        "queries": queries,
    })
}

/// Why a query's verdict is no better, and which triggers are missing.
fn reasons(verdict: &Verdict) -> Vec<String> {
    let missing = verdict.missing().map(|(relation, why)| format!("{relation} has not all of its triggers: {why}"));
    verdict.reasons.iter().cloned().chain(missing).collect()
}

fn into_axum(response: Response) -> axum::response::Response {
    response.map(|body: ResponseBody| axum::body::Body::from(body.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_let_in() {
        let expected: [u8; 32] = Sha256::digest(b"secret").into();
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().expect("a header value"));
            presents(&headers, &expected)
        };
        assert!(with("Bearer secret") && with("bearer secret"));
        assert!(!with("Bearer Secret") && !with("Bearer ") && !with("secret") && !with("Basic secret"));
        assert!(!presents(&HeaderMap::new(), &expected));
    }

    #[test]
    fn a_service_that_drains_never_serves_again() {
        let ready = Readiness::default();
        ready.serve();
        ready.drain();
        ready.serve();
        assert!(ready.is_draining());
    }
}
