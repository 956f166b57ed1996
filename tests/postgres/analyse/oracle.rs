//! Row declarations against an oracle: of random queries those whose declaration is accepted must not change their answer,
//! whatever happens to other rows.
//!
//! Not covered: data beyond a few hundred rows, and types beyond int and varchar (the families are tested by themselves).

use std::fmt::Write as _;

use fastrand::Rng;
use seawall::catalog::Declaration;

use super::{Bench, Stated, stated};

const TABLES: &str = "CREATE TABLE t (id int PRIMARY KEY, k int, n int, s varchar(5)); CREATE INDEX ON t (k); \
     CREATE TABLE u (id int, k int, n int, s varchar(5)); \
     CREATE TABLE p (id int, k int, n int, s varchar(5)) PARTITION BY RANGE (n); \
     CREATE TABLE p0 PARTITION OF p FOR VALUES FROM (0) TO (2); CREATE TABLE p1 PARTITION OF p DEFAULT; \
     CREATE TABLE h (id int, k int, n int, s varchar(5)); CREATE TABLE hh (x int) INHERITS (h); \
     CREATE VIEW v AS SELECT * FROM t WHERE n < 3; \
     CREATE VIEW w AS SELECT a.id, a.k, b.n, b.s FROM t a LEFT JOIN u b ON a.k = b.k; \
     CREATE VIEW m AS SELECT DISTINCT ON (k) id, k, n, s FROM t ORDER BY k, n, id";

const QUERIES: usize = 160;

/// Values are few, so that joins meet and mutations matter.
const VALUES: i32 = 4;

struct Writer {
    rng: Rng,
}

