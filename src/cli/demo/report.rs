//! What the demo prints: a small table, and what to try next.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use super::Work;
use super::load::Latencies;
use super::pods::{Counts, Pod};

/// One side of the comparison.
#[derive(Clone, Debug)]
pub struct Side {
    /// What the database says it did.
    pub database: Work,
    /// What clients saw.
    pub latencies: Latencies,
}

/// Both sides.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests in flight at the expiry.
    pub requests: u32,
    /// Each miss its own query.
    pub naive: Side,
    /// One question, one statement.
    pub seawall: Side,
    /// What one write does.
    pub write: Write,
}

/// A write, and what it changes.
#[derive(Clone, Debug)]
pub struct Write {
    /// What was written.
    pub update: String,
    /// Answers that were stored, each of another row.
    pub products: u32,
    /// From the commit to the first answer that has it.
    pub visible: Duration,
    /// Statements that the write caused, all answers asked for again.
    pub statements: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        compare(f, "Seawall", self.requests, &self.naive, &self.seawall)?;
        let Write { update, products, visible, statements } = &self.write;
        writeln!(f, "  {products} products are stored; then: {update}")?;
        writeln!(f, "  the answer has it           {:>20}", format!("{} after the commit", time(*visible)))?;
        write!(f, "  statements that it caused   {:>20}  (all {products} asked for again)", thousands(*statements))
    }
}

/// Both sides, the second as several pods.
#[derive(Clone, Debug)]
pub struct ClusterReport {
    /// Requests at once.
    pub requests: u32,
    /// Each miss its own query.
    pub naive: Side,
    /// One question, one statement, over all pods.
    pub seawall: Side,
    /// What each pod did of that.
    pub pods: Vec<Counts>,
    /// What one write does.
    pub spread: Spread,
    /// What one death does.
    pub death: Death,
}

/// A write, and how it reaches the pods.
#[derive(Clone, Debug)]
pub struct Spread {
    /// What was written.
    pub update: String,
    /// From the commit to each pod's first answer that has it.
    pub visible: Vec<Duration>,
    /// Statements that it caused, of all pods.
    pub statements: u64,
}

/// A pod that is killed while the others are asked, and comes back.
#[derive(Clone, Debug)]
pub struct Death {
    /// Which.
    pub pod: String,
    /// Requests that the others answered from shortly before to its first answer.
    pub answered: u64,
    /// Requests that they did not answer.
    pub failed: u64,
    /// From its start to its readiness.
    pub ready: Duration,
    /// Of its first answer.
    pub cache_status: String,
    /// Statements that it had sent for that.
    pub statements: u64,
}

impl fmt::Display for ClusterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, naive, seawall, pods, spread, death } = self;
        compare(f, &format!("{} pods", pods.len()), *requests, naive, seawall)?;
        writeln!(
            f,
            "  {:<8}{:>10}{:>14}{:>12}{:>15}{:>13}",
            "", "requests", "from memory", "from Redis", "from Postgres", "statements"
        )?;
        for (n, counts) in (1..).zip(pods) {
            let Counts { requests, memory, redis, postgres, statements } = *counts;
            let [requests, memory, redis, postgres] = [requests, memory, redis, postgres].map(thousands);
            writeln!(f, "  pod-{n:<4}{requests:>10}{memory:>14}{redis:>12}{postgres:>15}{statements:>13}")?;
        }
        writeln!(f, "  (from Postgres: all that waited for the statement of their own pod)\n")?;
        writeln!(f, "  {}", spread.update)?;
        let visible: Vec<String> = spread.visible.iter().copied().map(time).collect();
        writeln!(f, "  {:<28}{} after the commit", "the pods have it", visible.join(", "))?;
        writeln!(f, "  {:<28}{}, of all pods together\n", "statements that it caused", spread.statements)?;
        writeln!(f, "  kill -9 of {}", death.pod)?;
        writeln!(f, "  {:<28}{} requests, {} failed", "the others meanwhile", thousands(death.answered), death.failed)?;
        writeln!(f, "  {:<28}ready in {}", "started again", time(death.ready))?;
        write!(f, "  {:<28}{} ({} statements)", "its first answer", death.cache_status, death.statements)
    }
}

