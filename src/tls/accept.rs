//! Handshakes: bounded in time, and an HTTP request without TLS is told apart from one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::Tls;

/// A connection, encrypted.
pub type TlsStream = tokio_rustls::server::TlsStream<TcpStream>;

/// A handshake is two round trips and some milliseconds of arithmetic; a peer that takes longer is away or slow on purpose.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The first byte of every TLS record that begins a handshake (RFC 8446, 5.1).
const HANDSHAKE: u8 = 22;

/// Why there is no connection.
#[derive(Debug)]
pub enum Refusal {
    /// It was closed before it said anything: what a TCP health check does.
    Silent,
    /// What came is no TLS, HTTP most likely. The stream is given back, for an answer.
    Plaintext(TcpStream),
    /// No common ground, a certificate that isn't accepted or missing, or the peer left.
    Failed(io::Error),
    /// Not within [`HANDSHAKE_TIMEOUT`].
    Slow,
}

impl Tls {
    /// Makes `stream` a TLS connection by what is in force now. Cancel safe: the connection is closed.
    ///
    /// # Errors
    /// [`Refusal`]
    pub async fn accept(&self, stream: TcpStream) -> Result<TlsStream, Refusal> {
        let config = Arc::clone(&self.present.load().config);
        let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, async {
            let mut first = [0];
            match stream.peek(&mut first).await {
                Ok(0) => Err(Refusal::Silent),
                Ok(_) if first[0] != HANDSHAKE => Err(Refusal::Plaintext(stream)),
                Ok(_) => TlsAcceptor::from(config).accept(stream).await.map_err(Refusal::Failed),
                Err(error) => Err(Refusal::Failed(error)),
            }
        });
        shaken.await.unwrap_or(Err(Refusal::Slow))
    }
}
