//! Another configuration in the place of the present one, while everything runs.
//!
//! One at a time, and whole: a file that is bad changes nothing. Who may ask what is in force before what there is to ask, so that
//! nobody sees a new query by an old permission. Queries that stay are not touched; see `postgres::Postgres::succeed`.
//!
//! # To add a section that changes while the service runs
//! Hand its new value over in [`Reloader::apply`]; whatever is compared in [`needs_restart`] doesn't.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::certificates::Certificates;
use super::watch::{LOOKS, Seen, Watch};
use crate::access::Access;
use crate::catalog::{InForce, Shape};
use crate::clock;
use crate::config::{Config, Problems};
use crate::http::admin::Token;
use crate::http::gate::Gate;
use crate::http::read::Service;
use crate::http::reload::{Fault, Reload, Reloaded};
use crate::postgres::Postgres;
use crate::readthrough::Readthrough;

/// Reads and checks the configuration as a start does.
pub type Loader = Box<dyn Fn() -> Result<Config, Problems> + Send + Sync>;

/// What a new configuration is handed to.
pub(super) struct Parts {
    pub(super) read: Arc<Readthrough>,
    pub(super) service: Arc<Service>,
    pub(super) catalog: Arc<InForce>,
    pub(super) postgres: Option<Arc<Postgres>>,
    pub(super) token: Arc<Token>,
    pub(super) certificates: Arc<Certificates>,
}

/// Puts configurations in force.
pub struct Reloader {
    load: Loader,
    path: Option<PathBuf>,
    parts: Parts,
    /// What the process was started with: keys that need a restart are held against it.
    started: Config,
    /// Files that the present one is made of. Held for as long as a reload takes.
    files: Mutex<Vec<PathBuf>>,
}

impl Reloader {
    /// `path` is the file to watch, if any.
    pub(super) fn new(load: Loader, path: Option<PathBuf>, started: Config, parts: Parts) -> Arc<Self> {
        let files = Mutex::new(started.files.clone());
        parts.read.metrics().reloaded(true, clock::time_of_day());
        Arc::new(Self { load, path, parts, started, files })
    }

    /// As the admin listener asks for it.
    pub(super) fn by_request(self: &Arc<Self>) -> Reload {
        let reloader = Arc::clone(self);
        Arc::new(move || {
            let reloader = Arc::clone(&reloader);
            // Detached: a client that leaves stops no reload halfway.
            let reloading = tokio::spawn(async move { reloader.reload("a request").await });
            Box::pin(async move { reloading.await.unwrap_or_else(|_| Err(vec![])) })
                as Pin<Box<dyn Future<Output = Result<Reloaded, Vec<Fault>>> + Send>>
        })
    }

    /// Loads and applies the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it; the present one stays in force.
    pub async fn reload(&self, why: &'static str) -> Result<Reloaded, Vec<Fault>> {
        let mut files = self.files.lock().await;
        let metrics = self.parts.read.metrics();
        match (self.load)() {
            Ok(config) => {
                files.clone_from(&config.files);
                let reloaded = self.apply(config).await;
                metrics.reloaded(true, clock::time_of_day());
                tracing::info!(
                    why,
                    added = reloaded.added.join(" "),
                    changed = reloaded.changed.join(" "),
                    removed = reloaded.removed.join(" "),
                    "the configuration is reloaded"
                );
                for (query, reason) in &reloaded.broken {
                    tracing::warn!(query, reason, "a query of the new configuration is broken");
                }
                if !reloaded.needs_restart.is_empty() {
                    let keys = reloaded.needs_restart.join(" ");
                    tracing::warn!(keys, "what these keys say now is in force after a restart");
                }
                Ok(reloaded)
            }
            Err(problems) => {
                metrics.reloaded(false, clock::time_of_day());
                tracing::error!(why, %problems, "the configuration is not reloaded: the present one stays in force");
                let fault = |problem: crate::config::Problem| Fault {
                    key: problem.key,
                    line: problem.line,
                    message: problem.message,
                };
                Err(problems.0.into_iter().map(fault).collect())
            }
        }
    }