/// The table of two sides.
fn compare(f: &mut fmt::Formatter<'_>, name: &str, requests: u32, n: &Side, s: &Side) -> fmt::Result {
    let mut row = |name: &str, naive: String, seawall: String| writeln!(f, "  {name:<28}{naive:>20}{seawall:>14}");
    row("", "naive read-through".into(), name.into())?;
    row("statements in Postgres", thousands(n.database.statements), thousands(s.database.statements))?;
    row("Postgres's CPU seconds", seconds(n.database.cpu_seconds), seconds(s.database.cpu_seconds))?;
    row("half answered within", time(n.latencies.quantile(0.5)), time(s.latencies.quantile(0.5)))?;
    row("99 % answered within", time(n.latencies.quantile(0.99)), time(s.latencies.quantile(0.99)))?;
    row("slowest answer", time(n.latencies.quantile(1.0)), time(s.latencies.quantile(1.0)))?;
    if n.latencies.failed + s.latencies.failed > 0 {
        row("without an answer", n.latencies.failed.to_string(), s.latencies.failed.to_string())?;
    }
    writeln!(f, "  (statements counted by pg_stat_statements; latencies include sending {requests} requests)\n")
}

/// Lines to try, for whoever reads the table.
pub(super) fn invitation(queries: SocketAddr, admin: SocketAddr, url: &str) -> String {
    format!(
        "\nThe service is up. Try:\n\
         \x20 curl -i 'http://{queries}/v1/queries/product?id=42'             # a miss, then hits: see Cache-Status\n\
         \x20 curl -i 'http://{queries}/v1/queries/product?id=forty-two'      # what a mistake looks like\n\
         \x20 curl -s 'http://{queries}/v1/queries/products_by_category?category=compasses&limit=3'\n\
         \x20 curl -s 'http://{queries}/v1/queries'                           # every query, its parameters and columns\n\
         \x20 curl -s 'http://{admin}/metrics' | grep ^seawall_requests\n\
         \x20 curl -s 'http://{admin}/status'\n\
         \x20 psql '{url}'                              # UPDATE shop.products SET price = 1 WHERE id = 42; ask again\n\
         Ctrl-C stops it and removes the private Postgres."
    )
}

/// The same for several pods.
pub(super) fn cluster_invitation(pods: &[Pod], redis: SocketAddr, redis_pid: u32, url: &str) -> String {
    let mut out = "\nThe pods are up:\n".to_owned();
    for Pod { name, queries, admin, .. } in pods {
        // Writing to a string doesn't fail.
        let _ = writeln!(out, "  {name}   http://{queries}   admin http://{admin}");
    }
    let [first, .., last] = pods else { return out };
    let (first, last, admin) = (first.queries, last.queries, first.admin);
    let _ = write!(
        out,
        "Try:\n\
         \x20 curl -i 'http://{first}/v1/queries/product?id=77'   # a miss: see Cache-Status\n\
         \x20 curl -i 'http://{last}/v1/queries/product?id=77'   # another pod: detail=redis, no statement\n\
         \x20 curl -s 'http://{admin}/metrics' | grep -E '^seawall_(leases|shared_values|db_queries)'\n\
         \x20 psql '{url}'\n\
         \x20     UPDATE shop.products SET price = 1 WHERE id = 77;   -- then ask both again\n\
         \x20 kill -9 {redis_pid}   # Redis, on {redis}: the pods go on alone, and say so:\n\
         \x20 curl -s 'http://{admin}/readyz'\n\
         Ctrl-C stops all of it and removes what it wrote."
    );
    out
}

fn seconds(cpu: Option<f64>) -> String {
    cpu.map_or_else(|| "unknown".into(), |s| format!("{s:.2}"))
}

fn time(took: Duration) -> String {
    if took >= Duration::from_secs(1) {
        format!("{:.1} s", took.as_secs_f64())
    } else {
        format!("{:.0} ms", took.as_secs_f64() * 1e3)
    }
}

/// 11000 as 11,000.
pub(super) fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 999, 1_000, 11_000, 1_234_567].map(thousands), ["0", "999", "1,000", "11,000", "1,234,567"]);
        assert_eq!(time(Duration::from_millis(999)), "999 ms");
        assert_eq!(time(Duration::from_millis(1_250)), "1.2 s");
    }
}
