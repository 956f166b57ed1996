//! What does a hit cost beside a bare hyper server, and how long does a stampede take?
//!
//! `make bench` runs it: the service on one core, the load generator (wrk) and Postgres on another, in interleaved runs,
//! so that a slow spell of the machine hits both servers alike. Server CPU per request is the figure to compare: it moves
//! less than throughput does. The report goes to standard output and to `target/bench/report.md`.

mod bare;
mod load;
mod process;

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use process::Child;
use seawall::postgres::embedded::{Embedded, EmbeddedOptions};

/// Interleaved runs; the report has medians.
const RUNS: usize = 5;
/// Seconds of load in each.
const SECONDS: u32 = 3;
const CONNECTIONS: u32 = 64;
/// Requests at once for one cold key.
const STAMPEDE: usize = 2_000;
const KEYS: usize = 100_000;

fn main() {
    if let Ok(port) = std::env::var(bare::PORT_VARIABLE) {
        return bare::serve(port.parse().expect("a port"));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run());
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("report.md"), &report).expect("written");
    println!("{report}");
}

async fn run() -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let postgres = Embedded::start(EmbeddedOptions::default()).await.expect("a Postgres");
    let url = postgres.url("postgres");
    load::fill_table(&url).await;
    let config = dir.path().join("config.toml");
    fs::write(&config, load::config(&url)).expect("written");

    let mut report = String::from("# Bench\n\n");
    let mut rows: Vec<(&str, Vec<load::Run>)> = vec![("seawall", vec![]), ("bare hyper, same bytes", vec![])];
    let seawall = Child::seawall(&config).await;
    let body = load::warm(seawall.port()).await;
    let bare = Child::bare(&dir.path().join("body"), &body).await;
    for _ in 0..RUNS {
        rows[0].1.push(load::wrk(&seawall, "/v1/queries/product?id=", CONNECTIONS, SECONDS));
        rows[1].1.push(load::wrk(&bare, "/products/", CONNECTIONS, SECONDS));
    }
    let _ = writeln!(
        report,
        "## Hits\n\n{CONNECTIONS} keep-alive connections, {} bytes of body, 100 keys, {RUNS} interleaved runs of {SECONDS} s, medians.\n",
        body.len()
    );
    let _ = writeln!(
        report,
        "| server | requests/s | server CPU, us/request | p50 us | p99 us |\n|---|---:|---:|---:|---:|"
    );
    for (name, runs) in &rows {
        let median = |f: fn(&load::Run) -> f64| load::median(runs.iter().map(f).collect());
        let _ = writeln!(
            report,
            "| {name} | {:.0} | {:.2} | {:.0} | {:.0} |",
            median(|r| r.per_second),
            median(|r| r.cpu_us),
            median(|r| r.p50_us),
            median(|r| r.p99_us)
        );
    }
    drop(bare);

    let _ = writeln!(
        report,
        "\n## Stampede\n\n{STAMPEDE} requests at once for one cold key whose query takes 50 ms, {RUNS} runs, medians.\n"
    );
    let mut p50 = vec![];
    let mut p99 = vec![];
    let mut statements = vec![];
    for id in 0..RUNS {
        let before = load::statements(seawall.admin_port(), "slow").await;
        let latencies = load::stampede(seawall.port(), &format!("/v1/queries/slow?id={id}"), STAMPEDE).await;
        statements.push(load::statements(seawall.admin_port(), "slow").await - before);
        p50.push(latencies[latencies.len() / 2]);
        p99.push(latencies[latencies.len() * 99 / 100]);
    }
    let _ = writeln!(
        report,
        "statements in Postgres: {statements:?}; p50 {:.1} ms, p99 {:.1} ms",
        load::median(p50),
        load::median(p99)
    );

    let fresh = Child::seawall(&config).await;
    let _ = load::warm(fresh.port()).await;
    let empty = fresh.memory();
    load::sweep(fresh.port(), KEYS).await;
    let full = fresh.memory();
    let _ = writeln!(
        report,
        "\n## Memory\n\n{KEYS} entries of {}-byte bodies: {:.0} bytes each above the empty service ({} KiB -> {} KiB)",
        body.len(),
        (full - empty) as f64 * 1024.0 / KEYS as f64,
        empty,
        full
    );
    drop((seawall, fresh));
    postgres.stop().await.expect("stopped");
    report
}
