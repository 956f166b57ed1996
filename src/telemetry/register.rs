//! How a metric comes into a registry.

use prometheus::{Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

/// From 25 us, which a hit stays well below, to 10 s, the longest default deadline and more.
const DURATIONS: &[f64] = &[
    25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 100e-3, 250e-3, 500e-3, 1.0, 2.5,
    5.0, 10.0,
];

/// Registration fails only for a name that is taken or malformed, and every name stands below, once.
pub(super) const REGISTERED: &str = "metric names are well-formed and registered once";

pub(super) const NO_LABELS: &[&str] = &[];

pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let vec = IntCounterVec::new(Opts::new(name, help), labels).expect(REGISTERED);
    registry.register(Box::new(vec.clone())).expect(REGISTERED);
    vec
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let vec = IntGaugeVec::new(Opts::new(name, help), labels).expect(REGISTERED);
    registry.register(Box::new(vec.clone())).expect(REGISTERED);
    vec
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let gauge = IntGauge::new(name, help).expect(REGISTERED);
    registry.register(Box::new(gauge.clone())).expect(REGISTERED);
    gauge
}

pub(super) fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(DURATIONS.to_vec());
    let vec = HistogramVec::new(options, labels).expect(REGISTERED);
    registry.register(Box::new(vec.clone())).expect(REGISTERED);
    vec
}

pub(super) fn real_gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::new(name, help).expect(REGISTERED);
    registry.register(Box::new(gauge.clone())).expect(REGISTERED);
    gauge
}
