//! Many requests at once: HTTP/2 streams on a few connections, since two ends of 11,000 sockets would exceed usual limits
//! of file descriptors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Connections at most; 55 streams on each carry 11,000 requests.
const CONNECTIONS: u32 = 200;

/// How long each request took, in order, and how many were answered in vain.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    sorted: Vec<Duration>,
    /// Requests without an answer of status 200.
    pub failed: u32,
}

impl Latencies {
    /// The share `q` (0 to 1) of requests took no longer than this.
    pub fn quantile(&self, q: f64) -> Duration {
        // The first whose rank is at least the share; the last for 1.
        let found = self.sorted.iter().zip(1u32..).find(|(_, rank)| f64::from(*rank) >= q * self.sorted.len() as f64);
        found.map(|(took, _)| *took).unwrap_or_default()
    }
}

/// Sends `requests` for `uri` at once and waits for all answers.
pub(super) async fn run(
    address: SocketAddr,
    uri: &str,
    requests: u32,
    tell: &(dyn Fn(&str) + Send + Sync),
) -> std::io::Result<Latencies> {
    let mut senders = Vec::new();
    for _ in 0..requests.min(CONNECTIONS) {
        senders.push(connect(address).await?);
    }
    let uri: Arc<str> = format!("http://{address}{uri}").into();
    let done = Arc::new(AtomicU32::new(0));
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for n in 0..requests {
        let sender = senders[n as usize % senders.len()].clone();
        running.spawn(request(sender, Arc::clone(&uri), Arc::clone(&done)));
    }
    let mut latencies = Latencies::default();
    let mut progress = tokio::time::interval(Duration::from_secs(2));
    progress.tick().await;
    loop {
        tokio::select! {
            joined = running.join_next() => match joined {
                Some(Ok(Some(took))) => latencies.sorted.push(took),
                Some(_) => latencies.failed += 1,
                None => break,
            },
            _ = progress.tick() => {
                let done = done.load(Ordering::Relaxed);
                tell(&format!("   {:>4.0} s: {done} of {requests} answered", begun.elapsed().as_secs_f64()));
            }
        }
    }
    latencies.sorted.sort_unstable();
    Ok(latencies)
}

/// One answer's body.
pub(super) async fn get(address: SocketAddr, uri: &str) -> std::io::Result<Bytes> {
    let mut sender = connect(address).await?;
    let request = Request::get(format!("http://{address}{uri}")).body(Empty::new()).map_err(std::io::Error::other)?;
    let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
    response.into_body().collect().await.map(http_body_util::Collected::to_bytes).map_err(std::io::Error::other)
}

type Sender = SendRequest<Empty<Bytes>>;

async fn connect(address: SocketAddr) -> std::io::Result<Sender> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of the load generator ended early");
        }
    });
    Ok(sender)
}

/// One request to the end of its body; `None` unless it succeeded.
async fn request(mut sender: Sender, uri: Arc<str>, done: Arc<AtomicU32>) -> Option<Duration> {
    let begun = Instant::now();
    let request = Request::get(&*uri).body(Empty::new()).ok()?;
    let response = sender.send_request(request).await.ok()?;
    let succeeded = response.status() == StatusCode::OK;
    response.into_body().collect().await.ok()?;
    done.fetch_add(1, Ordering::Relaxed);
    succeeded.then(|| begun.elapsed())
}
