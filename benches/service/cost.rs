//! What does the cost of a hit grow with: keys stored, parameters, body size?
//!
//! Each is varied by itself. Server CPU per request is measured under load, the p50 with a single request on its way, where
//! it is the time of one answer and not of a queue. The bodies' sizes have a bare hyper server beside them, since bytes
//! cost something whoever sends them.

use super::client::{self, Connection};
use super::process::Child;
use super::report::{Report, grouped, median, table};
use super::shop::Shop;
use super::wrk::{self, Target};

/// Each adds to those before it.
const KEYS: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
const PARAMS: [u32; 5] = [1, 2, 4, 8, 16];
const BODY_BYTES: [u32; 4] = [100, 1_000, 10_000, 100_000];
/// Where keys are not what is varied.
const FEW_KEYS: u32 = 100;

/// Interleaved runs, of which the median counts.
const RUNS: usize = 3;
const SECONDS: u32 = 2;
const CONNECTIONS: u32 = 64;
/// Of single requests: ten thousand of them are enough for a median.
const SINGLE_SECONDS: u32 = 1;

/// One measured point.
pub struct Point {
    /// What is varied: one of [`VARIED`].
    pub varied: String,
    pub server: String,
    pub value: f64,
    pub cpu_us: f64,
    pub p50_us: f64,
}

/// What is varied, in the order of the report.
pub const VARIED: [&str; 3] = ["keys stored", "parameters", "body, bytes"];
/// The file of the raw figures.
pub const CSV: &str = "cost.csv";
const COLUMNS: &str = "varied;server;value;cpu_us;p50_us";

impl Point {
    fn write(&self) -> String {
        let Self { varied, server, value, cpu_us, p50_us } = self;
        format!("{varied};{server};{value};{cpu_us:.3};{p50_us}")
    }

    /// What [`CSV`] holds.
    pub fn read_all(text: &str) -> Vec<Self> {
        let read = |line: &str| {
            let fields: Vec<&str> = line.split(';').collect();
            let number = |n: usize| fields[n].parse().expect("a number");
            Self {
                varied: fields[0].into(),
                server: fields[1].into(),
                value: number(2),
                cpu_us: number(3),
                p50_us: number(4),
            }
        };
        text.lines().skip(1).map(read).collect()
    }
}

pub async fn ask(shop: &Shop, report: &Report) -> String {
    let seawall = Child::seawall(&shop.config(&queries())).await;
    let mut points = vec![];
    points.extend(parameters(&seawall).await);
    points.extend(bodies(&seawall, shop).await);
    points.extend(keys(&seawall).await);
    let lines: Vec<String> = std::iter::once(COLUMNS.to_owned()).chain(points.iter().map(Point::write)).collect();
    report.write(CSV, &(lines.join("\n") + "\n"));
    section(&points)
}

/// A query for each number of parameters, all with the same body, and one whose body has the size that is asked for.
fn queries() -> String {
    let key = "[queries.key]\nsql = \"SELECT :id::int4 AS id, repeat('x', 80) AS body\"\nresult = \"row\"\n";
    let body = "[queries.body]\nsql = \"SELECT repeat('x', :bytes::int4 - 11) AS body WHERE :id::int4 IS NOT NULL\"\nresult = \"row\"\n";
    let params = PARAMS.map(|params| {
        let all = (1..=params).map(|n| format!(":p{n}::int4")).collect::<Vec<_>>().join(" + ");
        format!("[queries.params{params}]\nsql = \"SELECT repeat('x', 89) AS body WHERE {all} IS NOT NULL\"\nresult = \"row\"\n")
    });
    format!("{key}{body}{}", params.concat())
}

