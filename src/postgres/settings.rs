//! What the origin needs to know, in types of its own: the configuration is another layer's.
//!
//! The URL may hold a password, so [`Settings`] shows it nowhere: neither in `Debug` nor in an error.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How connections are encrypted and whom they trust. The names and their meaning are libpq's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Encrypted if that can be had, without verification: no protection from anybody who can answer in the server's place.
    #[default]
    Prefer,
    /// Encrypted or not at all; verified only if a root certificate is given, and then as `VerifyCa` does, like libpq.
    Require,
    /// The certificate's chain must end in a trusted root.
    VerifyCa,
    /// That, and the certificate must be for the host that was asked for.
    VerifyFull,
}

/// Whose triggers announce writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Announcers {
    /// Seawall's own, in the event log.
    #[default]
    Seawall,
    /// The operator's, by notifications; nothing is installed, and nothing shows whether they are there.
    Operator {
        /// On which they notify.
        channel: String,
    },
}

/// How to reach Postgres, and the bounds of what comes from there.
#[derive(Clone)]
pub struct Settings {
    /// A connection string, as a URL or as `key=value` pairs, without `sslmode`. Secret.
    pub url: String,
    /// Connections at most.
    pub pool_size: usize,
    /// Bounds each attempt to connect, TLS, authentication and setting the session included.
    pub connect_timeout: Duration,
    /// The search path of every session; `None`: the role's own, as it was at the first connection.
    pub search_path: Option<String>,
    /// The time zone of every session.
    pub timezone: String,
    /// How connections are encrypted.
    pub tls: TlsMode,
    /// Roots to trust, PEM; `None`: those of the platform.
    pub tls_root_cert: Option<PathBuf>,
    /// The certificate to show, with its chain, PEM.
    pub tls_client_cert: Option<PathBuf>,
    /// Its key, PEM.
    pub tls_client_key: Option<PathBuf>,
    /// Bytes of an answer at most; larger ones are measured in Postgres and not transferred.
    pub result_max_bytes: u64,
    /// While Postgres is away: the longest pause between two attempts to connect.
    pub reconnect_max: Duration,
    /// Whose triggers announce writes.
    pub announcers: Announcers,
}

impl Settings {
    /// The defaults of the configuration, for the database at `url`.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            pool_size: 8,
            connect_timeout: Duration::from_secs(2),
            search_path: None,
            timezone: "UTC".into(),
            tls: TlsMode::default(),
            tls_root_cert: None,
            tls_client_cert: None,
            tls_client_key: None,
            result_max_bytes: 16 * 1024 * 1024,
            reconnect_max: Duration::from_secs(1),
            announcers: Announcers::default(),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("pool_size", &self.pool_size)
            .field("connect_timeout", &self.connect_timeout)
            .field("search_path", &self.search_path)
            .field("timezone", &self.timezone)
            .field("tls", &self.tls)
            .field("announcers", &self.announcers)
            .field("tls_root_cert", &self.tls_root_cert)
            .field("tls_client_cert", &self.tls_client_cert)
            .field("tls_client_key", &self.tls_client_key)
            .field("result_max_bytes", &self.result_max_bytes)
            .field("reconnect_max", &self.reconnect_max)
            .finish_non_exhaustive()
    }
}

/// Why a connection can't even be tried.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The URL has another form. What the parser says of it may quote a password, and is not kept.
    #[error(
        "the url is no connection string such as postgres://user@host:5432/database; special characters in a password must be percent-encoded"
    )]
    Url,
    /// No connection may be opened.
    #[error("the pool must have room for a connection")]
    NoPool,
    /// A certificate file.
    #[error("{path}: {reason}")]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A verifying mode, and nothing to verify with.
    #[error("the platform has no root certificates to verify with; name a file with tls_root_cert")]
    NoRoots,
    /// A certificate without key, or the other way round.
    #[error("tls_client_cert and tls_client_key need each other")]
    HalfAClientCertificate,
    /// What TLS itself says.
    #[error("tls: {0}")]
    Tls(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_hides_the_url() {
        let shown = format!("{:?}", Settings::new("postgres://app:hunter2@db/shop"));
        assert!(!shown.contains("hunter2") && !shown.contains("shop"), "{shown}");
    }
}
