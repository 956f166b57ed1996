//! The embedded Postgres: where its programs come from, and that nothing of it stays behind.
//!
//! Ends such as `kill -9`, and variables of the environment, need a process of their own: this test binary starts
//! itself with one role of [`child`].

#[path = "embedded/child.rs"]
mod child;
#[path = "embedded/download.rs"]
mod download;
#[path = "support/eventually.rs"]
mod eventually;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use child::{Child, spawn};
use eventually::eventually;
use seawall::postgres::embedded::{Embedded, EmbeddedError, EmbeddedOptions, find_binaries};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

const DEADLINE: Duration = Duration::from_secs(30);

/// A directory that every user can enter, as PostgreSQL's may be another one.
fn open_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

fn within(parent: &TempDir) -> EmbeddedOptions {
    EmbeddedOptions { parent: Some(parent.path().to_owned()), ..EmbeddedOptions::default() }
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

/// Not a zombie either: who reaps orphans is the machine's affair. A server that has stopped (its ports closed, its lock
/// removed) lives for a last moment, so its end is awaited.
fn lives(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// The end of a foreign process is announced to nobody.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, DEADLINE, async || if holds() { Ok(()) } else { Err("not yet") }).await;
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn kill(signal: &str, target: &str) {
    assert!(Command::new("kill").args([signal, "--", target]).status().unwrap().success());
}

/// The process id of the watchdog of the run directory in `parent`.
fn watchdog_in(parent: &Path) -> u32 {
    let wanted = format!("seawall-watchdog\0{}", parent.display());
    let mut pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&wanted))
            .then_some(pid)
    });
    pids.next().expect("a watchdog")
}

#[tokio::test]
async fn it_starts_with_our_settings_and_a_stop_leaves_nothing() {
    let parent = open_directory();
    let mut options = within(&parent);
    options.settings = vec![("application_name".to_owned(), r"it's a \ test".to_owned())];
    options.max_connections = 17;
    let embedded = Embedded::start(options).await.unwrap();
    let client = connect(&embedded.url("postgres")).await;
    for (name, expected) in [
        ("server_encoding", "UTF8"),
        ("lc_collate", "C"),
        ("listen_addresses", "127.0.0.1"),
        ("unix_socket_directories", ""),
        ("max_connections", "17"),
        ("fsync", "off"),
        ("synchronous_commit", "on"),
        ("timezone", "UTC"),
        ("application_name", r"it's a \ test"),
    ] {
        let sql = "SELECT reset_val FROM pg_settings WHERE lower(name) = $1";
        // Not a parameter any more in PostgreSQL 16: the template's is meant.
        let sql =
            if name == "lc_collate" { "SELECT datcollate::text FROM pg_database WHERE $1 <> '' LIMIT 1" } else { sql };
        assert_eq!(client.query_one(sql, &[&name]).await.unwrap().get::<_, &str>(0), expected, "{name}");
    }
    if embedded.has_statements() {
        client.batch_execute("CREATE EXTENSION pg_stat_statements; SELECT FROM pg_stat_statements").await.unwrap();
    }
    let pid = embedded.postmaster_pid();
    assert!(lives(pid) && embedded.data_dir().starts_with(parent.path()));
    embedded.stop().await.unwrap();
    assert!(is_empty(parent.path()));
    until("the server to be gone", || !lives(pid)).await;
}

