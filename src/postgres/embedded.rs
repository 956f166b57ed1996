//! A private Postgres for `serve --embedded`, `demo` and the tests.
//!
//! pg-embed makes the cluster, starts it, stops it, and fetches PostgreSQL where the machine has none. Around it:
//! - `binaries`: the machine's own PostgreSQL is preferred to a download;
//! - `account`: as root everything runs for an unprivileged user, since PostgreSQL refuses root;
//! - `run_directory`: data, password, scripts and logs in one new directory, so that runs never meet;
//! - `watchdog`: clears all of that away, however we end.
//!
//! The server listens on 127.0.0.1 only, on a free port, with a random password, in UTF8 and locale C. It is made to be
//! thrown away: `fsync` is off (pg-embed starts it with `-F`), so it says nothing of what a commit costs, and a crash of
//! the machine may ruin it. A crash of the server loses no commit, as usual: `synchronous_commit` stays on, which
//! without fsync costs a write and not a wait. Unix only.

mod account;
mod binaries;
mod download;
mod error;
mod run_directory;
mod watchdog;

use std::fmt;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pg_embed::command_executor::AsyncCommand;
use pg_embed::pg_commands::PgCommand;
use pg_embed::pg_enums::PgAuthMethod;
use tokio_postgres::NoTls;

pub use binaries::find_binaries;
pub use error::EmbeddedError;

use account::Account;
use run_directory::RunDirectory;
use watchdog::Watchdog;

/// The superuser that initdb makes.
const SUPERUSER: &str = "postgres";

/// initdb takes a second or two; a machine with every core busy gets a minute. pg_ctl itself gives up after one, too.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(75);

/// Another process may take the free port before the server does; that it happens so often in a row is no accident.
const PORT_TRIES: u32 = 5;

/// The sample: categories, products, reviews.
const SHOP: &str = include_str!("../../sample/shop.sql");

/// Where the programs may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binaries {
    /// The machine's own, else a download.
    #[default]
    Search,
    /// The cache or a download, even where the machine has its own.
    Download,
}

/// How to start one.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Where the run directory is made; by default in the temporary directory.
    pub parent: Option<PathBuf>,
    /// Lines of `postgresql.conf`, names and bare values; they win over Seawall's own.
    pub settings: Vec<(String, String)>,
    /// Load `pg_stat_statements`, where its library is there; see [`Embedded::has_statements`].
    pub preload_statements: bool,
    /// The server's limit.
    pub max_connections: u32,
    /// Base URL of the repository to fetch from; by default `SEAWALL_PG_MIRROR`, else Maven Central.
    pub mirror: Option<String>,
    /// Where the programs may come from.
    pub binaries: Binaries,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            parent: None,
            settings: Vec::new(),
            preload_statements: true,
            max_connections: 100,
            mirror: None,
            binaries: Binaries::Search,
        }
    }
}

/// A running Postgres of our own. Dropping it stops the server and removes its data, as our death does.
pub struct Embedded {
    run: RunDirectory,
    port: u16,
    password: String,
    postmaster: AtomicU32,
    statements: bool,
    /// Last, and only for its drop, which blocks for the fraction of a second that an immediate stop takes.
    _watchdog: Watchdog,
}

impl Embedded {
    /// Makes a cluster and starts it: about a second, plus the download where there is one.
    ///
    /// Cancel safe: what was begun is cleared away.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let account = Account::choose()?;
        let found = match options.binaries {
            Binaries::Search => binaries::search(&account)?,
            Binaries::Download => None,
        };
        let run = RunDirectory::create(options.parent.as_deref(), &account)?;
        // From here on whatever goes wrong, its drop clears away.
        let watchdog = Watchdog::set(run.path())?;
        let bin = if let Some(bin) = found {
            bin
        } else {
            let named = std::env::var("SEAWALL_PG_MIRROR").ok().filter(|mirror| !mirror.is_empty());
            download::fetch(options.mirror.clone().or(named), &run, &account).await?
        };
        tracing::debug!(bin = %bin.display(), run = %run.path().display(), "starting an embedded PostgreSQL");