impl Writer {
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.rng.usize(..of.len())]
    }

    fn condition(&mut self, alias: &str, depth: u32) -> String {
        let plain = [
            "{a}.k = :k",
            "{a}.k = :k",
            "{a}.k = :k",
            "{a}.n = :n",
            "{a}.s = :s",
            ":k = {a}.k",
            "{a}.k = {a}.n",
            "{a}.n > 1",
            "{a}.k IN (:k, :n)",
            "{a}.k <> :k",
            "{a}.k BETWEEN :k AND :n",
            "({a}.k, {a}.n) = (:k, :n)",
            "{a}.s IS NULL",
            "{a}.k = (SELECT max(k) FROM t)",
            "EXISTS (SELECT FROM t x WHERE x.k = :k AND x.n = {a}.n)",
            "NOT EXISTS (SELECT FROM t x WHERE x.n > {a}.n)",
            "{a}.k = :k + 1",
            "{a}.k::text = :s",
            "{a}.n IN (SELECT n FROM u WHERE k = :k)",
            "({a}.k = :k) IS NOT FALSE",
        ];
        match self.rng.u32(..10) {
            0 if depth > 0 => format!("({} OR {})", self.condition(alias, depth - 1), self.condition(alias, depth - 1)),
            1 if depth > 0 => format!("NOT ({})", self.condition(alias, depth - 1)),
            2..=5 if depth > 0 => {
                format!("({} AND {})", self.condition(alias, depth - 1), self.condition(alias, depth - 1))
            }
            _ => self.pick(&plain).replace("{a}", alias),
        }
    }

    fn source(&mut self) -> &'static str {
        self.pick(&["t", "t", "t", "u", "p", "p0", "h", "v", "w", "m"])
    }

    fn select(&mut self, depth: u32) -> String {
        let (one, other) = (self.source(), self.source());
        let (of_a, of_b) = (self.condition("a", 2), self.condition("b", 1));
        match self.rng.u32(..if depth > 0 { 13 } else { 5 }) {
            0 => format!(
                "SELECT a.k, count(*) AS n, max(a.n) AS m, min(a.s) AS s FROM {one} a WHERE {of_a} GROUP BY a.k"
            ),
            1 => {
                let join = self.pick(&["JOIN", "LEFT JOIN", "FULL JOIN"]);
                format!(
                    "SELECT a.k, b.n, a.n AS m, b.s FROM {one} a {join} {other} b ON a.k = b.k WHERE {of_a} AND {of_b}"
                )
            }
            2 => format!("SELECT a.k, a.n, a.id AS m, b.s FROM {one} a, {other} b WHERE {of_a} AND {of_b}"),
            3 => format!("SELECT a.k, a.n, rank() OVER (ORDER BY a.n, a.id) AS m, a.s FROM {one} a WHERE {of_a}"),
            4 => format!("SELECT a.k, a.n, a.id AS m, a.s FROM {one} a WHERE {of_a}"),
            5 => format!(
                "SELECT DISTINCT ON (a.n) a.k, a.n, a.m, a.s FROM ({}) a WHERE {of_a} ORDER BY a.n, a.k, a.m, a.s",
                self.select(depth - 1)
            ),
            6 => format!("SELECT a.k, a.n, a.m, a.s FROM ({}) a WHERE {of_a}", self.select(depth - 1)),
            7 => format!(
                "SELECT a.k, a.n, a.m, a.s FROM ({}) a WHERE {of_a} ORDER BY a.k, a.n, a.m, a.s LIMIT 2",
                self.select(depth - 1)
            ),
            8 => {
                let operation = self.pick(&["UNION", "UNION ALL", "EXCEPT", "INTERSECT"]);
                format!("(({}) {operation} ({}))", self.select(depth - 1), self.select(depth - 1))
            }
            9 => {
                let kept = self.pick(&["", "MATERIALIZED", "NOT MATERIALIZED"]);
                format!("WITH a AS {kept} ({}) SELECT a.k, a.n, a.m, a.s FROM a WHERE {of_a}", self.select(depth - 1))
            }
            10 => format!(
                "SELECT a.k, q.n, q.m, q.s FROM {one} a CROSS JOIN LATERAL (SELECT b.n, count(*) AS m, min(b.s) AS s FROM {other} b \
                 WHERE b.n = a.n AND {of_b} GROUP BY b.n) q WHERE {of_a}"
            ),
            11 => format!(
                "SELECT a.k, a.n, (SELECT count(*) FROM {other} b WHERE b.k = a.k AND {of_b}) AS m, a.s FROM {one} a WHERE {of_a}"
            ),
            _ => format!(
                "WITH RECURSIVE r(k, n, m, s) AS (SELECT a.k, a.n, 0, a.s FROM {one} a WHERE {of_a} UNION \
                 SELECT b.k, b.n, r.m + 1, b.s FROM {other} b, r WHERE b.k = r.n AND {of_b} AND r.m < 2) SELECT k, n, m, s FROM r"
            ),
        }
    }

    fn query(&mut self, name: usize) -> (Declaration, Stated) {
        loop {
            let select = self.select(2);
            let sql = format!("SELECT * FROM ({select}) z WHERE (:k::int, :n::int, :s::text) IS NOT NULL");
            let table = self.pick(&["t", "t", "t", "u", "p", "p0", "h"]);
            let rows = self.pick(&["k = :k", "k = :k", "k = :k", "n = :n", "s = :s", "k = :k and n = :n"]);
            // A word of the text, so that there is something to prove.
            if [format!(" {table} "), " v ".into(), " w ".into(), " m ".into()].iter().any(|word| select.contains(word))
            {
                return (stated(&format!("q{name}"), &sql, &[(table, rows)]), (table, rows));
            }
        }
    }
}

fn values(seed: &mut Rng) -> (i32, i32, String) {
    (seed.i32(0..VALUES), seed.i32(0..VALUES), seed.i32(0..VALUES).to_string())
}

fn literal(sql: &Declaration, (k, n, s): &(i32, i32, String)) -> String {
    let names = sql.statement.params().to_vec();
    sql.statement.substitute(|param| match &*names[param] {
        "k" => format!("({k})"),
        "n" => format!("({n})"),
        _ => format!("('{s}'::text)"),
    })
}

