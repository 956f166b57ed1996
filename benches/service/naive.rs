//! The naive read-through cache: a map with a ttl in front of the same Postgres.
//!
//! What most services begin with, written as well as such a thing is: hyper, prepared statements, a pool of as many
//! connections as Seawall's, the answer made by Postgres. Who finds nothing fresh asks Postgres; nobody waits for anybody.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use deadpool_postgres::{Manager, Pool};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio_postgres::NoTls;

use super::{bare, expiry, shop};

/// Names the database, and so that this process is the server.
pub const URL_VARIABLE: &str = "SEAWALL_BENCH_NAIVE_URL";

/// `postgres.pool_size`, where the configuration doesn't say.
const POOL_SIZE: usize = 8;

pub fn is_asked_for() -> bool {
    std::env::var_os(URL_VARIABLE).is_some()
}

struct Cache {
    pool: Pool,
    sql: String,
    answers: Mutex<HashMap<i32, (Instant, Bytes)>>,
}

pub fn serve() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(async {
        let listener = bare::listen();
        let url = std::env::var(URL_VARIABLE).expect("a database");
        let manager = Manager::new(url.parse().expect("a URL"), NoTls);
        let pool = Pool::builder(manager).max_size(POOL_SIZE).build().expect("a pool");
        let sql = format!("SELECT row_to_json(r)::text FROM ({}) r", shop::slow_sql("$1"));
        let cache = Arc::new(Cache { pool, sql, answers: Mutex::default() });
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let cache = Arc::clone(&cache);
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(Arc::clone(&cache), request));
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
}

async fn answer(cache: Arc<Cache>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let id = request.uri().query().and_then(|q| q.strip_prefix("id=")).and_then(|id| id.parse().ok()).expect("an id");
    let found = cache.answers.lock().expect("no panic").get(&id).cloned();
    if let Some((_, body)) = found.filter(|(filled, _)| filled.elapsed() < expiry::TTL) {
        return Ok(Response::new(Full::new(body)));
    }
    let client = cache.pool.get().await.expect("a connection");
    let statement = client.prepare_cached(&cache.sql).await.expect("prepared");
    let row = client.query_one(&statement, &[&id]).await.expect("a row");
    let body = Bytes::from(row.get::<_, String>(0));
    cache.answers.lock().expect("no panic").insert(id, (Instant::now(), body.clone()));
    Ok(Response::new(Full::new(body)))
}
