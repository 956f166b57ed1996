//! A TCP proxy that counts what comes back, can stop passing anything on, and can hold back requests to cancel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// In front of one server.
pub struct Proxy {
    pub port: u16,
    received: Arc<AtomicU64>,
    stalled: watch::Sender<bool>,
    cancels_held: watch::Sender<bool>,
    cancels_delivered: Arc<AtomicU64>,
    accepting: AbortHandle,
}

impl Proxy {
    pub async fn new(port: u16) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
        let own = listener.local_addr().expect("bound").port();
        let (received, cancels_delivered) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (stalled, stall) = watch::channel(false);
        let (cancels_held, hold) = watch::channel(false);
        let (count, delivered) = (Arc::clone(&received), Arc::clone(&cancels_delivered));
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (count, delivered) = (Arc::clone(&count), Arc::clone(&delivered));
                let (stall, hold) = (stall.clone(), hold.clone());
                tokio::spawn(connection(client, port, count, delivered, stall, hold));
            }
        });
        let accepting = accepting.abort_handle();
        Self { port: own, received, stalled, cancels_held, cancels_delivered, accepting }
    }

    /// From now on requests to cancel are taken and not passed on.
    pub fn hold_cancels(&self) {
        self.cancels_held.send_replace(true);
    }

    /// Those that were held pass.
    pub fn release_cancels(&self) {
        self.cancels_held.send_replace(false);
    }

    /// Requests to cancel that the server has carried out.
    pub fn cancels_delivered(&self) -> u64 {
        self.cancels_delivered.load(Ordering::Acquire)
    }

    /// Bytes that servers sent through it.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Acquire)
    }

    /// From now on nothing passes, and nothing is closed.
    pub fn stall(&self) {
        self.stalled.send_replace(true);
    }

    /// What was held back passes, and so does the rest.
    pub fn resume(&self) {
        self.stalled.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What a request to cancel begins with, after its length.
const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();

async fn connection(
    mut client: TcpStream,
    port: u16,
    count: Arc<AtomicU64>,
    delivered: Arc<AtomicU64>,
    stall: watch::Receiver<bool>,
    mut hold: watch::Receiver<bool>,
) {
    let mut first = [0; 8];
    if client.read_exact(&mut first).await.is_err() {
        return;
    }
    let cancels = first[4..] == CANCEL;
    if cancels && hold.wait_for(|held| !held).await.is_err() {
        return;
    }
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    if server.write_all(&first).await.is_err() {
        return;
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let upstream = stall.clone();
    tokio::spawn(async move {
        pass(&mut from_client, &mut to_server, upstream, &AtomicU64::new(0)).await;
    });
    // The server closes a request to cancel once it has sent the signal.
    pass(&mut from_server, &mut to_client, stall, &count).await;
    if cancels {
        delivered.fetch_add(1, Ordering::AcqRel);
    }
}

async fn pass(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut stalled: watch::Receiver<bool>,
    count: &AtomicU64,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if stalled.wait_for(|stalled| !stalled).await.is_err() {
            break;
        }
        count.fetch_add(read as u64, Ordering::AcqRel);
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
