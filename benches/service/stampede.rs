//! What do thousands of requests at once for one cold key cost Postgres, and how long do they wait?
//!
//! The floor is the query itself and the sending of that many requests.

use std::time::Instant;

use super::client::{self, Connection, request};
use super::process::Child;
use super::report::{grouped, median, quantile};
use super::shop::{self, SLOW_SECONDS, Shop};

/// The first ones are slower.
const RUNS: u32 = 15;
/// Requests at once.
const REQUESTS: u32 = 2_000;
/// The same with several pods, over all of them.
const REQUESTS_TO_PODS: u32 = 3_000;
const PODS: usize = 3;

pub async fn ask(shop: &Shop) -> String {
    let alone = of_one(shop).await;
    format!("{alone}\n{}", of_pods(shop).await)
}

/// One pod, and three that share by a Redis; all of them have one core in all.
async fn of_pods(shop: &Shop) -> String {
    let query = format!("[queries.slow]\nsql = \"{}\"\nresult = \"row\"\n", shop::slow_sql(":id"));
    let redis = Child::redis().await;
    let mut lines = vec![];
    let mut medians = vec![];
    for pods in [1, PODS] {
        let shared = match pods {
            1 => String::new(),
            _ => format!("[redis]\nurl = \"redis://127.0.0.1:{}\"\n", redis.port()),
        };
        let config = shop.config(&format!("{shared}{query}"));
        let mut children = vec![];
        for _ in 0..pods {
            children.push(Child::seawall(&config).await);
        }
        let ports: Vec<u16> = children.iter().map(Child::port).collect();
        let statements = async || {
            let mut sum = 0;
            for child in &children {
                sum += client::statements(child.admin_port(), "slow").await;
            }
            sum
        };
        // With a connection to Postgres at hand.
        for &port in &ports {
            stampede(&[port], "/v1/queries/slow?id=99", 10).await;
        }
        let (mut p99, mut sent) = (vec![], vec![]);
        for id in 1..=RUNS {
            let before = statements().await;
            let path = format!("/v1/queries/slow?id={}", 1_000 * u32::try_from(pods).unwrap_or(0) + id);
            p99.push(quantile(&stampede(&ports, &path, REQUESTS_TO_PODS).await, 0.99));
            sent.push(statements().await - before);
        }
        medians.push(median(p99));
        let last = medians[medians.len() - 1];
        lines.push(format!("{pods}: {} a run, median of p99 {last:.0} ms", of_a_run(&sent)));
    }
    format!(
        "{} requests at once for such a key, {RUNS} runs, spread over pods that share by a Redis, all of them on one core: {} \
         ({:.2} times).\n",
        grouped(REQUESTS_TO_PODS),
        lines.join("; "),
        medians[1] / medians[0]
    )
}

async fn of_one(shop: &Shop) -> String {
    let sql = shop::slow_sql(":id");
    let config = shop.config(&format!("[queries.slow]\nsql = \"{sql}\"\nresult = \"row\"\n"));
    let seawall = Child::seawall(&config).await;
    let (mut p50, mut p99, mut statements) = (vec![], vec![], vec![]);
    for id in 1..=RUNS {
        let before = client::statements(seawall.admin_port(), "slow").await;
        let latencies = stampede(&[seawall.port()], &format!("/v1/queries/slow?id={id}"), REQUESTS).await;
        statements.push(client::statements(seawall.admin_port(), "slow").await - before);
        p50.push(quantile(&latencies, 0.5));
        p99.push(quantile(&latencies, 0.99));
    }
    format!(
        "{} requests at once for one cold key whose query takes {:.0} ms, {RUNS} runs: {} a run; \
         medians of p50 {:.0} ms and of p99 {:.0} ms.\n",
        grouped(REQUESTS),
        SLOW_SECONDS * 1e3,
        of_a_run(&statements),
        median(p50),
        median(p99)
    )
}

/// How many statements a run took, or from how many to how many.
fn of_a_run(statements: &[u64]) -> String {
    match (statements.iter().min(), statements.iter().max()) {
        (Some(1), Some(1)) => "1 statement".to_owned(),
        (Some(least), Some(most)) if least == most => format!("{most} statements"),
        (least, most) => format!("{} to {} statements", least.unwrap_or(&0), most.unwrap_or(&0)),
    }
}

/// Opens all connections, then sends one request on each at once; milliseconds, sorted.
async fn stampede(ports: &[u16], path: &str, requests: u32) -> Vec<f64> {
    let mut connections = vec![];
    for (_, &port) in (0..requests).zip(ports.iter().cycle()) {
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
