//! Postgres goes away, hangs, or breaks off: most users don't notice, the others are told at once, and it mends itself.

use std::time::Duration;

use tokio::time::Instant;

use super::outage_load::{Readers, Stage, Told, WITHIN, ask};
use super::support::chaos::Mode;
use super::support::client::get;
use super::support::eventually::eventually;
use super::support::service::plan;
use super::support::{Gate, database};

/// `timeout` and `connect_timeout` of these tests are the defaults.
const DEADLINE: Duration = Duration::from_secs(2);

/// After the first deadline nobody waits for Postgres any more; what is left is the machine's own slowness.
const AT_ONCE: Duration = DEADLINE.checked_div(2).expect("not by zero");

/// Until one who waited in vain has found out that the server is silent.
const FOUND_OUT: Duration = DEADLINE.saturating_add(Duration::from_millis(500));

/// Of every answer here.
const TTL: Duration = Duration::from_millis(50);

/// Three windows: an old value that only an error brings out, one that is refreshed in the background, and none at all.
const QUERIES: &str = "\
[defaults]\njitter = 0.0\nearly_refresh = 0.0\nttl = \"50ms\"\nresult = \"value\"\n\
[queries.kept]\nsql = \"SELECT v FROM t\"\nstale_while_revalidate = \"0s\"\nstale_if_error = \"1h\"\n\
[queries.window]\nsql = \"SELECT v FROM t\"\nstale_while_revalidate = \"1h\"\nstale_if_error = \"1h\"\n\
[queries.bare]\nsql = \"SELECT v FROM t WHERE :n::int4 IS NOT NULL\"\nstale_while_revalidate = \"0s\"\nstale_if_error = \"0s\"\n";

const PATHS: [(&str, &str); 3] =
    [("kept", "/v1/queries/kept"), ("window", "/v1/queries/window"), ("bare", "/v1/queries/bare?n={n}")];

/// How long an outage lasts: longer than it takes to find out, and as long as `make soak` says.
fn outage() -> Duration {
    let seconds = std::env::var("SEAWALL_OUTAGE_SECONDS").map_or(5, |s| s.parse().expect("SEAWALL_OUTAGE_SECONDS"));
    Duration::from_secs(seconds)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outage {
    Stopped,
    Killed,
    BlackHoled,
}

/// Plays one outage under load, and holds everything that was told against what may be.
async fn play(outage_kind: Outage) {
    let stage = Stage::set(QUERIES).await;
    let readers = Readers::start(&stage.service, &PATHS, 4, Duration::from_millis(20));
    readers.are_told(&["kept", "window", "bare"], "0").await;

    let begun = Instant::now();
    match outage_kind {
        Outage::Stopped => stage.stop().await,
        Outage::Killed => stage.postgres.crash().await.expect("ended"),
        Outage::BlackHoled => stage.proxy.set(Mode::BlackHole).await,
    }
    let away = Instant::now();
    eventually("it is over", outage() + WITHIN, async || if away.elapsed() >= outage() { Ok(()) } else { Err(()) })
        .await;
    assert!(stage.service.metric("seawall_origin_breaker").await > 0.0);
    assert!(stage.service.metric("seawall_origin_connects_total{outcome=\"failed\"}").await >= 1.0);
    let ready = get(stage.service.admin, "/readyz").await;
    assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("degraded")));
    assert!(ready.text().contains("can't be reached"), "{}", ready.text());
    let ended = Instant::now();
    match outage_kind {
        Outage::Stopped | Outage::Killed => stage.postgres.restart().await.expect("back"),
        Outage::BlackHoled => stage.proxy.set(Mode::Pass).await,
    }
    let back = Instant::now();
    stage.write(1).await;
    readers.are_told(&["kept", "window", "bare"], "1").await;
    let recovered = back.elapsed();
    let told = readers.stopped().await;

    assert!(recovered < Duration::from_secs(2), "recovered after {recovered:?}");
    let tries = stage.proxy.most_attempts_between(begun, ended, Duration::from_secs(1));
    assert!((1..=3).contains(&tries), "{tries} in one second: {:?}", stage.proxy.attempts());
    stage.nothing_is_left_behind().await;

    // A server that is stopped says so at once; one that is silent is found out by who waits first. What was filled in
    // the last moment has expired by then.
    let found_out = if outage_kind == Outage::BlackHoled { begun + FOUND_OUT } else { away + 2 * TTL };
    let amid = |told: &&Told| told.asked >= found_out && told.asked + told.took <= ended;
    check_kept(&told, amid);
    check_window(&told, amid);
    check_bare(&told, amid, begun);
}

