//! The listening session: one connection, to the server itself, on which polls run and notifications arrive.
//!
//! Whoever awaits the driver's connection loses its notifications, and pooled connections can't LISTEN, so it is a
//! connection of its own whose messages are taken one by one. It never writes. A pooler that gives each transaction another
//! server connection would lose notifications silently, and leave this session's settings to whoever is given the connection
//! next. It betrays itself by a session that forgets its own marker, or finds another's, and is looked for before anything is
//! set.

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

/// A session knows itself by it. A name that nobody else has, so it harms nobody who finds it.
const MARK: &str = "SELECT pg_catalog.set_config('seawall.session', $1, false)";
const MARKED: &str = "SELECT coalesce(pg_catalog.current_setting('seawall.session', true), '')";

pub(super) const POOLER: &str = "a pooler in transaction mode is between here and Postgres, where nothing can listen: set postgres.listen_url to the \
     server itself, or the pooler to session mode";

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
     pg_catalog.set_config('idle_in_transaction_session_timeout', '10s', false)";

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
        listener.look_for_a_pooler(connector).await?;
        listener.client.query_typed(SET_UP, &[]).await?;
        // Committed when it returns: whatever is announced from here on arrives, and whatever was before, the next poll
        // sees.
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// Marks the session, and has a second one hold a transaction open: whoever shares server connections gives that one what
    /// this one has left, or this one another.
    ///
    /// # Errors
    /// There is a pooler in transaction mode, or the session is lost. That there is no second connection to be had shows nothing.
    async fn look_for_a_pooler(&self, connector: &Connector) -> Result<(), Trouble> {
        self.client.query_typed(MARK, &[(&self.marker, postgres_types::Type::TEXT)]).await?;
        let Ok((second, messages)) = connector.dial(APPLICATION).await else { return Ok(()) };
        let driver = tokio::spawn(messages);
        let found = async {
            second.batch_execute("BEGIN").await?;
            second.query_typed_one(MARKED, &[]).await?.try_get::<_, String>(0)
        };
        let found: Result<String, tokio_postgres::Error> = found.await;
        let own = self.client.query_typed_one(MARKED, &[]).await.and_then(|row| row.try_get::<_, String>(0));
        drop(second);
        driver.abort();
        if found.is_ok_and(|found| found == self.marker) || own? != self.marker {
            return Err(Trouble::pooler());
        }
        Ok(())
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
