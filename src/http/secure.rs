//! Listeners over TLS: handshakes are counted, and what comes without TLS is answered in kind.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::problem::{Code, Problem};
use crate::telemetry::metrics::{Handshake, HandshakeMetrics, Listener, Metrics};
use crate::tls::{Refusal, Tls, TlsStream};

/// Handshakes of the admin listener at a time: many times as many as scrapers, probes and operators make. One more waits in the
/// kernel's queue.
const ADMIN_HANDSHAKES: usize = 64;

/// What became of a connection.
pub(super) enum Shaken {
    /// It is there, and encrypted. Boxed: it is a kilobyte, and there is one for each connection.
    Secured(Box<TlsStream>),
    /// It has ended.
    Refused,
}

/// A listener's certificate, and the count of its handshakes.
pub struct Secure {
    tls: Arc<Tls>,
    metrics: HandshakeMetrics,
}

impl Secure {
    /// `tls` for `listener`.
    pub fn new(tls: Arc<Tls>, listener: Listener, metrics: &Metrics) -> Self {
        Self { tls, metrics: metrics.handshakes(listener) }
    }

    /// Shakes hands. Cancel safe: the connection is closed.
    pub(super) async fn shake(&self, stream: TcpStream) -> Shaken {
        let refusal = match self.tls.accept(stream).await {
            Ok(stream) => {
                self.metrics.ended(Handshake::Ok);
                return Shaken::Secured(Box::new(stream));
            }
            Err(refusal) => refusal,
        };
        self.metrics.ended(match refusal {
            Refusal::Silent => Handshake::Silent,
            Refusal::Plaintext(stream) => {
                explain(stream).await;
                Handshake::Plaintext
            }
            Refusal::Failed(error) => {
                // Scanners and clients that trust somebody else are no news.
                tracing::debug!(%error, "a TLS handshake failed");
                Handshake::Failed
            }
            Refusal::Slow => Handshake::Slow,
        });
        Shaken::Refused
    }
}

/// To a client that speaks plain HTTP: what it should have spoken, as far as the socket's buffer takes it at once.
async fn explain(mut stream: TcpStream) {
    let problem = Problem::new(Code::BadRequest, "this port speaks TLS; ask with https://");
    let bytes = super::bare::spell(problem);
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    })
    .await;
}

/// The admin listener over TLS, for axum.
pub struct SecureListener {
    ready: mpsc::Receiver<(TlsStream, SocketAddr)>,
    address: io::Result<SocketAddr>,
    accepting: JoinHandle<()>,
}

impl SecureListener {
    /// Accepts on `listener` from now on, until dropped.
    pub fn new(listener: TcpListener, secure: Secure) -> Self {
        let address = listener.local_addr();
        let (sender, ready) = mpsc::channel(1);
        Self { ready, address, accepting: tokio::spawn(accept(listener, Arc::new(secure), sender)) }
    }
}

impl Drop for SecureListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, secure: Arc<Secure>, sender: mpsc::Sender<(TlsStream, SocketAddr)>) {
    let room = Arc::new(Semaphore::new(ADMIN_HANDSHAKES));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                tokio::spawn(shake(Arc::clone(&secure), stream, from, sender.clone(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the admin listener could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn shake(
    secure: Arc<Secure>,
    stream: TcpStream,
    from: SocketAddr,
    sender: mpsc::Sender<(TlsStream, SocketAddr)>,
    place: OwnedSemaphorePermit,
) {
    if let Shaken::Secured(stream) = secure.shake(stream).await {
        // Refused where the listener has ended.
        let _ = sender.send((*stream, from)).await;
    }
    drop(place);
}

impl axum::serve::Listener for SecureListener {
    type Io = TlsStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TlsStream, SocketAddr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.address.as_ref().copied().map_err(|error| io::Error::new(error.kind(), error.to_string()))
    }
}
