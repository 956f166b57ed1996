//! What do events cost, and how soon are they in force?
//!
//! Hits of answers that nobody writes to, with a quiet log and with a commit every millisecond to another table, in turns: each
//! event raises the ledger's version, so that every hit certifies anew. Then writes to a row, one at a time, and for each the
//! time from its commit to the first answer that has it, asked for over and over: what a user would see. First one after the
//! other, then each after a pause in which the pod falls asleep, then beside 2,000 commits a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::client::{self, Connection};
use super::process::Child;
use super::report::{grouped, median, quantile, sorted, table};
use super::shop::{self, Shop};
use super::wrk::{self, Target};

const RUNS: usize = 5;
const SECONDS: u32 = 3;
const CONNECTIONS: u32 = 64;
const KEYS: u32 = 100;
/// Between two commits of the noise.
const EVERY: Duration = Duration::from_millis(1);
/// Whose way to the answer is timed, and the pause before each.
const WRITES: [(&str, usize, Duration); 3] = [
    ("one after the other", 500, Duration::ZERO),
    ("after 600 ms without a write: the pod sleeps", 60, Duration::from_millis(600)),
    ("beside 2,000 commits/s", 500, Duration::from_millis(5)),
];
/// Connections that make the noise of the last row, each as often as [`EVERY`].
const WRITERS: usize = 2;

pub async fn ask(shop: &Shop) -> String {
    let database = shop::connect(shop.url()).await;
    database
        .batch_execute("CREATE TABLE noise (id int PRIMARY KEY, n int); INSERT INTO noise VALUES (0, 0), (1, 0)")
        .await
        .expect("a table");
    let queries = format!("{}[queries.noise]\nsql = \"SELECT sum(n) FROM noise\"\nresult = \"value\"\n", shop::PRODUCT);
    let seawall = Child::seawall(&shop.config(&queries)).await;
    client::sweep(seawall.port(), 1..KEYS + 1, |id| format!("/v1/queries/product?id={id}")).await;
    let target = Target { prefix: "/v1/queries/product?id=".into(), keys: KEYS, suffix: String::new(), field: None };
    let (mut quiet, mut noisy) = (vec![], vec![]);
    let (noise, committed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn(write(database, 0, Arc::clone(&noise), Arc::clone(&committed)));
    let mut rates = vec![];
    for _ in 0..RUNS {
        quiet.push(run(&seawall, &target));
        noise.store(true, Ordering::Relaxed);
        let (before, begun) = (committed.load(Ordering::Relaxed), Instant::now());
        noisy.push(run(&seawall, &target));
        rates.push((committed.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64());
        noise.store(false, Ordering::Relaxed);
    }
    let mut writers = vec![writer];
    let rows = [("no event", &quiet), ("commits to another table", &noisy)].map(|(name, runs)| {
        vec![
            name.to_owned(),
            grouped(median(runs.iter().map(|(per_second, _)| *per_second))),
            format!("{:.2}", median(runs.iter().map(|(_, cpu)| *cpu))),
        ]
    });
    let mut visible = vec![];
    for (place, (name, writes, pause)) in WRITES.into_iter().enumerate() {
        if place == WRITES.len() - 1 {
            noise.store(true, Ordering::Relaxed);
            while writers.len() < WRITERS {
                let database = shop::connect(shop.url()).await;
                writers.push(tokio::spawn(write(database, 1, Arc::clone(&noise), Arc::clone(&committed))));
            }
        }
        let (before, begun) = (committed.load(Ordering::Relaxed), Instant::now());
        let took = appears(shop, seawall.port(), writes, pause).await;
        let per_second = (committed.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
        let shown = |q| format!("{:.1}", quantile(&took, q));
        visible.push(vec![name.to_owned(), grouped(per_second), shown(0.5), shown(0.99), shown(1.0)]);
    }
    writers.iter().for_each(tokio::task::JoinHandle::abort);
    format!(
        "{CONNECTIONS} keep-alive connections, {KEYS} keys, {RUNS} interleaved runs of {SECONDS} s, medians; {:.0} commits/s beside \
         the second row, each an event.\n\n{}\nFrom a commit to the first answer that has it, requests \
         included, `poll_interval` 5 ms:\n\n{}",
        median(rates),
        table(&["log", "requests/s", "server CPU, µs/request"], rows.into_iter()),
        table(&["writes", "other commits/s", "p50, ms", "p99, ms", "slowest, ms"], visible.into_iter()),
    )
}

/// Requests a second, and CPU of the server by request.
fn run(seawall: &Child, target: &Target) -> (f64, f64) {
    // The generator is waited for, and the writer must go on.
    let run = tokio::task::block_in_place(|| wrk::run(seawall, target, CONNECTIONS, SECONDS));
    (run.per_second, run.cpu_us)
}

async fn write(database: tokio_postgres::Client, row: i32, noise: Arc<AtomicBool>, committed: Arc<AtomicU64>) {
    let statement = database.prepare("UPDATE noise SET n = n + 1 WHERE id = $1").await.expect("prepared");
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if noise.load(Ordering::Relaxed) {
            database.execute(&statement, &[&row]).await.expect("written");
            committed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Milliseconds from each commit to the first answer that has it, ascending.
async fn appears(shop: &Shop, port: u16, writes: usize, pause: Duration) -> Vec<f64> {
    let database = shop::connect(shop.url()).await;
    let statement = database.prepare("UPDATE products SET price = $1 WHERE id = 1").await.expect("prepared");
    let mut connection = Connection::open(port).await;
    let mut took = vec![];
    for n in 0..writes {
        tokio::time::sleep(pause).await;
        let price = format!("{n}.5");
        database.execute(&statement, &[&price]).await.expect("written");
        let committed = Instant::now();
        let shown = format!("\"price\":\"{price}\"");
        while !String::from_utf8_lossy(&connection.get("/v1/queries/product?id=1").await).contains(&shown) {
            assert!(committed.elapsed() < Duration::from_secs(10), "the write is not in the answer");
        }
        took.push(committed.elapsed().as_secs_f64() * 1e3);
    }
    sorted(took.into_iter())
}
