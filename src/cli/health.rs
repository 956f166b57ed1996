//! `seawall health`: asks a running service, for a HEALTHCHECK in an image without a shell.

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{BAD_USAGE, FAILED};
use crate::tls::{Connector, Trust};

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to ask: /livez of the admin listener unless given.
    #[arg(long, default_value = "http://127.0.0.1:9090/livez")]
    url: String,
    /// PEM file with the authorities that an https URL's certificate is verified by; without it, the platform's.
    #[arg(long)]
    ca: Option<PathBuf>,
    /// Take any certificate: a check on the machine itself asks for a name that no certificate has.
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
    /// PEM file with a certificate to show, where the listener asks for one.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, requires = "cert")]
    key: Option<PathBuf>,
}

impl Args {
    fn connector(&self) -> Result<Connector, String> {
        let trust = match &self.ca {
            _ if self.insecure => Trust::Anybody,
            Some(path) => Trust::Authorities(path),
            None => Trust::Platform,
        };
        Connector::new(trust, self.cert.as_deref().zip(self.key.as_deref()))
    }
}

/// A health check that takes longer has failed: orchestrators commonly allow 1 to 5 seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints the answer's body; 0 where the status is 200.
pub async fn health(args: &Args) -> u8 {
    let Some(target) = Target::of(&args.url) else {
        eprintln!("seawall: --url {}: not of the form http://host:port/path or https://host:port/path", args.url);
        return BAD_USAGE;
    };
    let connector = match target.secure.then(|| args.connector()).transpose() {
        Ok(connector) => connector,
        Err(error) => {
            eprintln!("seawall: {error}");
            return BAD_USAGE;
        }
    };
    match tokio::time::timeout(PATIENCE, target.ask(connector)).await {
        Ok(Ok((status, body))) => {
            println!("{}", body.trim_end());
            if status == 200 { 0 } else { FAILED }
        }
        Ok(Err(error)) => {
            eprintln!("seawall: {}: {error}", args.url);
            FAILED
        }
        Err(_elapsed) => {
            eprintln!("seawall: {}: no answer within {PATIENCE:?}", args.url);
            FAILED
        }
    }
}

/// What a URL names.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    secure: bool,
    /// With a port.
    authority: String,
    host: &'a str,
    path: &'a str,
}

impl<'a> Target<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (secure, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let (named, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        if named.is_empty() || named.contains(['@', ' ']) {
            return None;
        }
        let port = named.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let authority = match port {
            Some(_) => named.to_owned(),
            None => format!("{named}:{}", if secure { 443 } else { 80 }),
        };
        let host = port.map_or(named, |(host, _)| host);
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Some(Self { secure, authority, host, path })
    }

    async fn ask(&self, connector: Option<Connector>) -> std::io::Result<(u16, String)> {
        let stream = TcpStream::connect(&self.authority).await?;
        match connector {
            None => self.ask_over(stream).await,
            Some(connector) => self.ask_over(connector.connect(self.host, stream).await?).await,
        }
    }

    /// One request that needs no client: HTTP/1.0 answers end with the connection.
    async fn ask_over(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<(u16, String)> {
        let (path, authority) = (self.path, &self.authority);
        let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        // A health answer is small; a peer that sends on without end is none.
        stream.take(64 * 1024).read_to_end(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        let malformed = || std::io::Error::other("the answer is no HTTP response");
        let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(malformed)?;
        Ok((status, body.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_and_others_refused() {
        let parts = |url| Target::of(url).map(|t| (t.secure, t.authority, t.host.to_owned(), t.path.to_owned()));
        let is = |secure, authority: &str, host: &str, path: &str| {
            Some((secure, authority.into(), host.into(), path.into()))
        };
        assert_eq!(parts("http://a:1/livez"), is(false, "a:1", "a", "/livez"));
        assert_eq!(parts("http://a"), is(false, "a:80", "a", "/"));
        assert_eq!(parts("https://a/b"), is(true, "a:443", "a", "/b"));
        assert_eq!(parts("https://[::1]:9090/readyz"), is(true, "[::1]:9090", "::1", "/readyz"));
        for bad in ["ftp://a/", "a:1/livez", "http:///livez", "http://user@a/", "https://"] {
            assert_eq!(Target::of(bad), None, "{bad}");
        }
    }
}