async fn parameters(seawall: &Child) -> Vec<Point> {
    let targets = PARAMS.map(|params| {
        let others = (2..=params).map(|n| format!("&p{n}={}", 1_000 + n)).collect::<Vec<_>>().concat();
        let prefix = format!("/v1/queries/params{params}?p1=");
        (f64::from(params), "Seawall", seawall, Target { prefix, keys: FEW_KEYS, suffix: others, field: None })
    });
    for (.., target) in &targets {
        fill(seawall, target).await;
    }
    measure(VARIED[1], &targets)
}

async fn bodies(seawall: &Child, shop: &Shop) -> Vec<Point> {
    let mut targets = vec![];
    let mut bare = vec![];
    for bytes in BODY_BYTES {
        let prefix = format!("/v1/queries/body?bytes={bytes}&id=");
        let target = Target { prefix, keys: FEW_KEYS, suffix: String::new(), field: None };
        let body = fill(seawall, &target).await;
        assert_eq!(body.len(), bytes as usize);
        bare.push((bytes, Child::bare(&shop.file(&format!("body-{bytes}")), &body).await));
        targets.push((f64::from(bytes), "Seawall", seawall, target));
    }
    for (bytes, server) in &bare {
        let target = Target { prefix: "/".into(), keys: FEW_KEYS, suffix: String::new(), field: None };
        targets.push((f64::from(*bytes), "bare hyper", server, target));
    }
    measure(VARIED[2], &targets)
}

async fn keys(seawall: &Child) -> Vec<Point> {
    let mut points = vec![];
    let mut from = 1;
    for keys in KEYS {
        client::sweep(seawall.port(), from..keys + 1, |id| format!("/v1/queries/key?id={id}")).await;
        from = keys + 1;
        let target = Target { prefix: "/v1/queries/key?id=".into(), keys, suffix: String::new(), field: None };
        let before = client::statements(seawall.admin_port(), "key").await;
        points.extend(measure(VARIED[0], &[(f64::from(keys), "Seawall", seawall, target)]));
        // Else what was measured were not hits, and the store did not hold so many keys.
        assert_eq!(client::statements(seawall.admin_port(), "key").await, before, "all of {keys} keys are hits");
    }
    points
}

/// Stores every key of `target`, and gives the last one's body.
async fn fill(server: &Child, target: &Target) -> Vec<u8> {
    let mut connection = Connection::open(server.port()).await;
    let mut body = vec![];
    for n in 1..=target.keys {
        body = connection.get(&format!("{}{n}{}", target.prefix, target.suffix)).await;
    }
    body
}

fn measure(varied: &str, targets: &[(f64, &str, &Child, Target)]) -> Vec<Point> {
    let mut runs = vec![(vec![], vec![]); targets.len()];
    for _ in 0..RUNS {
        for ((.., server, target), (cpu, p50)) in targets.iter().zip(&mut runs) {
            cpu.push(wrk::run(server, target, CONNECTIONS, SECONDS).cpu_us);
            p50.push(wrk::run(server, target, 1, SINGLE_SECONDS).p50_us);
        }
    }
    let points = targets.iter().zip(runs).map(|((value, server, ..), (cpu, p50))| Point {
        varied: varied.into(),
        server: (*server).into(),
        value: *value,
        cpu_us: median(cpu),
        p50_us: median(p50),
    });
    points.collect()
}

fn section(points: &[Point]) -> String {
    let rows =
        VARIED.iter().flat_map(|varied| points.iter().filter(move |point| point.varied == *varied)).map(|point| {
            vec![
                point.varied.clone(),
                grouped(point.value),
                point.server.clone(),
                format!("{:.2}", point.cpu_us),
                format!("{:.0}", point.p50_us),
            ]
        });
    format!(
        "CPU: {CONNECTIONS} keep-alive connections for {SECONDS} s; p50: one connection for {SINGLE_SECONDS} s; medians of \
         {RUNS} runs. Bodies of about 100 bytes, one parameter, {FEW_KEYS} keys drawn at random, but for what is varied.\n\n{}",
        table(&["varied", "", "server", "server CPU, µs/request", "p50, µs"], rows)
    )
}
