//! Pods as compose has them, with the balancer and Prometheus by the files that are shipped, as processes on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::support::chaos::{Chaos, Mode};
use super::super::support::eventually::eventually;
use super::super::support::http::{Client, Response};
use super::super::support::pod::Pod;
use super::super::support::ports;
use super::super::support::redis::TestRedis;
use super::super::support::service::{migrate, plan, text};
use super::super::support::{Gate, TestDatabase, database};
use super::read;

const WITHIN: Duration = Duration::from_secs(30);

/// A process that ends with us.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(program: &str, words: &[String]) -> Process {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; `make tools` installs it")))
}

/// Three pods that share a Redis, and the balancer before them.
struct Balanced {
    pods: Vec<Pod>,
    /// The balancer's.
    address: SocketAddr,
    dir: TempDir,
    _nginx: Process,
    _redis: TestRedis,
}

impl Balanced {
    /// Pods that reach the database at `url`, with `more` queries.
    async fn start(database: &TestDatabase, url: &str, more: &str) -> Self {
        let redis = TestRedis::start().await;
        let queries = "[invalidation]\nsource = \"log\"\n[queries.product]\n\
            sql = \"SELECT id, price FROM shop.products WHERE id = :id\"\nresult = \"row\"\n";
        let config = format!("{}{queries}{more}", redis.section(""));
        migrate(&plan(&database.url, &config)).await;
        let config = format!("drain_delay = \"1s\"\n{}", text(url, &config));
        let pods = join_all((0..3).map(|_| Pod::start(&config, None))).await;

        let dir = tempfile::tempdir().expect("a directory");
        let nginx = ports::free();
        let mut balancer = read("balancer/nginx.conf")
            .replace("listen 8080", &format!("listen 127.0.0.1:{nginx}"))
            .replace("/tmp/", &format!("{}/", dir.path().display()))
            .replace("/dev/stderr", &dir.path().join("error.log").display().to_string());
        for (pod, n) in pods.iter().zip(1..) {
            balancer = balancer.replace(&format!("pod-{n}:8080"), &pod.queries.to_string());
        }
        let file = dir.path().join("nginx.conf");
        std::fs::write(&file, balancer).expect("written");
        let (file, home) = (file.display().to_string(), dir.path().display().to_string());
        let words = ["-c", &file, "-p", &home, "-g", "daemon off;"].map(str::to_owned);
        let process = spawn("/usr/sbin/nginx", &words);
        let address = (Ipv4Addr::LOCALHOST, nginx).into();
        eventually("the balancer answers", WITHIN, async || {
            match Client::new(address).get("/v1/queries/product?id=1").await {
                Ok(answer) if answer.status == 200 => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(error) => Err(error.to_string()),
            }
        })
        .await;
        Self { pods, address, dir, _nginx: process, _redis: redis }
    }

    /// Prometheus, which looks at the pods each second; and where it listens.
    fn watched(&self) -> (Process, SocketAddr) {
        let port = ports::free();
        let mut scraped = read("prometheus/prometheus.yml").replace("5s", "1s");
        for (pod, n) in self.pods.iter().zip(1..) {
            scraped = scraped.replace(&format!("pod-{n}:9090"), &pod.admin.to_string());
        }
        let write = |name: &str, text: &str| std::fs::write(self.dir.path().join(name), text).expect("written");
        write("alerts.yml", &read("prometheus/alerts.yml"));
        write("prometheus.yml", &scraped);
        let home = self.dir.path().display().to_string();
        let words = [
            format!("--config.file={home}/prometheus.yml"),
            format!("--storage.tsdb.path={home}/data"),
            format!("--web.listen-address=127.0.0.1:{port}"),
        ];
        (spawn("prometheus", &words), (Ipv4Addr::LOCALHOST, port).into())
    }

    /// Hits of each pod.
    async fn hits(&self) -> Vec<f64> {
        let series = "seawall_requests_total{outcome=\"hit\",query=\"product\"}";
        join_all(self.pods.iter().map(|pod| pod.metric(series))).await
    }
}

/// By GET and by POST, in turns: pods keep the same answer for both.
async fn ask(client: &mut Client, id: u64, by_post: bool) -> Response {
    let answer = if by_post {
        let fields = "Content-Type: application/json\r\n";
        client.send("POST", "/v1/queries/product", fields, &format!("{{\"id\": {id}}}")).await
    } else {
        client.get(&format!("/v1/queries/product?id={id}")).await
    };
    answer.expect("an answer")
}

