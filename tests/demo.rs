//! The demo's claims, played in full: the naive cache sends every request to Postgres, Seawall one of them, and so do several pods.

#[path = "support/eventually.rs"]
mod eventually;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use eventually::eventually;
use seawall::cli::demo::{Cluster, Options, REQUESTS, load_config, play, start_postgres};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Nothing here takes so long, on a machine under load neither.
const LONGEST: Duration = Duration::from_secs(120);

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

/// Fewer than in the demo: without optimisation four processes on two cores would need longer for a turn of their loops than
/// Redis is given to answer.
const OVER_PODS: u32 = 1_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_pods_send_one_statement_and_one_of_them_dies_unnoticed() {
    seawall::cli::raise_descriptor_limit(4096);
    let config = load_config(Path::new("config.toml")).expect("the shipped configuration");
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_seawall")),
        config: PathBuf::from("config.toml"),
        pods: 3,
        redis_server: PathBuf::from("redis-server"),
    };
    let mut cluster = Cluster::start(&config, &options, &|_| {}).await.expect("all of it starts");
    let report = cluster.play(&config, OVER_PODS, &|line| println!("{line}")).await.expect("played to its end");
    cluster.stop().await;
    println!("{report}");
    assert!(report.naive.database.statements >= u64::from(OVER_PODS), "{report}");
    assert_eq!(report.seawall.database.statements, 1, "of all pods together: {report}");
    assert_eq!((report.naive.latencies.failed, report.seawall.latencies.failed), (0, 0), "{report}");

    let asked: Vec<u64> = report.pods.iter().map(|pod| pod.requests).collect();
    assert_eq!(asked.iter().sum::<u64>(), u64::from(OVER_PODS), "{report}");
    assert!(asked.iter().all(|requests| *requests > u64::from(OVER_PODS) / 4), "spread over all: {report}");
    assert_eq!(report.pods.iter().map(|pod| pod.statements).sum::<u64>(), 1, "{report}");
    assert!(report.pods.iter().all(|pod| pod.memory + pod.redis + pod.postgres == pod.requests), "{report}");

    assert_eq!((report.spread.visible.len(), report.spread.statements), (3, 1), "one write, one refill: {report}");
    assert_eq!(report.death.failed, 0, "{report}");
    assert!(report.death.answered >= 600, "{report}");
    assert!(report.death.cache_status.ends_with("; detail=redis"), "{report}");
    assert_eq!(report.death.statements, 0, "{report}");
}

#[tokio::test]
async fn a_machine_without_redis_is_told_what_to_do() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_seawall"));
    demo.args(["demo", "--pods", "2", "--redis-server", "/nonexistent/redis-server"]).kill_on_drop(true);
    let output = tokio::time::timeout(LONGEST, demo.output()).await.expect("it ends").expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["/nonexistent/redis-server can't be run", "scripts/tools.sh redis", "--redis-server"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// Plays the demo until its pods are up, ends it by `signal`, and waits for everything that it started to be gone.
async fn nothing_is_left_after(signal: rustix::process::Signal) -> std::process::ExitStatus {
    let tmp = tempfile::tempdir().expect("a directory");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["demo", "--pods", "2", "--requests", "50"])
        .env("TMPDIR", tmp.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(demo.stdout.take().expect("a pipe")).lines();
    let up = async {
        while let Some(line) = lines.next_line().await.expect("text") {
            if line.starts_with("Ctrl-C") {
                return;
            }
        }
        panic!("it ended before its pods were up");
    };
    tokio::time::timeout(LONGEST, up).await.expect("the pods come up");
    let ours = tmp.path().to_string_lossy().into_owned();
    assert_eq!(naming(&ours).len(), 4, "Redis, two pods, and the shell that stands by: {:?}", naming(&ours));
    let pid = i32::try_from(demo.id().expect("it runs")).expect("a pid");
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).expect("a pid"), signal).expect("it is there");
    let status = tokio::time::timeout(LONGEST, demo.wait()).await.expect("it ends").expect("waited for");
    eventually("nothing of it is left", LONGEST, async || {
        let files: Vec<_> = std::fs::read_dir(tmp.path()).expect("the directory").flatten().collect();
        let left = naming(&ours);
        if left.is_empty() && files.is_empty() { Ok(()) } else { Err(format!("{left:?} {files:?}")) }
    })
    .await;
    status
}

/// Command lines with our directory `demo` in them: Redis's, pods' and the shell's. Postgres's is the embedded server's own to
/// test, which takes another directory where its user can't enter this one.
fn naming(directory: &str) -> Vec<String> {
    let directory = format!("{directory}/seawall-demo-");
    let processes = std::fs::read_dir("/proc").expect("Linux").flatten();
    // Redis shows its address in place of its arguments, and stands in the directory.
    let lines = processes.filter_map(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let stands = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        Some(format!("{} in {}/", String::from_utf8_lossy(&line).replace('\0', " "), stands.display()))
    });
    lines.filter(|line| line.contains(&directory)).collect()
}

#[tokio::test]
async fn an_interrupted_demo_leaves_no_process_and_no_file() {
    let status = nothing_is_left_after(rustix::process::Signal::INT).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_killed_demo_leaves_no_process_and_no_file() {
    nothing_is_left_after(rustix::process::Signal::KILL).await;
}
