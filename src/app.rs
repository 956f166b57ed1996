//! The composition root: a checked configuration becomes a running service, and stops in order.
//!
//! It owns the tasks. Stopping: readiness turns 503, connections are still accepted for `drain_delay` (a balancer needs
//! time to notice), then nothing is accepted any more, connections end politely, running requests have
//! `shutdown_grace`, and what is left then is dropped, which cancels its statements in Postgres.

mod certificates;
mod reload;
mod watch;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::access::Access;
use crate::catalog::{Catalog, InForce};
use crate::chance::Chance;
use crate::clock::Clock;
use crate::config::{self, Config, Server, Source, Tls};
use crate::http::admin::{self, Readiness, Token};
use crate::http::gate::Gate;
use crate::http::listener::{self, Connections, HEAD_TIMEOUT, Limits};
use crate::http::read::{Options, Service};
use crate::http::secure::SecureListener;
use crate::postgres::{Announcers, BreakerState, Event, Postgres, Settings, StreamSettings, TlsMode};
use crate::readthrough::origin::Origin;
use crate::readthrough::{Bounds, Readthrough, StreamState};
use crate::redis::{Redis, Settings as RedisSettings};
use crate::telemetry::metrics::{Connects, Listener, Metrics};

use certificates::Certificates;
use reload::{Hangups, Parts};
pub use reload::{Loader, Reloader};

/// A cancel takes some milliseconds; a database that doesn't answer must not hold up the end.
const CLEAN_UP_WITHIN: Duration = Duration::from_secs(1);

/// A start waits no longer for the event stream to be followed and all queries to be judged.
const STREAM_WITHIN: Duration = Duration::from_secs(5);

