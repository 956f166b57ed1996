//! Clients who ask for everything, in every way, at random.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, interval};

use super::http::{Client, Request};
use super::tally::{Tally, seen};

/// Every query's `timeout`; the one that nobody waits for has a longer one.
pub const TIMEOUT: Duration = Duration::from_millis(1500);

/// What a busy machine may add to a deadline: clients, service and Postgres share its cores.
const SLACK: Duration = Duration::from_secs(4);

/// Products in the sample shop; the clients ask for a few more than there are.
const PRODUCTS: u32 = 2_000;

/// Keys of the answer of 128 kB: three times what the store holds.
const BIG_KEYS: u32 = 200;

/// Length of its body, quotes included.
pub const BIG: usize = 128_002;

/// The queries, over the functions of [`FUNCTIONS`]. Each has a name in its SQL that Postgres's statistics keep.
pub fn toml() -> String {
    let sleeping = |name: &str, seconds: f64| {
        format!("SELECT :n::int4 AS soak_{name}_q FROM (SELECT pg_sleep({seconds}) OFFSET 0) AS slept")
    };
    [
        ("row", "row", "SELECT id, name, price AS soak_row_q FROM shop.products WHERE id = :id".to_owned(), ""),
        (
            "rows",
            "rows",
            "SELECT id, name AS soak_rows_q FROM shop.products WHERE id BETWEEN :id AND :id + 50 ORDER BY id"
                .to_owned(),
            "",
        ),
        ("big", "value", "SELECT repeat(md5((:n::int4)::text), 4000) AS soak_big_q".to_owned(), "ttl = \"2s\"\n"),
        ("slow", "value", sleeping("slow", 0.08), ""),
        ("hanging", "value", sleeping("hanging", 600.0), "max_fills = 2\n"),
        ("failing", "value", "SELECT shop.fails(:n) AS soak_failing_q".to_owned(), ""),
        ("picky", "value", "SELECT 1 / :n::int4 AS soak_picky_q".to_owned(), ""),
        (
            "bare",
            "value",
            "SELECT :n::int4 AS soak_bare_q".to_owned(),
            "ttl = \"100ms\"\nstale_while_revalidate = \"0s\"\nstale_if_error = \"0s\"\n",
        ),
        ("left", "value", sleeping("left", 600.0), "max_fills = 2\ntimeout = \"60s\"\n"),
    ]
    .map(|(name, form, sql, more)| format!("[queries.{name}]\nsql = \"{sql}\"\nresult = \"{form}\"\n{more}"))
    .concat()
}

/// What the queries need.
pub const FUNCTIONS: &str = "CREATE FUNCTION shop.fails(n int) RETURNS int LANGUAGE plpgsql STABLE AS \
    'BEGIN IF n % 2 = 1 THEN RAISE EXCEPTION ''no''; END IF; RETURN n; END'";

/// Which requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Those whose statements end in Postgres in an answer.
    Answers,
    /// All.
    Everything,
}

/// What a client does next.
struct Step {
    query: &'static str,
    request: Request,
    /// What a 200 must look like.
    looks: Looks,
}

enum Looks {
    Anyhow,
    /// It has this product.
    Product(u32),
    Bytes(usize),
    Number(u32),
}

/// `count` clients until `stop`, each with its own share of the seed's chance.
pub async fn run(address: SocketAddr, mix: Mix, count: u64, rng: &mut Rng, stop: &Arc<AtomicBool>) -> Tally {
    let clients: Vec<_> =
        (0..count).map(|_| tokio::spawn(client(address, mix, Rng::with_seed(rng.u64(..)), Arc::clone(stop)))).collect();
    let mut all = Tally::default();
    for client in clients {
        all.add(&client.await.expect("every answer is as it should be"));
    }
    all
}

