//! `seawall demo`: the incident that Seawall exists for.
//!
//! A product page at high traffic, and its cached entry expires with 11,000 requests in flight. First behind a naive
//! read-through cache (each miss runs its own query, through the same pool to the same Postgres), then behind Seawall.
//! What reached the database is counted in the database. Afterwards the service stays up for the reader to try.
//!
//! The naive server and the load generator are part of the demo, which is why it may name `hyper`.

mod cluster;
mod load;
mod naive;
mod pods;
mod processes;
mod report;

use std::fmt;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{BAD_USAGE, ConfigArg, FAILED, StopSignal, raise_descriptor_limit};
use crate::app::{App, Listeners, StartError, postgres_settings};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{Config, Database, Problems};
use crate::http::listener;
use crate::postgres::Postgres;
use crate::postgres::embedded::{Embedded, EmbeddedError, EmbeddedOptions};

pub use cluster::{Cluster, Options};
pub use load::Latencies;
pub use pods::{Counts, Pod};
pub use report::{ClusterReport, Death, Report, Side, Spread, Write};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Requests in flight at the moment of expiry.
    #[arg(long, default_value_t = REQUESTS, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    requests: u32,
    /// Seawall as so many pods, real processes that share a private Redis, with the requests spread over all of them.
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=9))]
    pods: Option<u32>,
    /// The program that --pods starts as that Redis.
    #[arg(long, value_name = "PROGRAM", default_value = "redis-server", requires = "pods")]
    redis_server: PathBuf,
    /// Stop after the table instead of staying up.
    #[arg(long)]
    once: bool,
}

/// As many as in the incident that the demo retells.
pub const REQUESTS: u32 = 11_000;

/// The page that everybody wants.
const QUERY: &str = "product_page";
const URI: &str = "/v1/queries/product_page?id=42";

/// Why the demo could not be played.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No private Postgres.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The service did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The configuration is not the demo's.
    #[error("{0}")]
    Config(#[from] Problems),
    /// The statements can't be counted where they arrive.
    #[error("the PostgreSQL found here has no pg_stat_statements to count with; install its contrib package")]
    NoCounting,
    /// There is no Redis to share by.
    #[error(
        "{} can't be run: {source}. Install Redis (`scripts/tools.sh redis`, or the system's package redis-server), \
         or name the program by --redis-server", program.display()
    )]
    NoRedis {
        /// What was tried.
        program: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// One of its processes did not come up.
    #[error("{name} did not start; its log, {}, ends with:\n{said}", log.display())]
    Process {
        /// Which.
        name: String,
        /// Where its log is.
        log: PathBuf,
        /// The end of that.
        said: String,
    },
    /// Something on the way.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The database refused.
    #[error("the demo's database: {0}")]
    Database(String),
    /// The query that the demo plays with can't be asked.
    #[error("the configuration has no usable query {QUERY}; the demo needs the one that config.toml ships with")]
    NoQuery,
}

impl DemoError {
    fn process(name: &str, processes: &processes::Processes) -> Self {
        Self::Process { name: name.to_owned(), log: processes.log(name), said: processes.tail(name) }
    }
}

/// Plays the demo, then serves until it is told to stop.
pub async fn demo(args: Args) -> u8 {
    let config = match load_config(&args.config.config) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return BAD_USAGE;
        }
    };
    raise_descriptor_limit(4096);
    if let Some(pods) = args.pods {
        return cluster::demo(&config, args, pods).await;
    }
    let mut stop = StopSignal::new();
    let played = tokio::select! {
        played = start_and_play(&config, args.requests) => played,
        () = stop.told() => {
            say("\nstopped");
            return 0;
        }
    };
    let postgres = match played {
        Ok((postgres, report)) => {
            say(&report);
            postgres
        }
        Err(error) => {
            eprintln!("seawall: {error}");
            return FAILED;
        }
    };
    let code = if args.once { 0 } else { stay_up(config, &postgres, &mut stop).await };
    if let Err(error) = postgres.stop().await {
        tracing::warn!(%error, "the private Postgres did not stop cleanly");
    }
    code
}

async fn start_and_play(config: &Config, requests: u32) -> Result<(Embedded, Report), DemoError> {
    say("Starting a private Postgres with a sample shop …");
    let postgres = start_postgres().await?;
    let report = play(config, &postgres, requests, &|line| say(line)).await?;
    Ok((postgres, report))
}

