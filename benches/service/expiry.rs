//! What do users and Postgres notice of an expiry, under a steady load on one key?
//!
//! A naive cache ([`super::naive`]) beside Seawall with `stale_while_revalidate`: the same query, the same ttl, as many
//! connections to Postgres, runs in turns. The load is open: each client sends at its moments, and a request whose client
//! still waited for the one before counts from the moment it was due, so that nobody's waiting hides anybody else's.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use super::client::{Connection, request};
use super::process::Child;
use super::report::{Report, grouped, median, quantile, sorted, table};
use super::shop::{self, SLOW_SECONDS, Shop};

/// How long an answer is fresh, on both sides.
pub const TTL: Duration = Duration::from_secs(3);
/// Clients, each with a connection.
pub const CLIENTS: u32 = 200;
/// Requests per second, of all clients: as many as make each client meet the expiry while the query runs.
pub const RATE: u32 = 4_000;
/// Of load, from the fill on: one expiry on each side. The naive cache fills until a second after the expiry.
const LENGTH: Duration = Duration::from_millis(5_500);
/// Of time, in which statements and requests are counted.
pub const BUCKET: Duration = Duration::from_millis(100);
const RUNS: u32 = 3;

/// One bucket of one run.
pub struct Bucket {
    pub server: String,
    pub run: u32,
    pub at_ms: f64,
    /// That Postgres says it has ended, and how many a second that is.
    pub statements: f64,
    pub statements_per_second: f64,
    /// Of requests due in it.
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// The file of the raw figures.
pub const CSV: &str = "expiry.csv";
const COLUMNS: &str = "server,run,at_ms,statements,statements_per_second,p50_ms,p99_ms";

impl Bucket {
    fn write(&self) -> String {
        let Self { server, run, at_ms, statements, statements_per_second, p50_ms, p99_ms } = self;
        format!("{server},{run},{at_ms:.0},{statements},{statements_per_second:.1},{p50_ms:.3},{p99_ms:.3}")
    }

    /// What [`CSV`] holds.
    pub fn read_all(text: &str) -> Vec<Self> {
        let read = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            let number = |n: usize| fields[n].parse().expect("a number");
            Self {
                server: fields[0].into(),
                run: fields[1].parse().expect("a number"),
                at_ms: number(2),
                statements: number(3),
                statements_per_second: number(4),
                p50_ms: number(5),
                p99_ms: number(6),
            }
        };
        text.lines().skip(1).map(read).collect()
    }
}

/// A run as a client saw it, and Postgres.
struct Run {
    /// When each request was due, since the fill, and what its answer took from then on.
    requests: Vec<(Duration, Duration)>,
    /// Readings of Postgres's count: when, since the fill, and how many statements had ended since.
    statements: Vec<(Duration, i64)>,
}

pub async fn ask(shop: &Shop, report: &Report) -> String {
    let queries = format!(
        "[queries.expiring]\nsql = \"{}\"\nresult = \"row\"\nttl = \"{}ms\"\njitter = 0\n\
         stale_while_revalidate = \"10s\"\nearly_refresh = 0\n",
        shop::slow_sql(":id"),
        TTL.as_millis()
    );
    let seawall = Child::seawall(&shop.config(&queries)).await;
    let naive = Child::naive(shop.url()).await;
    let servers = [("naive", &naive, "/?id="), ("Seawall", &seawall, "/v1/queries/expiring?id=")];
    let mut rows = vec![vec![]; servers.len()];
    let mut csv = vec![COLUMNS.to_owned()];
    for run in 1..=RUNS {
        for ((name, server, prefix), rows) in servers.iter().zip(&mut rows) {
            let ran = load(shop, server.port(), format!("{prefix}{run}")).await;
            rows.push(summary(&ran));
            csv.extend(buckets(name, run, &ran).iter().map(Bucket::write));
        }
    }
    report.write(CSV, &(csv.join("\n") + "\n"));
    let rows = servers.iter().zip(rows).map(|((name, ..), runs)| {
        let of = |n: usize| median(runs.iter().map(|summary| summary[n]));
        vec![
            (*name).to_owned(),
            format!("{:.0}", of(0)),
            format!("{:.2}", of(1)),
            format!("{:.1}", of(2)),
            grouped(of(3)),
        ]
    });
    let head = ["server", "statements", "p50, ms", "slowest answer, ms", "answers over 10 ms"];
    format!(
        "{} requests/s by {CLIENTS} clients for one key, whose query takes {:.0} ms and whose ttl of {:.0} s ends \
         once; {:.1} s of load, medians of {RUNS} interleaved runs.\n\n{}",
        grouped(RATE),
        SLOW_SECONDS * 1e3,
        TTL.as_secs_f64(),
        LENGTH.as_secs_f64(),
        table(&head, rows)
    )
}

