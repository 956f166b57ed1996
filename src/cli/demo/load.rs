//! Many requests at once: HTTP/2 streams on a few connections, since two ends of 11,000 sockets would exceed usual limits
//! of file descriptors.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
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

/// Sends `requests` for `uri` at once, spread evenly over `addresses`, and waits for all answers.
pub(super) async fn run(
    addresses: &[SocketAddr],
    uri: &str,
    requests: u32,
    tell: &(dyn Fn(&str) + Send + Sync),
) -> std::io::Result<Latencies> {
    let uris: Vec<(SocketAddr, Arc<str>)> =
        addresses.iter().map(|address| (*address, format!("http://{address}{uri}").into())).collect();
    // As many to each.
    let connections = (requests.min(CONNECTIONS) as usize).next_multiple_of(uris.len().max(1));
    let mut senders = Vec::new();
    for (address, uri) in uris.iter().cycle().take(connections) {
        senders.push((connect(*address).await?, uri));
    }
    let done = Arc::new(AtomicU32::new(0));
    let begun = Instant::now();
    let mut running = JoinSet::new();
    for n in 0..requests {
        let (sender, uri) = &senders[n as usize % senders.len()];
        running.spawn(request(sender.clone(), Arc::clone(uri), Arc::clone(&done)));
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

/// An answer, as far as the demo looks at it.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) cache_status: String,
    pub(super) body: Bytes,
}

/// One answer's body.
pub(super) async fn get(address: SocketAddr, uri: &str) -> std::io::Result<Bytes> {
    Ok(Client::connect(address).await?.get(uri).await?.body)
}

/// One connection, which asks one thing after another.
pub(super) struct Client {
    address: SocketAddr,
    sender: Sender,
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> std::io::Result<Self> {
        Ok(Self { address, sender: connect(address).await? })
    }

    pub(super) async fn get(&mut self, uri: &str) -> std::io::Result<Answer> {
        let uri = format!("http://{}{uri}", self.address);
        let request = Request::get(uri).body(Empty::new()).map_err(std::io::Error::other)?;
        read(self.sender.send_request(request).await.map_err(std::io::Error::other)?).await
    }
}

/// One answer over HTTP/1.1, which is all that the admin listener speaks.
pub(super) async fn get_http1(address: SocketAddr, path: &str) -> std::io::Result<Answer> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", address.to_string())
        .body(Empty::<Bytes>::new())
        .map_err(std::io::Error::other)?;
    let answer = async { read(sender.send_request(request).await.map_err(std::io::Error::other)?).await }.await;
    driver.abort();
    answer
}

async fn read(response: Response<Incoming>) -> std::io::Result<Answer> {
    let status = response.status();
    let field = response.headers().get("cache-status").and_then(|value| value.to_str().ok());
    let cache_status = field.unwrap_or_default().to_owned();
    let body = response.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    Ok(Answer { status, cache_status, body })
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