/// A private Postgres with the sample shop, which counts statements.
///
/// # Errors
/// [`DemoError`] where it doesn't start, or can't count.
pub async fn start_postgres() -> Result<Embedded, DemoError> {
    let options = EmbeddedOptions { preload_statements: true, ..EmbeddedOptions::default() };
    let postgres = Embedded::start(options).await?;
    if !postgres.has_statements() {
        return Err(DemoError::NoCounting);
    }
    postgres.load_shop("postgres").await?;
    Ok(postgres)
}

/// The configuration at `path`, or the one that ships with Seawall where there is none.
///
/// # Errors
/// Every problem of the configuration.
pub fn load_config(path: &Path) -> Result<Config, Problems> {
    if path.exists() {
        return Config::load(path, Database::Embedded);
    }
    Config::parse(include_str!("../../../config.toml"), Path::new("."), Database::Embedded, &|name| {
        std::env::var(name).ok()
    })
}

/// Plays both sides against `postgres` and reports; `tell` gets progress, a line at a time.
///
/// # Errors
/// [`DemoError`] where a side could not be played to its end.
pub async fn play(
    config: &Config,
    postgres: &Embedded,
    requests: u32,
    tell: &(dyn Fn(&str) + Send + Sync),
) -> Result<Report, DemoError> {
    let url = postgres.url("postgres");
    super::migrate::bring_up(config, &url).await.map_err(|error| DemoError::Database(error.to_string()))?;
    let count = Counter::new(postgres);
    tell(&format!("The entry of {URI} expires with {} requests in flight.\n", report::thousands(u64::from(requests))));

    let naive = play_naive(config, postgres, &count, requests, tell).await?;

    tell("2. Seawall: whoever comes first leads the rebuild, everybody else shares it.");
    let seawall = {
        let mut config = config.clone();
        // The page's own ttl is minutes; the demo's is over at once, so that there is an expiry to see.
        for query in config.queries.iter_mut().filter(|q| &*q.name == QUERY) {
            query.policy.ttl = EXPIRES_AFTER;
            query.policy.jitter = 0.0;
            query.policy.timeout = Duration::from_secs(30);
        }
        let app = App::new(config, &url)?;
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners = Listeners { queries: listener::bind(any_port)?, admin: listener::bind(any_port)? };
        let address = listeners.queries.local_addr()?;
        let read = Arc::clone(app.read());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(app.run(listeners, async {
            // Dropped or told: either way it is over.
            let _ = stopped.await;
        }));
        load::run(&[address], URI, 1, &|_| {}).await?;
        expire(read.store()).await;
        let before = count.read().await?;
        let latencies = load::run(&[address], URI, requests, tell).await?;
        let database = count.read().await? - before;
        drop(stop);
        let _ = running.await;
        Side { database, latencies }
    };

    tell("3. A price changes in Postgres, and nobody tells Seawall.");
    let write = write(config, postgres).await?;
    Ok(Report { requests, naive, seawall, write })
}

/// The side without Seawall.
async fn play_naive(
    config: &Config,
    postgres: &Embedded,
    count: &Counter<'_>,
    requests: u32,
    tell: &(dyn Fn(&str) + Send + Sync),
) -> Result<Side, DemoError> {
    tell("1. A naive read-through cache: each miss runs its own query.");
    let settings = postgres_settings(config, &postgres.url("postgres"));
    let origin = Arc::new(Postgres::new(settings, |_| {}).map_err(StartError::from)?);
    let catalog = Catalog::new(config.queries.clone());
    origin.prepare_all(&catalog).await.map_err(|error| DemoError::Database(error.to_string()))?;
    let query = catalog.get(QUERY).ok_or(DemoError::NoQuery)?;
    let prepared = query.prepared().ok_or(DemoError::NoQuery)?;
    let server = naive::Naive::start(origin, Arc::clone(query), prepared, requests)?;
    let before = count.read().await?;
    let latencies = load::run(&[server.address()], URI, requests, tell).await?;
    Ok(Side { database: count.read().await? - before, latencies })
}

/// Products that are asked for before and after one of them is written to.
const PRODUCTS: u32 = 100;

/// The one that is.
const WRITTEN: u32 = 42;

