//! Opening a connection and making its session what every answer relies on.
//!
//! A session is set in one round trip. Roles and databases may have defaults that would change the bytes of an answer
//! (time zone, interval style, search path) or harm writers (a serializable fill's SIREAD locks fail them), so whatever
//! matters is pinned here, whatever the defaults are.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use deadpool_postgres::{ClientWrapper, Connect, Manager, ManagerConfig};
use postgres_types::Type;
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};

use super::failure;
use super::session::Session;
use super::settings::{Settings, SettingsError, TlsMode};
use super::tls::{self, Tls};

/// Unless the URL says otherwise, a peer that vanished is noticed after half a minute even between statements.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;
/// What was sent and is not acknowledged by then was sent to nobody.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(30);
/// The driver's value where the URL says nothing.
const KEEPALIVE_IDLE_UNSET: Duration = Duration::from_secs(2 * 60 * 60);

/// A fill is one statement outside of any transaction block; a session found idle in one is a mistake, and must not
/// hold back VACUUM.
const IDLE_IN_TRANSACTION: &str = "10s";

/// `statement_timeout` of a session at first, in milliseconds: what preparing may take. A fill sets its own.
pub(super) const FIRST_STATEMENT_TIMEOUT_MS: u32 = 5000;

/// One round trip: values are bound, not quoted, and the search path in force comes back.
fn set_up_statement() -> String {
    let pinned = [
        ("client_encoding", "UTF8"),
        ("standard_conforming_strings", "on"),
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "read committed"),
        ("default_transaction_deferrable", "off"),
        ("row_security", "on"),
        ("DateStyle", "ISO"),
        ("IntervalStyle", "postgres"),
        ("extra_float_digits", "1"),
        ("bytea_output", "hex"),
        ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION),
    ];
    let mut sql = "SELECT pg_catalog.set_config('search_path', \
                   coalesce($1, pg_catalog.current_setting('search_path')), false), \
                   pg_catalog.format('%L as %L', session_user, current_user), pg_catalog.set_config('TimeZone', $2, false)"
        .to_owned();
    let timeout = FIRST_STATEMENT_TIMEOUT_MS.to_string();
    for (name, value) in pinned.into_iter().chain([("statement_timeout", &*timeout)]) {
        sql.extend([", pg_catalog.set_config('", name, "', '", value, "', false)"]);
    }
    sql
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Unconnected {
    pub(super) reason: String,
    /// It was the server that said no: it is there.
    pub(super) answered: bool,
}

impl Unconnected {
    fn new(error: &tokio_postgres::Error, reason: String) -> Self {
        Self { reason, answered: error.as_db_error().is_some() }
    }
}

/// A connection whose messages are for the caller to take: notifications are among them.
pub(super) type Messages = Connection<Socket, <Tls as MakeTlsConnect<Socket>>::Stream>;

/// Opens connections.
pub(super) struct Connector {
    manager: Manager,
    config: Config,
    attempt: Attempt,
    tls: Tls,
    set_up: String,
    timezone: String,
    search_path: OnceLock<String>,
    /// As Postgres calls it: the URL need not name one. With the role that it is by a setting of its own, which is whom policies see.
    user: OnceLock<String>,
}

impl Connector {
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let tls = Tls::new(settings)?;
        let config = driver_config(settings)?;
        let attempt = Attempt { tls: tls.clone(), mode: settings.tls };
        let search_path = OnceLock::new();
        if let Some(path) = &settings.search_path {
            let _ = search_path.set(path.clone());
        }
        Ok(Self {
            manager: Manager::from_connect(config.clone(), attempt.clone(), ManagerConfig::default()),
            config,
            attempt,
            tls,
            set_up: set_up_statement(),
            timezone: settings.timezone.clone(),
            search_path,
            user: OnceLock::new(),
        })
    }

    /// For requests that cancel.
    pub(super) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// A new connection whose session is set.
    ///
    /// # Errors
    /// Why not; none of it is the fault of a query.
    pub(super) async fn connect(&self) -> Result<Session, Unconnected> {
        let client = self.open().await?;
        let pinned = self.search_path.get();
        let rows =
            client.query_typed(&self.set_up, &[(&pinned, Type::TEXT), (&self.timezone, Type::TEXT)]).await.map_err(
                |error| Unconnected::new(&error, format!("the session can't be set up: {}", failure::text(&error))),
            )?;
        if self.user.get().is_none() {
            let user = rows.first().and_then(|row| row.try_get::<_, String>(1).ok());
            let unreadable = || Unconnected { reason: "the session's role can't be read".into(), answered: true };
            let _ = self.user.set(user.ok_or_else(unreadable)?);
        }
        if pinned.is_none() {
            let path = rows.first().and_then(|row| row.try_get::<_, String>(0).ok());
            let unreadable =
                || Unconnected { reason: "the session's search path can't be read".into(), answered: true };
            // Two first connections at once read the same, unless the role is altered between them.
            let _ = self.search_path.set(path.ok_or_else(unreadable)?);
        }
        Ok(Session::new(client))
    }

    /// A new connection whose session is as the role and the database have it.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub(super) async fn open(&self) -> Result<ClientWrapper, Unconnected> {
        deadpool::managed::Manager::create(&self.manager)
            .await
            .map_err(|error| Unconnected::new(&error, failure::text(&error)))
    }

    /// A new connection under another name, whose messages the caller takes; its session is as the role and the database
    /// have it. Nothing happens on it unless the messages are taken.
    ///
    /// # Errors
    /// As [`Connector::connect`].
    pub(super) async fn dial(&self, application: &str) -> Result<(Client, Messages), Unconnected> {
        let mut config = self.config.clone();
        config.application_name(application);
        self.attempt.dial(&config).await.map_err(|error| Unconnected::new(&error, failure::text(&error)))
    }

    /// Whatever of the session shapes an answer; without what Postgres says of it before the first connection. For a hash, and for nobody's
    /// eyes: options may hold what nobody else should see.
    pub(super) fn fingerprint(&self) -> String {
        let path = self.search_path.get().map_or("", String::as_str);
        // Rows may depend on who asks, and on any setting that the URL brings: of the server's own, an extension's, the application's.
        // Those of a role or a database come with the role.
        let (user, options) = (self.user.get().map_or("", String::as_str), self.config.get_options().unwrap_or(""));
        let (timezone, of_user, of_options) = (&self.timezone, user.len(), options.len());
        format!("TimeZone={timezone};user={of_user}:{user};options={of_options}:{options};search_path={path}")
    }
}

