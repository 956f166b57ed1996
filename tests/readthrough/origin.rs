//! An origin whose every statement waits to be told how it ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use seawall::catalog::policy::{Policy, ResultForm};
use seawall::catalog::sql::Statement;
use seawall::catalog::{Catalog, Declaration, Prepared, Query, Shape};
use seawall::chance::Chance;
use seawall::clock::Clock;
use seawall::readthrough::origin::{
    Announced, Connection, Fetched, OnSend, Origin, OriginError, OriginState, Pending, PoolCounts,
};
use seawall::readthrough::{Answer, Ask, Bounds, Directives, Failed, Look, Readthrough, Route, Want};
use seawall::stamp::{Lineage, Snapshot, Stamp};
use seawall::telemetry::metrics::Metrics;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// What a statement ends with.
pub enum Script {
    Answer(&'static str, &'static str),
    /// Of lineage `l`, under this snapshot.
    Under(&'static str, &'static str),
    Fail(OriginError),
    Panic,
}

/// A statement under way.
pub struct Running {
    pub connection: Connection,
    pub key: Box<[u8]>,
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
    /// The snapshot of those.
    pub under: Arc<Mutex<Option<String>>>,
    /// Every tag that was announced, and how announcing ends.
    pub announced: Arc<Mutex<Vec<String>>>,
    pub announces: Arc<Mutex<Result<Announced, OriginError>>>,
    /// As the last statement left it.
    state: Arc<Mutex<OriginState>>,
}

impl Origin for Scripted {
    fn fetch<'a>(
        &'a self,
        _: &'a Arc<Query>,
        _: &'a Arc<Prepared>,
        key: &'a [u8],
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
                self.begun.send(Running { connection, key: key.into(), end }).expect("the test listens");
                ended.await.expect("the test ends every statement")
            };
            *self.state.lock().expect("not poisoned") = match &script {
                Script::Fail(OriginError::Away(why)) => OriginState::Away(why.clone()),
                _ => OriginState::Up,
            };
            match script {
                Script::Answer(lineage, body) => {
                    let under = self.under.lock().expect("not poisoned").clone();
                    Ok(fetched(lineage, under.as_deref().unwrap_or("5:5:"), body))
                }
                Script::Under(snapshot, body) => Ok(fetched("l", snapshot, body)),
                Script::Fail(error) => Err(error),
                Script::Panic => panic!("the script says so"),
            }
        })
    }

    fn announce<'a>(&'a self, tags: &'a [String]) -> Pending<'a, Result<Announced, OriginError>> {
        self.announced.lock().expect("not poisoned").extend_from_slice(tags);
        let how = self.announces.lock().expect("not poisoned").clone();
        Box::pin(async move { how })
    }

    fn state(&self) -> OriginState {
        self.state.lock().expect("not poisoned").clone()
    }

    fn pool(&self) -> PoolCounts {
        PoolCounts::default()
    }
}

pub fn stamp(lineage: &str, snapshot: &str) -> Stamp {
    Stamp { lineage: Lineage::new(lineage), snapshot: Snapshot::parse(snapshot).expect("well-formed") }
}

fn fetched(lineage: &str, snapshot: &str, body: &str) -> Fetched {
    Fetched { stamp: stamp(lineage, snapshot), body: Some(body.as_bytes().into()), rows: 1 }
}

pub struct Bench {
    pub read: Arc<Readthrough>,
    pub clock: Clock,
    pub origin: Scripted,
    pub begun: mpsc::UnboundedReceiver<Running>,
    pub prepared: Arc<Prepared>,
    pub catalog: Catalog,
}

pub const BOUNDS: Bounds = Bounds {
    packed_max_bytes: 1 << 20,
    max_bytes: 256 << 20,
    entry_max_bytes: 1 << 20,
    max_fills: 8,
    max_queued_fills: 1024,
    max_waiters: 50_000,
    proactive: 2,
};

/// What chance brings is the same in every run.
pub const SEED: u64 = 7;

