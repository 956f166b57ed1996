//! A private PostgreSQL for the demo, `serve --embedded` and the tests, through `pg_embed`.
//!
//! Its data lives in a directory of its own per run, its port is a free one, and its password is random. It is for trying
//! things: `pg_embed` runs it without fsync. Whatever ends this process, a kill included, no server and no lock is left
//! behind: see `watchdog.rs`.
//!
//! PostgreSQL refuses to run as root; there, its programs are run as an unprivileged user through wrapper scripts.

mod binaries;
mod watchdog;

use std::fmt;
use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pg_embed::pg_enums::PgAuthMethod;
use pg_embed::pg_fetch::PgFetchSettings;
use pg_embed::postgres::{PgEmbed, PgSettings};
use tokio_postgres::NoTls;

pub use binaries::Binaries;
use binaries::{Found, Unprivileged};
use watchdog::Watchdog;

/// How a private Postgres is to be.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Where its directory is made; the system's directory for temporary files unless given.
    pub parent: Option<PathBuf>,
    /// Further settings, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
    /// Load `pg_stat_statements`, where the installation has it.
    pub preload_statements: bool,
    /// Sessions at most.
    pub max_connections: u32,
    /// Base URL of the repository that binaries are downloaded from; `SEAWALL_PG_MIRROR` or Maven Central unless given.
    pub mirror: Option<String>,
    /// Where the programs come from.
    pub binaries: Binaries,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            parent: None,
            settings: vec![],
            preload_statements: false,
            max_connections: 100,
            mirror: None,
            binaries: Binaries::default(),
        }
    }
}

/// Why there is no private Postgres, and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// `SEAWALL_PG_BIN` names a directory without PostgreSQL's programs.
    #[error(
        "SEAWALL_PG_BIN = {dir}: there is no {missing} in it; set it to the directory with initdb, pg_ctl and postgres"
    )]
    NotBinaries {
        /// The variable's value.
        dir: String,
        /// The first program that is missing.
        missing: &'static str,
    },
    /// None on the machine, and none to be had.
    #[error(
        "no PostgreSQL was found on this machine, and downloading one from {mirror} failed: {reason}; \
         install PostgreSQL, or set SEAWALL_PG_BIN to the directory with its programs"
    )]
    Download {
        /// The repository.
        mirror: String,
        /// What came instead.
        reason: String,
    },
    /// Root, and no way not to be.
    #[error("PostgreSQL refuses to run as root, and {0}; install util-linux, or run as another user")]
    Root(String),
    /// A file or directory could not be made.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// `initdb` failed.
    #[error("initdb failed: {0}")]
    Init(String),
    /// The server did not start.
    #[error("the private Postgres did not start: {0}")]
    Start(String),
    /// The server did not stop, or refused a statement.
    #[error("the private Postgres: {0}")]
    Server(String),
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> EmbeddedError {
    let what = what.into();
    move |source| EmbeddedError::Io { what, source }
}

/// A private Postgres that runs. Dropped, it is stopped and its directory removed.
pub struct Embedded {
    // Dropped in this order: the server is stopped before the watchdog is let go, which removes the directory.
    server: PgEmbed,
    watchdog: Watchdog,
    run_dir: PathBuf,
    pg_ctl: PathBuf,
    unprivileged: Option<Unprivileged>,
    port: u16,
    password: String,
    statements: bool,
}

impl fmt::Debug for Embedded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Embedded").field("port", &self.port).field("run_dir", &self.run_dir).finish_non_exhaustive()
    }
}

const USER: &str = "postgres";

/// Starting takes a tenth of a second where the disk is quick; a machine under load may take much longer.
const START_WITHIN: Duration = Duration::from_secs(60);

/// Another process may take a free port between its choice and the server's start.
const PORTS_TRIED: u32 = 3;