/// Within `stale_if_error`: never an error, and labelled by whether the failure is this request's or remembered.
fn check_kept(told: &[Told], amid: impl Fn(&&Told) -> bool) {
    let kept: Vec<_> = told.iter().filter(|told| told.query == "kept").collect();
    assert!(kept.iter().all(|told| told.status == 200), "{:?}", kept.iter().find(|told| told.status != 200));
    let amid: Vec<_> = kept.iter().copied().filter(amid).collect();
    let (mut tried, mut remembered) = (0, 0);
    for told in &amid {
        assert_eq!(told.body, "0");
        match () {
            () if told.is("fwd=stale; fwd-status=#; detail=stale-if-error") => tried += 1,
            () if told.is("fwd=stale; fwd-status=#; collapsed; detail=stale-if-error") => {}
            () if told.is("hit; ttl=-#; detail=stale-if-error") || told.is("hit; ttl=#; detail=stale-if-error") => {
                remembered += 1;
            }
            () => panic!("{told:?}"),
        }
        assert!(told.took < AT_ONCE, "{told:?}");
    }
    assert!(tried >= 1, "each backoff ends with a try");
    assert!(remembered > tried, "{remembered} from memory, {tried} after a try: within a backoff nobody tries");
}

/// Within `stale_while_revalidate`: never an error and never a wait, whatever happens behind it.
fn check_window(told: &[Told], amid: impl Fn(&&Told) -> bool) {
    let window: Vec<_> = told.iter().filter(|told| told.query == "window").collect();
    assert!(window.iter().all(|told| told.status == 200), "{:?}", window.iter().find(|told| told.status != 200));
    let mut revalidating = 0;
    for told in window.iter().copied().filter(amid) {
        assert_eq!(told.body, "0");
        match () {
            () if told.is("hit; ttl=-#; detail=stale-while-revalidate") => revalidating += 1,
            () if told.is("hit; ttl=#; detail=stale-while-revalidate") => revalidating += 1,
            () if told.is("hit; ttl=-#; detail=stale-if-error") || told.is("hit; ttl=#; detail=stale-if-error") => {}
            () => panic!("{told:?}"),
        }
        assert!(told.took < AT_ONCE, "{told:?}");
    }
    assert!(revalidating >= 1, "each backoff ends with a refresh");
}

