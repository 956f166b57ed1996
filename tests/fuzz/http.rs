//! Bytes on a connection to a whole service: none stops it, hangs it, or is answered as if it had failed.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::cases;
use super::support::client::get;
use super::support::database;
use super::support::service::{TestService, plan};

/// A connection whose client has said all that it will is answered and closed sooner.
const WITHIN: Duration = Duration::from_secs(20);

const QUERIES: &str = "\
[cors]\norigins = [\"*\"]\n\
[queries.product]\nsql = \"SELECT id, name FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
[queries.listed]\nsql = \"SELECT id, name FROM shop.products WHERE id = ANY(:ids::int4[]) AND name <> :name ORDER BY id\"\n\
params.ids = { default = [1, 2] }\nparams.name = { required = false }\nrequest_cache_control = \"bounded\"\n";

/// What the threads are called that the service runs on.
const WORKERS: &str = "a worker of the service";

/// Panics of tasks, which the runtime keeps to itself.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // A test's own thread panics where a case fails, and proptest catches that.
            if std::thread::current().name() == Some(WORKERS) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            usual(info);
        }));
    });
}

fn piece(of: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        12 => select(of).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..12),
    ]
}

fn target() -> impl Strategy<Value = Vec<u8>> {
    let path = piece(&[
        "/v1/queries/product",
        "/v1/queries/listed",
        "/v1/queries/none",
        "/v1/queries/",
        "/v1/queries",
        "/openapi.json",
        "/docs",
        "/problems/no_row",
        "/readyz",
        "/",
        "//",
        "*",
        "/v1/queries/product/",
        "/v1/queries/%70roduct",
        "http://x/v1/queries/product",
        "/../v1/queries/product",
        "/metrics",
        "/reload",
        "x:80",
    ]);
    let query = vec(
        piece(&[
            "?",
            "id=1",
            "&",
            "id=",
            "=",
            "id=0",
            "id=2147483648",
            "ids=1",
            "ids=[1,2]",
            "ids={}",
            "name=x",
            "name=%00",
            "name=%ff",
            "%",
            "%zz",
            "#",
            "é",
            "+",
            "\\",
            "\"",
            ";",
            "id=%31",
            "&&",
            "unknown=1",
        ]),
        0..6,
    );
    let made = (path, query).prop_map(|(path, query)| [path, query.concat()].concat());
    let good = piece(&[
        "/v1/queries/product?id=1",
        "/v1/queries/product?id=%31",
        "/v1/queries/listed",
        "/v1/queries/listed?ids=1",
    ]);
    prop_oneof![4 => made, 1 => good]
}

fn field() -> impl Strategy<Value = Vec<u8>> {
    let name = piece(&[
        "Host",
        "Content-Type",
        "Content-Length",
        "Transfer-Encoding",
        "Accept",
        "Accept-Encoding",
        "If-None-Match",
        "Cache-Control",
        "Seawall-Debug",
        "Seawall-After",
        "Authorization",
        "Connection",
        "Expect",
        "Upgrade",
        "HTTP2-Settings",
        "traceparent",
        "Origin",
        "Access-Control-Request-Method",
        "TE",
        "Range",
        "Cookie",
        "X",
    ]);
    let value = piece(&[
        "x",
        "",
        "application/json",
        "application/json; charset=latin1",
        "0",
        "1",
        "8",
        "99999999999999999999",
        "-1",
        "chunked",
        "gzip, chunked",
        "identity",
        "*/*",
        "text/html",
        "gzip;q=0.-, br;q=1..5, zstd;q=9",
        "*;q=",
        "\"x\"",
        "W/\"",
        "*",
        ",,,",
        "no-cache",
        "max-age=",
        "max-age=99999999999999999999, max-stale=\"1\"",
        "no-transform",
        "keep-alive",
        "close",
        "upgrade, HTTP2-Settings",
        "h2c",
        "100-continue",
        "Bearer x",
        "1",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-0-0-0",
        "elsewhere:5",
        ":",
        "a/b:x",
        "https://a.example",
        "null",
        "bytes=0-1",
        "\t x \t",
        "\u{80}",
    ]);
    (name, prop_oneof![9 => Just(&b": "[..]), 1 => select(vec![&b":"[..], b" : ", b"", b"\r\n "])], value)
        .prop_map(|(name, colon, value)| [&name, colon, &value].concat())
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let method = piece(&["GET", "GET", "HEAD", "POST", "POST", "OPTIONS", "PUT", "CONNECT", "PRI", "get", "", "G\tT"]);
    let version =
        piece(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "http/1.1", "HTTP/1.1 x", ""]);
    let end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n\r\n")];
    let body = prop_oneof![
        3 => Just(vec![]),
        2 => select(vec!["{\"id\":1}", "{\"id\":", "[]", "{\"id\":1,\"id\":1}", "{\"ids\":[1,null,\"x\"],\"name\":null}", "null", "8\r\n{\"id\":1}\r\n0\r\n\r\n", "fffffffffffffffff\r\n", "-1\r\n", "0\r\nX: y\r\n\r\n"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..40),
    ];
    // A length that fits, most of the time.
    (method, target(), version, vec(field(), 0..6), end, body, prop::bool::weighted(0.7)).prop_map(
        |(method, target, version, mut fields, end, body, fits)| {
            if fits {
                fields.push(format!("Host: test{end}Content-Length: {}", body.len()).into_bytes());
            }
            let mut bytes = [&method[..], b" ", &target, b" ", &version, end.as_bytes()].concat();
            for field in fields {
                bytes.extend(field);
                bytes.extend(end.as_bytes());
            }
            bytes.extend(end.as_bytes());
            bytes.extend(body);
            bytes
        },
    )
}

