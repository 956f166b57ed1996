//! The configuration: TOML in, a [`Config`] or every problem at once out.
//!
//! Two steps. `raw` reads TOML into a tree with lines and knows no key. `check` walks that tree by the table of
//! [`keys`], applies every rule and collects what it finds; nothing stops at the first problem, so one run is enough to
//! repair a file. A `Config` that exists keeps all rules, and the rest of Seawall checks none of them again.
//!
//! `${VAR}`, `${VAR:-default}` and `${file:PATH}` are replaced in string values, see `substitute`; SQL is taken as it
//! stands. Relative paths start from the directory of the configuration file. Nothing here connects anywhere: whether
//! the URL's other options mean something, and whether queries work, is for Postgres to say.

mod bounds;
mod check;
pub mod keys;
#[cfg(feature = "embedded")]
mod overlay;
mod problem;
mod raw;
mod read;
mod secret;
mod substitute;
mod suggest;
mod units;

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(feature = "embedded")]
pub use overlay::overlay;
pub use problem::{Problem, Problems};
pub use secret::Secret;

use crate::catalog::Declaration;
use crate::coding::Codings;
use crate::tls;

/// Longest file that is read, in bytes: sixty of the longest queries. Anything longer is not a configuration.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Which database the service will use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// The one of `postgres.url`.
    Configured,
    /// A private one; `postgres.url` is not looked at.
    Embedded,
}

/// Whether the listeners' certificates are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certificates {
    /// And held against their keys.
    Verified,
    /// Not here.
    OnTheirOwn,
}

/// A configuration that keeps all rules.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[admin]`
    pub admin: Admin,
    /// `[postgres]`
    pub postgres: Postgres,
    /// `[redis]`; `None`: nothing is shared with other pods.
    pub redis: Option<Redis>,
    /// `[cache]`
    pub cache: Cache,
    /// `[invalidation]`
    pub invalidation: Invalidation,
    /// `[auth]`; `None`: everybody may ask everything.
    pub auth: Option<crate::access::Settings>,
    /// `[cors]`; `None`: no other origin may read an answer.
    pub cors: Option<crate::http::cors::Settings>,
    /// Files that it names and is made of, beside its own.
    pub files: Vec<PathBuf>,
    /// `[queries.*]`, with what they inherit from `[defaults]`; at least one, in the order of the file.
    pub queries: Vec<Declaration>,
}

/// Listeners and their limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where queries are answered.
    pub listen: SocketAddr,
    /// Health, metrics, status, invalidation. Never the same address as `listen`: what is public and what is not must
    /// not depend on a path.
    pub admin_listen: SocketAddr,
    /// After the signal to stop, connections are still accepted for so long, until load balancers have noticed.
    pub drain_delay: Duration,
    /// After that, running requests may finish for so long.
    pub shutdown_grace: Duration,
    /// Open connections, both listeners.
    pub max_connections: usize,
    /// Requests that wait for a fill.
    pub max_waiters: usize,
    /// Largest body of a request.
    pub body_max_bytes: u64,
    /// Whether every answer has its stamp in a header, and not only where a request asks for it.
    pub expose_stamp: bool,
    /// What bodies are compressed by, the preferred first.
    pub compression: Codings,
    /// Shorter bodies are not.
    pub compression_min_bytes: u64,
    /// Whether a changed configuration is reloaded by itself.
    pub watch_config: bool,
    /// PEM file of the certificate that is shown; there exactly if `tls_key` is.
    pub tls_cert: Option<PathBuf>,
    /// The key of `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// PEM file of the authorities that sign clients' certificates, only with `tls_cert`.
    pub tls_client_ca: Option<PathBuf>,
}

/// Who may use the admin listener.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// SHA-256 of the bearer token; `None` only where `admin_listen` is loopback.
    pub token_sha256: Option<[u8; 32]>,
    /// As those of [`Server`].
    pub tls_cert: Option<PathBuf>,
    /// The key of `tls_cert`.
    pub tls_key: Option<PathBuf>,
    /// As that of [`Server`].
    pub tls_client_ca: Option<PathBuf>,
}

impl Server {
    /// The files of its TLS, if it is to speak that.
    pub fn tls(&self) -> Option<tls::Files> {
        files(self.tls_cert.as_ref(), self.tls_key.as_ref(), self.tls_client_ca.as_ref())
    }
}

impl Admin {
    /// The files of its TLS, if it is to speak that.
    pub fn tls(&self) -> Option<tls::Files> {
        files(self.tls_cert.as_ref(), self.tls_key.as_ref(), self.tls_client_ca.as_ref())
    }
}

fn files(cert: Option<&PathBuf>, key: Option<&PathBuf>, client_ca: Option<&PathBuf>) -> Option<tls::Files> {
    Some(tls::Files { cert: cert?.clone(), key: key?.clone(), client_ca: client_ca.cloned() })
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A digest of a weak token can be searched.
        f.debug_struct("Admin")
            .field("token_sha256", &self.token_sha256.map(|_| "***"))
            .field("tls_cert", &self.tls_cert)
            .field("tls_key", &self.tls_key)
            .field("tls_client_ca", &self.tls_client_ca)
            .finish()
    }
}