    async fn apply(&self, config: Config) -> Reloaded {
        let parts = &self.parts;
        let needs_restart = needs_restart(&self.started, &config);
        parts.service.guard(Gate::new(config.auth.map(Access::new), parts.read.metrics()));
        parts.service.share(config.cors.as_ref());
        parts.service.set(super::options(&config.server));
        parts.token.set(config.admin.token_sha256);
        parts.token.needs_restart(needs_restart.clone());
        parts.certificates.reload();

        let former = parts.catalog.load_full();
        let next = former.succeed(config.queries);
        let mut reloaded = Reloaded { needs_restart, ..Reloaded::default() };
        for query in next.iter() {
            let list = match former.get(query.name()) {
                None => &mut reloaded.added,
                Some(present) if !Arc::ptr_eq(present, query) => &mut reloaded.changed,
                Some(_) => continue,
            };
            list.push(query.name().to_owned());
        }
        let gone = former.iter().filter(|query| next.get(query.name()).is_none());
        reloaded.removed = gone.map(|query| query.name().to_owned()).collect();
        if let Some(postgres) = &parts.postgres {
            postgres.succeed(next, &parts.catalog, &parts.read).await;
        } else {
            parts.read.replace(&next);
            parts.catalog.store(next.into());
        }
        for query in parts.catalog.load().iter() {
            match &**query.shape() {
                Shape::Ready(_) => {}
                Shape::Pending => reloaded.unprepared.push(query.name().to_owned()),
                Shape::Broken(broken) => reloaded.broken.push((query.name().to_owned(), broken.reason.clone())),
            }
        }
        reloaded
    }

    /// Reloads at each of `hangups`, and when a file has changed and stands still. Never ends.
    pub(super) async fn listen(self: Arc<Self>, mut hangups: Hangups) {
        let told = async {
            loop {
                hangups.next().await;
                // What is wrong has been logged.
                let _ = self.reload("SIGHUP").await;
            }
        };
        let watched = async {
            let Some(path) = &self.path else { return std::future::pending().await };
            let mut watch = Watch::new(path.clone(), self.files.lock().await.clone());
            let mut looks = tokio::time::interval(LOOKS);
            loop {
                looks.tick().await;
                if watch.look() == Seen::Settled {
                    let _ = self.reload("a changed file").await;
                    watch.also(self.files.lock().await.clone());
                }
            }
        };
        tokio::join!(told, watched);
    }
}

/// SIGHUP, from when it is made on: before, it ends the process.
pub(super) struct Hangups(#[cfg(unix)] Option<tokio::signal::unix::Signal>);

impl Hangups {
    pub(super) fn new() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let listened = signal(SignalKind::hangup());
            Self(listened.inspect_err(|error| tracing::warn!(%error, "SIGHUP can't be listened for")).ok())
        }
        #[cfg(not(unix))]
        Self()
    }

    async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(hangups) = &mut self.0
            && hangups.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

/// Compares fields by name: the keys that differ.
macro_rules! differing {
    ($one:expr, $other:expr; $($section:ident: $($key:ident),+;)+) => {{
        let mut keys: Vec<String> = vec![];
        $($(if $one.$section.$key != $other.$section.$key {
            keys.push(concat!(stringify!($section), ".", stringify!($key)).to_owned());
        })+)+
        keys
    }};
}

/// The keys that say something else than what the process was started with, and take effect at a start alone: sockets,
/// connections, bounds that memory was laid out for.
fn needs_restart(started: &Config, config: &Config) -> Vec<String> {
    let mut keys = differing!(started, config;
        server: listen, admin_listen, drain_delay, shutdown_grace, max_connections, max_waiters, tls_cert, tls_key,
            tls_client_ca;
        admin: tls_cert, tls_key, tls_client_ca;
        postgres: url, migrate_url, listen_url, pool_size, connect_timeout, search_path, timezone, reconnect_max, tls,
            tls_root_cert, tls_client_cert, tls_client_key;
        cache: max_bytes, compressed_max_bytes, entry_max_bytes, result_max_bytes, max_fills, max_queued_fills;
        invalidation: source, channel, retention, poll_interval, proactive, advisory_key;
    );
    // The section as a whole: it may come or go.
    if started.redis != config.redis {
        keys.push("redis".to_owned());
    }
    keys
}