/// Why the service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound.
    #[error("{key} = {address}: {source}; free the address or choose another")]
    Bind {
        /// The configuration's key.
        key: &'static str,
        /// Its value.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The connection to Postgres can't even be tried.
    #[error("postgres: {0}")]
    Postgres(#[from] crate::postgres::SettingsError),
    /// The shared tier can't even be tried.
    #[error("{0}")]
    Redis(#[from] crate::redis::SettingsError),
    /// A listener's certificate can't be used any more; it was fit when the configuration was checked.
    #[error("tls: {0}")]
    Certificate(#[source] crate::tls::Unfit),
}

/// The two listeners, bound.
pub struct Listeners {
    /// Queries.
    pub queries: TcpListener,
    /// Health, metrics, status.
    pub admin: TcpListener,
}

impl Listeners {
    /// Binds what the configuration names.
    ///
    /// # Errors
    /// [`StartError::Bind`] with the key of the address that can't be had.
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let bind = |key, address| listener::bind(address).map_err(|source| StartError::Bind { key, address, source });
        Ok(Self {
            queries: bind("server.listen", config.server.listen)?,
            admin: bind("server.admin_listen", config.server.admin_listen)?,
        })
    }
}

/// The origin's settings, from the configuration and the URL of the database in use.
pub fn postgres_settings(config: &Config, url: &str) -> Settings {
    let postgres = &config.postgres;
    Settings {
        url: url.to_owned(),
        pool_size: postgres.pool_size,
        connect_timeout: postgres.connect_timeout,
        search_path: postgres.search_path.clone(),
        timezone: postgres.timezone.clone(),
        tls: match postgres.tls {
            Tls::Disable => TlsMode::Disable,
            Tls::Prefer => TlsMode::Prefer,
            Tls::Require => TlsMode::Require,
            Tls::VerifyCa => TlsMode::VerifyCa,
            Tls::VerifyFull => TlsMode::VerifyFull,
        },
        tls_root_cert: postgres.tls_root_cert.clone(),
        tls_client_cert: postgres.tls_client_cert.clone(),
        tls_client_key: postgres.tls_client_key.clone(),
        result_max_bytes: config.cache.result_max_bytes,
        reconnect_max: postgres.reconnect_max,
        announcers: match config.invalidation.source {
            Source::Notify => Announcers::Operator { channel: config.invalidation.channel.clone() },
            Source::Log | Source::None => Announcers::Seawall,
        },
    }
}

/// The shared tier's settings.
fn redis_settings(redis: &config::Redis, cache: &config::Cache) -> RedisSettings {
    RedisSettings {
        url: redis.url.expose().to_owned(),
        tls_root_cert: redis.tls_root_cert.clone(),
        namespace: redis.namespace.clone(),
        pool_size: u32::try_from(redis.pool_size).unwrap_or(u32::MAX),
        timeout: redis.timeout,
        entry_max_bytes: cache.entry_max_bytes,
    }
}

/// The query listener's options, which can be changed while it runs.
fn options(server: &Server) -> Options {
    Options {
        body_max_bytes: server.body_max_bytes,
        expose_stamp: server.expose_stamp,
        compression: server.compression,
        compression_min_bytes: server.compression_min_bytes,
    }
}

/// What happens to the origin's connections, as metrics.
fn count(metrics: &Metrics, event: Event) {
    match event {
        Event::Waited(waited) => metrics.pool_wait_seconds.observe(waited.as_secs_f64()),
        Event::Connected => metrics.connected(Connects::Ok),
        Event::ConnectFailed => metrics.connected(Connects::Failed),
        Event::Breaker(state) => metrics.origin_breaker.set(match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        }),
    }
}

/// A service that is put together and not yet running.
pub struct App {
    read: Arc<Readthrough>,
    ready: Arc<Readiness>,
    service: Arc<Service>,
    catalog: Arc<InForce>,
    postgres: Option<Arc<Postgres>>,
    stream: Option<(Settings, StreamSettings)>,
    redis: Option<Arc<Redis>>,
    token: Arc<Token>,
    certificates: Arc<Certificates>,
    reloader: Option<Arc<Reloader>>,
    started: Config,
    limits: Limits,
    drain_delay: Duration,
    shutdown_grace: Duration,
}

impl App {
    /// The service of `config`, whose queries come from the Postgres at `url`.
    ///
    /// # Errors
    /// [`StartError::Postgres`] (or another, for the other parts) where the URL or a certificate can't be used. A database that is away is no error.
    pub fn new(config: Config, url: &str) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new());
        let settings = postgres_settings(&config, url);
        let counted = Arc::clone(&metrics);
        let postgres = Arc::new(Postgres::new(settings, move |event| count(&counted, event))?);
        let origin: Arc<dyn Origin> = Arc::clone(&postgres) as _;
        let stream = (config.invalidation.source != Source::None).then(|| {
            let listen_url = config.postgres.listen_url.as_ref().map_or(url, |url| url.expose());
            let settings = StreamSettings {
                channel: config.invalidation.channel.clone(),
                retention: config.invalidation.retention,
                poll_interval: config.invalidation.poll_interval,
            };
            (postgres_settings(&config, listen_url), settings)
        });
        let mut app = Self::over(config, origin, metrics, Clock::system())?;
        if stream.is_some() {
            app.read.ledger().expect_stream();
            app.read.stream_is(StreamState::Starting);
        }
        app.stream = stream;
        app.postgres = Some(postgres);
        Ok(app)
    }

    /// The service of `config` over any origin: what tests use to force an order that Postgres can't be made to take.
    ///
    /// # Errors
    /// [`StartError::Certificate`], [`StartError::Redis`]
    pub fn over(
        config: Config,
        origin: Arc<dyn Origin>,
        metrics: Arc<Metrics>,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let certificates = Arc::new(Certificates::new(&config, Arc::clone(&metrics))?);
        let bounds = Bounds {
            max_bytes: config.cache.max_bytes,
            packed_max_bytes: config.cache.compressed_max_bytes,
            entry_max_bytes: config.cache.entry_max_bytes,
            max_fills: config.cache.max_fills,
            max_queued_fills: config.cache.max_queued_fills,
            max_waiters: config.server.max_waiters,
            proactive: config.invalidation.proactive,
        };
        let started = config.clone();
        let redis = config.redis.as_ref().map(|redis| redis_settings(redis, &config.cache));
        let redis = redis.map(|settings| Redis::new(&settings, clock.clone(), Arc::clone(&metrics))).transpose()?;
        let token = Arc::new(Token::default());
        token.set(config.admin.token_sha256);
        let catalog = Catalog::new(config.queries);
        let read = Readthrough::new(&catalog, origin, bounds, clock, Chance::system(), metrics);
        let redis = redis.map(Arc::new);
        if let Some(redis) = &redis {
            read.share_by(Arc::clone(redis) as _);
        }
        let ready = Arc::new(Readiness::default());
        if config.auth.is_none() && !config.server.listen.ip().to_canonical().is_loopback() {
            tracing::warn!(
                listen = %config.server.listen,
                "everybody who reaches this address may ask every query: there is no [auth]"
            );
        }
        let gate = Gate::new(config.auth.map(Access::new), read.metrics());
        let options = options(&config.server);
        let service = Service::new(Arc::clone(&read), gate, options, Arc::clone(&ready));
        service.share(config.cors.as_ref());
        Ok(Self {
            service,
            read,
            ready,
            catalog: Arc::new(InForce::from_pointee(catalog)),
            postgres: None,
            stream: None,
            redis,
            token,
            certificates,
            reloader: None,
            started,
            limits: Limits { max_connections: config.server.max_connections, head_timeout: HEAD_TIMEOUT },
            drain_delay: config.server.drain_delay,
            shutdown_grace: config.server.shutdown_grace,
        })
    }

    /// The read path, for whoever watches from inside the process.
    pub fn read(&self) -> &Arc<Readthrough> {
        &self.read
    }

    /// Lets another configuration, which `load` reads, take the place of the present one: on SIGHUP, by `POST /reload`, and when the
    /// file at `watched` changes.
    pub fn reload_from(&mut self, load: Loader, watched: Option<PathBuf>) {
        let parts = Parts {
            read: Arc::clone(&self.read),
            service: Arc::clone(&self.service),
            catalog: Arc::clone(&self.catalog),
            postgres: self.postgres.clone(),
            token: Arc::clone(&self.token),
            certificates: Arc::clone(&self.certificates),
        };
        self.reloader = Some(Reloader::new(load, watched, self.started.clone(), parts));
    }

    /// Whether its configuration is to be reloaded when it changes.
    pub fn watches(&self) -> bool {
        self.started.server.watch_config
    }

    /// The queries.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// Replaces the bounds of connections.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Serves until `shutdown` resolves, then stops in order.
    ///
    /// The first attempt to prepare the queries is awaited before the service calls itself ready, so that a healthy
    /// start has no moment without queries; a database that is away delays it by one connection timeout at most.
    pub async fn run(self, listeners: Listeners, shutdown: impl Future<Output = ()>) {
        let connections = Arc::new(Connections::default());
        let admin_router = admin::router(
            Arc::clone(&self.read),
            Arc::clone(&self.ready),
            Arc::clone(&self.token),
            self.reloader.as_ref().map(Reloader::by_request),
        );
        let secure = self.certificates.secure(Listener::Admin);
        let admin = tokio::spawn(async move {
            let ended = match secure {
                None => axum::serve(listeners.admin, admin_router).await,
                Some(secure) => axum::serve(SecureListener::new(listeners.admin, secure), admin_router).await,
            };
            if let Err(error) = ended {
                tracing::error!(%error, "the admin listener ended");
            }
        });
        // Dropped with this future, they end.
        let mut tasks = JoinSet::new();
        if let Some(postgres) = &self.postgres {
            let (postgres, catalog) = (Arc::clone(postgres), Arc::clone(&self.catalog));
            tasks.spawn(async move { postgres.supervise(catalog).await });
        }
        if let Some((postgres, (listen, settings))) = self.postgres.as_ref().zip(self.stream.clone()) {
            let (postgres, read, catalog) = (Arc::clone(postgres), Arc::clone(&self.read), Arc::clone(&self.catalog));
            tasks.spawn(async move {
                if let Err(error) = postgres.follow(listen, settings, read, catalog).await {
                    tracing::error!(%error, "the event stream can't be followed");
                }
            });
        }
        let certificates = Arc::clone(&self.certificates);
        tasks.spawn(async move { certificates.watch().await });
        if let Some(redis) = &self.redis {
            let redis = Arc::clone(redis);
            tasks.spawn(async move { redis.watch().await });
        }
        if let Some(reloader) = &self.reloader {
            tasks.spawn(Arc::clone(reloader).listen(Hangups::new()));
        }
        let mut shutdown = std::pin::pin!(shutdown);
        let stopped_early = match &self.postgres {
            Some(postgres) => tokio::select! {
                // Then the first polls, so that a healthy start has no moment in which nothing counts as fresh.
                () = async {
                    postgres.first_attempt().await;
                    let _ = tokio::time::timeout(STREAM_WITHIN, self.read.stream_settled()).await;
                } => false,
                () = &mut shutdown => true,
            },
            None => false,
        };
        if stopped_early {
            tracing::info!("stopped before the first attempt to prepare the queries had ended");
            return;
        }
        let accepting = tokio::spawn(listener::serve(
            listeners.queries,
            self.certificates.secure(Listener::Queries),
            Arc::clone(&self.service),
            self.limits,
            Arc::clone(&connections),
            Arc::clone(self.read.metrics()),
        ));
        self.ready.serve();
        tracing::info!("ready");

        shutdown.await;
        tracing::info!(drain_delay = ?self.drain_delay, "draining");
        self.ready.drain();
        tokio::time::sleep(self.drain_delay).await;
        accepting.abort();
        // Awaited: a connection that it accepts in its last moment must be among those that are told.
        let _ = accepting.await;
        connections.close();
        if tokio::time::timeout(self.shutdown_grace, connections.closed()).await.is_err() {
            tracing::warn!(open = connections.len(), "connections outlived shutdown_grace and are dropped");
        }
        tasks.abort_all();
        // Refreshes belong to nobody's request; they end here.
        self.read.stop();
        if let Some(postgres) = &self.postgres {
            // Statements that nobody waits for any more are cancelled in Postgres, not left to it.
            let _ = tokio::time::timeout(CLEAN_UP_WITHIN, postgres.drained()).await;
        }
        admin.abort();
        tracing::info!("stopped");
    }
}
