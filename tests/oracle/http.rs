//! A client that keeps its connection, and what an answer's head says of it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::judge::Label;

/// Longer than a pod is paused for, and than a rebuild may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Response {
    /// A field of its head.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// Its body.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// How an answer with this `Cache-Status` is labelled; `None` where that is none of Seawall's.
pub fn label(status: &str) -> Option<Label> {
    let mut parts = status.split(';').map(str::trim);
    if parts.next() != Some("seawall") {
        return None;
    }
    let (mut hit, mut collapsed, mut ttl, mut detail) = (false, false, None, None);
    for part in parts {
        match part.split_once('=') {
            None if part == "hit" => hit = true,
            None if part == "collapsed" => collapsed = true,
            Some(("ttl", value)) => ttl = Some(value.parse::<i64>().ok()?),
            Some(("detail", value)) => detail = Some(value),
            _ => {}
        }
    }
    let label = match (hit, detail) {
        (true, None | Some("redis")) if ttl.is_some_and(|ttl| ttl >= 0) => Label::Hit,
        // Postgres was asked, since nothing in memory was fresh.
        (false, None | Some("invalidated" | "blind")) if collapsed => Label::Collapsed,
        (false, None | Some("invalidated" | "blind")) => Label::Filled,
        (true, None | Some("redis")) => return None,
        (_, Some(_)) => Label::Stale,
    };
    Some(label)
}

/// One connection at a time.
pub struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    /// Connects when it is first asked.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    /// GET, with the stamp of the answer.
    ///
    /// # Errors
    /// The pod is not there, or closed the connection; the next one is new.
    pub async fn get(&mut self, path: &str) -> io::Result<Response> {
        self.get_with(path, "").await
    }

    /// The same, with further lines of the request's head.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn get_with(&mut self, path: &str, fields: &str) -> io::Result<Response> {
        let asked = timeout(PATIENCE, self.ask(path, fields)).await;
        asked.unwrap_or_else(|_| Err(io::Error::other("no outcome within a minute")))
    }

    async fn ask(&mut self, path: &str, fields: &str) -> io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await?,
        };
        stream.set_nodelay(true)?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: oracle\r\nSeawall-Debug: 1\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let response = read(&mut stream).await?;
        if response.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        Ok(response)
    }
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    match stream.read_buf(bytes).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed amid an answer")),
        _ => Ok(()),
    }
}

async fn read(stream: &mut TcpStream) -> io::Result<Response> {
    let mut bytes = vec![];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        more(stream, &mut bytes).await?;
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8(bytes).map_err(io::Error::other)?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| io::Error::other("no status"))?;
    let mut response = Response { status, head, body: vec![] };
    let length = response.header("content-length").and_then(|l| l.parse::<usize>().ok());
    let length = length.ok_or_else(|| io::Error::other("no length"))?;
    while body.len() < length {
        more(stream, &mut body).await?;
    }
    response.body = body;
    Ok(response)
}

#[test]
fn a_label_is_fresh_only_without_a_detail_and_a_lifetime_that_is_not_over() {
    for (status, expected) in [
        ("seawall; hit; ttl=27", Some(Label::Hit)),
        ("seawall; hit; ttl=0", Some(Label::Hit)),
        ("seawall; hit; ttl=27; detail=redis", Some(Label::Hit)),
        ("seawall; hit; ttl=-3; detail=stale-while-revalidate", Some(Label::Stale)),
        ("seawall; hit; ttl=27; detail=refill-limited", Some(Label::Stale)),
        ("seawall; hit; ttl=27; detail=invalidated", Some(Label::Stale)),
        ("seawall; hit; detail=blind", Some(Label::Stale)),
        ("seawall; fwd=stale; fwd-status=503; detail=stale-if-error", Some(Label::Stale)),
        ("seawall; fwd=stale; collapsed; detail=wait-at-most", Some(Label::Stale)),
        ("seawall; fwd=uri-miss; stored", Some(Label::Filled)),
        ("seawall; fwd=uri-miss; stored; collapsed", Some(Label::Collapsed)),
        ("seawall; fwd=stale; stored; collapsed; detail=invalidated", Some(Label::Collapsed)),
        ("seawall; fwd=stale; stored; detail=invalidated", Some(Label::Filled)),
        ("seawall; fwd=stale; detail=blind", Some(Label::Filled)),
        ("seawall; fwd=request", Some(Label::Filled)),
        // Old, and not said to be: nobody may give that.
        ("seawall; hit; ttl=-3", None),
        ("seawall; hit", None),
        ("seawall; hit; ttl=-3; detail=redis", None),
        ("other; hit; ttl=27", None),
    ] {
        assert_eq!(label(status), expected, "{status}");
    }
}