/// How the database is reached, and the settings that shape answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postgres {
    /// URL or key=value string, without `sslmode`, which is in `tls`. `None` exactly for [`Database::Embedded`].
    pub url: Option<Secret>,
    /// The same for `seawall migrate`, where another role than that of `url` owns the tables.
    pub migrate_url: Option<Secret>,
    /// The same for the event stream, where `url` leads through a pooler.
    pub listen_url: Option<Secret>,
    /// Connections.
    pub pool_size: usize,
    /// Bounds connecting to one host of the URL.
    pub connect_timeout: Duration,
    /// Of every session; `None`: the role's own.
    pub search_path: Option<String>,
    /// Of every session: it shapes `timestamptz` in answers.
    pub timezone: String,
    /// While Postgres is away it is probed this often.
    pub reconnect_max: Duration,
    /// From `postgres.tls` or the URL's `sslmode`.
    pub tls: Tls,
    /// PEM file to verify the server by, only with a verifying `tls`; `None`: the platform's roots.
    pub tls_root_cert: Option<PathBuf>,
    /// PEM file that is shown to the server; there exactly if `tls_client_key` is.
    pub tls_client_cert: Option<PathBuf>,
    /// The key of `tls_client_cert`.
    pub tls_client_key: Option<PathBuf>,
}

/// Encryption on the way to Postgres, in libpq's words. Its `allow` is not there: it prefers to be read along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Never.
    Disable,
    /// If the server can; who it is, is not verified.
    Prefer,
    /// Always; who it is, is not verified.
    Require,
    /// Always, and its certificate is verified, but not for which host it is.
    VerifyCa,
    /// Always, and its certificate is verified for the host.
    VerifyFull,
}

/// Where pods share answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// What `redis::url` reads.
    pub url: Secret,
    /// PEM file to verify by; `None`: the platform's roots.
    pub tls_root_cert: Option<PathBuf>,
    /// Keys begin with `seawall:{namespace}:`.
    pub namespace: String,
    /// Connections, each of which carries many calls.
    pub pool_size: usize,
    /// Bounds each call.
    pub timeout: Duration,
}

/// How writes make answers wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalidation {
    /// Where events come from.
    pub source: Source,
    /// Of `LISTEN`.
    pub channel: String,
    /// How long events are kept.
    pub retention: Duration,
    /// From one poll of the log to the next.
    pub poll_interval: Duration,
    /// Hot entries that are refreshed at a time after their invalidation; 0: none.
    pub proactive: usize,
    /// The advisory lock that sleeping pods hold.
    pub advisory_key: i64,
}

/// Where events come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The event log that `seawall migrate` installs.
    Log,
    /// Notifications that the operator's own triggers send. Nothing is installed.
    Notify,
    /// Nowhere: answers live by their ttl.
    None,
}

/// What the process may hold and do at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cache {
    /// All stored answers with their keys and bookkeeping.
    pub max_bytes: u64,
    /// Compressed bodies beside them.
    pub compressed_max_bytes: u64,
    /// Larger answers are given, not stored; at most `max_bytes`.
    pub entry_max_bytes: u64,
    /// Larger answers are refused, before they are transferred.
    pub result_max_bytes: u64,
    /// Concurrent rebuilds of all queries; as many as `pool_size` unless set.
    pub max_fills: usize,
    /// Rebuilds that wait for their turn; 0 refuses at once when all are busy.
    pub max_queued_fills: usize,
}

impl Config {
    /// Reads the file at `path`, with the environment of the process.
    ///
    /// # Errors
    /// Everything that is wrong with it; a file that can't be read is a single problem without key.
    pub fn load(path: &Path, database: Database) -> Result<Self, Problems> {
        Self::load_for(path, database, Certificates::Verified)
    }

    /// The same for a service that runs. The listeners' certificates are not looked at: they are replaced on their own, and one
    /// that is being replaced must not keep everything else from being changed.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_again(path: &Path, database: Database) -> Result<Self, Problems> {
        Self::load_for(path, database, Certificates::OnTheirOwn)
    }

    fn load_for(path: &Path, database: Database, certificates: Certificates) -> Result<Self, Problems> {
        let text = read_file(path).map_err(|why| {
            let message = format!("{}: {why}", path.display());
            Problems::new(vec![Problem { key: String::new(), line: None, message }])
        })?;
        let base_dir = path.parent().unwrap_or(Path::new(""));
        Self::with(&text, base_dir, database, certificates, &|name| std::env::var(name).ok())
    }

    /// Reads `text`; relative paths start from `base_dir`, variables come from `env`.
    ///
    /// # Errors
    /// Everything that is wrong with it. After a syntax error only those are reported.
    pub fn parse(
        text: &str,
        base_dir: &Path,
        database: Database,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        Self::with(text, base_dir, database, Certificates::Verified, env)
    }

    fn with(
        text: &str,
        base_dir: &Path,
        database: Database,
        certificates: Certificates,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        let files = RefCell::default();
        let sources = substitute::Sources { base_dir, env, files: &files, certificates };
        let mut config = Self::check(text, database, sources)?;
        config.files = files.into_inner();
        Ok(config)
    }

    fn check(text: &str, database: Database, sources: substitute::Sources<'_>) -> Result<Self, Problems> {
        let table = raw::document(text).map_err(Problems::new)?;
        check::check(&table, database, sources)
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|e| format!("can't be opened: {e}; name another with --config"))?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("can't be read: {e}; name another with --config"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("is longer than 4MiB; keep long queries in files and name them with sql_file".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8; save it as that".to_owned())
}
