//! The five measures that matter, by the PromQL of `docs/metrics.md`, over a scripted load.
//!
//! The expressions are taken from the document, parsed by a PromQL parser, and evaluated over two scrapes: `increase` is
//! the difference between them. Only what the document uses is evaluated; anything else panics.

use std::collections::BTreeMap;
use std::time::Duration;

use promql_parser::parser::token::{T_ADD, T_DIV, T_SUM};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use seawall::telemetry::metrics::Listener;

use super::support::client::get;
use super::support::eventually::eventually;
use super::support::service::plan;
use super::support::{Gate, database};

type Labels = BTreeMap<String, String>;
type Vector = Vec<(Labels, f64)>;

/// Series of a scrape: name and labels to value.
struct Scrape(Vec<(String, Labels, f64)>);

impl Scrape {
    fn parse(text: &str) -> Self {
        let series = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            // Label values here hold neither commas nor quotes.
            let labels = labels.trim_end_matches('}').split(',').filter_map(|pair| {
                let (name, value) = pair.split_once('=')?;
                Some((name.to_owned(), value.trim_matches('"').to_owned()))
            });
            Some((name.to_owned(), labels.collect(), value.parse().ok()?))
        });
        Self(series.collect())
    }

    fn select(&self, selector: &VectorSelector) -> Vector {
        let name = selector.name.as_deref().expect("a metric's name");
        let matches = |labels: &Labels| {
            selector.matchers.matchers.iter().all(|m| m.is_match(labels.get(&m.name).map_or("", String::as_str)))
        };
        self.0.iter().filter(|(n, l, _)| n == name && matches(l)).map(|(_, l, v)| (l.clone(), *v)).collect()
    }
}

/// The value of an expression between two scrapes.
fn evaluate(expr: &Expr, before: &Scrape, after: &Scrape) -> Vector {
    match expr {
        Expr::Paren(inner) => evaluate(&inner.expr, before, after),
        Expr::NumberLiteral(n) => vec![(Labels::new(), n.val)],
        Expr::Call(call) if call.func.name == "increase" => {
            let Expr::MatrixSelector(range) = &*call.args.args[0] else { panic!("increase takes a range") };
            let old = before.select(&range.vs);
            let base = |labels: &Labels| old.iter().find(|(l, _)| l == labels).map_or(0.0, |(_, v)| *v);
            after
                .select(&range.vs)
                .into_iter()
                .map(|(l, v)| {
                    let b = base(&l);
                    (l, v - b)
                })
                .collect()
        }
        Expr::Call(call) if call.func.name == "histogram_quantile" => {
            let Expr::NumberLiteral(q) = &*call.args.args[0] else { panic!("a number first") };
            vec![(Labels::new(), quantile(q.val, &evaluate(&call.args.args[1], before, after)))]
        }
        Expr::Aggregate(aggregate) if aggregate.op.id() == T_SUM => {
            let mut groups: BTreeMap<Labels, f64> = BTreeMap::new();
            for (labels, value) in evaluate(&aggregate.expr, before, after) {
                let by = match &aggregate.modifier {
                    Some(LabelModifier::Include(names)) => {
                        labels.into_iter().filter(|(name, _)| names.labels.contains(name)).collect()
                    }
                    None => Labels::new(),
                    Some(other) => panic!("{other:?} is not evaluated"),
                };
                *groups.entry(by).or_default() += value;
            }
            groups.into_iter().collect()
        }
        Expr::Binary(binary) => {
            let (left, right) =
                (scalar(&evaluate(&binary.lhs, before, after)), scalar(&evaluate(&binary.rhs, before, after)));
            let value = match binary.op.id() {
                T_DIV => left / right,
                T_ADD => left + right,
                _ => panic!("{} is not evaluated", binary.op),
            };
            vec![(Labels::new(), value)]
        }
        other => panic!("{other} is not evaluated"),
    }
}

fn scalar(vector: &[(Labels, f64)]) -> f64 {
    assert_eq!(vector.len(), 1, "{vector:?} is one value");
    vector[0].1
}

