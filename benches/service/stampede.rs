//! What do thousands of requests at once for one cold key cost Postgres, and how long do they wait?
//!
//! The floor is the query itself and the sending of that many requests.

use std::time::Instant;

use super::client::{self, Connection, request};
use super::process::Child;
use super::report::{grouped, median, quantile};
use super::shop::{self, SLOW_SECONDS, Shop};

const RUNS: u32 = 5;
/// Requests at once.
const REQUESTS: u32 = 2_000;

pub async fn ask(shop: &Shop) -> String {
    let sql = shop::slow_sql(":id");
    let config = shop.config(&format!("[queries.slow]\nsql = \"{sql}\"\nresult = \"row\"\n"));
    let seawall = Child::seawall(&config).await;
    let (mut p50, mut p99, mut statements) = (vec![], vec![], vec![]);
    for id in 1..=RUNS {
        let before = client::statements(seawall.admin_port(), "slow").await;
        let latencies = stampede(seawall.port(), &format!("/v1/queries/slow?id={id}")).await;
        statements.push((client::statements(seawall.admin_port(), "slow").await - before).to_string());
        p50.push(quantile(&latencies, 0.5));
        p99.push(quantile(&latencies, 0.99));
    }
    format!(
        "{} requests at once for one cold key whose query takes {:.0} ms, {RUNS} runs: {} statements; \
         medians of p50 {:.0} ms and of p99 {:.0} ms.\n",
        grouped(REQUESTS),
        SLOW_SECONDS * 1e3,
        statements.join(", "),
        median(p50),
        median(p99)
    )
}

/// Opens all connections, then sends one request on each at once; milliseconds, sorted.
async fn stampede(port: u16, path: &str) -> Vec<f64> {
    let mut connections = vec![];
    for _ in 0..REQUESTS {
        connections.push(Connection::open(port).await);
    }
    let request = request(path);
    let mut begun = vec![];
    for connection in &mut connections {
        begun.push(Instant::now());
        connection.send(&request).await;
    }
    let answers = connections.into_iter().zip(begun).map(|(mut connection, begun)| {
        tokio::spawn(async move {
            connection.receive().await;
            begun.elapsed().as_secs_f64() * 1e3
        })
    });
    let mut latencies = vec![];
    for answer in answers.collect::<Vec<_>>() {
        latencies.push(answer.await.expect("no panic"));
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}