/// A query of this name and policy.
pub fn declare(name: &str, policy: Policy) -> Declaration {
    Declaration {
        name: name.into(),
        statement: Statement::parse("SELECT 1").expect("valid"),
        result: ResultForm::Rows,
        policy,
        ..Declaration::default()
    }
}

/// A read path with queries `a` and `b` of these policies.
pub fn bench(bounds: Bounds, a: Policy, b: Policy) -> Bench {
    let catalog = Catalog::new(vec![declare("a", a), declare("b", b)]);
    let prepared = Arc::new(Prepared {
        params: vec![],
        settings: Vec::new(),
        columns: vec![],
        fingerprint: 1,
        wrapped: "SELECT 1".into(),
        warnings: vec![],
    });
    for query in catalog.iter() {
        query.reshape(Shape::Ready(Arc::clone(&prepared)));
    }
    let (sender, begun) = mpsc::unbounded_channel();
    let state = Arc::new(Mutex::new(OriginState::Unknown));
    let away = OriginError::Away("nothing is announced here".into());
    let origin = Scripted {
        begun: sender,
        statements: Arc::default(),
        always: Arc::default(),
        under: Arc::default(),
        announced: Arc::default(),
        announces: Arc::new(Mutex::new(Err(away))),
        state,
    };
    let clock = Clock::manual();
    let read = Readthrough::new(
        &catalog,
        Arc::new(origin.clone()),
        bounds,
        clock.clone(),
        Chance::seeded(SEED),
        Arc::new(Metrics::new()),
    );
    Bench { read, clock, origin, begun, prepared, catalog }
}

impl Bench {
    /// What memory has to say to a request that says nothing.
    pub fn look(&self, name: &str, key: &[u8]) -> Look {
        self.look_for(name, key, Directives::default())
    }

    /// What memory has to say to a request with `directives`.
    pub fn look_for(&self, name: &str, key: &[u8], directives: Directives) -> Look {
        let (route, arrived) = (self.route(name), self.clock.now());
        self.read.look(&Ask { route: &route, prepared: &self.prepared, key, arrived, directives })
    }

    /// An answer, as a request gets it: at once, or after a wait.
    pub fn ask(&self, name: &str, key: &'static [u8]) -> JoinHandle<Result<Answer, Failed>> {
        self.ask_for(name, key, Directives::default())
    }

    /// The same with `directives`.
    pub fn ask_for(
        &self,
        name: &str,
        key: &'static [u8],
        directives: Directives,
    ) -> JoinHandle<Result<Answer, Failed>> {
        let (read, route, prepared) = (Arc::clone(&self.read), self.route(name), Arc::clone(&self.prepared));
        let arrived = self.clock.now();
        tokio::spawn(async move {
            let ask = Ask { route: &route, prepared: &prepared, key, arrived, directives };
            match read.look(&ask) {
                Look::Answer(answer) => Ok(answer),
                Look::Rebuild(want) => read.read(&ask, want).await,
                Look::Withheld => panic!("nothing that is stored may be given"),
            }
        })
    }

    /// An answer that is brought because of `want`, whatever is stored.
    pub fn fill(&self, name: &str, key: &'static [u8], want: Want) -> JoinHandle<Result<Answer, Failed>> {
        let (read, route, prepared) = (Arc::clone(&self.read), self.route(name), Arc::clone(&self.prepared));
        let arrived = self.clock.now();
        tokio::spawn(async move {
            let directives = Directives::default();
            read.read(&Ask { route: &route, prepared: &prepared, key, arrived, directives }, want).await
        })
    }

    pub fn route(&self, name: &str) -> Arc<Route> {
        Arc::clone(self.read.routes().find(name).expect("declared"))
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

/// Lets every task run until `until` holds.
pub async fn settle(what: &str, until: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if until() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("never: {what}");
}

/// The last moment before a boundary.
pub fn just_before(boundary: Duration) -> Duration {
    boundary.saturating_sub(Duration::from_nanos(1))
}
