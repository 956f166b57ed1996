//! A client that sends what it is told, byte by byte if need be, and takes apart what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use seawall::tls::Connector;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The problem's code; panics where the answer is no problem document.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        assert_eq!(self.header("cache-control"), Some("no-store"), "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status, "{document}");
        let code = document["code"].as_str().expect("a code").to_owned();
        assert_eq!(document["type"], format!("/problems/{code}"));
        code
    }
}

/// Splits the bytes of one HTTP/1.1 answer that ended with its connection.
pub fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head, body: bytes[end + 4..].to_vec() })
}

/// Longer than any test's answer takes; what hangs fails with a name.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends `bytes` on a connection of their own and reads until the other side closes.
pub async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    // The other side may have refused and closed before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time");
    if let Err(error) = read {
        // A close with unread input resets the connection; what came before counts.
        assert!(!answer.is_empty(), "nothing came: {error}");
    }
    answer
}

/// The same over TLS, to `localhost`.
pub async fn raw_secure(address: SocketAddr, connector: &Connector, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let mut stream = connector.connect("localhost", stream).await?;
    stream.write_all(bytes).await?;
    let mut answer = Vec::new();
    match tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end in time") {
        Ok(_) => Ok(answer),
        // What came before counts.
        Err(_) if !answer.is_empty() => Ok(answer),
        Err(error) => Err(error),
    }
}

/// GET over TLS.
pub async fn get_secure(address: SocketAddr, connector: &Connector, path: &str) -> std::io::Result<Answer> {
    let bytes = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = raw_secure(address, connector, bytes.as_bytes()).await?;
    Ok(parse(&answer).unwrap_or_else(|| panic!("no answer to {path}: {:?}", String::from_utf8_lossy(&answer))))
}

/// A request with these extra header lines and this body.
pub async fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if !body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    let answer = raw(address, &bytes).await;
    parse(&answer).unwrap_or_else(|| panic!("no answer to {method} {path}: {:?}", String::from_utf8_lossy(&answer)))
}

/// GET.
pub async fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, &[], b"").await
}

/// GET with these fields.
pub async fn get_with(address: SocketAddr, path: &str, fields: &[(&str, &str)]) -> Answer {
    request(address, "GET", path, fields, b"").await
}

/// POST of JSON.
pub async fn post(address: SocketAddr, path: &str, json: &str) -> Answer {
    request(address, "POST", path, &[("Content-Type", "application/json")], json.as_bytes()).await
}
