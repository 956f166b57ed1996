//! Mixed load with random faults, for as long as `SEAWALL_SOAK_SECONDS` says (20 by default; `make soak` takes ten
//! minutes), by the chance of `SEAWALL_SEED`, which is printed.
//!
//! The program runs as its own process between clients of every kind and a Postgres behind a proxy that breaks. Every
//! request gets exactly one answer by its deadline, whole and right or an error; the service's counts agree with what
//! clients saw, and with Postgres's; memory is flat; afterwards nothing is under way.
//!
//! Not covered: a Postgres that crashes (its statistics go with it; `integration/outage.rs` has that), and a seed doesn't
//! bring the same interleaving twice, only the same requests and faults.

#[path = "../support/chaos.rs"]
mod chaos;
#[path = "../support/eventually.rs"]
mod eventually;
mod faults;
mod http;
mod load;
mod service;
mod tally;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use seawall::postgres::embedded::{Embedded, EmbeddedOptions};
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, NoTls};

use chaos::{Chaos, Mode};
use eventually::eventually;
use load::Mix;
use service::{Scrape, Service};
use tally::{OUTCOMES, Tally};

const CLIENTS: u64 = 24;
const POOL: usize = 8;
const WITHIN: Duration = Duration::from_secs(30);

/// The store's bytes; the answers that are asked for are more.
const STORE: u64 = 8 << 20;

/// What the process may grow by between a third of the time and its end, in bytes. By then the store is full and every
/// path has been taken. What may still differ is what happened to be under way at either moment: each of the clients with
/// an answer of 128 kB in the driver's buffer, as a body and in a socket, is 24 * 3 * 128 kB = 9 MB, and as much again
/// for the allocator's slack. A leak of 50 bytes a request is more than this in ten minutes.
const GROWTH: f64 = 18e6;

const POLICY: &str = "\
[cache]\nmax_bytes = \"8MiB\"\nentry_max_bytes = \"1MiB\"\nmax_queued_fills = 64\n\
[defaults]\nttl = \"300ms\"\nstale_while_revalidate = \"500ms\"\nstale_if_error = \"5s\"\ntimeout = \"1500ms\"\n\
error_backoff = \"200ms\"\nmin_refill_interval = \"100ms\"\n";

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap_or_else(|_| panic!("{variable} is a number")))
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// How often statements of `query` have ended in an answer, as Postgres counted them.
async fn counted_by_postgres(admin: &Client, query: &str) -> f64 {
    let sql = "SELECT coalesce(sum(calls), 0)::float8 FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
               WHERE d.datname = current_database() AND query LIKE $1 AND query LIKE '%__seawall_row%' \
               AND query NOT LIKE 'EXPLAIN%'";
    admin.query_one(sql, &[&format!("%soak_{query}_q%")]).await.expect("a count").get(0)
}

async fn nothing_under_way(service: &Service) {
    for gauge in ["seawall_flights", "seawall_waiters", "seawall_requests_in_flight"] {
        service.becomes(gauge, 0.0).await;
    }
    service.becomes("seawall_pool_connections{state=\"busy\"}", 0.0).await;
}

/// Runs clients for `time`, with `meanwhile` beside them.
async fn clients(
    service: &Service,
    mix: Mix,
    time: Duration,
    rng: &mut Rng,
    meanwhile: impl Future<Output = ()>,
) -> Tally {
    let stop = Arc::new(AtomicBool::new(false));
    let address = service.queries;
    let mut own = rng.fork();
    let running = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move { load::run(address, mix, CLIENTS, &mut own, &stop).await }
    });
    let _ = timeout(time, meanwhile).await;
    stop.store(true, Ordering::Release);
    running.await.expect("every request has its outcome")
}