impl Embedded {
    /// Finds or downloads PostgreSQL, makes a cluster, and starts it. Takes about a second.
    ///
    /// # Errors
    /// [`EmbeddedError`], each with its remedy; nothing is left behind.
    pub async fn start(options: EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let unprivileged = Unprivileged::wanted()?;
        let run_dir = make_run_dir(options.parent.as_deref(), unprivileged.as_ref())?;
        // From here on the watchdog cleans up, also if this function fails.
        let pg_ctl = run_dir.join("bin/pg_ctl");
        let watchdog = Watchdog::start(&run_dir, &pg_ctl).map_err(io("starting a shell as watchdog"))?;
        let mirror = options.mirror.clone().or_else(|| std::env::var("SEAWALL_PG_MIRROR").ok());
        let fetch = mirror.map_or_else(PgFetchSettings::default, |host| PgFetchSettings {
            host: host.trim_end_matches('/').to_owned(),
            ..PgFetchSettings::default()
        });
        let found = binaries::find(options.binaries, &fetch, &run_dir, unprivileged.as_ref()).await?;
        write_wrappers(&run_dir, &found, unprivileged.as_ref())?;
        let statements = options.preload_statements && found.has_statements();
        let password = random_password()?;
        let mut port = free_port()?;
        let settings = PgSettings {
            database_dir: run_dir.join("data"),
            port,
            user: USER.into(),
            password: password.clone(),
            auth_method: PgAuthMethod::ScramSha256,
            // The watchdog removes it, together with all else.
            persistent: true,
            timeout: Some(START_WITHIN),
            migration_dir: None,
        };
        let mut server = PgEmbed::new(settings, fetch).await.map_err(|e| EmbeddedError::Init(e.to_string()))?;
        server.pg_access.init_db_exe = run_dir.join("bin/initdb");
        server.pg_access.pg_ctl_exe.clone_from(&pg_ctl);
        if let Some(user) = &unprivileged {
            user.own(&run_dir.join("data"))?;
            // `pg_embed` writes the password file as us; its reader is another user.
            fs::write(&server.pg_access.pw_file_path, "").map_err(io("writing the password file"))?;
            user.own(&server.pg_access.pw_file_path)?;
        }
        server.setup().await.map_err(|e| EmbeddedError::Init(format!("{e}; {}", tail(&run_dir.join("initdb.log")))))?;
        configure(&run_dir, &options, statements)?;
        let mut tried = 1;
        while let Err(error) = server.start_db().await {
            let log = tail(&run_dir.join("server.log"));
            if tried == PORTS_TRIED || !log.contains("Address already in use") {
                return Err(EmbeddedError::Start(format!("{error}; its log ends with:\n{log}")));
            }
            tried += 1;
            port = free_port()?;
            server.pg_settings.port = port;
        }
        Ok(Self { server, watchdog, run_dir, pg_ctl, unprivileged, port, password, statements })
    }

