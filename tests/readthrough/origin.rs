//! An origin whose every statement waits to be told how it ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seawall::catalog::policy::{Policy, ResultForm};
use seawall::catalog::sql::Statement;
use seawall::catalog::{Catalog, Declaration, Prepared, Query, Shape};
use seawall::clock::Clock;
use seawall::readthrough::origin::{
    Connection, Fetched, OnSend, Origin, OriginError, OriginState, Pending, PoolCounts,
};
use seawall::readthrough::{Bounds, Readthrough, Route};
use seawall::stamp::{Lineage, Snapshot, Stamp};
use seawall::telemetry::metrics::Metrics;
use tokio::sync::{mpsc, oneshot};

/// What a statement ends with.
pub enum Script {
    Answer(&'static str, &'static str),
    Fail(OriginError),
    Panic,
}

/// A statement under way.
pub struct Running {
    pub connection: Connection,
    end: oneshot::Sender<Script>,
}

impl Running {
    pub fn end(self, script: Script) {
        // Dropped by the fill: then nobody wants it, which is what the test is about.
        let _ = self.end.send(script);
    }

    /// Resolves when the fill has dropped the statement.
    pub async fn cancelled(mut self) {
        self.end.closed().await;
    }
}

#[derive(Clone)]
pub struct Scripted {
    begun: mpsc::UnboundedSender<Running>,
    pub statements: Arc<AtomicUsize>,
    /// Answers at once with this instead of waiting.
    pub always: Arc<Mutex<Option<(&'static str, &'static str)>>>,
}

impl Origin for Scripted {
    fn fetch<'a>(
        &'a self,
        _: &'a Arc<Query>,
        _: &'a Arc<Prepared>,
        _: &'a [u8],
        _: Duration,
        connection: Connection,
        on_send: OnSend,
    ) -> Pending<'a, Result<Fetched, OriginError>> {
        Box::pin(async move {
            on_send();
            self.statements.fetch_add(1, Ordering::SeqCst);
            let always = *self.always.lock().expect("not poisoned");
            let script = if let Some((lineage, body)) = always {
                Script::Answer(lineage, body)
            } else {
                let (end, ended) = oneshot::channel();
                self.begun.send(Running { connection, end }).expect("the test listens");
                ended.await.expect("the test ends every statement")
            };
            match script {
                Script::Answer(lineage, body) => Ok(Fetched {
                    stamp: Stamp {
                        lineage: Lineage::new(lineage),
                        snapshot: Snapshot::parse("5:5:").expect("well-formed"),
                    },
                    body: Some(body.as_bytes().into()),
                    rows: 1,
                }),
                Script::Fail(error) => Err(error),
                Script::Panic => panic!("the script says so"),
            }
        })
    }

    fn state(&self) -> OriginState {
        OriginState::Up
    }

    fn pool(&self) -> PoolCounts {
        PoolCounts::default()
    }
}

pub struct Bench {
    pub read: Arc<Readthrough>,
    pub clock: Clock,
    pub origin: Scripted,
    pub begun: mpsc::UnboundedReceiver<Running>,
    pub prepared: Arc<Prepared>,
}

pub const BOUNDS: Bounds = Bounds {
    max_bytes: 256 << 20,
    entry_max_bytes: 1 << 20,
    max_fills: 8,
    max_queued_fills: 1024,
    max_waiters: 50_000,
};

/// A read path with queries `a` and `b` of these policies.
pub fn bench(bounds: Bounds, a: Policy, b: Policy) -> Bench {
    let declare = |name: &str, policy| Declaration {
        name: name.into(),
        statement: Statement::parse("SELECT 1").expect("valid"),
        result: ResultForm::Rows,
        params: vec![],
        policy,
    };
    let catalog = Catalog::new(vec![declare("a", a), declare("b", b)]);
    let prepared = Arc::new(Prepared {
        params: vec![],
        columns: vec![],
        fingerprint: 1,
        wrapped: "SELECT 1".into(),
        warnings: vec![],
    });
    for query in catalog.iter() {
        query.reshape(Shape::Ready(Arc::clone(&prepared)));
    }
    let (sender, begun) = mpsc::unbounded_channel();
    let origin = Scripted { begun: sender, statements: Arc::default(), always: Arc::default() };
    let clock = Clock::manual();
    let read = Readthrough::new(&catalog, Arc::new(origin.clone()), bounds, clock.clone(), Arc::new(Metrics::new()));
    Bench { read, clock, origin, begun, prepared }
}

impl Bench {
    pub fn route(&self, name: &str) -> Arc<Route> {
        Arc::clone(self.read.route(name).expect("declared"))
    }

    /// The value of a metric line that starts with `series`.
    pub fn metric(&self, series: &str) -> f64 {
        self.read.gauge();
        let text = self.read.metrics().text();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or_else(|| panic!("no series {series} in\n{text}"))
    }
}
