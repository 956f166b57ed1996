//! What the demo prints: a small table, and what to try next.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::Work;
use super::load::Latencies;

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
        let mut row = |name: &str, naive: String, seawall: String| writeln!(f, "  {name:<28}{naive:>20}{seawall:>14}");
        let (n, s) = (&self.naive, &self.seawall);
        row("", "naive read-through".into(), "Seawall".into())?;
        row("statements in Postgres", thousands(n.database.statements), thousands(s.database.statements))?;
        row("Postgres's CPU seconds", seconds(n.database.cpu_seconds), seconds(s.database.cpu_seconds))?;
        row("half answered within", time(n.latencies.quantile(0.5)), time(s.latencies.quantile(0.5)))?;
        row("99 % answered within", time(n.latencies.quantile(0.99)), time(s.latencies.quantile(0.99)))?;
        row("slowest answer", time(n.latencies.quantile(1.0)), time(s.latencies.quantile(1.0)))?;
        if n.latencies.failed + s.latencies.failed > 0 {
            row("without an answer", n.latencies.failed.to_string(), s.latencies.failed.to_string())?;
        }
        writeln!(
            f,
            "  (statements counted by pg_stat_statements; latencies include sending {} requests)\n",
            self.requests
        )?;
        let Write { update, products, visible, statements } = &self.write;
        writeln!(f, "  {products} products are stored; then: {update}")?;
        writeln!(f, "  the answer has it           {:>20}", format!("{} after the commit", time(*visible)))?;
        write!(f, "  statements that it caused   {:>20}  (all {products} asked for again)", thousands(*statements))
    }
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