/// Fills answers, writes to the row of one, and asks for all of them again.
async fn write(config: &Config, postgres: &Embedded) -> Result<Write, DemoError> {
    let app = App::new(config.clone(), &postgres.url("postgres"))?;
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listeners = Listeners { queries: listener::bind(any_port)?, admin: listener::bind(any_port)? };
    let address = listeners.queries.local_addr()?;
    let read = Arc::clone(app.read());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(listeners, async {
        // Dropped or told: either way it is over.
        let _ = stopped.await;
    }));
    let uri = |id: u32| format!("/v1/queries/product?id={id}");
    let ask_all = async || -> Result<(), DemoError> {
        for id in 1..=PRODUCTS {
            load::get(address, &uri(id)).await?;
        }
        Ok(())
    };
    ask_all().await?;
    let before = load::get(address, &uri(WRITTEN)).await?;
    let statements = || read.routes().find("product").map_or(0, |route| route.metrics().statements.get());
    let asked = statements();
    let update = format!("UPDATE shop.products SET price = price + 1 WHERE id = {WRITTEN}");
    postgres.execute("postgres", &update).await.map_err(|error| DemoError::Database(error.to_string()))?;
    let committed = tokio::time::Instant::now();
    while load::get(address, &uri(WRITTEN)).await? == before {
        if committed.elapsed() > Duration::from_secs(10) {
            return Err(DemoError::Database("the write did not reach the answer within ten seconds".into()));
        }
    }
    let visible = committed.elapsed();
    ask_all().await?;
    let write = Write { update, products: PRODUCTS, visible, statements: statements() - asked };
    drop(stop);
    let _ = running.await;
    Ok(write)
}

/// How long the demo's page is fresh: long enough to fill it before, and to answer from it after, the stampede.
const EXPIRES_AFTER: Duration = Duration::from_secs(2);

/// Waits until everything stored has expired.
async fn expire(store: &crate::cache::store::Store) {
    let clock = Clock::system();
    while let Some(last) = store.expiries().into_iter().max() {
        let left = last.since(clock.now());
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// What the database itself says of the work it did.
struct Counter<'a> {
    postgres: &'a Embedded,
}

/// A reading of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Work {
    /// Executions of the page's statement.
    pub statements: u64,
    /// CPU seconds of the server's processes; `None` where the system doesn't say.
    pub cpu_seconds: Option<f64>,
}

impl std::ops::Sub for Work {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            statements: self.statements - before.statements,
            cpu_seconds: self.cpu_seconds.zip(before.cpu_seconds).map(|(after, before)| after - before),
        }
    }
}

impl<'a> Counter<'a> {
    fn new(postgres: &'a Embedded) -> Self {
        Self { postgres }
    }

    async fn read(&self) -> Result<Work, DemoError> {
        let statements = self.postgres.statements("postgres", "%__seawall_row%shop.reviews%").await?;
        Ok(Work { statements, cpu_seconds: cpu_seconds(self.postgres.postmaster_pid()) })
    }
}

/// CPU time of the postmaster, its children, and those of them that have ended, from `/proc`.
fn cpu_seconds(postmaster: u32) -> Option<f64> {
    /// Of every Linux that Rust supports; `sysconf(_SC_CLK_TCK)` says no other.
    const TICKS_PER_SECOND: f64 = 100.0;
    let fields = |pid: &str| -> Option<Vec<String>> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name may hold spaces and parentheses; the fields begin after the last one.
        Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
    };
    let parent = postmaster.to_string();
    let mut ticks = 0u64;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        let Some(fields) = fields(&name) else { continue };
        // After the name: state, ppid, …; utime, stime, cutime, cstime are the 12th to 15th.
        if name == parent || fields.get(1) == Some(&parent) {
            let counted = if name == parent { 11..15 } else { 11..13 };
            ticks += fields.get(counted)?.iter().filter_map(|f| f.parse::<u64>().ok()).sum::<u64>();
        }
    }
    Some(ticks as f64 / TICKS_PER_SECOND)
}

async fn stay_up(mut config: Config, postgres: &Embedded, stop: &mut StopSignal) -> u8 {
    let listeners = match Listeners::bind(&config) {
        Ok(listeners) => listeners,
        Err(error) => {
            say(&format!("({error}; the demo takes free ports instead)"));
            config.server.listen.set_port(0);
            config.server.admin_listen.set_port(0);
            match Listeners::bind(&config) {
                Ok(listeners) => listeners,
                Err(error) => {
                    eprintln!("seawall: {error}");
                    return FAILED;
                }
            }
        }
    };
    let addresses = (listeners.queries.local_addr(), listeners.admin.local_addr());
    let app = match App::new(config, &postgres.url("postgres")) {
        Ok(app) => app,
        Err(error) => {
            eprintln!("seawall: {error}");
            return FAILED;
        }
    };
    if let (Ok(queries), Ok(admin)) = addresses {
        say(&report::invitation(queries, admin, &postgres.url("postgres")));
    }
    app.run(listeners, stop.told()).await;
    0
}

/// Prints a line at once, also where standard output is a pipe.
fn say(line: &(impl fmt::Display + ?Sized)) {
    let mut out = std::io::stdout().lock();
    // Whoever closed the pipe doesn't want to know.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
