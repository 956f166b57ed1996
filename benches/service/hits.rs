//! What does a hit cost, beside a bare hyper server that sends the same bytes?
//!
//! Server CPU per request is the figure to compare: it moves less than throughput does, and on a fast machine the load
//! generator is what is saturated.

use super::client::{self, Connection};
use super::process::Child;
use super::report::{grouped, median, table};
use super::shop::{self, Shop};
use super::wrk::{self, Run, Target};

/// Interleaved runs.
const RUNS: usize = 5;
/// Seconds of load in each.
const SECONDS: u32 = 3;
const CONNECTIONS: u32 = 64;
const KEYS: u32 = 100;

/// An API token, and its digest among those of others.
const TOKEN: &str = "5f0c2a1d8e7b49360c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f40516273";
const AUTH: &str = "[auth.tokens.other]\nsha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\"\n\
    [auth.tokens.bench]\nqueries = [\"product\"]\nsha256 = \"371c4553498851f90f5c838fce243a774b59868742ecf4e2d340da800920654d\"\n";

/// Answers of a hundred rows, which pay to be packed.
const PAGE: &str =
    "[queries.page]\nsql = \"SELECT * FROM products WHERE id > :id * 100 AND id <= :id * 100 + 100 ORDER BY id\"\n";
const PAGES: &str = "/v1/queries/page?id=";
const ZSTD: &str = "Accept-Encoding: zstd";

pub async fn ask(shop: &Shop) -> String {
    format!("{}\n{}", small(shop).await, packed(shop).await)
}

async fn small(shop: &Shop) -> String {
    let seawall = Child::seawall(&shop.config(shop::PRODUCT)).await;
    client::sweep(seawall.port(), 1..KEYS + 1, |id| format!("/v1/queries/product?id={id}")).await;
    let with_token = Child::seawall(&shop.config(&format!("{}{AUTH}", shop::PRODUCT))).await;
    let body = Connection::open(seawall.port()).await.get("/v1/queries/product?id=1").await;
    let bare = Child::bare(&shop.file("body"), &body).await;
    let target = |prefix: &str| Target { prefix: prefix.into(), keys: KEYS, suffix: String::new(), field: None };
    let with = |target: Target| Target { field: Some(format!("Authorization: Bearer {TOKEN}")), ..target };
    let mut servers = [
        ("Seawall", &seawall, target("/v1/queries/product?id="), vec![]),
        ("Seawall, and the client sends a token", &seawall, with(target("/v1/queries/product?id=")), vec![]),
        ("Seawall, which asks for the token", &with_token, with(target("/v1/queries/product?id=")), vec![]),
        ("bare hyper, same bytes, one header", &bare, target("/products/"), vec![]),
    ];
    format!(
        "{CONNECTIONS} keep-alive connections, {} bytes of body, {KEYS} keys, {RUNS} interleaved runs of {SECONDS} s, medians.\n\n{}",
        body.len(),
        measured(&mut servers)
    )
}

/// The same for long answers, as they are and packed.
async fn packed(shop: &Shop) -> String {
    let seawall = Child::seawall(&shop.config(PAGE)).await;
    let plain = Connection::open(seawall.port()).await.get(&format!("{PAGES}1")).await.len();
    // Each is packed once; the first round asks for it, and the last one gets it.
    let mut connection = Connection::open(seawall.port()).await;
    let request = |id: u32| format!("GET {PAGES}{id} HTTP/1.1\r\nHost: bench\r\n{ZSTD}\r\n\r\n");
    let mut packed = 0;
    for id in (1..=KEYS).chain([1]) {
        connection.send(&request(id)).await;
        packed = connection.receive().await.len();
        while packed >= plain {
            connection.send(&request(id)).await;
            packed = connection.receive().await.len();
        }
    }
    let target = Target { prefix: PAGES.into(), keys: KEYS, suffix: String::new(), field: None };
    let zstd = Target { field: Some(ZSTD.into()), ..target.clone() };
    let mut servers =
        [("Seawall", &seawall, target, vec![]), ("Seawall, and the client takes zstd", &seawall, zstd, vec![])];
    format!("The same with {} bytes of body, which are {} as zstd.\n\n{}", plain, packed, measured(&mut servers))
}

/// Runs of each in turns, as a table.
fn measured(servers: &mut [(&str, &Child, Target, Vec<Run>)]) -> String {
    for _ in 0..RUNS {
        for (_, server, target, runs) in &mut *servers {
            runs.push(wrk::run(server, target, CONNECTIONS, SECONDS));
        }
    }
    let rows = servers.iter().map(|(name, _, _, runs)| {
        let of = |figure: fn(&Run) -> f64| median(runs.iter().map(figure));
        vec![
            (*name).to_owned(),
            grouped(of(|r| r.per_second)),
            format!("{:.2}", of(|r| r.cpu_us)),
            format!("{:.0}", of(|r| r.p50_us)),
            format!("{:.0}", of(|r| r.p99_us)),
        ]
    });
    table(&["server", "requests/s", "server CPU, µs/request", "p50, µs", "p99, µs"], rows)
}