/// Linear within the bucket, as Prometheus has it.
fn quantile(q: f64, vector: &[(Labels, f64)]) -> f64 {
    let mut buckets: Vec<(f64, f64)> = vector.iter().map(|(l, v)| (l["le"].parse().expect("a bound"), *v)).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    let rank = q * buckets.last().expect("buckets").1;
    let at = buckets.iter().position(|b| b.1 >= rank).expect("the last bucket holds all");
    let (low, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    low + (buckets[at].0 - low) * (rank - below) / (buckets[at].1 - below)
}

/// The expressions of the document, in its order.
fn documented() -> Vec<Expr> {
    let text = include_str!("../../docs/metrics.md");
    let blocks = text.split("```promql\n").skip(1).map(|rest| rest.split("```").next().expect("a block ends"));
    blocks.map(|block| parser::parse(block.trim()).unwrap_or_else(|e| panic!("{e}: {block}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scripted_load_gives_the_exact_value_of_each_measure() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let function = "CREATE FUNCTION shop.one_or_fail(n int) RETURNS int LANGUAGE plpgsql STABLE AS \
                    'BEGIN IF n = 0 THEN RAISE EXCEPTION ''no''; END IF; RETURN n; END'";
    database.client().await.batch_execute(function).await.expect("a function");
    let toml = format!(
        "[queries.gated]\nsql = \"SELECT shop.one_or_fail(:n) AS x FROM {} AS gate\"\nresult = \"row\"\ntimeout = \"60s\"\n",
        gate.sql()
    );
    let service = plan(&database.url, &toml).start().await;
    let before = Scrape::parse(&get(service.admin, "/metrics").await.text());
    // 1 miss and 9 that share it …
    let readers: Vec<_> = (0..10).map(|_| tokio::spawn(get(service.queries, "/v1/queries/gated?n=1"))).collect();
    eventually("ten wait", Duration::from_secs(10), async || match service.read.waiting() {
        10 => Ok(()),
        n => Err(format!("{n} wait")),
    })
    .await;
    gate.open().await;
    for reader in readers {
        assert_eq!(reader.await.expect("no panic").status, 200);
    }
    // … 10 hits …
    for _ in 0..10 {
        assert_eq!(get(service.queries, "/v1/queries/gated?n=1").await.status, 200);
    }
    // … and 1 that the database fails.
    let failed = get(service.queries, "/v1/queries/gated?n=0").await;
    assert_eq!((failed.status, failed.code().as_str()), (500, "query_broken"));
    let after = Scrape::parse(&get(service.admin, "/metrics").await.text());

    let measured: Vec<f64> = documented().iter().map(|expr| scalar(&evaluate(expr, &before, &after))).collect();
    let exact = [10.0 / 21.0, 9.0 / 21.0, 2.0 / 5.0, 11.0 / 21.0];
    for (measure, exact) in measured.iter().zip(exact) {
        assert!((measure - exact).abs() < 1e-12, "{measured:?}");
    }
    // Latency is no exact figure; its count is, and the mean and the quantile lie within what was seen.
    let text = get(service.admin, "/metrics").await.text();
    assert!(text.contains("seawall_refresh_duration_seconds_count{query=\"gated\"} 2"));
    assert!(measured[4] > 0.0 && measured[4] < 60.0 && measured[5] > 0.0 && measured[5] <= 60.0, "{measured:?}");
    assert_eq!(measured.len(), 6, "every expression was evaluated");
}

#[tokio::test]
async fn every_metric_is_documented_and_every_documented_one_is_there() {
    let metrics = seawall::telemetry::metrics::Metrics::new();
    let _handles = (metrics.query("q"), metrics.caller("c"));
    metrics.verdict("q", &["exact"], "exact");
    let _handshakes = metrics.handshakes(Listener::Queries);
    metrics.certificate(Listener::Queries, true, Duration::ZERO);
    let document = include_str!("../../docs/metrics.md");
    let text = metrics.text();
    let exposed: Vec<&str> = text
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE ")?.split(' ').next())
        .filter(|n| n.starts_with("seawall_"))
        .collect();
    assert!(exposed.len() > 15, "{exposed:?}");
    for name in &exposed {
        assert!(document.contains(&format!("`{name}")), "{name} is not documented");
    }
    for name in document.split('`').filter(|w| w.starts_with("seawall_")) {
        let name = name.split('{').next().expect("a name").split('(').next().expect("a name").trim();
        assert!(exposed.contains(&name), "{name} is documented and not exposed");
    }
}
