//! The listening session: one connection, to the server itself, on which polls run and notifications arrive.
//!
//! Whoever awaits the driver's connection loses its notifications, and pooled connections can't LISTEN, so it is a
//! connection of its own whose messages are taken one by one. It never writes. A pooler that gives each transaction another
//! server connection would lose notifications silently; it betrays itself by a session that forgets its own marker.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_postgres::{AsyncMessage, Client};

use super::Trouble;
use crate::postgres::connect::{Connector, Messages};
use crate::postgres::failure;

/// As the server's views show it.
const APPLICATION: &str = "seawall listener";

/// Notifications that wait for the next poll. Postgres folds equal ones of a transaction together; a burst of more
/// different ones flushes instead.
const NOTIFICATIONS: usize = 1024;

/// The session's settings, in one round trip. Index scans: the log is read by key from the cursor on, and what statistics
/// say of a table that is written and pruned all the time is wrong at the wrong moment.
const SET_UP: &str = "SELECT \
     pg_catalog.set_config('search_path', 'pg_catalog', false), \
     pg_catalog.set_config('default_transaction_read_only', 'on', false), \
     pg_catalog.set_config('default_transaction_isolation', 'read committed', false), \
     pg_catalog.set_config('default_transaction_deferrable', 'off', false), \
     pg_catalog.set_config('client_encoding', 'UTF8', false), \
     pg_catalog.set_config('enable_seqscan', 'off', false), \
     pg_catalog.set_config('enable_bitmapscan', 'off', false), \
     pg_catalog.set_config('jit', 'off', false), \
     pg_catalog.set_config('statement_timeout', '5000', false), \
     pg_catalog.set_config('lock_timeout', '1000', false), \
     pg_catalog.set_config('idle_in_transaction_session_timeout', '10s', false), \
     pg_catalog.set_config('seawall.session', $1, false)";

/// The session.
pub(super) struct Listener {
    pub(super) client: Client,
    notifications: mpsc::Receiver<Box<str>>,
    lost: Arc<AtomicBool>,
    marker: String,
    driver: JoinHandle<()>,
}

impl Listener {
    /// Connects and sets the session.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn open(connector: &Connector, channel: &str) -> Result<Self, Trouble> {
        let (client, messages) =
            connector.dial(APPLICATION).await.map_err(|unconnected| Trouble::away(unconnected.reason))?;
        let (sender, notifications) = mpsc::channel(NOTIFICATIONS);
        let lost = Arc::new(AtomicBool::new(false));
        let driver = tokio::spawn(drive(messages, sender, Arc::clone(&lost)));
        let marker = format!("{:032x}", fastrand::u128(..));
        let listener = Self { client, notifications, lost, marker, driver };
        listener.client.query_typed(SET_UP, &[(&listener.marker, postgres_types::Type::TEXT)]).await?;
        // Committed when it returns: whatever is announced from here on arrives, and whatever was before, the next poll
        // sees.
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// Listens on another channel, too.
    pub(super) async fn listen(&self, channel: &str) -> Result<(), Trouble> {
        Ok(self.client.batch_execute(&format!("LISTEN \"{}\"", channel.replace('"', "\"\""))).await?)
    }

    /// What tells this session from others of the same server.
    pub(super) fn marker(&self) -> &str {
        &self.marker
    }

    /// Payloads that have arrived.
    pub(super) fn arrived(&mut self) -> Vec<Box<str>> {
        let mut payloads = vec![];
        while let Ok(payload) = self.notifications.try_recv() {
            payloads.push(payload);
        }
        payloads
    }

    /// Whether notifications were dropped for want of room since this was last asked.
    pub(super) fn has_lost(&self) -> bool {
        self.lost.swap(false, Ordering::AcqRel)
    }

    /// Resolves when a notification has arrived, with its payload. Cancel safe.
    ///
    /// # Errors
    /// The connection has ended. Who sleeps would not be rung any more, and would hear of it with the next safety poll.
    pub(super) async fn rung(&mut self) -> Result<Box<str>, Trouble> {
        self.notifications.recv().await.ok_or_else(|| Trouble::away("the listening connection ended".into()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn drive(mut messages: Messages, sender: mpsc::Sender<Box<str>>, lost: Arc<AtomicBool>) {
    while let Some(message) = poll_fn(|cx| messages.poll_message(cx)).await {
        match message {
            Ok(AsyncMessage::Notification(notification)) => {
                if sender.try_send(notification.payload().into()).is_err() {
                    lost.store(true, Ordering::Release);
                }
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(error = failure::text(&error), "the listening connection ended");
                return;
            }
        }
    }
}