fn queries() -> Vec<&'static str> {
    vec!["row", "rows", "big", "slow", "hanging", "failing", "picky", "bare", "left"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_mixed_load_and_random_faults_every_request_has_one_outcome_and_the_counts_agree() {
    let seconds = number("SEAWALL_SOAK_SECONDS").unwrap_or(20);
    let seed = number("SEAWALL_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("{seconds} s with SEAWALL_SEED={seed}");
    let mut rng = Rng::with_seed(seed);

    let postgres = Embedded::start(EmbeddedOptions::default()).await.expect("tests need a PostgreSQL");
    let (hook, log) = (std::panic::take_hook(), postgres.log_file());
    std::panic::set_hook(Box::new(move |panic| {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let last: Vec<&str> = log.lines().rev().take(20).collect();
        eprintln!("with SEAWALL_SEED={seed}; Postgres said last, backwards:\n{}", last.join("\n"));
        hook(panic);
    }));
    assert!(postgres.has_statements(), "this counts with pg_stat_statements: install PostgreSQL's contrib");
    postgres.load_shop("postgres").await.expect("the shop");
    postgres.statements("postgres", "%").await.expect("the extension");
    let admin = connect(&postgres.url("postgres")).await;
    admin.batch_execute(load::FUNCTIONS).await.expect("the functions");
    let proxy = Chaos::before(postgres.port());
    let url = postgres.url("postgres").replace(&format!(":{}/", postgres.port()), &format!(":{}/", proxy.port));
    let toml = format!("[postgres]\nurl = \"{url}\"\npool_size = {POOL}\n{POLICY}{}", load::toml());
    let service = Service::start(&toml).await;

    // In peace, Postgres's count and ours are the same.
    let third = Duration::from_secs(seconds) / 3;
    let mut seen = clients(&service, Mix::Answers, third, &mut rng, std::future::pending()).await;
    nothing_under_way(&service).await;
    let peace = service.metrics().await;
    for query in queries() {
        let ours = peace.value(&format!("seawall_db_queries_total{{query=\"{query}\"}}"));
        let theirs = counted_by_postgres(&admin, query).await;
        assert_eq!(ours, theirs, "statements of {query}: ours and Postgres's");
    }
    let errors = peace.sum("seawall_requests_total", "outcome=\"error\"");
    let withheld = seen.0.values().filter_map(|row| row.outcomes.get("error")).sum::<u64>();
    assert_eq!(errors, withheld as f64, "only-if-cached and nothing else");
    assert_eq!(seen.differences(|query, outcome| peace.requests(query, outcome)), Vec::<String>::new());
    let warm = peace.value("process_resident_memory_bytes");

    // In faults, what was sent may have got lost on the way, and no more than that.
    let mut made = BTreeMap::new();
    let mut chance = rng.fork();
    let faults = faults::inject(&proxy, &admin, &mut chance, &mut made);
    let begun = Instant::now();
    seen.add(&clients(&service, Mix::Everything, 2 * third, &mut rng, faults).await);
    println!("faults in {:?}: {made:?}", begun.elapsed());
    proxy.set(Mode::Pass).await;

    service.becomes("seawall_origin_breaker", 0.0).await;
    nothing_under_way(&service).await;
    eventually("no connection is left over", WITHIN, async || match proxy.open() {
        0..=POOL => Ok(()),
        open => Err(open),
    })
    .await;
    let end = service.metrics().await;
    print(&seen, &end, &admin).await;
    assert_eq!(seen.differences(|query, outcome| end.requests(query, outcome)), Vec::<String>::new());
    let counted = end.sum("seawall_requests_total", "query=");
    assert_eq!(counted, seen.requests() as f64, "each request exactly once");
    assert_eq!(end.sum("seawall_request_duration_seconds_count", "query="), counted);
    for query in queries() {
        let sent = end.value(&format!("seawall_db_queries_total{{query=\"{query}\"}}"));
        let ended = counted_by_postgres(&admin, query).await;
        let label = format!("query=\"{query}\"");
        let brought =
            end.sum("seawall_refresh_duration_seconds_count", &label) - end.sum("seawall_rebuild_errors_total", &label);
        assert!(brought <= ended && ended <= sent, "{query}: brought {brought}, Postgres {ended}, sent {sent}");
        assert_eq!(
            end.sum("seawall_rebuilds_total", &label),
            end.sum("seawall_refresh_duration_seconds_count", &label),
            "every rebuild of {query} that began has ended"
        );
    }
    assert!(end.value("seawall_store_bytes") <= STORE as f64);
    let grown = end.value("process_resident_memory_bytes") - warm;
    println!("resident: {:.1} MB warm, {:+.1} MB at the end", warm / 1e6, grown / 1e6);
    assert!(grown < GROWTH, "grown by {grown} bytes");
    assert_eq!(service.errors(), "", "no panic, and nothing else that is an error of ours");
}

/// The table at the end.
async fn print(seen: &Tally, end: &Scrape, admin: &Client) {
    println!("{} requests", seen.requests());
    print!("{:>10}", "");
    for outcome in OUTCOMES.iter().chain(&["?", "left", "sent", "ended", "slowest"]) {
        print!("{outcome:>10}");
    }
    println!();
    for (query, row) in &seen.0 {
        print!("{query:>10}");
        for outcome in OUTCOMES {
            print!("{:>10}", row.outcomes.get(outcome).copied().unwrap_or(0));
        }
        let sent = end.value(&format!("seawall_db_queries_total{{query=\"{query}\"}}"));
        let ended = counted_by_postgres(admin, query).await;
        println!("{:>10}{:>10}{sent:>10}{ended:>10}{:>8.2} s", row.hit_or_stale, row.left, row.slowest.as_secs_f64());
    }
}