fn driver_config(settings: &Settings) -> Result<Config, SettingsError> {
    let mut config: Config = settings.url.parse().map_err(|_| SettingsError::Url)?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err(SettingsError::Url);
    }
    // As libpq: a Unix socket is not encrypted, whatever the mode.
    let local = config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    let without_names = config.get_hosts().is_empty();
    config.ssl_mode(if local && !without_names { SslMode::Disable } else { tls::ssl_mode(settings.tls) });
    config.connect_timeout(settings.connect_timeout);
    if config.get_application_name().is_none() {
        config.application_name("seawall");
    }
    if config.get_keepalives_idle() == KEEPALIVE_IDLE_UNSET {
        config.keepalives_idle(KEEPALIVE_IDLE);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVE_RETRIES);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    Ok(config)
}

/// One attempt to connect, in the order that the mode allows.
#[derive(Clone)]
struct Attempt {
    tls: Tls,
    mode: TlsMode,
}

type Connected = Result<(Client, JoinHandle<()>), tokio_postgres::Error>;

impl Connect for Attempt {
    fn connect(&self, config: &Config) -> Pin<Box<dyn Future<Output = Connected> + Send + '_>> {
        let config = config.clone();
        Box::pin(async move {
            let (client, connection) = self.dial(&config).await?;
            let driven = tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(error = failure::text(&error), "a connection to Postgres ended");
                }
            });
            Ok((client, driven))
        })
    }
}

impl Attempt {
    async fn dial(&self, config: &Config) -> Result<(Client, Messages), tokio_postgres::Error> {
        match config.connect(self.tls.clone()).await {
            Err(error) if self.mode == TlsMode::Prefer && may_do_without(&error) => {
                tracing::debug!(%error, "no TLS with this server; trying without");
                let mut config = config.clone();
                config.ssl_mode(SslMode::Disable);
                // A cancel is sent as the connection was made: the token remembers the mode.
                config.connect(self.tls.clone()).await
            }
            other => other,
        }
    }
}

/// `prefer` tries without TLS where TLS itself failed, and where the server turns this kind of connection away
/// (`pg_hba.conf` has no entry for it, or asks for a client certificate). A wrong password is one in either case.
fn may_do_without(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        Some(code) => code.code() == "28000",
        None => tls::failed_in_tls(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_url_leaves_open_is_set_and_what_it_says_stays() {
        let config = driver_config(&Settings::new("postgres://app@db/shop")).expect("a URL");
        assert_eq!(config.get_application_name(), Some("seawall"));
        assert_eq!(config.get_ssl_mode(), SslMode::Prefer);
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(2)));
        assert_eq!(config.get_keepalives_idle(), KEEPALIVE_IDLE);
        let config = driver_config(&Settings::new(
            "postgres://app@db/shop?application_name=mine&keepalives_idle=7&tcp_user_timeout=9",
        ))
        .expect("a URL");
        assert_eq!(config.get_application_name(), Some("mine"));
        assert_eq!(config.get_keepalives_idle(), Duration::from_secs(7));
        assert_eq!(config.get_tcp_user_timeout(), Some(&Duration::from_secs(9)));
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_quoting_it() {
        for url in ["postgres://app:hunter2@db:port/shop", "hunter2", "postgres://a:hunter2@h/d?hunter2=1", ""] {
            let error = driver_config(&Settings::new(url)).expect_err(url).to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_unix_socket_is_not_encrypted_whatever_the_mode() {
        let mut settings = Settings::new("host=/run/postgresql user=app");
        settings.tls = TlsMode::VerifyFull;
        assert_eq!(driver_config(&settings).expect("a string").get_ssl_mode(), SslMode::Disable);
    }
}
