//! An HTTP/1.1 client that is cheap enough to stand beside what it measures: one connection, one buffer, lengths from
//! `Content-Length`, and nothing else of the protocol.

use std::net::Ipv4Addr;
use std::ops::Range;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A keep-alive connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub async fn open(port: u16) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, buffer: Vec::with_capacity(8 << 10) }
    }

    /// The body at `path`, whose status must be 200.
    pub async fn get(&mut self, path: &str) -> Vec<u8> {
        self.send(&request(path)).await;
        self.receive().await
    }

    /// Hands over the bytes of one request or several.
    pub async fn send(&mut self, requests: &str) {
        self.stream.write_all(requests.as_bytes()).await.expect("sent");
    }

    /// The body of the next answer, whose status must be 200.
    pub async fn receive(&mut self) -> Vec<u8> {
        let (status, body) = self.receive_any().await;
        assert_eq!(status, "200", "{}", String::from_utf8_lossy(&body));
        body
    }

    /// The status and the body of the next answer.
    async fn receive_any(&mut self) -> (String, Vec<u8>) {
        loop {
            if let Some((status, body)) = answer(&self.buffer) {
                let found = (status.to_owned(), self.buffer[body.clone()].to_vec());
                self.buffer.drain(..body.end);
                return found;
            }
            let read = self.stream.read_buf(&mut self.buffer).await.expect("answered");
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }
}

pub fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

/// The first answer's status, and where its body lies, if the whole of it is there.
fn answer(buffer: &[u8]) -> Option<(&str, Range<usize>)> {
    let start = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..start]).expect("a head is ASCII");
    let status = head.split(' ').nth(1).expect("a status line");
    let mut fields = head.lines().filter_map(|line| line.split_once(": "));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length")).expect("a length").1;
    let end = start + length.parse::<usize>().expect("a number");
    (end <= buffer.len()).then_some((status, start..end))
}

/// Whether the service lacks nothing: it has reached Postgres and prepared its queries.
pub async fn is_ready(admin_port: u16) -> bool {
    let mut connection = Connection::open(admin_port).await;
    connection.send(&request("/readyz")).await;
    let (_, body) = connection.receive_any().await;
    String::from_utf8_lossy(&body).contains("\"ok\"")
}

/// Connections that fill keys at once: more than the service has turns, so that none of these stands idle.
const LANES: u32 = 32;
/// Requests that a connection sends ahead; the service answers them in their order.
const PIPELINED: usize = 16;

/// Asks once for each of `ids`, at the path that `path` gives it.
pub async fn sweep(port: u16, ids: Range<u32>, path: fn(u32) -> String) {
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            let ids = ids.clone().skip(lane as usize).step_by(LANES as usize);
            tokio::spawn(async move {
                let mut connection = Connection::open(port).await;
                let requests: Vec<String> = ids.map(|id| request(&path(id))).collect();
                for batch in requests.chunks(PIPELINED) {
                    connection.send(&batch.concat()).await;
                    for _ in batch {
                        connection.receive().await;
                    }
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.expect("no panic");
    }
}

/// Statements that the service says it has sent for `query`.
pub async fn statements(admin_port: u16, query: &str) -> u64 {
    count(admin_port, &format!("seawall_db_queries_total{{query=\"{query}\"}}")).await
}

/// What the service counts as `series`.
pub async fn count(admin_port: u16, series: &str) -> u64 {
    let text = String::from_utf8(Connection::open(admin_port).await.get("/metrics").await).expect("UTF-8");
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.expect("the series").parse().expect("a count")
}
