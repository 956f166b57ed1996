//! The server goes away in every way there is: how often it is tried, who waits, and what is back afterwards.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use seawall::catalog::Query;
use seawall::postgres::{BreakerState, Settings};
use seawall::readthrough::origin::{Connection, Fetched, Origin as _, OriginError, OriginState};
use serde_json::json;
use tokio::time::Instant;

use crate::support::chaos::{Chaos, Mode};
use crate::support::eventually::eventually;
use crate::support::server::Database;
use crate::support::{Origin, WITHIN, query, query_typed};

const SECOND: Duration = Duration::from_secs(1);

/// The deadline of the statement that finds out.
const FIRST: Duration = Duration::from_millis(300);

/// What "at once" may take on a machine that has other work: no deadline here is shorter than four times this.
const AT_ONCE: Duration = Duration::from_secs(5);

struct Stage {
    db: Database,
    proxy: Chaos,
    origin: Arc<Origin>,
    quick: Arc<Query>,
}

/// An origin behind a proxy, with `standing` connections idle in its pool.
async fn stage(standing: usize, adapt: impl FnOnce(&mut Settings)) -> Stage {
    let db = Database::new("").await;
    let proxy = Chaos::before(db.server.port);
    let mut settings = db.settings();
    settings.url = format!("postgres://postgres@127.0.0.1:{}/{}", proxy.port, db.name);
    adapt(&mut settings);
    let origin = Arc::new(Origin::new(settings));
    let quick = query("SELECT 1 AS a");
    origin.ready(&quick).await;
    let all = query("SELECT pg_advisory_lock_shared(1) IS NULL AS a");
    origin.ready(&all).await;
    db.admin.batch_execute("SELECT pg_advisory_lock(1)").await.expect("the lock");
    let held: Vec<_> = (0..standing)
        .map(|_| {
            let (origin, all) = (Arc::clone(&origin), Arc::clone(&all));
            tokio::spawn(async move { origin.fetch(&all, json!({})).await.map(|_| ()) })
        })
        .collect();
    eventually("all run at once", WITHIN, async || match db.active().await {
        n if n == i64::try_from(standing).expect("few") => Ok(()),
        n => Err(n),
    })
    .await;
    db.admin.batch_execute("SELECT pg_advisory_unlock(1)").await.expect("the lock");
    for held in held {
        held.await.expect("no panic").expect("an answer");
    }
    assert_eq!(proxy.open(), standing.max(1));
    Stage { db, proxy, origin, quick }
}

impl Stage {
    async fn fetch(&self, within: Duration) -> Result<Fetched, OriginError> {
        self.origin.fetch_within(&self.quick, json!({}), within, Connection::Pooled).await
    }

    async fn breaker_is(&self, state: BreakerState) {
        let breaker = || self.origin.postgres.breaker();
        eventually("the breaker is there", WITHIN, async || if breaker() == state { Ok(()) } else { Err(breaker()) })
            .await;
    }

