//! Fills that nobody wants any more.

use std::future::Future as _;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use seawall::postgres::TlsMode;
use seawall::readthrough::origin::{Connection, Origin as _, OriginError};
use serde_json::json;
use tokio::time::Instant;

use crate::support::chaos::Chaos;
use crate::support::eventually::eventually;
use crate::support::server::Database;
use crate::support::{Origin, WITHIN, query};

/// Runs until somebody cancels it; a minute is longer than any test.
const ENDLESS: &str = "SELECT 1 AS a FROM pg_sleep(60)";

#[tokio::test]
async fn a_dropped_fetch_leaves_no_statement_after_100_ms() {
    let db = Database::new("").await;
    let origin = Arc::new(Origin::new(db.settings()));
    let q = query(ENDLESS);
    origin.ready(&q).await;
    for _ in 0..5 {
        let fetch = tokio::spawn({
            let (origin, q) = (Arc::clone(&origin), Arc::clone(&q));
            async move { origin.fetch(&q, json!({})).await }
        });
        eventually("the statement runs", WITHIN, async || match db.active().await {
            1 => Ok(()),
            n => Err(n),
        })
        .await;
        let dropped = Instant::now();
        fetch.abort();
        eventually("no statement runs", Duration::from_millis(100), async || match db.active().await {
            0 => Ok(()),
            n => Err((n, dropped.elapsed())),
        })
        .await;
    }
}

#[tokio::test]
async fn the_deadline_is_exact_and_ends_the_statement() {
    let db = Database::new("").await;
    let origin = Origin::new(db.settings());
    let q = query(ENDLESS);
    origin.ready(&q).await;
    let within = Duration::from_millis(300);
    let asked = Instant::now();
    let error = origin.fetch_within(&q, json!({}), within, Connection::Pooled).await.expect_err("it is endless");
    let took = asked.elapsed();
    assert_eq!(error, OriginError::Timeout);
    assert!(took >= within && took < within + Duration::from_millis(100), "{took:?}");
    no_statement_runs(&db).await;
}

