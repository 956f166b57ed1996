//! Connections: how many, for how long, and how they end.
//!
//! HTTP/1.1 with keep-alive and pipelining, and HTTP/2 without TLS by prior knowledge, on the same port. What hyper
//! answers by itself (a request line that can't be read) leaves as a problem document too: see `bare.rs`. With a certificate,
//! the same over TLS: see `secure.rs`.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::bare::Bare;
use super::problem::{Code, Problem};
use super::pulse::{self, Pulse, Ticks};
use super::read::Service;
use super::secure::{Secure, Shaken};
use crate::telemetry::metrics::{Metrics, Refused};

/// Bounds of the connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; one more gets a 503 and is closed.
    pub max_connections: usize,
    /// How long a connection may stand still with no request running: a slow head and an idle connection alike.
    pub head_timeout: Duration,
}

/// Longer than the 60 s after which common proxies and balancers drop an idle connection, so that they and not we close
/// it; short enough that `max_connections` slow heads are gone in little more than a minute.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(65);

/// A head larger than this can't be read. hyper's least is 8 KiB; parameters take 8 and fields the rest.
const HEAD_MAX_BYTES: usize = 24 * 1024;

/// Streams that a client may have open on one connection: as many as common servers allow.
const MAX_STREAMS: u32 = 256;

/// Data that the peer's kernel has not acknowledged for so long, a full window included, ends the connection: a client
/// that doesn't read its answer holds it no longer than this.
const UNREAD_FOR: Duration = Duration::from_secs(30);

/// Connections that the kernel completes before they are accepted; a stampede of new ones must fit. The kernel caps it
/// at `net.core.somaxconn` (4,096 on Linux).
const BACKLOG: i32 = 4096;

/// Binds `address`.
///
/// # Errors
/// Whatever the system says: the address is taken, or not this machine's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The connections that are open, each with the wire that tells it to end.
#[derive(Default)]
pub struct Connections {
    open: Mutex<slab::Slab<Open>>,
    changed: tokio::sync::Notify,
    ticks: Arc<Ticks>,
}

struct Open {
    wire: Option<oneshot::Sender<Ending>>,
    pulse: Arc<Pulse>,
}

/// How a connection is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// After the running requests, with `Connection: close` or GOAWAY.
    Politely,
    /// Now: nobody waits for anything on it.
    Now,
}

impl Connections {
    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asks every connection to end politely: after the running requests, with `Connection: close` or GOAWAY.
    pub fn close(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, connection) in open.iter_mut() {
            connection.tell(Ending::Politely);
        }
    }

    /// Ends those that have stood still for more than `ticks`.
    fn sweep(&self, ticks: u32) {
        let now = self.ticks.advance();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, connection) in open.iter_mut().filter(|(_, c)| c.pulse.is_still(now, ticks)) {
            connection.tell(Ending::Now);
        }
    }

    /// Waits until none is open. Cancel safe.
    pub async fn closed(&self) {
        loop {
            let changed = self.changed.notified();
            if self.is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn register(self: &Arc<Self>) -> (Registered, oneshot::Receiver<Ending>) {
        let (wire, told) = oneshot::channel();
        let pulse = Pulse::new(&self.ticks);
        let open = Open { wire: Some(wire), pulse: Arc::clone(&pulse) };
        let slot = self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(open);
        (Registered { connections: Arc::clone(self), slot, pulse }, told)
    }
}

impl Open {
    fn tell(&mut self, ending: Ending) {
        if let Some(wire) = self.wire.take() {
            // A connection that has ended in the meantime has dropped its end.
            let _ = wire.send(ending);
        }
    }
}

struct Registered {
    connections: Arc<Connections>,
    slot: usize,
    pulse: Arc<Pulse>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.connections.open.lock().unwrap_or_else(PoisonError::into_inner).remove(self.slot);
        self.connections.changed.notify_one();
    }
}

