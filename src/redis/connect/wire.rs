//! One connection to one server, encrypted or not.
//!
//! The streams are made here and not by `redis`: it takes whichever provider of cryptography a process has installed, and this one
//! installs none. So a server is verified as everywhere else in Seawall.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bb8_redis::redis::aio::{MultiplexedConnection, PubSub};
use bb8_redis::redis::{AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::redis::url::{Address, Login};
use crate::tls;

/// How servers are spoken to, wherever they are.
#[derive(Clone)]
pub(super) struct Door {
    tls: Option<Arc<tls::Connector>>,
    login: RedisConnectionInfo,
}

/// A connection, which all of its clones share. Without the last of them it is closed, whatever it still waits for.
#[derive(Clone)]
pub(in crate::redis) struct Wire {
    pub(super) connection: MultiplexedConnection,
    _driver: Arc<Driver>,
}

/// Reads and writes. Left to itself it would wait for the answers of a server that gives none.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// How servers are verified: by the authorities in a file, or by those that the platform trusts.
///
/// # Errors
/// Says why the file can't be used.
pub(super) fn verifier(root_cert: Option<&Path>) -> Result<Arc<tls::Connector>, String> {
    let trust = root_cert.map_or(tls::Trust::Platform, tls::Trust::Authorities);
    tls::Connector::new(trust, None).map(Arc::new)
}

impl Door {
    pub(super) fn new(tls: Option<Arc<tls::Connector>>, login: &Login, database: u16) -> Self {
        let mut info = RedisConnectionInfo::default().set_db(database.into());
        if let Some(user) = &login.user {
            info = info.set_username(user);
        }
        if let Some(password) = &login.password {
            info = info.set_password(password);
        }
        Self { tls, login: info }
    }

    async fn stream(&self, address: &Address) -> Result<Box<dyn Stream>, RedisError> {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(tls.connect(&address.host, stream).await?),
        })
    }

    /// Connects, and says who this is. Takes its time: the caller bounds it.
    pub(super) async fn open(&self, address: &Address) -> Result<Wire, RedisError> {
        let stream = self.stream(address).await?;
        // Calls are bounded where they are made.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let made = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (connection, driver) = made.map_err(unusable)?;
        let driver = Driver(tokio::spawn(driver).abort_handle());
        Ok(Wire { connection, _driver: Arc::new(driver) })
    }

    /// A connection for messages alone. Takes its time: the caller bounds it.
    pub(super) async fn listen(&self, address: &Address) -> Result<PubSub, RedisError> {
        PubSub::new(&self.login, self.stream(address).await?).await.map_err(unusable)
    }
}

/// A server that answers, and refuses what every connection begins with, gives none.
fn unusable(error: RedisError) -> RedisError {
    if super::is_about_the_connection(&error) {
        return error;
    }
    RedisError::from((ErrorKind::Io, "it takes no connection", error.to_string()))
}

/// How many of several servers are asked at a time: one that is silent must not hold up the others, and none is asked by all.
const AT_A_TIME: usize = 3;

/// What the first of `addresses` says that says anything good; else what the last one said.
pub(super) async fn first_of<T, A>(
    addresses: impl IntoIterator<Item = Address>,
    ask: impl Fn(Address) -> A,
) -> Result<T, RedisError>
where
    A: Future<Output = Result<T, RedisError>>,
{
    use futures_util::stream::{self, StreamExt as _};
    let mut answers = stream::iter(addresses).map(ask).buffer_unordered(AT_A_TIME);
    let mut failed = RedisError::from(std::io::Error::other("there is no server to ask"));
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(good) => return Ok(good),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
