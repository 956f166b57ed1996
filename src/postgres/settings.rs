//! How the database is reached. Nothing here prints the URL: it may hold a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How far the connection is secured, in libpq's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never encrypted.
    Disable,
    /// Encrypted where the server can, without looking at its certificate.
    #[default]
    Prefer,
    /// Encrypted, without looking at the certificate.
    Require,
    /// Encrypted, with a certificate of a trusted authority.
    VerifyCa,
    /// The same, and the certificate names the host.
    VerifyFull,
}

/// How the database is reached, and what its sessions are like.
#[derive(Clone)]
pub struct Settings {
    /// `postgres://…` or `key=value …`, without `sslmode`.
    pub url: String,
    /// Connections at most.
    pub pool_size: usize,
    /// For one connection, TLS and authentication included.
    pub connect_timeout: Duration,
    /// The schemas that unqualified names are looked up in; the role's own where there is none.
    pub search_path: Option<String>,
    /// Shapes `timestamptz` in answers.
    pub timezone: String,
    /// How far the connection is secured.
    pub tls: TlsMode,
    /// Authorities to trust, in PEM; the platform's where there is none.
    pub tls_root_cert: Option<PathBuf>,
    /// Our certificate, in PEM, where the server asks for one.
    pub tls_client_cert: Option<PathBuf>,
    /// Its key, in PEM.
    pub tls_client_key: Option<PathBuf>,
    /// Bytes of an answer at most, measured in the server.
    pub result_max_bytes: u64,
    /// While the database is away, it is tried this often.
    pub reconnect_max: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("pool_size", &self.pool_size).field("tls", &self.tls).finish_non_exhaustive()
    }
}

/// Why a connection can't even be tried.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The URL has no form that is understood. The parser's words name the part and quote no password.
    #[error("postgres.url: {0}")]
    Url(String),
    /// A certificate or key can't be used.
    #[error("{key}: {reason}")]
    Tls {
        /// The configuration's key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}