#[tokio::test]
async fn nobody_gets_in_without_the_password_and_debug_does_not_tell_it() {
    let embedded = Embedded::start(EmbeddedOptions::default()).await.unwrap();
    let url = embedded.url("postgres");
    let password = url.split([':', '@']).nth(2).unwrap();
    assert_eq!(password.len(), 32);
    assert!(!format!("{embedded:?}").contains(password));
    let wrong = url.replace(password, "wrong");
    let error = tokio_postgres::connect(&wrong, NoTls).await.err().expect("refused");
    assert_eq!(error.code().unwrap().code(), "28P01", "invalid_password");
    let run = embedded.data_dir().parent().unwrap().to_owned();
    assert!(!run.join("data.pwfile").exists(), "the password's file is gone once initdb has read it");
    assert_eq!(fs::metadata(embedded.data_dir()).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_drop_leaves_nothing_even_when_the_watchdog_was_killed() {
    let parent = open_directory();
    let embedded = Embedded::start(within(&parent)).await.unwrap();
    let pid = embedded.postmaster_pid();
    let watchdog = watchdog_in(parent.path());
    kill("-KILL", &watchdog.to_string());
    until("the watchdog to be dead", || !lives(watchdog)).await;
    assert!(lives(pid), "a watchdog's death alone changes nothing");
    drop(embedded);
    assert!(is_empty(parent.path()));
    until("the server to be gone", || !lives(pid)).await;
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing() {
    let parent = open_directory();
    // In the midst of initdb, and, on a machine in no hurry, before it.
    for files in [0, 3] {
        let start = Embedded::start(within(&parent));
        let begun = until("initdb to have begun", || {
            let run = fs::read_dir(parent.path()).unwrap().flatten().next();
            run.is_some_and(|run| fs::read_dir(run.path().join("data")).is_ok_and(|data| data.count() >= files))
        });
        tokio::select! {
            biased;
            result = start => panic!("it should be waiting for initdb: {result:?}"),
            () = begun => {}
        }
        assert!(is_empty(parent.path()), "with {files} files in the cluster");
    }
}

#[tokio::test]
async fn a_failed_start_tells_the_reason_and_leaves_nothing() {
    let parent = open_directory();
    let mut options = within(&parent);
    options.settings = vec![("shared_buffers".to_owned(), "a lot".to_owned())];
    let error = Embedded::start(options).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Start { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("invalid value for parameter \"shared_buffers\": \"a lot\""), "{text}");
    assert!(is_empty(parent.path()));
    // And nothing stands in the way of the next, which may be a task of its own.
    let next = Embedded::start(within(&parent));
    tokio::spawn(async { next.await.unwrap().stop().await.unwrap() }).await.unwrap();
}

#[tokio::test]
async fn a_crash_loses_no_commit_and_a_restart_keeps_the_port() {
    let embedded = Embedded::start(EmbeddedOptions::default()).await.unwrap();
    let client = connect(&embedded.url("postgres")).await;
    client.batch_execute("CREATE TABLE kept AS SELECT 1 AS one").await.unwrap();
    let (pid, url) = (embedded.postmaster_pid(), embedded.url("postgres"));
    embedded.crash().await.unwrap();
    until("the server to be gone", || !lives(pid)).await;
    assert!(client.query("SELECT 1", &[]).await.is_err());

    // Somebody else has the port: the reason is told, and the data wait.
    let thief = std::net::TcpListener::bind(("127.0.0.1", embedded.port())).unwrap();
    let error = embedded.restart().await.unwrap_err().to_string();
    assert!(error.contains("Address already in use") && error.contains(&embedded.port().to_string()), "{error}");
    drop(thief);

    embedded.restart().await.unwrap();
    assert_eq!(embedded.url("postgres"), url);
    assert_ne!(embedded.postmaster_pid(), pid);
    assert_eq!(connect(&url).await.query("SELECT one FROM kept", &[]).await.unwrap().len(), 1);
    // While it runs, too.
    embedded.restart().await.unwrap();
    connect(&url).await.query_one("SELECT 1", &[]).await.unwrap();
    embedded.crash().await.unwrap();
    embedded.stop().await.unwrap();
}

#[tokio::test]
async fn the_shop_is_the_same_however_often_it_is_loaded() {
    const SUMS: &str = "SELECT md5(string_agg(p::text, '' ORDER BY id)) || count(*) FROM shop.products p
        UNION ALL SELECT md5(string_agg(r::text, '' ORDER BY id)) || count(*) FROM shop.reviews r
        UNION ALL SELECT md5(string_agg(c::text, '' ORDER BY id)) || count(*) FROM shop.categories c";
    let embedded = Embedded::start(EmbeddedOptions::default()).await.unwrap();
    embedded.load_shop("shop").await.unwrap();
    let client = connect(&embedded.url("shop")).await;
    let sums = async || {
        let rows = client.query(SUMS, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    let first = sums().await;
    for (sum, rows) in first.iter().zip(["2000", "20000", "20"]) {
        assert_eq!(&sum[32..], rows);
    }
    embedded.load_shop("shop").await.unwrap();
    assert_eq!(sums().await, first);
    embedded.load_shop("other \"shop\"").await.unwrap();
    client.batch_execute("DELETE FROM shop.reviews WHERE id = 5").await.unwrap();
    embedded.load_shop("shop").await.unwrap();
    let left = client.query_one("SELECT count(*) FROM shop.reviews", &[]).await.unwrap();
    assert_eq!(left.get::<_, i64>(0), 19_999, "what a user deleted does not come back");
}

#[tokio::test]
async fn kill_9_leaves_no_server_and_no_directory() {
    let parent = open_directory();
    let mut child = spawn("hold", &[("SEAWALL_TEST_PARENT", parent.path().as_os_str())]);
    let said = child.says().expect("it starts");
    let pid: u32 = said.parse().unwrap();
    assert!(lives(pid) && !is_empty(parent.path()));
    child.kill_9();
    until("the server to be gone", || !lives(pid)).await;
    until("the directory to be gone", || is_empty(parent.path())).await;
    Embedded::start(within(&parent)).await.unwrap().stop().await.unwrap();
}

#[tokio::test]
async fn kill_9_in_the_midst_of_a_start_leaves_nothing_either() {
    let parent = open_directory();
    // The first look that sees initdb's files, and the first that sees the server's own.
    for file in ["data", "data/postgresql.auto.conf", "data/postmaster.pid"] {
        let mut child = spawn("hold", &[("SEAWALL_TEST_PARENT", parent.path().as_os_str())]);
        until(file, || fs::read_dir(parent.path()).unwrap().flatten().any(|run| run.path().join(file).exists())).await;
        let run = fs::read_dir(parent.path()).unwrap().next().unwrap().unwrap().path();
        child.kill_9();
        until("the directory to be gone", || is_empty(parent.path())).await;
        let users = || -> Vec<_> {
            let processes = fs::read_dir("/proc").unwrap().flatten();
            let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
            lines
                .map(|line| String::from_utf8_lossy(&line).into_owned())
                .filter(|line| line.contains(&*run.to_string_lossy()))
                .collect()
        };
        until(&format!("{:?} to be gone after a kill at {file}", users()), || users().is_empty()).await;
    }
}

#[tokio::test]
async fn ctrl_c_reaches_us_and_not_the_server() {
    let parent = open_directory();
    let mut child = spawn("interrupted", &[("SEAWALL_TEST_PARENT", parent.path().as_os_str())]);
    let pid: u32 = child.says().expect("it starts").parse().unwrap();
    // As a terminal does: to the whole foreground group.
    kill("-INT", &format!("-{}", child.id()));
    assert_eq!(child.says().as_deref(), Ok("the server answers, and has stopped"));
    assert!(is_empty(parent.path()));
    until("the server to be gone", || !lives(pid)).await;
}

#[test]
fn a_named_directory_without_postgresql_is_an_error_that_says_what_to_do() {
    for (dir, problem) in
        [("/nowhere", "it has no initdb, no pg_ctl, no postgres"), ("bin", "it is not an absolute path")]
    {
        let error = spawn("hold", &[("SEAWALL_PG_BIN", dir.as_ref())]).says().unwrap_err();
        let expected = format!("SEAWALL_PG_BIN={dir} can't be used: {problem}; point it at");
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn a_named_directory_is_used() {
    let bin = find_binaries().unwrap().expect("a PostgreSQL on this machine");
    spawn("hold", &[("SEAWALL_PG_BIN", bin.as_os_str())]).says().unwrap();
}

#[test]
fn root_without_setpriv_is_told_what_to_install() {
    if is_root() {
        let error = spawn("hold", &[("PATH", "/nowhere".as_ref())]).says().unwrap_err();
        assert!(error.contains("refuses to run as root") && error.contains("install util-linux"), "{error}");
    }
}

#[tokio::test]
async fn a_directory_that_the_server_can_not_enter_is_named() {
    if is_root() {
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), Permissions::from_mode(0o700)).unwrap();
        let error = Embedded::start(within(&closed)).await.unwrap_err();
        assert!(matches!(&error, EmbeddedError::Unreachable { path, .. } if path == closed.path()), "{error:?}");
        assert!(is_empty(closed.path()));
    }
}

#[test]
fn an_ordinary_user_without_a_home_can_start_one() {
    if is_root() {
        let directory = open_directory();
        let program = directory.path().join("test");
        fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&program);
        command.current_dir("/").env("HOME", "/nonexistent").env_remove("XDG_CACHE_HOME");
        Child::of(command, "hold", &[]).says().unwrap();
    }
}