/// Fills the key, then loads it.
async fn load(shop: &Shop, port: u16, path: String) -> Run {
    let database = shop::connect(shop.url()).await;
    let count = async || {
        let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE query LIKE $1";
        database.query_one(sql, &[&"%pg_sleep%"]).await.expect("a count").get::<_, i64>(0)
    };
    let mut connections = vec![];
    for _ in 0..CLIENTS {
        connections.push(Connection::open(port).await);
    }
    connections[0].get(&path).await;
    let filled = Instant::now();
    let counted = count().await;

    let request = request(&path);
    let every = Duration::from_secs(1) * CLIENTS / RATE;
    let clients: Vec<_> = (0..CLIENTS)
        .zip(connections)
        .map(|(n, connection)| {
            tokio::spawn(client(connection, request.clone(), filled, every * n / CLIENTS, every, LENGTH))
        })
        .collect();
    let mut statements = vec![];
    let mut ticks = interval_at(filled + BUCKET, BUCKET);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while filled.elapsed() < LENGTH {
        ticks.tick().await;
        let counted_now = count().await;
        statements.push((filled.elapsed(), counted_now - counted));
    }
    let mut requests = vec![];
    for client in clients {
        requests.extend(client.await.expect("no panic"));
    }
    Run { requests, statements }
}

/// One client's requests for so long: when each was due since `begun`, and what its answer took from then on.
pub async fn client(
    mut connection: Connection,
    request: String,
    begun: Instant,
    first: Duration,
    every: Duration,
    length: Duration,
) -> Vec<(Duration, Duration)> {
    let mut requests = vec![];
    let mut due = first;
    let mut late = false;
    while due < length {
        sleep_until(begun + due).await;
        // A timer wakes up to a millisecond after its moment, which is not the server's.
        let from = if late { begun + due } else { Instant::now() };
        connection.send(&request).await;
        connection.receive().await;
        requests.push((due, from.elapsed()));
        due += every;
        late = begun.elapsed() > due;
    }
    requests
}

pub fn milliseconds<'a>(requests: impl Iterator<Item = &'a (Duration, Duration)>) -> Vec<f64> {
    sorted(requests.map(|(_, took)| took.as_secs_f64() * 1e3))
}

/// Statements, p50 and maximum in milliseconds, answers over 10 ms.
fn summary(run: &Run) -> [f64; 4] {
    let took = milliseconds(run.requests.iter());
    let statements = run.statements.last().map_or(0, |(_, n)| *n);
    let slow = took.iter().filter(|ms| **ms > 10.0).count();
    [statements as f64, quantile(&took, 0.5), quantile(&took, 1.0), slow as f64]
}

fn buckets(server: &str, run: u32, ran: &Run) -> Vec<Bucket> {
    let mut buckets = vec![];
    let (mut before, mut seen) = (Duration::ZERO, 0);
    for &(at, count) in &ran.statements {
        let within = before..at;
        let took = milliseconds(ran.requests.iter().filter(|(due, _)| within.contains(due)));
        if !took.is_empty() {
            buckets.push(Bucket {
                server: server.into(),
                run,
                at_ms: before.as_secs_f64() * 1e3,
                statements: (count - seen) as f64,
                statements_per_second: (count - seen) as f64 / at.saturating_sub(before).as_secs_f64(),
                p50_ms: quantile(&took, 0.5),
                p99_ms: quantile(&took, 0.99),
            });
        }
        (before, seen) = (at, count);
    }
    buckets
}
