//! Nonsense gets a 4xx that names what is wrong, reaches no database, and leaves nothing behind.

use std::time::Duration;

use super::support::client::{self, get, post, raw, request};
use super::support::eventually::eventually;
use super::support::service::{TestService, plan};
use super::support::{TestDatabase, database};
use seawall::http::listener::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TOML: &str = "[queries.product]\nsql = \"SELECT id, name FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
    [queries.named]\nsql = \"SELECT id FROM shop.products WHERE name = :name AND id = ANY(:ids)\"\n\
    params = { name = { required = false, max_length = 10 } }\n";

async fn service(database: &TestDatabase) -> TestService {
    plan(&database.url, TOML).start().await
}

/// The parameters that a problem names, in its order.
fn named(answer: &client::Answer) -> Vec<String> {
    answer.json()["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .map(|e| {
            assert!(!e["detail"].as_str().expect("a detail").is_empty(), "{e}");
            assert!(!e["hint"].as_str().expect("a hint").is_empty(), "{e}");
            e["param"].as_str().expect("a name").to_owned()
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_parameter_is_named_and_nothing_reaches_the_database() {
    let database = database().await;
    let service = service(&database).await;
    let q = service.queries;
    for (path, bad) in [
        ("/v1/queries/product", vec!["id"]),
        ("/v1/queries/product?id=abc", vec!["id"]),
        ("/v1/queries/product?id=99999999999", vec!["id"]),
        ("/v1/queries/product?id=", vec!["id"]),
        ("/v1/queries/product?id=1&id=2", vec!["id"]),
        ("/v1/queries/product?id=1&idd=2", vec!["idd"]),
        ("/v1/queries/product?id=%00", vec!["id"]),
        ("/v1/queries/product?id=%FF", vec!["id"]),
        ("/v1/queries/product?id=%zz", vec!["id"]),
        ("/v1/queries/product?id=4%202", vec!["id"]),
        ("/v1/queries/named?ids=[1,2&name=a%00b&x=1", vec!["ids", "name", "x"]),
        ("/v1/queries/named?ids=[1,null,%22x%22]&name=12345678901", vec!["ids", "name"]),
    ] {
        let answer = get(q, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{path}: {answer:?}");
        assert_eq!(named(&answer), bad, "{path}");
    }
    for (body, bad) in [
        ("{\"id\":\"abc\"}", vec!["id"]),
        ("{\"id\":1,\"id\":2}", vec!["id"]),
        ("{\"id\":1.5}", vec!["id"]),
        ("{\"id\":null}", vec!["id"]),
        ("{\"nope\":1}", vec!["nope", "id"]),
        ("[1]", vec![""]),
        ("{\"id\":1", vec![""]),
        ("", vec![""]),
    ] {
        let answer = post(q, "/v1/queries/product", body).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{body}: {answer:?}");
        assert_eq!(named(&answer), bad, "{body}");
    }
    let answer =
        request(q, "POST", "/v1/queries/product", &[("Content-Type", "application/json")], b"{\"id\":\"\xff\"}").await;
    assert_eq!(answer.code(), "bad_parameter");
    assert_eq!(database.statements_like("%__seawall_row%").await, 0);
    assert_eq!(service.metric("seawall_db_queries_total{query=\"product\"}").await, 0.0);
    assert_eq!(service.metric("seawall_requests_total{outcome=\"rejected\",query=\"product\"}").await, 19.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_are_no_queries_get_the_status_that_says_so() {
    let database = database().await;
    let service = service(&database).await;
    let q = service.queries;
    let json = [("Content-Type", "application/json")];
    let long = format!("/v1/queries/product?id={}", "1".repeat(9_000));
    for (method, path, headers, status, code) in [
        ("GET", "/nope", &[][..], 404, "unknown_path"),
        ("GET", "/v1/queries/nope?id=1", &[], 404, "unknown_query"),
        ("GET", "/v1/queries/", &[], 404, "unknown_query"),
        ("GET", "/v1/queries/../x", &[], 404, "unknown_query"),
        ("GET", "/v1/queries/product/?id=1", &[], 404, "unknown_query"),
        ("GET", "/v1/queries/PRODUCT?id=1", &[], 404, "unknown_query"),
        ("DELETE", "/v1/queries/product?id=1", &[], 405, "method_not_allowed"),
        ("BREW", "/v1/queries/product?id=1", &[], 405, "method_not_allowed"),
        ("POST", "/v1/queries", &json, 405, "method_not_allowed"),
        ("GET", "/v1/queries/product?id=1", &[("Accept", "text/html")], 406, "not_acceptable"),
        ("POST", "/v1/queries/product", &[("Content-Type", "text/plain")], 415, "not_json"),
        ("GET", &long, &[], 414, "uri_too_long"),
    ] {
        let answer = request(q, method, path, headers, if method == "POST" { b"{}" } else { b"" }).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path:.60}");
        assert_eq!(answer.header("allow").is_some(), status == 405, "{method} {path:.60}");
    }
    assert_eq!(database.statements_like("%__seawall_row%").await, 0);
    let unknown = service.metric("seawall_requests_total{outcome=\"rejected\",query=\"_unknown\"}").await;
    assert_eq!(unknown, 6.0, "names that clients make up never become series");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_read_gets_a_problem_document_too() {
    let database = database().await;
    let service = service(&database).await;
    let q = service.queries;
    let many = (0..200).map(|n| format!("X-{n}: y\r\n")).collect::<Vec<_>>().concat();
    let huge = format!("X-Huge: {}\r\n", "y".repeat(64 * 1024));
    for (bytes, status, code) in [
        (b"GET /v1/queries/product?id=\x001 HTTP/1.1\r\nHost: test\r\n\r\n".to_vec(), 400, "bad_request"),
        (b"nonsense\r\n\r\n".to_vec(), 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: test\r\nBad Header: x\r\n\r\n".to_vec(), 400, "bad_request"),
        (
            format!("GET /v1/queries/product?id=1 HTTP/1.1\r\nHost: test\r\n{many}\r\n").into_bytes(),
            431,
            "headers_too_large",
        ),
        (
            format!("GET /v1/queries/product?id=1 HTTP/1.1\r\nHost: test\r\n{huge}\r\n").into_bytes(),
            431,
            "headers_too_large",
        ),
    ] {
        let shown: String = String::from_utf8_lossy(&bytes).chars().take(50).collect();
        let answer = raw(q, &bytes).await;
        let answer = client::parse(&answer).unwrap_or_else(|| panic!("no answer to {shown:?}"));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{shown:?}");
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()), "{shown:?}");
    }
    let unknown = service.metric("seawall_requests_total{outcome=\"rejected\",query=\"_unknown\"}").await;
    assert_eq!(unknown, 5.0);
    assert_eq!(get(q, "/v1/queries/product?id=1").await.status, 200, "and the service goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_refused_at_its_bound_and_not_below() {
    let database = database().await;
    let service = service(&database).await;
    let q = service.queries;
    let limit = 64 * 1024;
    let padded = |bytes: usize| format!("{{\"id\":1{}}}", " ".repeat(bytes - 8)).into_bytes();
    let json = [("Content-Type", "application/json")];
    let fits = request(q, "POST", "/v1/queries/product", &json, &padded(limit)).await;
    assert_eq!(fits.status, 200, "{fits:?}");
    let over = request(q, "POST", "/v1/queries/product", &json, &padded(limit + 1)).await;
    assert_eq!((over.status, over.code().as_str()), (413, "body_too_large"));
    // 10 MB announced: refused before it is sent.
    let head = b"POST /v1/queries/product HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 10000000\r\n\r\n";
    let answer = client::parse(&raw(q, head).await).expect("an answer without the body");
    assert_eq!(answer.code(), "body_too_large");
    // 10 MB in chunks, of unknown length: refused at the bound.
    let mut chunked =
        b"POST /v1/queries/product HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            .to_vec();
    for _ in 0..1_000 {
        chunked.extend_from_slice(format!("2710\r\n{}\r\n", " ".repeat(10_000)).as_bytes());
    }
    let answer = client::parse(&raw(q, &chunked).await).expect("an answer");
    assert_eq!(answer.code(), "body_too_large");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_and_silence_is_closed_and_costs_nothing_that_lasts() {
    let database = database().await;
    let mut plan = plan(&database.url, TOML);
    plan.limits = Some(Limits { max_connections: 100, head_timeout: Duration::from_millis(300) });
    let service = plan.start().await;
    let mut silent = TcpStream::connect(service.queries).await.expect("a connection");
    silent.write_all(b"GET /v1/queries/product?id=1 HTTP/1.1\r\nHo").await.expect("sent");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), silent.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection is closed");
    eventually("nothing is left", Duration::from_secs(5), async || {
        let in_flight = service.metric("seawall_requests_in_flight").await;
        if in_flight.abs() < 0.1 { Ok(()) } else { Err(format!("{in_flight} in flight")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_too_many_is_told_why_and_a_place_comes_back() {
    let database = database().await;
    let mut plan = plan(&database.url, TOML);
    plan.limits = Some(Limits { max_connections: 2, head_timeout: Duration::from_secs(60) });
    let service = plan.start().await;
    let held = [
        TcpStream::connect(service.queries).await.expect("a connection"),
        TcpStream::connect(service.queries).await.expect("a connection"),
    ];
    let refused = client::parse(&raw(service.queries, b"").await).expect("an answer without a request");
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(service.metric("seawall_refused_total{reason=\"connections\"}").await, 1.0);
    drop(held);
    eventually("a place is free", Duration::from_secs(5), async || {
        match get(service.queries, "/v1/queries/product?id=1").await.status {
            200 => Ok(()),
            status => Err(format!("status {status}")),
        }
    })
    .await;
}