    /// A connection string for `database`, with the password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{USER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.run_dir.join("data")
    }

    /// The process id of the server, or 0 while it doesn't run.
    pub fn postmaster_pid(&self) -> u32 {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).unwrap_or_default();
        file.lines().next().and_then(|pid| pid.trim().parse().ok()).unwrap_or_default()
    }

    /// Whether `pg_stat_statements` is loaded.
    pub fn has_statements(&self) -> bool {
        self.statements
    }

    /// Gives `path` to the user that the server runs as: keys must be its own.
    ///
    /// # Errors
    /// [`EmbeddedError::Io`] where the system refuses.
    pub fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        self.unprivileged.as_ref().map_or(Ok(()), |user| user.own(path))
    }

    /// Loads the sample shop into `database`; once is enough, and twice does no harm.
    ///
    /// # Errors
    /// [`EmbeddedError::Server`] with the server's words.
    pub async fn load_shop(&self, database: &str) -> Result<(), EmbeddedError> {
        let client = self.client(database).await?;
        let extension = if self.statements { "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;" } else { "" };
        let sql = format!("{extension}\n{}", include_str!("../../sample/shop.sql"));
        client.batch_execute(&sql).await.map_err(|e| EmbeddedError::Server(super::sqlstate::describe(&e)))
    }

    /// How often statements like `pattern` (as in SQL's LIKE) have run in `database`, by `pg_stat_statements`.
    ///
    /// # Errors
    /// [`EmbeddedError::Server`] with the server's words.
    pub async fn statements(&self, database: &str, pattern: &str) -> Result<u64, EmbeddedError> {
        let client = self.client(database).await?;
        let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s \
                   JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database() AND query LIKE $1";
        let row = client.query_one(sql, &[&pattern]).await;
        let calls: i64 = row.map_err(|e| EmbeddedError::Server(super::sqlstate::describe(&e)))?.get(0);
        Ok(u64::try_from(calls).unwrap_or_default())
    }

    async fn client(&self, database: &str) -> Result<tokio_postgres::Client, EmbeddedError> {
        let connected = tokio_postgres::connect(&self.url(database), NoTls).await;
        let (client, connection) = connected.map_err(|e| EmbeddedError::Server(super::sqlstate::describe(&e)))?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Ends the server at once, as a crash would.
    ///
    /// # Errors
    /// [`EmbeddedError::Server`] where it does not end.
    pub async fn crash(&self) -> Result<(), EmbeddedError> {
        let mut command = tokio::process::Command::new(&self.pg_ctl);
        command.args(["stop", "-w", "-m", "immediate", "-D"]).arg(self.data_dir());
        let output = command.output().await.map_err(io("running pg_ctl"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(EmbeddedError::Server(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    /// Starts it again, on the same port with the same data.
    ///
    /// # Errors
    /// [`EmbeddedError::Start`] with the end of the log.
    pub async fn restart(&mut self) -> Result<(), EmbeddedError> {
        let started = self.server.start_db().await;
        started.map_err(|e| EmbeddedError::Start(format!("{e}; {}", tail(&self.run_dir.join("server.log")))))
    }

    /// Stops it in order, and removes all that it left.
    ///
    /// # Errors
    /// [`EmbeddedError::Server`] where it does not stop; the watchdog then ends it.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        let stopped = self.server.stop_db().await.map_err(|e| EmbeddedError::Server(e.to_string()));
        self.watchdog.finish().await;
        stopped
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // After a stop there is nothing to do; else `pg_embed` stops the server when it is dropped right after this, and
        // the watchdog, dropped next, whatever is left of it.
        if self.watchdog.is_finished() {
            self.server.shutting_down = true;
        }
    }
}

fn make_run_dir(parent: Option<&Path>, user: Option<&Unprivileged>) -> Result<PathBuf, EmbeddedError> {
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let dir = parent.join(format!("{}{}-{:08x}", watchdog::PREFIX, std::process::id(), fastrand::u32(..)));
    let making = || format!("making {}", dir.display());
    fs::create_dir_all(dir.join("bin")).map_err(io(making()))?;
    fs::create_dir(dir.join("data")).map_err(io(making()))?;
    // Its parent need not be anybody else's; the data directory itself is the server's alone.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).map_err(io(making()))?;
    if let Some(user) = user {
        user.own(&dir)?;
        user.own(&dir.join("data"))?;
    }
    Ok(dir)
}

/// Scripts in the place of `initdb` and `pg_ctl`: as the right user, with a locale that every machine has, and with the
/// server's log in a file (the pipe that `pg_embed` would give it is read by nobody later).
fn write_wrappers(run_dir: &Path, found: &Found, user: Option<&Unprivileged>) -> Result<(), EmbeddedError> {
    let drop_root = user.map_or_else(String::new, Unprivileged::prefix);
    let quote = |path: &Path| format!("'{}'", path.display().to_string().replace('\'', "'\\''"));
    for (name, extra) in [
        ("initdb", format!("--locale=C --no-sync >{} 2>&1", quote(&run_dir.join("initdb.log")))),
        ("pg_ctl", format!("-l {}", quote(&run_dir.join("server.log")))),
    ] {
        let program = quote(&found.bin.join(name));
        let script = format!("#!/bin/sh\ncd {}\nLC_ALL=C exec {drop_root}{program} \"$@\" {extra}\n", quote(run_dir));
        let path = run_dir.join("bin").join(name);
        fs::write(&path, script).map_err(io("writing a wrapper script"))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(io("writing a wrapper script"))?;
    }
    for log in ["initdb.log", "server.log"] {
        let path = run_dir.join(log);
        fs::write(&path, "").map_err(io("making a log"))?;
        if let Some(user) = user {
            user.own(&path)?;
        }
    }
    Ok(())
}

fn configure(run_dir: &Path, options: &EmbeddedOptions, statements: bool) -> Result<(), EmbeddedError> {
    use std::fmt::Write as _;
    let mut conf = format!(
        "\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nmax_connections = {}\n\
         synchronous_commit = off\nlog_timezone = 'UTC'\ntimezone = 'UTC'\n",
        options.max_connections
    );
    if statements {
        conf.push_str("shared_preload_libraries = 'pg_stat_statements'\npg_stat_statements.max = 5000\n");
    }
    for (name, value) in &options.settings {
        let _ = writeln!(conf, "{name} = '{}'", value.replace('\'', "''"));
    }
    let path = run_dir.join("data/postgresql.conf");
    let present = fs::read_to_string(&path).map_err(io("reading postgresql.conf"))?;
    fs::write(&path, present + &conf).map_err(io("writing postgresql.conf"))
}

fn free_port() -> Result<u16, EmbeddedError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io("looking for a free port"))?;
    Ok(listener.local_addr().map_err(io("looking for a free port"))?.port())
}

/// 128 bits from the system: other users of the machine can reach the port.
fn random_password() -> Result<String, EmbeddedError> {
    let mut bytes = [0u8; 16];
    let random = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    random.map_err(io("reading /dev/urandom"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

impl Unprivileged {
    fn own(&self, path: &Path) -> Result<(), EmbeddedError> {
        chown(path, Some(self.uid), Some(self.gid)).map_err(io(format!("giving {} to {}", path.display(), self.name)))
    }
}