/// Several on one connection, some of them harmed on their way.
fn requests() -> impl Strategy<Value = Vec<u8>> {
    let harm = prop_oneof![3 => Just(None), 1 => (any::<u16>(), any::<u8>(), 0..3_u8).prop_map(Some)];
    (vec(request(), 1..4), harm).prop_map(|(requests, harm)| {
        let mut bytes = requests.concat();
        if let Some((at, byte, what)) = harm {
            let at = usize::from(at) % bytes.len();
            match what {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

/// Frames of HTTP/2 after its preface, well-formed in their lengths or not.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    // A GET in HPACK's static table, with a literal path.
    let get = [&[0x82, 0x86, 0x04, 0x18][..], b"/v1/queries/product?id=1", &[0x41, 0x01, b'x']].concat();
    let payload = prop_oneof![vec(any::<u8>(), 0..40), Just(get.clone())];
    let frame = (
        0..12_u8,
        any::<u8>(),
        prop_oneof![Just(0_u32), Just(1), Just(3), any::<u32>()],
        payload,
        prop::bool::weighted(0.9),
    )
        .prop_map(|(kind, flags, stream, payload, honest)| {
            let length = if honest { u32::try_from(payload.len()).expect("short") } else { 0x00ff_ffff };
            let mut bytes = length.to_be_bytes()[1..].to_vec();
            bytes.extend([kind, flags]);
            bytes.extend(stream.to_be_bytes());
            bytes.extend(payload);
            bytes
        });
    // HEADERS that end their stream and themselves: a whole request.
    let whole = select(vec![1_u8, 3, 5]).prop_map(move |stream| {
        let length = u8::try_from(get.len()).expect("short");
        [&[0, 0, length, 1, 5, 0, 0, 0, stream], &get[..]].concat()
    });
    vec(prop_oneof![3 => frame.boxed(), 1 => whole.boxed()], 0..6).prop_map(|frames| {
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &frames.concat()].concat()
    })
}

/// What comes back for `bytes` on a connection of their own, until the service closes it.
async fn answers(service: &TestService, bytes: &[u8]) -> Result<Vec<u8>, TestCaseError> {
    let mut stream = TcpStream::connect(service.queries).await.expect("a connection");
    // It may have been refused and closed before everything was sent.
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut said = vec![];
    match tokio::time::timeout(WITHIN, stream.read_to_end(&mut said)).await {
        // A reset after an answer: what was left was not read.
        Ok(_) => Ok(said),
        Err(_) => Err(TestCaseError::fail(format!("it hangs, having said {:?}", String::from_utf8_lossy(&said)))),
    }
}

fn whole(
    check: &impl AsyncFn(&TestService, Vec<u8>) -> Result<(), TestCaseError>,
    strategy: impl Strategy<Value = Vec<u8>>,
    reaches: &[(&str, &str)],
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(WORKERS)
        .enable_all()
        .build()
        .expect("a runtime");
    count_panics();
    let (service, _database) = runtime.block_on(async {
        let database = database().await;
        let service = plan(&database.url, QUERIES).start().await;
        // Who has said all that it will may be taken for gone, and a fill that nobody waits for is given up: hits are there
        // to be reached.
        for path in ["/v1/queries/product?id=1", "/v1/queries/listed"] {
            assert_eq!(get(service.queries, path).await.status, 200);
        }
        (service, database)
    });
    let mut runner = TestRunner::new(cases(5_000));
    let ran = runner.run(&strategy, |bytes| {
        runtime.block_on(check(&service, bytes))?;
        prop_assert_eq!(PANICS.load(Ordering::Relaxed), 0, "a task of the service panicked");
        Ok(())
    });
    if let Err(error) = ran {
        panic!("{error}");
    }
    // Some were good enough to be answered, and not all.
    for (outcome, query) in reaches {
        let series = format!("seawall_requests_total{{outcome=\"{outcome}\",query=\"{query}\"}}");
        let times = runtime.block_on(service.metric(&series));
        assert!(times > 0.0, "{series}");
    }
    let answer = runtime.block_on(get(service.queries, "/v1/queries/product?id=1"));
    assert_eq!(answer.status, 200, "and the service goes on: {answer:?}");
}

#[test]
fn no_bytes_stop_the_service_or_are_answered_as_its_failure() {
    whole(
        &async |service: &TestService, bytes: Vec<u8>| {
            let said = answers(service, &bytes).await?;
            let text = String::from_utf8_lossy(&said);
            prop_assert!(text.is_empty() || text.starts_with("HTTP/1."), "{:?}", text);
            prop_assert!(!text.contains("HTTP/1.1 5") && !text.contains("HTTP/1.0 5"), "{:?}", text);
            Ok(())
        },
        requests(),
        &[("hit", "product"), ("hit", "listed"), ("rejected", "listed"), ("rejected", "_unknown")],
    );
}

#[test]
fn no_frames_stop_the_service() {
    whole(
        &async |service: &TestService, bytes: Vec<u8>| answers(service, &bytes).await.map(drop),
        frames(),
        &[("hit", "product")],
    );
}
