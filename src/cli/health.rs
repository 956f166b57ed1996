//! `seawall health`: asks a running service, for a HEALTHCHECK in an image without a shell.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{BAD_USAGE, FAILED};

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to ask: /livez of the admin listener unless given.
    #[arg(long, default_value = "http://127.0.0.1:9090/livez")]
    url: String,
}

/// A health check that takes longer has failed: orchestrators commonly allow 1 to 5 seconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints the answer's body; 0 where the status is 200.
pub async fn health(args: &Args) -> u8 {
    let Some((authority, path)) = parts(&args.url) else {
        eprintln!("seawall: --url {}: not of the form http://host:port/path", args.url);
        return BAD_USAGE;
    };
    match tokio::time::timeout(PATIENCE, ask(&authority, path)).await {
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

/// Authority (with a port) and path of an `http` URL.
fn parts(url: &str) -> Option<(String, &str)> {
    let rest = url.strip_prefix("http://")?;
    let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    if authority.is_empty() || authority.contains(['@', ' ']) {
        return None;
    }
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some((if has_port { authority.to_owned() } else { format!("{authority}:80") }, path))
}

/// One request that needs no client: HTTP/1.0 answers end with the connection.
async fn ask(authority: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(authority).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A health answer is small; a peer that sends on without end is none.
    stream.take(64 * 1024).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let malformed = || std::io::Error::other("the answer is no HTTP response");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(malformed)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_split_and_others_refused() {
        assert_eq!(parts("http://a:1/livez"), Some(("a:1".into(), "/livez")));
        assert_eq!(parts("http://a"), Some(("a:80".into(), "/")));
        assert_eq!(parts("http://[::1]:9090/readyz"), Some(("[::1]:9090".into(), "/readyz")));
        for bad in ["https://a/", "a:1/livez", "http:///livez", "http://user@a/"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