async fn client(address: SocketAddr, mix: Mix, mut rng: Rng, stop: Arc<AtomicBool>) -> Tally {
    let (mut client, mut tally) = (Client::new(address), Tally::default());
    let mut etag = None;
    let mut ticks = interval(Duration::from_millis(rng.u64(5..25)));
    while !stop.load(Ordering::Acquire) {
        ticks.tick().await;
        if mix == Mix::Everything && rng.u8(..100) < 3 {
            let request = Request::get(format!("/v1/queries/left?n={}", rng.u32(..20)));
            client.leave(&request, Duration::from_millis(rng.u64(..60))).await;
            tally.left("left");
            continue;
        }
        let mut step = next(mix, &mut rng);
        let asks_again = step.query == "row" && rng.u8(..100) < 20;
        if let Some(etag) = etag.clone().filter(|_| asks_again) {
            step.request.headers.push(("If-None-Match", etag));
        }
        let asked = Instant::now();
        let answer = client.ask(&step.request, TIMEOUT + SLACK).await;
        check(&step, answer.status, &answer.body);
        if step.query == "row" && answer.status == 200 {
            etag = answer.header("etag").map(ToOwned::to_owned);
        }
        tally.answered(step.query, seen(&answer), asked.elapsed());
    }
    tally
}

fn check(step: &Step, status: u16, body: &[u8]) {
    let text = || String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
    let path = &step.request.path;
    assert!([200, 304, 400, 404, 405, 500, 503, 504].contains(&status), "{path}: {status} {}", text());
    if status != 200 || step.request.method == "HEAD" {
        return;
    }
    let right = match step.looks {
        Looks::Anyhow => serde_json::from_slice::<serde_json::Value>(body).is_ok(),
        Looks::Product(id) => body.starts_with(format!("{{\"id\":{id},").as_bytes()) && body.ends_with(b"}"),
        Looks::Bytes(n) => body.len() == n && body.starts_with(b"\"") && body.ends_with(b"\""),
        Looks::Number(n) => body == n.to_string().as_bytes(),
    };
    assert!(right, "{path} got {}", text());
}

fn next(mix: Mix, rng: &mut Rng) -> Step {
    let (query, id, looks) = match rng.u8(..100) {
        // The lower of two: some products are asked for more than others.
        ..50 => {
            let id = 1 + rng.u32(..PRODUCTS + 20).min(rng.u32(..PRODUCTS + 20));
            ("row", ("id", id), Looks::Product(id))
        }
        50..60 => ("rows", ("id", 1 + rng.u32(..40) * 50), Looks::Anyhow),
        60..70 => ("big", ("n", rng.u32(..BIG_KEYS)), Looks::Bytes(BIG)),
        70..82 => {
            let n = rng.u32(..20);
            ("slow", ("n", n), Looks::Number(n))
        }
        82..88 => {
            let n = rng.u32(..1000);
            ("bare", ("n", n), Looks::Number(n))
        }
        88..90 => ("picky", ("n", 1), Looks::Number(1)),
        _ if mix == Mix::Answers => ("picky", ("n", 1), Looks::Number(1)),
        90..93 => ("hanging", ("n", rng.u32(..4)), Looks::Anyhow),
        93..96 => {
            let n = rng.u32(..10);
            ("failing", ("n", n), Looks::Number(n))
        }
        96..98 => ("picky", ("n", 0), Looks::Anyhow),
        _ => return mistake(rng),
    };
    let (name, value) = id;
    let mut request = match rng.u8(..10) {
        ..2 => Request {
            method: "POST",
            path: format!("/v1/queries/{query}"),
            headers: vec![("Content-Type", "application/json".to_owned())],
            body: format!("{{\"{name}\": {value}}}").into_bytes(),
        },
        2 => Request { method: "HEAD", ..Request::get(format!("/v1/queries/{query}?{name}={value}")) },
        _ => Request::get(format!("/v1/queries/{query}?{name}={value}")),
    };
    let directive = match rng.u8(..100) {
        ..4 => Some("no-cache".to_owned()),
        4..8 => Some(format!("max-age={}", rng.u8(..3))),
        8..12 => Some("max-stale".to_owned()),
        12..14 => Some("only-if-cached".to_owned()),
        _ => None,
    };
    request.headers.extend(directive.map(|directive| ("Cache-Control", directive)));
    Step { query, request, looks }
}

/// The client's own.
fn mistake(rng: &mut Rng) -> Step {
    let (query, request) = match rng.u8(..4) {
        0 => ("_unknown", Request::get("/v1/queries/nobody_has_declared_this".to_owned())),
        1 => ("row", Request::get("/v1/queries/row?id=many".to_owned())),
        2 => ("row", Request::get("/v1/queries/row".to_owned())),
        _ => ("row", Request { method: "DELETE", ..Request::get("/v1/queries/row?id=1".to_owned()) }),
    };
    Step { query, request, looks: Looks::Anyhow }
}
