//! The demo's claim, played in full: the naive cache sends every request to Postgres, Seawall one of them.

use std::path::Path;

use seawall::cli::demo::{REQUESTS, load_config, play, start_postgres};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eleven_thousand_requests_are_eleven_thousand_statements_without_seawall_and_one_with_it() {
    seawall::cli::raise_descriptor_limit(4096);
    let config = load_config(Path::new("config.toml")).expect("the shipped configuration");
    let postgres = start_postgres().await.expect("a Postgres that counts");
    let report = play(&config, &postgres, REQUESTS, &|_| {}).await.expect("played to its end");
    postgres.stop().await.expect("stopped");
    assert!(report.naive.database.statements >= u64::from(REQUESTS), "{report}");
    assert_eq!(report.seawall.database.statements, 1, "{report}");
    assert_eq!(report.write.statements, 1, "one write, one refill: {report}");
    assert_eq!((report.naive.latencies.failed, report.seawall.latencies.failed), (0, 0), "{report}");
}
