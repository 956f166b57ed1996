//! The pool, and the port to the read path over it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use tokio::sync::{OnceCell, watch};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::execute::Execution;
use super::settings::{Settings, SettingsError};
use super::sqlstate::{self, Meaning};
use super::{session, tls};
use crate::catalog::{Prepared, Query};
use crate::readthrough::origin::{Connection, Fetched, OnSend, Origin, OriginError, OriginState, Pending, PoolCounts};

/// The origin.
pub struct Postgres {
    pub(super) settings: Settings,
    pub(super) pool: Pool,
    pub(super) tls: MakeRustlsConnect,
    /// The role's own, read at the first connection unless configured: pinned from then on.
    pub(super) search_path: OnceCell<String>,
    state: ArcSwap<OriginState>,
    on_pool_wait: Box<dyn Fn(Duration) + Send + Sync>,
    pub(super) attempted: watch::Sender<bool>,
}

impl Postgres {
    /// The origin that `settings` describe; `on_pool_wait` is told how long each fill waited for its connection. Nothing
    /// is connected yet.
    ///
    /// # Errors
    /// [`SettingsError`] where the URL or a certificate can't be used.
    pub fn new(
        settings: Settings,
        on_pool_wait: impl Fn(Duration) + Send + Sync + 'static,
    ) -> Result<Self, SettingsError> {
        let mut config: tokio_postgres::Config =
            settings.url.parse().map_err(|e| SettingsError::Url(sqlstate::describe(&e)))?;
        if config.get_application_name().is_none() {
            config.application_name("seawall");
        }
        if config.get_user().is_none() {
            return Err(SettingsError::Url("no user is named; write postgres://user@host/database".into()));
        }
        config
            .ssl_mode(tls::negotiation(settings.tls))
            .connect_timeout(settings.connect_timeout)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30))
            // A server that vanished without a word is given up within half a minute, whatever retransmits.
            .tcp_user_timeout(Duration::from_secs(30));
        let tls = tls::connector(&settings)?;
        let manager =
            Manager::from_config(config, tls.clone(), ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pinning = session::pinning(&settings.timezone, settings.search_path.as_deref());
        let pool = Pool::builder(manager)
            .max_size(settings.pool_size)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(settings.connect_timeout))
            .recycle_timeout(Some(settings.connect_timeout))
            .post_create(Hook::async_fn(move |client, _| {
                let pinning = pinning.clone();
                Box::pin(async move { client.batch_execute(&pinning).await.map_err(HookError::Backend) })
            }))
            .build()
            .map_err(|error| SettingsError::Url(error.to_string()))?;
        Ok(Self {
            settings,
            pool,
            tls,
            search_path: OnceCell::new(),
            state: ArcSwap::from_pointee(OriginState::Unknown),
            on_pool_wait: Box::new(on_pool_wait),
            attempted: watch::Sender::new(false),
        })
    }

    /// A connection with its session pinned.
    pub(super) async fn connection(&self, connection: Connection) -> Result<Object, OriginError> {
        if connection == Connection::New {
            // Whatever idles may lead where the last one led.
            self.pool.retain(|_, _| false);
        }
        let begun = tokio::time::Instant::now();
        let got = self.pool.get().await;
        (self.on_pool_wait)(begun.elapsed());
        match got {
            Ok(object) => {
                self.note(OriginState::Up);
                Ok(object)
            }
            Err(error) => {
                let error = pool_error(&error);
                if let OriginError::Away(why) = &error {
                    self.note(OriginState::Away(why.clone()));
                }
                Err(error)
            }
        }
    }

    /// Remembers how the database is, and says so when that changes.
    pub(super) fn note(&self, state: OriginState) {
        let before = self.state.load();
        if std::mem::discriminant(&**before) == std::mem::discriminant(&state) {
            return;
        }
        match &state {
            OriginState::Away(why) => tracing::warn!(%why, "the database can't be reached"),
            OriginState::Up if matches!(**before, OriginState::Away(_)) => tracing::info!("the database is back"),
            OriginState::Up | OriginState::Unknown => {}
        }
        self.state.store(Arc::new(state));
    }

    /// One fill, with the retries that reads allow: once for a link that turned out dead, once for a conflict, once for
    /// what was prepared before the tables changed.
    async fn fill(
        &self,
        query: &Arc<Query>,
        prepared: &Arc<Prepared>,
        key: &[u8],
        within: Duration,
        mut connection: Connection,
        on_send: OnSend,
    ) -> Result<Fetched, OriginError> {
        let deadline = tokio::time::Instant::now() + within;
        let mut prepared = Arc::clone(prepared);
        let mut retried = Vec::new();
        loop {
            let client = self.connection(connection).await?;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let execution = Execution::new(&prepared, key, left, Arc::clone(&on_send));
            let error = match execution.run(client, self.tls.clone()).await {
                Ok(raw) => return raw.into_fetched(query, self.settings.result_max_bytes),
                Err(error) => error,
            };
            let meaning = sqlstate::meaning_of(&error);
            let worth = matches!(meaning, Meaning::Away | Meaning::Conflict | Meaning::Outdated);
            if !worth || retried.contains(&meaning) {
                let outcome = sqlstate::outcome(&error);
                if let OriginError::Away(why) = &outcome {
                    self.note(OriginState::Away(why.clone()));
                }
                return Err(outcome);
            }
            retried.push(meaning);
            match meaning {
                // The server closed it since it was last used: the others in the pool are as old.
                Meaning::Away => connection = Connection::New,
                Meaning::Outdated => {
                    self.prepare(query).await?;
                    prepared = query
                        .prepared()
                        .ok_or_else(|| OriginError::Broken("the query can't be prepared any more".into()))?;
                    connection = Connection::New;
                }
                Meaning::Conflict | Meaning::Cancelled | Meaning::Refused | Meaning::Broken => {}
            }
        }
    }
}

fn pool_error(error: &PoolError) -> OriginError {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            // Whatever the server says while it lets nobody in (a wrong password too): no connection, try later.
            OriginError::Away(sqlstate::describe(error))
        }
        PoolError::Timeout(_) => OriginError::Away("connecting took longer than connect_timeout".into()),
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            OriginError::Away(error.to_string())
        }
    }
}

impl Origin for Postgres {
    fn fetch<'a>(
        &'a self,
        query: &'a Arc<Query>,
        prepared: &'a Arc<Prepared>,
        key: &'a [u8],
        within: Duration,
        connection: Connection,
        on_send: OnSend,
    ) -> Pending<'a, Result<Fetched, OriginError>> {
        Box::pin(async move {
            let status = self.pool.status();
            let fill = self.fill(query, prepared, key, within, connection, on_send);
            match tokio::time::timeout(within, fill).await {
                Ok(outcome) => outcome,
                // Without a free connection at the start and at the end, it was the pool that took the time.
                Err(_elapsed) if status.available == 0 && self.pool.status().waiting > 0 => Err(OriginError::Pool),
                Err(_elapsed) => Err(OriginError::Timeout),
            }
        })
    }

    fn state(&self) -> OriginState {
        (**self.state.load()).clone()
    }

    fn pool(&self) -> PoolCounts {
        let status = self.pool.status();
        PoolCounts {
            idle: status.available,
            busy: status.size.saturating_sub(status.available),
            waiting: status.waiting,
        }
    }
}
