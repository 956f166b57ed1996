//! The table, the configuration, and the load.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::process::{Child, LOAD_CPU};

/// 100,000 rows whose JSON has 373 bytes, and a configuration that asks for them.
pub async fn fill_table(url: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
        .batch_execute(
            "CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, price text NOT NULL, description text NOT NULL);
             INSERT INTO products SELECT i, 'Product number ' || lpad(i::text, 6, '0'), to_char((i % 9973) / 100.0, 'FM00.00'),
                 left(repeat(md5(i::text) || ' ', 10), 373 - 71 - length(i::text)) FROM generate_series(1, 100000) i;
             ANALYZE products;",
        )
        .await
        .expect("the table");
}

pub fn config(url: &str) -> String {
    format!(
        "[server]\nlisten = \"127.0.0.1:${{PORT}}\"\nadmin_listen = \"127.0.0.1:${{ADMIN_PORT}}\"\n\
         [postgres]\nurl = \"{url}\"\n[defaults]\nttl = \"1h\"\n\
         [queries.product]\nsql = \"SELECT * FROM products WHERE id = :id\"\nresult = \"row\"\n\
         [queries.slow]\nsql = \"SELECT p.* FROM products p, (SELECT pg_sleep(0.05) OFFSET 0) s WHERE id = :id + 4242\"\nresult = \"row\"\n"
    )
}

/// What one run of wrk and the system say.
pub struct Run {
    pub per_second: f64,
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

const SCRIPT: &str = "local n = 0\nrequest = function() n = n % 100 + 1; return wrk.format('GET', prefix .. n) end\n\
    init = function(args) prefix = args[1] end\n\
    done = function(s, l) io.write(string.format('%d %d %f %f\\n', s.requests, s.duration, l:percentile(50), l:percentile(99))) end\n";

pub fn wrk(server: &Child, prefix: &str, connections: u32, seconds: u32) -> Run {
    let script = std::env::temp_dir().join(format!("seawall-bench-{}.lua", std::process::id()));
    std::fs::write(&script, SCRIPT).expect("written");
    let before = server.cpu();
    let out = Command::new("taskset")
        .args(["-c", LOAD_CPU, "wrk", "-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
        .arg(&script)
        .arg(format!("http://127.0.0.1:{}", server.port()))
        .args(["--", prefix])
        .output()
        .expect("wrk");
    std::fs::remove_file(&script).expect("removed");
    let cpu = server.cpu() - before;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().last().unwrap_or_default();
    let figures: Vec<f64> = line.split(' ').filter_map(|f| f.parse().ok()).collect();
    let [requests, micros, p50_us, p99_us] = figures[..] else { panic!("wrk said: {text}") };
    Run { per_second: requests / micros * 1e6, cpu_us: cpu / requests * 1e6, p50_us, p99_us }
}

/// One answer's body, on a connection of its own.
async fn get(port: u16, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = vec![];
    stream.read_to_end(&mut answer).await.expect("answered");
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    answer[end + 4..].to_vec()
}

/// Fills the hundred keys and gives the first one's body.
pub async fn warm(port: u16) -> Vec<u8> {
    for id in 2..=100 {
        get(port, &format!("/v1/queries/product?id={id}")).await;
    }
    get(port, "/v1/queries/product?id=1").await
}

pub async fn statements(admin_port: u16, query: &str) -> u64 {
    let text = String::from_utf8(get(admin_port, "/metrics").await).expect("UTF-8");
    let series = format!("seawall_db_queries_total{{query=\"{query}\"}} ");
    text.lines().find_map(|l| l.strip_prefix(&series)).expect("the series").parse().expect("a count")
}

/// Opens all connections, then sends one request on each at once; milliseconds, sorted.
pub async fn stampede(port: u16, path: &str, n: usize) -> Vec<f64> {
    let mut streams = vec![];
    for _ in 0..n {
        streams.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("a connection"));
    }
    let request = format!("GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n");
    let mut begun = vec![];
    for stream in &mut streams {
        begun.push(Instant::now());
        stream.write_all(request.as_bytes()).await.expect("sent");
    }
    let tasks: Vec<_> = streams
        .into_iter()
        .zip(begun)
        .map(|(mut stream, begun)| {
            tokio::spawn(async move {
                let mut answer = vec![];
                stream.read_to_end(&mut answer).await.expect("answered");
                assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
                begun.elapsed().as_secs_f64() * 1e3
            })
        })
        .collect();
    let mut latencies = vec![];
    for task in tasks {
        latencies.push(task.await.expect("no panic"));
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// Each id once, over a few keep-alive connections.
pub async fn sweep(port: u16, keys: usize) {
    const LANES: usize = 16;
    let lanes: Vec<_> = (0..LANES)
        .map(|lane| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("a connection");
                let mut buffer = vec![0u8; 4096];
                for id in (lane + 1..=keys).step_by(LANES) {
                    let request = format!("GET /v1/queries/product?id={id} HTTP/1.1\r\nHost: bench\r\n\r\n");
                    stream.write_all(request.as_bytes()).await.expect("sent");
                    let mut read = 0;
                    // The body's last byte is the last of the answer: an object's brace.
                    while read == 0 || buffer[read - 1] != b'}' {
                        read += stream.read(&mut buffer[read..]).await.expect("answered");
                    }
                }
            })
        })
        .collect();
    for lane in lanes {
        lane.await.expect("no panic");
    }
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
