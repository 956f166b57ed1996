//! A whole service in this process: its own ports, its own store, over a test's database.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use seawall::app::{App, Listeners, postgres_settings};
use seawall::catalog::Catalog;
use seawall::config::{Config, Database};
use seawall::http::listener::{self, Limits};
use seawall::postgres::{Postgres, migrate};
use seawall::readthrough::Readthrough;
use seawall::stamp::Snapshot;
use seawall::tls::{Connector, Trust};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::client::Answer;

/// A running service. Dropped, it stops at once.
pub struct TestService {
    pub queries: SocketAddr,
    pub admin: SocketAddr,
    pub read: Arc<Readthrough>,
    /// How the admin listener is spoken to, where it speaks TLS.
    secure: Option<Connector>,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

/// The service that a test's configuration describes.
pub struct Plan {
    pub config: Config,
    pub limits: Option<Limits>,
    /// Where the configuration can be read again.
    pub file: Option<PathBuf>,
}

/// Parses `toml`, with `url` for the database.
pub fn plan(url: &str, toml: &str) -> Plan {
    let config = Config::parse(&text(url, toml), Path::new("."), Database::Configured, &|_| None)
        .unwrap_or_else(|problems| panic!("the test's configuration:\n{problems}"));
    Plan { config, limits: None, file: None }
}

/// The same from a file, which is written.
pub fn plan_at(file: &Path, url: &str, toml: &str) -> Plan {
    std::fs::write(file, text(url, toml)).expect("written");
    let config = Config::load(file, Database::Configured).unwrap_or_else(|problems| panic!("{problems}"));
    Plan { config, limits: None, file: Some(file.to_owned()) }
}

/// The text of a configuration.
pub fn text(url: &str, toml: &str) -> String {
    let text = format!("{toml}\n");
    let text = if text.contains("[postgres]") {
        text.replace("[postgres]", &format!("[postgres]\nurl = \"{url}\""))
    } else {
        format!("[postgres]\nurl = \"{url}\"\n{text}")
    };
    // Events are what some tests are about; the others are spared the stream.
    if text.contains("[invalidation]") { text } else { format!("{text}[invalidation]\nsource = \"none\"\n") }
}

impl Plan {
    /// Starts it, and waits until it answers.
    pub async fn start(self) -> TestService {
        let url = self.config.postgres.url.as_ref().expect("given").expose().to_owned();
        let secure = self
            .config
            .admin
            .tls()
            .map(|files| Connector::new(Trust::Anybody, Some((&files.cert, &files.key))).expect("fit"));
        let mut app = App::new(self.config, &url).expect("the service can be put together");
        if let Some(limits) = self.limits {
            app.limit(limits);
        }
        if let Some(file) = self.file {
            let watched = app.watches().then(|| file.clone());
            app.reload_from(Box::new(move || Config::load(&file, Database::Configured)), watched);
        }
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners =
            Listeners { queries: listener::bind(any).expect("a port"), admin: listener::bind(any).expect("a port") };
        let queries = listeners.queries.local_addr().expect("bound");
        let admin = listeners.admin.local_addr().expect("bound");
        let read = Arc::clone(app.read());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(app.run(listeners, async {
            let _ = stopped.await;
        }));
        let service = TestService { queries, admin, read, secure, stop: Some(stop), running };
        super::eventually::eventually("the service is ready", Duration::from_secs(10), async || {
            let status = service.ask_admin("/readyz").await.status;
            if status == 200 { Ok(()) } else { Err(format!("status {status}")) }
        })
        .await;
        service
    }
}

/// Installs schema `seawall` and the triggers that `plan`'s queries need.
pub async fn migrate(plan: &Plan) {
    let url = plan.config.postgres.url.as_ref().expect("given").expose();
    migrate_as(plan, url).await;
}

/// The same by another role: that of `owner`, for that of the plan.
pub async fn migrate_as(plan: &Plan, owner: &str) {
    let url = plan.config.postgres.url.as_ref().expect("given").expose();
    let role = migrate::role(&postgres_settings(&plan.config, url)).await.expect("connected");
    let settings = postgres_settings(&plan.config, owner);
    let postgres = Postgres::new(settings.clone(), |_| {}).expect("a URL");
    let wanted = postgres.wanted(&Catalog::new(plan.config.queries.clone())).await.expect("analysed");
    let report = migrate::migrate(&settings, &role, &wanted).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.left, [], "every table has its triggers");
}

impl TestService {
    /// Waits until every write that is visible now has been applied.
    pub async fn catch_up(&self, client: &Client) {
        let row = client.query_one("SELECT pg_current_snapshot()::text", &[]).await.expect("a snapshot");
        let now = Snapshot::parse(row.get(0)).expect("a snapshot");
        super::eventually::eventually("writes are applied", Duration::from_secs(20), async || {
            let cursor = self.read.ledger().cursor();
            if cursor.as_ref().is_some_and(|cursor| cursor.covers(&now)) { Ok(()) } else { Err(format!("{cursor:?}")) }
        })
        .await;
    }

    /// GET of the admin listener.
    pub async fn ask_admin(&self, path: &str) -> Answer {
        match &self.secure {
            None => super::client::get(self.admin, path).await,
            Some(connector) => super::client::get_secure(self.admin, connector, path).await.expect("a connection"),
        }
    }

    /// Asks for a stop; [`TestService::stopped`] awaits it.
    pub fn stop(&mut self) {
        self.stop.take();
    }

    /// Waits for the end.
    pub async fn stopped(mut self) {
        self.stop();
        (&mut self.running).await.expect("the service ends without a panic");
    }

    /// The value of the series that `/metrics` shows as `series`.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.ask_admin("/metrics").await.text();
        value(&text, series).unwrap_or_else(|| panic!("no series {series} in\n{text}"))
    }
}

/// The value of a series in Prometheus's text format.
pub fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

impl Drop for TestService {
    fn drop(&mut self) {
        self.running.abort();
    }
}
