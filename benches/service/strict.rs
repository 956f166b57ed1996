//! What does it cost to read as consistently as from the primary?
//!
//! A query with `consistency = "strict"`, one key: every answer waits for a poll that was sent after its request arrived, and all
//! that wait share one. First one client that asks again and again, whose wait is a probe of its own; then many at a fixed rate.
//! Postgres counts the probes.

use tokio::time::{Duration, Instant};

use super::client::{Connection, request};
use super::expiry::{client, milliseconds};
use super::process::Child;
use super::report::{grouped, quantile, table};
use super::shop::{self, Shop};

const CLIENTS: u32 = 200;
const RATES: [u32; 2] = [1_000, 5_000];
const LENGTH: Duration = Duration::from_secs(5);
/// Of the lone client.
const REQUESTS: usize = 3_000;

pub async fn ask(shop: &Shop) -> String {
    let query = shop::PRODUCT.replace("result =", "consistency = \"strict\"\nresult =");
    let seawall = Child::seawall(&shop.config(&query)).await;
    let path = "/v1/queries/product?id=1";
    let database = shop::connect(shop.url()).await;
    let probes = async || {
        let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements WHERE query LIKE '%AS unseen%'";
        database.query_one(sql, &[]).await.expect("a count").get::<_, i64>(0)
    };
    let mut lone = Connection::open(seawall.port()).await;
    lone.get(path).await;
    let (mut took, counted, begun) = (vec![], probes().await, Instant::now());
    for _ in 0..REQUESTS {
        let asked = Instant::now();
        lone.get(path).await;
        took.push((Duration::ZERO, asked.elapsed()));
    }
    let row = |name: String, took: &[f64], probes: f64| {
        vec![
            name,
            format!("{:.2}", quantile(took, 0.5)),
            format!("{:.2}", quantile(took, 0.99)),
            format!("{:.2}", quantile(took, 1.0)),
            grouped(probes),
        ]
    };
    let elapsed = begun.elapsed().as_secs_f64();
    let name = format!("one client, {}", grouped(REQUESTS as f64 / elapsed));
    let mut rows = vec![row(name, &milliseconds(took.iter()), (probes().await - counted) as f64 / elapsed)];
    for rate in RATES {
        let mut connections = vec![];
        for _ in 0..CLIENTS {
            connections.push(Connection::open(seawall.port()).await);
        }
        let (counted, begun) = (probes().await, Instant::now());
        let every = Duration::from_secs(1) * CLIENTS / rate;
        let clients: Vec<_> = (0..CLIENTS)
            .zip(connections)
            .map(|(n, c)| tokio::spawn(client(c, request(path), begun, every * n / CLIENTS, every, LENGTH)))
            .collect();
        let mut requests = vec![];
        for client in clients {
            requests.extend(client.await.expect("no panic"));
        }
        let elapsed = begun.elapsed().as_secs_f64();
        let name = format!("{CLIENTS} clients, {}", grouped(requests.len() as f64 / elapsed));
        rows.push(row(name, &milliseconds(requests.iter()), (probes().await - counted) as f64 / elapsed));
    }
    table(&["strict requests/s", "p50, ms", "p99, ms", "slowest, ms", "probes/s in Postgres"], rows.into_iter())
}
