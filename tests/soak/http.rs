//! A client that keeps its connection, and trusts nothing that it reads.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// What is asked.
pub struct Request {
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn get(path: String) -> Self {
        Self { method: "GET", path, headers: vec![], body: vec![] }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nHost: soak\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            text.extend([*name, ": ", value, "\r\n"]);
        }
        if !self.body.is_empty() {
            text.extend(["Content-Length: ", &self.body.len().to_string(), "\r\n"]);
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// One connection at a time.
pub struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, stream: None }
    }

    async fn stream(&mut self) -> TcpStream {
        match self.stream.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await.expect("the service accepts"),
        }
    }

    /// The one answer to `request`, which must come `within` that time.
    pub async fn ask(&mut self, request: &Request, within: Duration) -> Answer {
        let mut stream = self.stream().await;
        stream.write_all(&request.bytes()).await.expect("the service reads");
        let read = timeout(within, read(&mut stream, request.method)).await;
        let path = &request.path;
        let answer = read.unwrap_or_else(|_| panic!("no outcome within {within:?}: {} {path}", request.method));
        if answer.header("connection") != Some("close") {
            self.stream = Some(stream);
        }
        answer
    }

    /// Sends `request` on a connection of its own and leaves after `stay`, whatever has come by then.
    pub async fn leave(&self, request: &Request, stay: Duration) {
        let mut stream = TcpStream::connect(self.address).await.expect("the service accepts");
        stream.write_all(&request.bytes()).await.expect("the service reads");
        let _ = timeout(stay, stream.read_u8()).await;
    }
}

async fn read(stream: &mut TcpStream, method: &str) -> Answer {
    let mut bytes = vec![];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        let read = stream.read_buf(&mut bytes).await.expect("an answer");
        assert!(read > 0, "closed amid a head: {:?}", String::from_utf8_lossy(&bytes));
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("a head is text");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no status: {head}"));
    let mut body = bytes.split_off(end);
    let mut answer = Answer { status, head, body: vec![] };
    if method != "HEAD" && status != 304 {
        let length: usize = answer.header("content-length").and_then(|l| l.parse().ok()).expect("a length");
        while body.len() < length {
            let read = stream.read_buf(&mut body).await.expect("the rest");
            assert!(read > 0, "closed after {} of {length} bytes", body.len());
        }
        assert_eq!(body.len(), length, "more than the answer: a second one?");
    }
    answer.body = body;
    answer
}