/// What happens to rows of `table` that are not those of `claim`, before and after.
fn mutation(table: &str, claim: &str) -> String {
    let drawn = "(random() * 3.5)::int AS k, (random() * 3.5)::int AS n, nullif((random() * 4.5)::int, 4)::text AS s";
    let mut sql = String::new();
    let other = |alias: &str| {
        let mut condition = claim.to_owned();
        for column in ["k", "n", "s"] {
            condition = condition.replace(&format!("#{column}"), &format!("{alias}.{column}"));
        }
        format!("({condition}) IS NOT TRUE")
    };
    write!(
        sql,
        "DELETE FROM {table} y WHERE {} AND random() < 0.3; \
         UPDATE {table} y SET k = x.k, n = x.n, s = x.s FROM (SELECT id, {drawn} FROM {table}) x \
           WHERE x.id = y.id AND {} AND {} AND random() < 0.6; \
         INSERT INTO {table} SELECT x.* FROM (SELECT 1000 + g AS id, {drawn} FROM generate_series(1, 12) g) x WHERE {}",
        other("y"),
        other("y"),
        other("x"),
        other("x")
    )
    .expect("a String takes all");
    sql
}

#[tokio::test]
async fn other_rows_never_change_an_answer_whose_declaration_is_accepted() {
    let seed =
        std::env::var("SEAWALL_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEAWALL_TEST_SEED={seed}");
    let bench = Bench::new(TABLES).await;
    for table in ["t", "u", "p0", "p1", "h", "hh"] {
        let n = if table == "p0" {
            "mod(g, 2)"
        } else if table == "p1" {
            "2 + mod(g, 2)"
        } else {
            "mod(g / 3, 4)"
        };
        bench
            .run(&format!(
                "INSERT INTO {table} SELECT g, mod(g, 4), {n}, nullif(mod(g, 5), 4)::text FROM generate_series(1, 14) g"
            ))
            .await;
    }
    let mut writer = Writer { rng: Rng::with_seed(seed) };
    let queries: Vec<(Declaration, Stated)> = (0..QUERIES).map(|name| writer.query(name)).collect();
    let (verdicts, _) = bench.all(queries.iter().map(|(declaration, _)| declaration.clone()).collect()).await;
    bench.run(&format!("SELECT setseed({})", writer.rng.f64())).await;
    let (mut accepted, mut compared, mut mattered) = (0, 0, 0);
    for ((declaration, (table, rows)), verdict) in queries.iter().zip(&verdicts) {
        let is_accepted = verdict.dependencies.iter().any(|d| &*d.relation.name == *table && d.rows.is_some());
        accepted += u32::from(is_accepted);
        // Of those that were refused, enough to see that mutations matter.
        for _ in 0..if is_accepted { 10 } else { 1 } {
            let values = values(&mut writer.rng);
            let answer = format!(
                "SELECT coalesce(string_agg(q::text, ';' ORDER BY q::text), '') FROM ({}) q",
                literal(declaration, &values)
            );
            let claim = rows.replace("k =", "#k =").replace("n =", "#n =").replace("s =", "#s =");
            let claim = claim.replace(" :k", &format!(" {}", values.0)).replace(" :n", &format!(" {}", values.1));
            let claim = claim.replace(" :s", &format!(" '{}'", values.2));
            let before: String = bench.db.admin.query_one(&answer, &[]).await.expect("it runs").get(0);
            // Through the parent, so that rows may move between partitions.
            let written = if *table == "p0" { "p" } else { table };
            bench.run(&format!("BEGIN; {}", mutation(written, &claim))).await;
            let after: String = bench.db.admin.query_one(&answer, &[]).await.expect("it runs").get(0);
            bench.run("ROLLBACK").await;
            if is_accepted {
                compared += 1;
                let text = declaration.statement.text();
                assert_eq!(before, after, "seed {seed}: {table} by {rows} with {values:?} in\n{text}\n{answer}");
            } else {
                mattered += u32::from(before != after);
            }
        }
    }
    println!("{accepted} of {QUERIES} accepted, {compared} comparisons; of others {mattered} differed");
    // Else nothing has been shown. The seeds tried had 13 and 30 at least.
    assert!(accepted >= 5, "{accepted} accepted");
    assert!(mattered >= 20, "{mattered} differed where nothing was promised");
}