        run.prepare(&bin, &account)?;
        let password = run_directory::random_hex()?;
        init(&run, &password).await?;
        let statements = options.preload_statements && binaries::has_statements_library(&bin);
        run.configure(&settings(&options, statements))?;

        let port = start_on_free_port(&run).await?;
        let postmaster = AtomicU32::new(run.postmaster_pid().unwrap_or(0));
        Ok(Self { run, port, password, postmaster, statements, _watchdog: watchdog })
    }

    /// For the superuser, with the password in it.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{SUPERUSER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// On 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server, since its last start.
    pub fn postmaster_pid(&self) -> u32 {
        self.postmaster.load(Ordering::Relaxed)
    }

    /// Whether `pg_stat_statements` is loaded; `create extension` is the database's part.
    pub fn has_statements(&self) -> bool {
        self.statements
    }

    /// The cluster's directory.
    pub fn data_dir(&self) -> PathBuf {
        self.run.data()
    }

    /// What the server has logged since its start.
    pub fn log_file(&self) -> PathBuf {
        self.run.server_log()
    }

    /// Stops the server (clients are disconnected, a checkpoint is written) and removes its data.
    ///
    /// # Errors
    /// [`EmbeddedError::Stop`] if it had to be stopped at once; it is stopped and removed then, too.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        let stopped = match self.run.postmaster_pid() {
            Some(_) => stop(&self.run).await,
            // It had crashed before.
            None => Ok(()),
        };
        // Its end waits for the watchdog's, which is not for a thread that others need.
        match tokio::task::spawn_blocking(move || drop(self)).await {
            Ok(()) => stopped,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// For tests: the server's processes quit at once, as in a crash; the data stay for [`Embedded::restart`].
    pub async fn crash(&self) -> Result<(), EmbeddedError> {
        let mut command = tokio::process::Command::new(self.run.command("pg_ctl"));
        command.args(["stop", "-w", "-m", "immediate", "-D"]).arg(self.run.data());
        let status = command.status().await.map_err(EmbeddedError::io("could not run", self.run.command("pg_ctl")))?;
        if status.success() { Ok(()) } else { Err(EmbeddedError::Stop { log: RunDirectory::tail(&self.log_file()) }) }
    }

    /// For tests: stops the server if it runs, and starts it on the same port with the same data.
    pub async fn restart(&self) -> Result<(), EmbeddedError> {
        if self.run.postmaster_pid().is_some() {
            stop(&self.run).await?;
        }
        start_on(&self.run, self.port).await?;
        self.postmaster.store(self.run.postmaster_pid().unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Makes `database` if there is none, and fills it with the sample shop unless it is filled.
    pub async fn load_shop(&self, database: &str) -> Result<(), EmbeddedError> {
        let failed = |source| EmbeddedError::Shop { database: database.to_owned(), source };
        self.create_database(database).await.map_err(failed)?;
        self.execute(database, SHOP).await.map_err(failed)
    }

    /// How often statements like `pattern` (as in SQL's LIKE) have run in `database`, by `pg_stat_statements`, which is
    /// made an extension of it where it isn't. What is only explained does not run.
    ///
    /// # Errors
    /// [`EmbeddedError::Count`], also where the library is not loaded.
    pub async fn statements(&self, database: &str, pattern: &str) -> Result<u64, EmbeddedError> {
        let failed = |source| EmbeddedError::Count { source };
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await.map_err(failed)?;
        let driver = tokio::spawn(connection);
        let counted = async {
            client
                .batch_execute("SET client_min_messages = warning; CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
                .await?;
            let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s \
                       JOIN pg_database d ON d.oid = s.dbid \
                       WHERE d.datname = current_database() AND query LIKE $1 AND query NOT LIKE 'EXPLAIN%'";
            let row = client.query_one(sql, &[&pattern]).await?;
            Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or_default())
        };
        let counted = counted.await.map_err(failed);
        driver.abort();
        counted
    }

    async fn create_database(&self, database: &str) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(SUPERUSER), NoTls).await?;
        let driver = tokio::spawn(connection);
        let made = async {
            if client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&database]).await?.is_none() {
                let statement = format!("CREATE DATABASE \"{}\"", database.replace('"', "\"\""));
                client.batch_execute(&statement).await?;
            }
            Ok(())
        };
        let made = made.await;
        driver.abort();
        made
    }

    /// Runs `sql` in `database` as superuser.
    ///
    /// # Errors
    /// What the server says.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<(), tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
        let driver = tokio::spawn(connection);
        let executed = client.batch_execute(sql).await;
        driver.abort();
        executed
    }
}