/// Without anything old: told so, and at once, but for those who were the first to wait.
fn check_bare(told: &[Told], amid: impl Fn(&&Told) -> bool, begun: Instant) {
    let bare: Vec<_> = told.iter().filter(|told| told.query == "bare").collect();
    for told in &bare {
        let expected = match told.status {
            200 => told.is("fwd=uri-miss; stored"),
            503 => told.how == "origin_away",
            504 => told.how == "deadline" && told.asked < begun + FOUND_OUT,
            _ => false,
        };
        assert!(expected, "{told:?}");
        assert!(told.took < DEADLINE + AT_ONCE, "by its deadline: {told:?}");
    }
    let amid: Vec<_> = bare.into_iter().filter(amid).collect();
    assert!(amid.len() > 50, "{}", amid.len());
    for told in amid {
        assert_eq!(told.status, 503, "{told:?}");
        assert!(told.took < AT_ONCE, "{told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_under_load_it_is_noticed_by_few_and_mends_itself() {
    play(Outage::Stopped).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_it_is_noticed_by_few_and_mends_itself() {
    play(Outage::Killed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn black_holed_under_load_it_costs_one_deadline_and_mends_itself() {
    play(Outage::BlackHoled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_queries_one_that_hangs_leaves_the_others_as_if_it_were_not_there() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let toml = format!(
        "[postgres]\npool_size = 4\n[defaults]\nresult = \"value\"\ntimeout = \"60s\"\n\
         [queries.hangs]\nsql = \"SELECT :n::int4 FROM {} AS gate\"\nmax_fills = 2\n\
         [queries.one]\nsql = \"SELECT :n::int4 + 1\"\n\
         [queries.two]\nsql = \"SELECT :n::int4 + 2\"\n",
        gate.sql()
    );
    let service = plan(&database.url, &toml).start().await;
    let address = service.queries;
    let hanging: Vec<_> =
        (0..10).map(|n| tokio::spawn(async move { get(address, &format!("/v1/queries/hangs?n={n}")).await })).collect();
    gate.held(2).await;
    eventually("ten wait", WITHIN, async || match service.read.waiting() {
        10 => Ok(()),
        n => Err(n),
    })
    .await;
    for n in 0..100 {
        for (query, add) in [("one", 1), ("two", 2)] {
            let answer = get(address, &format!("/v1/queries/{query}?n={n}")).await;
            assert_eq!((answer.status, answer.text()), (200, (n + add).to_string()));
            assert_eq!(answer.header("cache-status"), Some("seawall; fwd=uri-miss; stored"));
        }
    }
    gate.held(2).await;
    for (query, statements) in [("hangs", 2.0), ("one", 100.0), ("two", 100.0)] {
        let series = format!("seawall_db_queries_total{{query=\"{query}\"}}");
        assert_eq!(service.metric(&series).await, statements, "{query}");
    }
    assert_eq!(service.metric("seawall_flights").await, 10.0);
    assert_eq!(service.metric("seawall_origin_breaker").await, 0.0);
    gate.open().await;
    for (n, hanging) in hanging.into_iter().enumerate() {
        let answer = hanging.await.expect("no panic");
        assert_eq!((answer.status, answer.text()), (200, n.to_string()));
    }
    assert_eq!(service.metric("seawall_db_queries_total{query=\"hangs\"}").await, 10.0);
    assert_eq!(service.metric("seawall_rebuild_errors_total{query=\"hangs\",reason=\"timeout\"}").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_is_slower_than_its_ttl_advances_one_statement_at_a_time() {
    for stale in ["0s", "1h"] {
        let database = database().await;
        let toml = format!(
            "[defaults]\nresult = \"value\"\nttl = \"20ms\"\nstale_while_revalidate = \"{stale}\"\ntimeout = \"30s\"\n\
             [queries.slow]\nsql = \"SELECT extract(epoch FROM clock_timestamp()) FROM (SELECT pg_sleep(0.15) OFFSET 0) AS s\"\n"
        );
        let service = plan(&database.url, &toml).start().await;
        let begun = Instant::now();
        let readers = Readers::start(&service, &[("slow", "/v1/queries/slow")], 8, Duration::from_millis(5));
        let mut most = 0;
        eventually("the value advances", WITHIN, async || {
            most = most.max(database.count_active("%pg_sleep%__seawall_row%").await);
            let mut values: Vec<String> = readers.told().into_iter().map(|told| told.body).collect();
            values.sort();
            values.dedup();
            if values.len() >= 8 { Ok(()) } else { Err(values) }
        })
        .await;
        let told = readers.stopped().await;
        assert!(told.iter().all(|told| told.status == 200));
        assert!(most <= 1, "{most} at a time");
        // That no two overlapped, whatever was missed in between looks: together they took no longer than there was time.
        let client = database.client().await;
        let sql = "SELECT sum(total_exec_time)::float8, sum(calls)::float8 FROM pg_stat_statements s \
                   JOIN pg_database d ON d.oid = s.dbid \
                   WHERE d.datname = current_database() AND query LIKE '%pg_sleep%__seawall_row%' \
                   AND query NOT LIKE 'EXPLAIN%'";
        eventually("the last refresh has ended", WITHIN, async || match service.read.flying() {
            0 => Ok(()),
            n => Err(n),
        })
        .await;
        let row = client.query_one(sql, &[]).await.expect("counted");
        let (took_ms, calls): (f64, f64) = (row.get(0), row.get(1));
        assert!(took_ms <= begun.elapsed().as_secs_f64() * 1e3, "{took_ms} ms of statements");
        assert!(calls >= 8.0 && took_ms >= calls * 150.0, "{calls} calls in {took_ms} ms");
        assert_eq!(service.metric("seawall_db_queries_total{query=\"slow\"}").await, calls);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_is_cut_is_neither_served_nor_stored_and_the_next_try_heals() {
    const LONG: usize = 400_000;
    let toml = "[defaults]\nresult = \"value\"\nerror_backoff = \"1ms\"\nstale_while_revalidate = \"0s\"\njitter = 0.0\n\
                [queries.long]\nsql = \"SELECT repeat('x', 400000 + 0 * :n::int4)\"\nttl = \"1h\"\n\
                [queries.kept]\nsql = \"SELECT repeat('y', 400000)\"\nttl = \"1ms\"\n";
    let stage = Stage::set(toml).await;
    let (long, kept) = ("/v1/queries/long?n={n}", "/v1/queries/kept");
    let before = ask(stage.service.queries, "kept", kept).await;
    assert_eq!((before.status, before.body.len()), (200, LONG + 2));
    for after in [0, 1, 100, 100_000, 399_000] {
        stage.proxy.set(Mode::Cut { after }).await;
        let entries = stage.service.read.store().len();
        let cut = ask(stage.service.queries, "long", long).await;
        assert_eq!((cut.status, cut.how.as_str()), (503, "origin_away"), "cut after {after}");
        assert_eq!(stage.service.read.store().len(), entries, "nothing is stored");
        let old = ask(stage.service.queries, "kept", kept).await;
        assert_eq!((old.status, &old.body), (200, &before.body), "the old one, whole");
        assert!(old.how.ends_with("detail=stale-if-error"), "{}", old.how);
        stage.proxy.set(Mode::Pass).await;
        eventually("it heals", WITHIN, async || {
            let told = ask(stage.service.queries, "long", long).await;
            if told.status == 200 { Ok(()) } else { Err(told.how) }
        })
        .await;
        let whole = ask(stage.service.queries, "long", long).await;
        assert_eq!((whole.status, whole.how.as_str(), whole.body.len()), (200, "fwd=uri-miss; stored", LONG + 2));
    }
    stage.nothing_is_left_behind().await;
}
