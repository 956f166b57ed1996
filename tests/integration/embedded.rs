//! The embedded Postgres: found or downloaded, and gone without a trace whatever ends its process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use seawall::postgres::embedded::{Binaries, Embedded, EmbeddedOptions};

use super::support::connect;
use super::support::eventually::eventually;

/// Set for the child process of a test: the directory for its Postgres.
const PARENT: &str = "SEAWALL_TEST_EMBEDDED_PARENT";
/// Set for a child that downloads: the repository.
const MIRROR: &str = "SEAWALL_TEST_EMBEDDED_MIRROR";

/// Runs as a child process only: starts a Postgres, says where, and stays.
#[tokio::test]
async fn child_that_holds_a_postgres() {
    let Ok(parent) = std::env::var(PARENT) else { return };
    let mirror = std::env::var(MIRROR).ok();
    let binaries = if mirror.is_some() { Binaries::Download } else { Binaries::Search };
    let options = EmbeddedOptions { parent: Some(parent.into()), mirror, binaries, ..EmbeddedOptions::default() };
    match Embedded::start(options).await {
        Ok(postgres) => {
            let one: i32 =
                connect(&postgres.url("postgres")).await.query_one("SELECT 1", &[]).await.expect("one").get(0);
            println!("UP {} {one}", postgres.postmaster_pid());
            // Until the test says otherwise, or kills this process.
            let _ = std::io::stdin().read(&mut [0]);
        }
        Err(error) => println!("FAILED {error}"),
    }
}

/// Starts that child; its first telling line.
fn child(parent: &Path, extra: &[(&str, &str)]) -> (std::process::Child, String) {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "embedded::child_that_holds_a_postgres", "--nocapture"])
        .env(PARENT, parent)
        .envs(extra.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("a child");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    // The test runner's own words may stand before it on the line.
    let told = lines.map(|l| l.split_once("UP ").map_or(l.clone(), |(_, rest)| format!("UP {rest}")));
    let line = told.into_iter().find(|l| l.starts_with("UP ") || l.contains("FAILED ")).expect("a telling line");
    (child, line)
}

async fn gone(parent: &Path, pid: u32) {
    eventually("server and directory are gone", Duration::from_secs(20), async || {
        let alive = Path::new(&format!("/proc/{pid}/stat")).exists();
        let left: Vec<_> = std::fs::read_dir(parent).expect("a directory").flatten().map(|e| e.file_name()).collect();
        if !alive && left.is_empty() { Ok(()) } else { Err(format!("alive: {alive}, left: {left:?}")) }
    })
    .await;
}

fn parent() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a directory");
    // The server's user must be able to enter it.
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    dir
}

#[tokio::test]
async fn a_killed_process_leaves_neither_server_nor_directory_behind() {
    let parent = parent();
    let (mut child, line) = child(parent.path(), &[]);
    let pid: u32 = line.split(' ').nth(1).expect("a pid").parse().expect("a pid");
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    // SIGKILL: nothing of the process runs any more.
    child.kill().expect("killed");
    child.wait().expect("ended");
    gone(parent.path(), pid).await;
}

#[tokio::test]
async fn a_stop_leaves_nothing_behind_and_the_next_start_works() {
    let parent = parent();
    for _ in 0..2 {
        let options = EmbeddedOptions { parent: Some(parent.path().into()), ..EmbeddedOptions::default() };
        let postgres = Embedded::start(options).await.expect("a Postgres");
        let pid = postgres.postmaster_pid();
        assert!(pid > 0);
        postgres.stop().await.expect("stopped");
        gone(parent.path(), pid).await;
    }
}

#[tokio::test]
async fn a_failed_start_says_why_and_leaves_nothing_behind() {
    let parent = parent();
    let options = EmbeddedOptions {
        parent: Some(parent.path().into()),
        settings: vec![("no_such_setting".into(), "1".into())],
        ..EmbeddedOptions::default()
    };
    let error = Embedded::start(options).await.expect_err("it can't start").to_string();
    assert!(error.contains("no_such_setting"), "{error}");
    gone(parent.path(), 0).await;
}

