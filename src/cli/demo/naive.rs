//! The naive read-through cache: what many services have before they have an incident.
//!
//! Each request looks into a map; who misses runs the query and stores the answer. Requests are held until all are in
//! flight, and then the entry expires: the moment that the demo is about.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::sync::Barrier;
use tokio::task::AbortHandle;

use crate::catalog::args::{self, KeyBuf};
use crate::catalog::{Prepared, Query};
use crate::http::listener;
use crate::postgres::Postgres;
use crate::readthrough::origin::{Connection, Origin as _};

/// A naive cache that listens.
pub(super) struct Naive {
    address: SocketAddr,
    accepting: AbortHandle,
}

struct Cache {
    origin: Arc<Postgres>,
    query: Arc<Query>,
    prepared: Arc<Prepared>,
    entries: Mutex<HashMap<KeyBuf, Bytes>>,
    all_in_flight: Barrier,
}

impl Naive {
    pub(super) fn start(
        origin: Arc<Postgres>,
        query: Arc<Query>,
        prepared: Arc<Prepared>,
        requests: u32,
    ) -> std::io::Result<Self> {
        let listener = listener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let address = listener.local_addr()?;
        let cache = Arc::new(Cache {
            origin,
            query,
            prepared,
            entries: Mutex::default(),
            all_in_flight: Barrier::new(requests as usize),
        });
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let cache = Arc::clone(&cache);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&cache), request));
                    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .max_concurrent_streams(1024)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    if let Err(error) = served {
                        tracing::debug!(%error, "a connection to the naive cache ended early");
                    }
                });
            }
        });
        Ok(Self { address, accepting: accepting.abort_handle() })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Naive {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(cache: Arc<Cache>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut key = KeyBuf::new();
    if args::key_from_uri(&cache.prepared, request.uri().query().unwrap_or_default(), &mut key).is_err() {
        return Ok(status(StatusCode::BAD_REQUEST));
    }
    let found = cache.entries.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    if let Some(body) = found {
        return Ok(Response::new(Full::new(body)));
    }
    // Nobody goes on before everybody has looked and found nothing: that is what "in flight at the expiry" means.
    cache.all_in_flight.wait().await;
    match ask(&cache, &key).await {
        Some(body) => {
            cache.entries.lock().unwrap_or_else(PoisonError::into_inner).insert(key, body.clone());
            Ok(Response::new(Full::new(body)))
        }
        None => Ok(status(StatusCode::SERVICE_UNAVAILABLE)),
    }
}

async fn ask(cache: &Cache, key: &[u8]) -> Option<Bytes> {
    // Long enough for the whole stampede to get through the pool.
    let within = Duration::from_secs(120);
    let sent = Arc::new(|| {});
    match cache.origin.fetch(&cache.query, &cache.prepared, key, within, Connection::Pooled, sent).await {
        Ok(fetched) => fetched.body.map(Bytes::from),
        Err(error) => {
            tracing::debug!(%error, "a naive fill failed");
            None
        }
    }
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
