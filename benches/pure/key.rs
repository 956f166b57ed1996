//! What does it cost to turn a request's parameters into its canonical key, from a query string and from a JSON body?
//!
//! Every request pays it, hits included. It should grow with the parameters and not with anything else, and a query
//! string without escapes should not be dearer than its bytes.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use seawall::catalog::args::{KeyBuf, key_from_json, key_from_uri};
use seawall::catalog::params::ParamType;

use super::sample;

const PARAMS: [usize; 4] = [1, 4, 8, 16];

pub fn ask(c: &mut Criterion) {
    let mut group = c.benchmark_group("key");
    for params in PARAMS {
        let prepared = sample::prepared(params, &ParamType::Int4);
        let pairs = |join: &str, pair: fn(usize) -> String| (1..=params).map(pair).collect::<Vec<_>>().join(join);
        let query = pairs("&", |n| format!("p{n}={}", 1_000 * n));
        let body = format!("{{{}}}", pairs(",", |n| format!("\"p{n}\":{}", 1_000 * n)));
        let mut key = KeyBuf::new();
        group.bench_function(BenchmarkId::new("uri int4", params), |b| {
            b.iter(|| key_from_uri(&prepared, black_box(&query), black_box(&mut key)).expect("valid"));
        });
        group.bench_function(BenchmarkId::new("json int4", params), |b| {
            b.iter(|| key_from_json(&prepared, black_box(body.as_bytes()), black_box(&mut key)).expect("valid"));
        });
    }
    let prepared = sample::prepared(1, &ParamType::Text("text".into()));
    for (name, query) in [("plain", "p1=garden-furniture-and-more"), ("escaped", "p1=garden%20furniture%20and%20more")]
    {
        let mut key = KeyBuf::new();
        group.bench_function(BenchmarkId::new("uri text", name), |b| {
            b.iter(|| key_from_uri(&prepared, black_box(query), black_box(&mut key)).expect("valid"));
        });
    }
    group.finish();
}