impl fmt::Debug for Embedded {
    /// Without the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Embedded")
            .field("run", &self.run.path())
            .field("port", &self.port)
            .field("postmaster", &self.postmaster_pid())
            .finish_non_exhaustive()
    }
}

fn settings(options: &EmbeddedOptions, statements: bool) -> Vec<(String, String)> {
    let max_connections = options.max_connections.to_string();
    let mut settings: Vec<(String, String)> = [
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("max_connections", &max_connections),
        ("full_page_writes", "off"),
        ("timezone", "UTC"),
        ("log_timezone", "UTC"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec();
    if statements {
        settings.push(("shared_preload_libraries".to_owned(), "pg_stat_statements".to_owned()));
    }
    settings.extend(options.settings.iter().cloned());
    settings
}

async fn init(run: &RunDirectory, password: &str) -> Result<(), EmbeddedError> {
    let pwfile = run.password_file();
    tokio::fs::write(&pwfile, password).await.map_err(EmbeddedError::io("could not write", &pwfile))?;
    let made = async {
        let program = run.command("initdb");
        PgCommand::init_db_executor(&program, &run.data(), &pwfile, SUPERUSER, &PgAuthMethod::ScramSha256)?
            .execute(Some(COMMAND_TIMEOUT))
            .await
    };
    made.await.map_err(|error| EmbeddedError::Init {
        dir: run.path().to_owned(),
        output: format!("{}\n({error})", RunDirectory::tail(&run.initdb_log())),
    })?;
    run.remove_password_file()
}

async fn start_on_free_port(run: &RunDirectory) -> Result<u16, EmbeddedError> {
    let mut tries = 1;
    loop {
        let port = free_port()?;
        match start_on(run, port).await {
            Ok(()) => return Ok(port),
            Err(EmbeddedError::Start { log, .. }) if tries < PORT_TRIES && log.contains("Address already in use") => {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Free a moment ago.
fn free_port() -> Result<u16, EmbeddedError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(EmbeddedError::io("no free port on", Path::new("127.0.0.1")))
}

async fn start_on(run: &RunDirectory, port: u16) -> Result<(), EmbeddedError> {
    run.empty_server_log()?;
    let started = async {
        PgCommand::start_db_executor(&run.command("pg_ctl"), &run.data(), &port)?.execute(Some(COMMAND_TIMEOUT)).await
    };
    started.await.map(drop).map_err(|error| EmbeddedError::Start {
        port,
        log: format!("{}\n({error})", RunDirectory::tail(&run.server_log())),
    })
}

async fn stop(run: &RunDirectory) -> Result<(), EmbeddedError> {
    let stopped = async {
        PgCommand::stop_db_executor(&run.command("pg_ctl"), &run.data())?.execute(Some(COMMAND_TIMEOUT)).await
    };
    stopped
        .await
        .map(drop)
        .map_err(|error| EmbeddedError::Stop { log: format!("{}\n({error})", RunDirectory::tail(&run.server_log())) })
}
