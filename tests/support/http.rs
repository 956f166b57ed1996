//! A client that keeps its connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

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
        self.send("GET", path, fields, "").await
    }

    /// A request by any method, with a body.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn send(&mut self, method: &str, path: &str, fields: &str, body: &str) -> io::Result<Response> {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let request =
            format!("{method} {path} HTTP/1.1\r\nHost: oracle\r\nSeawall-Debug: 1\r\n{fields}{length}\r\n{body}");
        let asked = timeout(PATIENCE, self.ask(&request)).await;
        asked.unwrap_or_else(|_| Err(io::Error::other("no outcome within a minute")))
    }

    async fn ask(&mut self, request: &str) -> io::Result<Response> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await?,
        };
        stream.set_nodelay(true)?;
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