async fn no_statement_runs(db: &Database) {
    eventually("no statement runs", Duration::from_millis(100), async || match db.active().await {
        0 => Ok(()),
        n => Err(n),
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_statements_connection_is_never_used_again() {
    let db = Database::new("").await;
    let mut settings = db.settings();
    settings.pool_size = 1;
    let origin = Origin::new(settings);
    let (endless, pid) = (query(ENDLESS), query("SELECT pg_backend_pid() AS pid"));
    origin.ready(&endless).await;
    let first = origin.answer(Arc::clone(&pid)).await;
    let within = Duration::from_millis(200);
    let error = origin.fetch_within(&endless, json!({}), within, Connection::Pooled).await.expect_err("endless");
    assert_eq!(error, OriginError::Timeout);
    // The server may signal it once more at any moment.
    assert_ne!(origin.text(&pid).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_cancels_at_random_moments_never_hit_a_neighbour() {
    let db = Database::new("").await;
    let mut settings = db.settings();
    settings.pool_size = 1;
    let origin = Arc::new(Origin::new(settings));
    let (short, neighbour) = (query("SELECT 1 AS a FROM pg_sleep(0.002)"), query("SELECT 2 AS b FROM pg_sleep(0.004)"));
    origin.ready(&short).await;
    origin.ready(&neighbour).await;
    let mut random = fastrand::Rng::with_seed(7);
    let mut cancelled = 0;
    for round in 0..100 {
        let after = Duration::from_micros(random.u64(0..4000));
        // The deadline is the moment of the cancel; some statements end before it, and that is the point.
        match origin.fetch_within(&short, json!({}), after, Connection::Pooled).await {
            Ok(_) => {}
            Err(OriginError::Timeout | OriginError::Pool | OriginError::Away(_)) => cancelled += 1,
            Err(other) => panic!("round {round}: {other}"),
        }
        assert_eq!(origin.text(&neighbour).await, r#"[{"b":2}]"#, "round {round}, cancelled after {after:?}");
    }
    assert!(cancelled > 10, "only {cancelled} were cancelled");
}

#[tokio::test]
async fn a_fill_that_waits_for_a_connection_leaves_without_a_trace() {
    let db = Database::new("").await;
    let mut settings = db.settings();
    settings.pool_size = 1;
    let origin = Arc::new(Origin::new(settings));
    let (endless, quick) = (query(ENDLESS), query("SELECT 'never' AS sent"));
    origin.ready(&endless).await;
    origin.ready(&quick).await;
    let mut running = Box::pin(origin.fetch(&endless, json!({})));
    let mut context = Context::from_waker(Waker::noop());
    eventually("the statement runs", WITHIN, async || {
        assert!(running.as_mut().poll(&mut context).is_pending());
        if db.active().await == 1 { Ok(()) } else { Err(()) }
    })
    .await;
    let within = Duration::from_millis(50);
    let error = origin.fetch_within(&quick, json!({}), within, Connection::Pooled).await.expect_err("it has no turn");
    assert_eq!(error, OriginError::Pool);
    assert_eq!(origin.sent(), 1, "only the endless one");
    {
        let mut waiting = pin!(origin.fetch(&quick, json!({})));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!(origin.postgres.pool().waiting, 1);
    }
    let counts = origin.postgres.pool();
    assert_eq!((counts.waiting, counts.busy, counts.idle), (0, 1, 0));
    drop(running);
    origin.postgres.drained().await;
    no_statement_runs(&db).await;
    assert_eq!(origin.text(&quick).await, r#"[{"sent":"never"}]"#);
}

/// The interleaving that a connection is closed for:
///
/// 1. a statement runs, and nobody wants it any more: a cancel is sent, and is late;
/// 2. the statement ends by itself, and its connection would go to the next;
/// 3. the next statement runs;
/// 4. the cancel arrives.
#[tokio::test]
async fn a_late_cancel_finds_nobody() {
    let db = Database::new("").await;
    let proxy = Chaos::before(db.server.port);
    let mut settings = db.settings();
    settings.url = format!("postgres://postgres@127.0.0.1:{}/{}", proxy.port, db.name);
    settings.pool_size = 1;
    settings.tls = TlsMode::Disable;
    let origin = Arc::new(Origin::new(settings));
    let gated = |n: u32| query(&format!("SELECT {n} AS n FROM pg_advisory_xact_lock_shared({n})"));
    let (first, next) = (gated(1), gated(2));
    for q in [&first, &next] {
        origin.ready(q).await;
    }
    let runs = async || {
        eventually("the statement waits at its gate", WITHIN, async || match db.active().await {
            1 => Ok(()),
            n => Err(n),
        })
        .await;
    };
    let fetch = |q: &Arc<_>| {
        let (origin, q) = (Arc::clone(&origin), Arc::clone(q));
        tokio::spawn(async move { origin.fetch(&q, json!({})).await })
    };
    db.admin.batch_execute("SELECT pg_advisory_lock(1), pg_advisory_lock(2)").await.expect("gates");
    proxy.hold_cancels();
    let unwanted = fetch(&first);
    runs().await;
    unwanted.abort();
    let _ = unwanted.await;
    db.admin.batch_execute("SELECT pg_advisory_unlock(1)").await.expect("a gate");
    origin.postgres.drained().await;
    let neighbour = fetch(&next);
    runs().await;
    proxy.release_cancels();
    eventually("the cancel is carried out", WITHIN, async || match proxy.cancels_delivered() {
        0 => Err(()),
        _ => Ok(()),
    })
    .await;
    db.admin.batch_execute("SELECT pg_advisory_unlock(2)").await.expect("a gate");
    let fetched = neighbour.await.expect("no panic").expect("the neighbour is not cancelled");
    assert_eq!(fetched.body.as_deref(), Some(&br#"[{"n":2}]"#[..]));
}
