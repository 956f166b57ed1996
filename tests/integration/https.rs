//! The listeners over TLS, asked by curl and by a client of the tests' own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use seawall::tls::{Connector, Trust};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;

use super::support::authority::Authority;
use super::support::client::{get_secure, parse, raw, raw_secure};
use super::support::eventually::eventually;
use super::support::service::{TestService, plan};
use super::support::{TestDatabase, database};

const QUERIES: &str = "[queries.one]\nsql = \"SELECT 1 AS n\"\nresult = \"row\"\n";

async fn secured(authority: &Authority, more: &str) -> (TestService, TestDatabase) {
    authority.put("server", authority.sign(2090));
    let database = database().await;
    let toml = format!("{}{}{QUERIES}", authority.keys("server", more), authority.keys("admin", ""));
    (plan(&database.url, &toml).start().await, database)
}

/// Status and version that curl reports, and what it exits with.
async fn curl(args: &[&str], ca: &Path, at: SocketAddr, path: &str) -> (String, Option<i32>) {
    let url = format!("https://localhost:{}{path}", at.port());
    let output = Command::new("curl")
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--max-time", "30", "--cacert"])
        .arg(ca)
        .args(["--resolve", &format!("localhost:{}:127.0.0.1", at.port())])
        .args(args)
        .arg(url)
        .output()
        .await
        .expect("curl runs; `make tools` installs it");
    println!("curl: {}", String::from_utf8_lossy(&output.stderr));
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_listeners_speak_tls_and_both_versions_of_http_by_alpn() {
    let authority = Authority::new();
    let (service, _database) = secured(&authority, "").await;
    let ca = authority.path("ca.pem");
    for (args, version) in [(vec!["--http2"], "2"), (vec!["--http1.1"], "1.1"), (vec!["--tls-max", "1.2"], "2")] {
        for path in ["/v1/queries/one", "/docs"] {
            let (said, _) = curl(&args, &ca, service.queries, path).await;
            assert_eq!(said, format!("200 {version}"), "{args:?} {path}");
        }
    }
    // axum's server for the admin listener is built for HTTP/1.1.
    for path in ["/metrics", "/livez"] {
        assert_eq!(curl(&["--http1.1"], &ca, service.admin, path).await.0, "200 1.1");
    }
    assert_eq!(curl(&[], Path::new("/etc/ssl/certs/ca-certificates.crt"), service.queries, "/").await.1, Some(60));
    // What hyper refuses by itself is a problem document here, too.
    let answer = raw_secure(service.queries, &authority.connector(), b"no HTTP\r\n\r\n").await.expect("an answer");
    assert_eq!(parse(&answer).expect("an answer").code(), "bad_request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_speaks_no_tls_is_told_so_and_counted() {
    let authority = Authority::new();
    let (service, _database) = secured(&authority, "").await;
    let ended = async |listener: &str, outcome: &str| {
        service.metric(&format!("seawall_tls_handshakes_total{{listener=\"{listener}\",outcome=\"{outcome}\"}}")).await
    };
    for (listener, address) in [("queries", service.queries), ("admin", service.admin)] {
        let before =
            [ended(listener, "plaintext").await, ended(listener, "failed").await, ended(listener, "silent").await];
        let answer = raw(address, b"GET /v1/queries/one HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = parse(&answer).expect("HTTP in kind");
        assert!(answer.code() == "bad_request" && answer.text().contains("https://"), "{answer:?}");
        drop(TcpStream::connect(address).await.expect("a connection"));
        // A record that begins a handshake, and is none.
        raw(address, b"\x16\x03\x01\x00\x05hello").await;
        eventually("each is counted", Duration::from_secs(10), async || {
            let now =
                [ended(listener, "plaintext").await, ended(listener, "failed").await, ended(listener, "silent").await];
            let more: Vec<f64> = now.iter().zip(before).map(|(now, before)| now - before).collect();
            if more == [1.0, 1.0, 1.0] { Ok(()) } else { Err(more) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_show_a_certificate_where_one_is_asked_for() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (good, other) = (authority.put("client", authority.sign(2090)), stranger.put("client", stranger.sign(2090)));
    let ca = authority.path("ca.pem");
    let (service, _database) = secured(&authority, &format!("tls_client_ca = \"{}\"", ca.display())).await;
    let ask = async |identity: Option<&(PathBuf, PathBuf)>| {
        let identity = identity.map(|(cert, key)| (&**cert, &**key));
        let connector = Connector::new(Trust::Authorities(&ca), identity).expect("fit");
        get_secure(service.queries, &connector, "/v1/queries/one").await.map(|answer| answer.status)
    };
    assert_eq!(ask(Some(&good)).await.expect("let in"), 200);
    assert!(ask(None).await.is_err(), "without");
    assert!(ask(Some(&other)).await.is_err(), "another authority's");
    // The command that containers check their health with.
    let health = async |args: &[&str]| {
        let url = format!("https://localhost:{}/livez", service.queries.port());
        let ended =
            Command::new(env!("CARGO_BIN_EXE_seawall")).args(["health", "--url", &url]).args(args).output().await;
        ended.expect("it runs").status.code()
    };
    let [ca, cert, key] = [&ca, &good.0, &good.1].map(|path| path.to_str().expect("UTF-8"));
    assert_eq!(health(&["--ca", ca, "--cert", cert, "--key", key]).await, Some(0));
    assert_eq!(health(&["--insecure", "--cert", cert, "--key", key]).await, Some(0));
    assert_eq!(health(&["--ca", ca]).await, Some(1), "no certificate to show");
    assert_eq!(health(&["--cert", cert, "--key", key]).await, Some(1), "the platform trusts another");
    assert_eq!(health(&["--ca", "/nowhere"]).await, Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_replaced_under_load_and_never_taken_half() {
    let authority = Authority::new();
    let (service, _database) = secured(&authority, "").await;
    let expiry =
        async || service.metric("seawall_tls_certificate_expiry_timestamp_seconds{listener=\"queries\"}").await;
    let success = async || service.metric("seawall_tls_reload_success{listener=\"queries\"}").await;
    let first = expiry().await;
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (connector, over, address) = (authority.connector(), Arc::clone(&over), service.queries);
            tokio::spawn(async move {
                let mut asked = 0;
                while !over.load(Ordering::Relaxed) {
                    let answer = get_secure(address, &connector, "/v1/queries/one").await.expect("never refused");
                    assert_eq!(answer.status, 200);
                    asked += 1;
                }
                asked
            })
        })
        .collect();
    // One that stays is served to its end with what it began with.
    let stream = TcpStream::connect(service.queries).await.expect("a connection");
    let mut stays = authority.connector().connect("localhost", stream).await.expect("a handshake");

    let (cert, key) = authority.sign(2091);
    std::fs::write(authority.path("server.crt"), &cert).expect("written");
    eventually("that they don't fit is noticed", Duration::from_secs(20), async || {
        if success().await == 0.0 { Ok(()) } else { Err(()) }
    })
    .await;
    assert_eq!(expiry().await, first, "the present one stays");
    std::fs::write(authority.path("server.key"), &key[..key.len() / 2]).expect("written");
    let is_next = async || if success().await == 1.0 && expiry().await > first { Ok(()) } else { Err(expiry().await) };
    std::fs::write(authority.path("server.key"), &key).expect("written");
    eventually("the whole pair is in force", Duration::from_secs(20), is_next).await;
    let connector = authority.connector();
    let now = get_secure(service.queries, &connector, "/v1/queries/one").await.expect("let in");
    assert_eq!(now.status, 200);

    stays.write_all(b"GET /v1/queries/one HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut answer = vec![];
    stays.read_to_end(&mut answer).await.expect("an answer");
    assert_eq!(parse(&answer).expect("an answer").status, 200);
    over.store(true, Ordering::Relaxed);
    let mut asked = 0;
    for client in clients {
        asked += client.await.expect("no request failed");
    }
    assert!(asked >= 20, "{asked} were asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_never_end_hold_nobody_else_up_and_count_as_connections() {
    let authority = Authority::new();
    let (service, _database) = secured(&authority, "max_connections = 21").await;
    let mut idle = vec![];
    for _ in 0..20 {
        idle.push(TcpStream::connect(service.queries).await.expect("a connection"));
    }
    let connector = authority.connector();
    let ask = async || get_secure(service.queries, &connector, "/v1/queries/one").await.map(|answer| answer.status);
    assert_eq!(ask().await.expect("there is a place"), 200);
    idle.push(TcpStream::connect(service.queries).await.expect("a connection"));
    eventually("all places are taken", Duration::from_secs(10), async || match ask().await {
        Err(_) => Ok(()),
        Ok(status) => Err(status),
    })
    .await;
    assert!(service.metric("seawall_refused_total{reason=\"connections\"}").await >= 1.0);
    idle.clear();
    eventually("they are free again", Duration::from_secs(10), async || match ask().await {
        Ok(200) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