/// What Prometheus says, in HTTP/1.0, which knows no chunks.
async fn api(prometheus: SocketAddr, what: &str) -> Result<Value, String> {
    let mut stream = TcpStream::connect(prometheus).await.map_err(|error| error.to_string())?;
    let request = format!("GET /api/v1/{what} HTTP/1.0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(|error| error.to_string())?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no head")?;
    serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_told_to_stop_loses_no_request_and_prometheus_sees_all() {
    let database = database().await;
    let mut balanced = Balanced::start(&database, &database.url, "").await;
    let (address, (_prometheus, prometheus)) = (balanced.address, balanced.watched());
    let load: Vec<_> = (0..8_u32)
        .map(|n| {
            tokio::spawn(async move {
                let mut client = Client::new(address);
                for id in (1..=200).cycle().skip(n as usize * 25) {
                    let answer = ask(&mut client, id, n.is_multiple_of(2)).await;
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            })
        })
        .collect();
    eventually("every pod is asked", WITHIN, async || {
        let counts = balanced.hits().await;
        if counts.iter().all(|&n| n > 100.0) { Ok(()) } else { Err(counts) }
    })
    .await;

    eventually("Prometheus sees every pod", WITHIN, async || {
        let said = api(prometheus, "targets").await?;
        let targets = said["data"]["activeTargets"].as_array().ok_or("no targets")?;
        let up = targets.iter().filter(|target| target["health"] == "up").count();
        if up == 3 { Ok(()) } else { Err(said.to_string()) }
    })
    .await;
    eventually("every rule is evaluated", WITHIN, async || {
        let said = api(prometheus, "rules").await?;
        let rules = said["data"]["groups"][0]["rules"].as_array().ok_or("no rules")?;
        let good = rules.iter().filter(|rule| rule["health"] == "ok" && rule["state"] != "firing").count();
        if rules.len() > 10 && good == rules.len() { Ok(()) } else { Err(said.to_string()) }
    })
    .await;

    // SIGTERM; it drains and ends, and nobody notices.
    let mut going = balanced.pods.remove(0);
    going.terminates().await;
    let before = balanced.hits().await;
    eventually("the others go on", WITHIN, async || {
        let now = balanced.hits().await;
        if now.iter().zip(&before).all(|(now, before)| now - before > 500.0) { Ok(()) } else { Err(now) }
    })
    .await;
    for one in load {
        assert!(!one.is_finished(), "no request failed");
        one.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_a_pod_dies_over_is_answered_by_another() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let held = format!("[queries.held]\nsql = \"SELECT 7 AS n FROM {} AS gate\"\ntimeout = \"20s\"\n", gate.sql());
    let mut balanced = Balanced::start(&database, &database.url, &held).await;
    let address = balanced.address;
    let asked: Vec<_> = (0..6)
        .map(|_| {
            tokio::spawn(async move {
                let fields = "Content-Type: application/json\r\n";
                Client::new(address).send("POST", "/v1/queries/held", fields, "{}").await.expect("an answer")
            })
        })
        .collect();
    eventually("each pod has some of them", WITHIN, async || {
        let waiting = join_all(balanced.pods.iter().map(|pod| pod.metric("seawall_waiters"))).await;
        if waiting.iter().all(|&n| n >= 1.0) && waiting.iter().sum::<f64>() == 6.0 { Ok(()) } else { Err(waiting) }
    })
    .await;
    drop(balanced.pods.remove(0));
    gate.open().await;
    for one in asked {
        let answer = one.await.expect("no panic");
        assert_eq!((answer.status, answer.text()), (200, "[{\"n\":7}]".to_owned()));
    }
}

/// Questions that pods have answers to.
const KEPT: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_postgres_is_away_misses_take_no_pod_and_so_no_hit_out_of_the_balancer() {
    let database = database().await;
    let port = database.url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port");
    let proxy = Chaos::before(port.parse().expect("a port"));
    let url = database.url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port));
    let balanced = Balanced::start(&database, &url, "").await;
    let address = balanced.address;
    let mut client = Client::new(address);
    for id in 1..=KEPT {
        assert_eq!(ask(&mut client, id, false).await.status, 200);
    }

    proxy.set(Mode::Away).await;
    let refused = Arc::new(AtomicU64::new(0));
    let load = (0..8).map(|n: u64| {
        let refused = Arc::clone(&refused);
        tokio::spawn(async move {
            let mut client = Client::new(address);
            for round in 0..100 {
                let hit = ask(&mut client, 1 + (n + round) % KEPT, n.is_multiple_of(2)).await;
                assert_eq!(hit.status, 200, "{}", hit.text());
                // Of the pod itself: the balancer's own errors are pages.
                let miss = ask(&mut client, 1_000 + 100 * n + round, n.is_multiple_of(2)).await;
                assert_eq!(miss.header("content-type"), Some("application/problem+json"), "{}", miss.text());
                assert_eq!(miss.status, 503, "{}", miss.text());
                refused.fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    for one in join_all(load).await {
        one.expect("every hit is given, and every miss is refused by a pod");
    }
    assert_eq!(refused.load(Ordering::Relaxed), 800);
    for (pod, hits) in balanced.pods.iter().zip(balanced.hits().await) {
        assert!(hits >= 50.0, "{}: {hits} hits: it was left alone", pod.queries);
    }
}