    /// Waits until an answer comes, and says how long that was from now.
    async fn back(&self) -> Duration {
        let begun = Instant::now();
        eventually("it answers again", WITHIN, async || self.fetch(WITHIN).await.map(|_| ())).await;
        begun.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_refuses_is_tried_three_times_by_everybody_together_and_then_by_one_probe_at_a_time() {
    let stage = stage(0, |_| {}).await;
    stage.proxy.set(Mode::Reset).await;
    stage.proxy.set(Mode::Refuse).await;
    let begun = Instant::now();
    let outcomes = join_all((0..50).map(|_| stage.fetch(WITHIN))).await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Err(OriginError::Away(_)))), "{outcomes:?}");
    assert_eq!(stage.proxy.most_attempts(begun, WITHIN), 3);
    assert!(matches!(stage.origin.postgres.state(), OriginState::Away(_)));
    eventually("three probes were made", WITHIN, async || match stage.proxy.most_attempts(begun, WITHIN) {
        6.. => Ok(()),
        n => Err(n),
    })
    .await;
    assert!(stage.proxy.most_attempts(begun, SECOND) <= 3, "{:?}", stage.proxy.attempts());
    stage.proxy.set(Mode::Pass).await;
    let took = stage.back().await;
    assert!(took < 2 * SECOND, "{took:?}");
    assert_eq!(stage.origin.postgres.breaker(), BreakerState::Closed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_server_costs_one_deadline_however_many_connections_stand() {
    let stage = stage(8, |_| {}).await;
    stage.proxy.set(Mode::BlackHole).await;
    let begun = Instant::now();
    // One that would wait for long, and is already under way.
    let patient = tokio::spawn({
        let (origin, quick) = (Arc::clone(&stage.origin), Arc::clone(&stage.quick));
        async move { origin.fetch(&quick, json!({})).await }
    });
    assert_eq!(stage.fetch(FIRST).await.expect_err("nothing comes back"), OriginError::Timeout);
    for _ in 0..20 {
        let error = stage.fetch(WITHIN).await.expect_err("nothing comes back");
        assert!(matches!(error, OriginError::Away(_)), "{error}");
    }
    let error = patient.await.expect("no panic").expect_err("nor to this one");
    assert!(matches!(error, OriginError::Away(_)), "{error}");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    eventually("three probes were made", WITHIN, async || match stage.proxy.most_attempts(begun, WITHIN) {
        4.. => Ok(()),
        n => Err(n),
    })
    .await;
    assert!(stage.proxy.most_attempts(begun, SECOND) <= 3, "{:?}", stage.proxy.attempts());
    stage.proxy.set(Mode::Pass).await;
    let took = stage.back().await;
    assert!(took < 2 * SECOND, "{took:?}");
    eventually("what stood is closed, and so are the probes", WITHIN, async || match stage.proxy.open() {
        0..=8 => Ok(()),
        n => Err(n),
    })
    .await;
    assert_eq!(stage.origin.postgres.pool().busy, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_hang_in_a_silence_are_given_up_together_and_nobody_hammers_to_cancel_them() {
    let stage = stage(8, |_| {}).await;
    stage.proxy.set(Mode::BlackHole).await;
    let begun = Instant::now();
    let outcomes = join_all((0..8).map(|_| stage.fetch(FIRST))).await;
    for outcome in outcomes {
        let error = outcome.expect_err("nothing comes back");
        assert!(matches!(error, OriginError::Timeout | OriginError::Away(_)), "{error}");
    }
    stage.breaker_is(BreakerState::Open).await;
    eventually("every place is free again", WITHIN, async || match stage.origin.postgres.pool().busy {
        0 => Ok(()),
        n => Err(n),
    })
    .await;
    eventually("it is probed", WITHIN, async || match stage.proxy.most_attempts(begun, WITHIN) {
        6.. => Ok(()),
        n => Err(n),
    })
    .await;
    assert!(stage.proxy.most_attempts(begun, SECOND) <= 3, "{:?}", stage.proxy.attempts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_probe_and_a_probe_that_hangs_delays_none() {
    // A probe hangs for as long as the test may take.
    let stage = stage(1, |settings| {
        settings.connect_timeout = 4 * WITHIN;
        settings.reconnect_max = Duration::from_millis(100);
    })
    .await;
    stage.proxy.set(Mode::BlackHole).await;
    assert_eq!(stage.fetch(FIRST).await.expect_err("nothing comes back"), OriginError::Timeout);
    stage.breaker_is(BreakerState::HalfOpen).await;
    let (begun, before) = (Instant::now(), stage.proxy.attempts().len());
    let error = stage.fetch(WITHIN).await.expect_err("nothing comes back");
    assert!(matches!(error, OriginError::Away(_)), "{error}");
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    eventually("others are under way beside it", WITHIN, async || match stage.proxy.attempts().len() - before {
        2.. => Ok(()),
        n => Err(n),
    })
    .await;
    assert!(stage.proxy.open() <= 4 + 1, "four probes at most, and the one that stood: {}", stage.proxy.open());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_hangs_alone_says_nothing_of_the_server() {
    let stage = stage(2, |_| {}).await;
    let hanging = query("SELECT 1 AS a FROM (SELECT pg_advisory_lock_shared(7) OFFSET 0) AS gate");
    stage.origin.ready(&hanging).await;
    let pids = query_typed("SELECT pg_backend_pid() + 0 * :n AS pid", &[("n", "int4")]);
    stage.origin.ready(&pids).await;
    stage.db.admin.batch_execute("SELECT pg_advisory_lock(7)").await.expect("the lock");
    for _ in 0..5 {
        let outcome = stage.origin.fetch_within(&hanging, json!({}), FIRST, Connection::Pooled).await;
        assert_eq!(outcome.expect_err("it hangs"), OriginError::Timeout);
        assert_eq!(stage.origin.postgres.breaker(), BreakerState::Closed);
        stage.origin.text_of(&pids, json!({ "n": 1 })).await;
    }
    assert_eq!(stage.origin.postgres.state(), OriginState::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nobody_is_let_in_a_connection_that_stands_goes_on() {
    let stage = stage(2, |_| {}).await;
    let closed = format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", stage.db.name);
    let elsewhere = stage.db.server.client("postgres").await.expect("a connection");
    elsewhere.batch_execute(&closed).await.expect("superusers may");
    let hanging = query("SELECT 1 AS a FROM (SELECT pg_advisory_lock_shared(7) OFFSET 0) AS gate");
    stage.origin.ready(&hanging).await;
    stage.db.admin.batch_execute("SELECT pg_advisory_lock(7)").await.expect("the lock");
    let held = tokio::spawn({
        let (origin, hanging) = (Arc::clone(&stage.origin), Arc::clone(&hanging));
        async move { origin.fetch(&hanging, json!({})).await }
    });
    eventually("it hangs", WITHIN, async || if stage.db.active().await == 1 { Ok(()) } else { Err(()) }).await;
    // This one closes what lies idle, and finds that there is no other.
    for _ in 0..3 {
        let outcome = stage.origin.fetch_within(&stage.quick, json!({}), WITHIN, Connection::New).await;
        assert!(matches!(outcome, Err(OriginError::Away(_))), "{outcome:?}");
    }
    stage.breaker_is(BreakerState::Open).await;
    stage.db.admin.batch_execute("SELECT pg_advisory_unlock(7)").await.expect("the lock");
    held.await.expect("no panic").expect("the server is there, and this connection stands");
    for _ in 0..3 {
        stage.fetch(WITHIN).await.expect("it goes on");
        let outcome = stage.origin.fetch_within(&stage.quick, json!({}), WITHIN, Connection::New).await;
        assert!(matches!(outcome, Err(OriginError::Away(_))), "a new one is refused without a try: {outcome:?}");
    }
    assert!(matches!(stage.origin.postgres.state(), OriginState::Away(_)), "it is not as it should be");
}