/// Accepts connections until dropped, and serves each in a task of its own. Running connections outlive it: see
/// [`Connections`]. With `secure`, over TLS alone; a handshake has a place among the connections from its first byte on.
pub async fn serve(
    listener: TcpListener,
    secure: Option<Secure>,
    service: Arc<Service>,
    limits: Limits,
    connections: Arc<Connections>,
    metrics: Arc<Metrics>,
) {
    let secure = secure.map(Arc::new);
    let room = Arc::new(Semaphore::new(limits.max_connections));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        // Not hyper's timeout for heads, which sets a timer per request: see `pulse.rs`.
        .header_read_timeout(None)
        // Not `pipeline_flush`: with it, hyper never flushes its answer to a request that can't be parsed.
        .max_buf_size(HEAD_MAX_BYTES)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(16 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    let builder = Arc::new(builder);
    let (between_sweeps, still_ticks) = pulse::pace(limits.head_timeout);
    let mut sweeps = tokio::time::interval(between_sweeps);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = sweeps.tick() => {
                connections.sweep(still_ticks);
                continue;
            }
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Out of file descriptors, most likely: accepting again at once would only spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        match Arc::clone(&room).try_acquire_owned() {
            Ok(place) => {
                prepare(&stream);
                let connection = Connection { place, builder: Arc::clone(&builder), service: Arc::clone(&service) };
                let (registered, told) = connections.register();
                match &secure {
                    None => tokio::spawn(connection.run(stream, registered, told)),
                    Some(secure) => tokio::spawn(connection.run_secured(Arc::clone(secure), stream, registered, told)),
                };
            }
            Err(_full) => {
                metrics.refused(Refused::Connections);
                // Over TLS a reason would take a handshake, which is what there is no room for.
                if secure.is_none() {
                    turn_away(stream);
                }
            }
        }
    }
}

/// Answers are written whole, so Nagle's algorithm could only delay them. The rest bounds what a peer that is gone, or
/// never reads, can hold.
fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // Each is an improvement that the connection also works without.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(Duration::from_secs(60)));
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_user_timeout(Some(UNREAD_FOR));
}

/// Says why, as far as the socket's buffer takes it at once, and closes.
fn turn_away(mut stream: TcpStream) {
    tokio::spawn(async move {
        let problem = Problem::new(Code::Overloaded, "as many connections are open as may be")
            .retry_after(Duration::from_secs(1));
        let bytes = super::bare::spell(problem);
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&bytes)).await;
    });
}

struct Connection {
    place: OwnedSemaphorePermit,
    builder: Arc<auto::Builder<TokioExecutor>>,
    service: Arc<Service>,
}

impl Connection {
    async fn run_secured(
        self,
        secure: Arc<Secure>,
        stream: TcpStream,
        registered: Registered,
        mut told: oneshot::Receiver<Ending>,
    ) {
        let shaken = tokio::select! {
            shaken = secure.shake(stream) => shaken,
            _ = &mut told => return,
        };
        match shaken {
            Shaken::Secured(stream) => self.run(*stream, registered, told).await,
            Shaken::Refused => {}
        }
    }

    async fn run<S>(self, stream: S, registered: Registered, mut told: oneshot::Receiver<Ending>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { place, builder, service } = self;
        let pulse = Arc::clone(&registered.pulse);
        let io = Bare::new(TokioIo::new(stream), Arc::clone(&service), Arc::clone(&pulse));
        let serving = builder.serve_connection(io, service_fn(move |request| service.answer(request).running(&pulse)));
        let mut serving = pin!(serving);
        let ended = tokio::select! {
            biased;
            ended = serving.as_mut() => ended,
            told = &mut told => {
                if told == Ok(Ending::Now) {
                    return;
                }
                serving.as_mut().graceful_shutdown();
                serving.await
            }
        };
        if let Err(error) = ended {
            // Clients that vanish or send nonsense are no news.
            tracing::debug!(error = %error, "a connection ended early");
        }
        drop((registered, place));
    }
}