#[tokio::test]
async fn a_directory_without_programs_is_named_with_the_remedy() {
    let parent = parent();
    let (mut child, line) = child(parent.path(), &[("SEAWALL_PG_BIN", "/nowhere")]);
    child.wait().expect("ended");
    assert!(line.contains("SEAWALL_PG_BIN = /nowhere") && line.contains("initdb"), "{line}");
}

/// A repository that answers one request with `answer` and tells what was asked for.
fn repository(answer: Vec<u8>) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let asked = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut request = BufReader::new(stream.try_clone().expect("a socket")).lines().map_while(Result::ok);
        let first = request.next().expect("a request line");
        let _ = request.find(String::is_empty);
        stream.write_all(&answer).expect("answered");
        first
    });
    (url, asked)
}

fn http(status: &str, body: &[u8]) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// The archive that the repository has: a jar with a tar.xz, whose programs here are the machine's own.
fn jar() -> Vec<u8> {
    let bin = String::from_utf8(
        Command::new("sh").args(["-c", "ls -d /usr/lib/postgresql/*/bin | tail -1; true"]).output().expect("sh").stdout,
    )
    .expect("UTF-8");
    let bin = std::env::var("SEAWALL_PG_BIN").unwrap_or_else(|_| bin.trim().to_owned());
    let mut tar = tar::Builder::new(vec![]);
    for program in ["initdb", "pg_ctl", "postgres"] {
        let script = format!("#!/bin/sh\nexec {bin}/{program} \"$@\"\n");
        let mut header = tar::Header::new_gnu();
        header.set_size(script.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        tar.append_data(&mut header, format!("bin/{program}"), script.as_bytes()).expect("appended");
    }
    let tar = tar.into_inner().expect("a tar");
    let mut xz = vec![];
    lzma_rs::xz_compress(&mut tar.as_slice(), &mut xz).expect("compressed");
    let mut jar = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    jar.start_file("postgres.txz", zip::write::SimpleFileOptions::default()).expect("a file");
    jar.write_all(&xz).expect("written");
    jar.finish().expect("a zip").into_inner()
}

/// Starts a child that must download, with a cache of its own.
fn download(cache: &Path, mirror: &str) -> (std::process::Child, String, tempfile::TempDir) {
    let parent = parent();
    let cache = cache.to_string_lossy();
    let (child, line) = child(parent.path(), &[(MIRROR, mirror), ("XDG_CACHE_HOME", &cache)]);
    (child, line, parent)
}

#[tokio::test]
async fn binaries_are_downloaded_from_the_repository_and_a_bad_download_poisons_nothing() {
    let cache = tempfile::tempdir().expect("a directory");
    let jar = jar();
    for (answer, reason) in [(http("404 Not Found", b""), "404"), (http("200 OK", &jar[..jar.len() / 2]), "")] {
        let (url, asked) = repository(answer);
        let (mut child, line, _parent) = download(cache.path(), &url);
        child.wait().expect("ended");
        assert!(line.contains("FAILED no PostgreSQL was found"), "{line}");
        assert!(line.contains(&url) && line.contains(reason) && line.contains("SEAWALL_PG_BIN"), "{line}");
        asked.join().expect("asked");
    }
    let (url, asked) = repository(http("200 OK", &jar));
    let (mut child, line, _parent) = download(cache.path(), &url);
    assert!(line.starts_with("UP "), "{line}");
    let request = asked.join().expect("asked");
    let path = "/maven2/io/zonky/test/postgres/embedded-postgres-binaries-";
    assert!(request.starts_with(&format!("GET {path}")) && request.contains(".jar"), "{request}");
    drop(child.stdin.take());
    child.wait().expect("ended");
    // Once downloaded, it is not asked for again: nobody listens at this address any more.
    let (mut child, line, _parent) = download(cache.path(), &url);
    assert!(line.starts_with("UP "), "{line}");
    drop(child.stdin.take());
    child.wait().expect("ended");
}
