//! A pod: the service, in this process, with a database of the test's.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seawall::app::{App, Listeners, postgres_settings};
use seawall::catalog::Catalog;
use seawall::config::{Config, Database};
use seawall::http::listener;
use seawall::postgres::{Postgres, migrate};
use seawall::readthrough::{Readthrough, StreamState};
use tokio::task::JoinHandle;

use super::eventually::eventually;

const WITHIN: Duration = Duration::from_secs(60);

/// Safety polls are minutes apart: a wake-up that is lost is not made up for within any bound.
const TOML: &str = "[invalidation]\nsource = \"log\"\n[defaults]\nmax_lag = \"10m\"\n[queries.stock]\n\
    sql = \"SELECT n FROM stock WHERE id = :id\"\nresult = \"value\"\ndepends = { \"public.stock\" = \"id = :id\" }\n";

/// A running pod. Dropped, it ends at once.
pub struct Pod {
    pub name: usize,
    read: Arc<Readthrough>,
    running: JoinHandle<()>,
    has_left: AtomicBool,
}

fn configured(url: &str) -> Config {
    let toml = format!("[postgres]\nurl = \"{url}\"\npool_size = 2\n{TOML}");
    Config::parse(&toml, Path::new("."), Database::Configured, &|_| None)
        .unwrap_or_else(|problems| panic!("the test's configuration:\n{problems}"))
}

/// Installs schema `seawall`, and the triggers of the table.
pub async fn install(url: &str) {
    let config = configured(url);
    let settings = postgres_settings(&config, url);
    let postgres = Postgres::new(settings.clone(), |_| {}).expect("a URL");
    let wanted = postgres.wanted(&Catalog::new(config.queries.clone())).await.expect("analysed");
    let role = migrate::role(&settings).await.expect("connected");
    let report = migrate::migrate(&settings, &role, &wanted).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(report.left, [], "every table has its triggers");
}

impl Pod {
    /// Starts it, and waits until it follows the log.
    pub async fn start(url: &str, name: usize) -> Self {
        let app = App::new(configured(url), url).expect("the service can be put together");
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners =
            Listeners { queries: listener::bind(any).expect("a port"), admin: listener::bind(any).expect("a port") };
        let read = Arc::clone(app.read());
        let running = tokio::spawn(app.run(listeners, std::future::pending()));
        let pod = Self { name, read, running, has_left: AtomicBool::new(false) };
        eventually("the pod follows", WITHIN, async || match pod.read.stream() {
            StreamState::Following => Ok(()),
            other => Err(other),
        })
        .await;
        pod
    }

    /// Whether it has applied what transaction `xid` announced, if it did and has committed.
    pub fn sees(&self, xid: u64) -> bool {
        self.read.ledger().cursor().is_some_and(|cursor| cursor.sees(xid))
    }

    /// Where it has come to, in words.
    pub fn cursor(&self) -> String {
        self.read.ledger().cursor().map_or_else(|| "none".to_owned(), |cursor| cursor.to_string())
    }

    /// Rings that it has heard: those that woke it for something to read, and all.
    pub fn rings(&self) -> (u64, u64) {
        let text = self.read.metrics().text();
        let count = |needed: &str| {
            let series = format!("seawall_doorbells_total{{needed=\"{needed}\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok()).expect("there is the series")
        };
        let needed = count("true");
        (needed, needed + count("false"))
    }

    /// It ends, as a process that is killed does: its sessions go with it.
    pub fn leave(&self) {
        self.has_left.store(true, Ordering::Release);
        self.running.abort();
    }

    /// Whether it has.
    pub fn has_left(&self) -> bool {
        self.has_left.load(Ordering::Acquire)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.running.abort();
    }
}
