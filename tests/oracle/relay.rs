//! Between pods and the primary: one address, whichever server is behind it. Turned to another server, it ends the
//! connections that stand, as a virtual address does that moves.

use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Dropped, it listens no more, and its connections end.
pub struct Relay {
    /// Where it listens.
    pub port: u16,
    target: Arc<watch::Sender<u16>>,
    accepting: AbortHandle,
}

impl Relay {
    /// Before the server at `port` of this machine.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let own = listener.local_addr().expect("bound").port();
        let target = Arc::new(watch::Sender::new(port));
        let turned = Arc::clone(&target);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, turned.subscribe()));
            }
        });
        Self { port: own, target, accepting: accepting.abort_handle() }
    }

    /// From now on the server at `port`.
    pub fn turn(&self, port: u16) {
        self.target.send_replace(port);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(mut client: TcpStream, mut target: watch::Receiver<u16>) {
    let port = *target.borrow_and_update();
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        _ = target.changed() => {}
    }
}
