//! Fetching PostgreSQL, against a repository of our own that serves what it should, or something else.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use seawall::postgres::embedded::find_binaries;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use zip::write::SimpleFileOptions;

use super::child::spawn;
use super::open_directory;

/// An HTTP server that gives every request the same answer and remembers what was asked.
struct Repository {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Repository {
    async fn answering(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(socket.read_u8().await.unwrap());
                }
                let line = String::from_utf8(request).unwrap().lines().next().unwrap().to_owned();
                log.lock().unwrap().push(line);
                socket.write_all(&answer).await.unwrap();
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

fn response(status: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// A package as the repository has them: programs in an xz-compressed tar in a zip. Ours lead to the machine's own.
fn jar(programs: &[&str]) -> Vec<u8> {
    let real = find_binaries().unwrap().expect("a PostgreSQL on this machine");
    let mut archive = tar::Builder::new(Vec::new());
    for program in programs {
        let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", real.join(program).display());
        let mut header = tar::Header::new_gnu();
        header.set_size(script.len() as u64);
        header.set_mode(0o755);
        archive.append_data(&mut header, format!("bin/{program}"), script.as_bytes()).unwrap();
    }
    let mut packed = Vec::new();
    lzma_rs::xz_compress(&mut archive.into_inner().unwrap().as_slice(), &mut packed).unwrap();
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("postgres-linux-x86_64.txz", stored).unwrap();
    zip.write_all(&packed).unwrap();
    zip.finish().unwrap().into_inner()
}

/// `linux/amd64` in the cache is `linux-amd64` in the repository.
fn cached(cache: &Path) -> PathBuf {
    let arch = if cfg!(target_arch = "aarch64") { "arm64v8" } else { "amd64" };
    cache.join("pg-embed/linux").join(arch).join("17.8.0")
}

async fn start(cache: &Path, mirror: &str) -> Result<String, String> {
    let (cache, mirror) = (cache.to_owned(), mirror.to_owned());
    let run = move || {
        let variables: [(&str, &OsStr); 2] =
            [("XDG_CACHE_HOME", cache.as_os_str()), ("SEAWALL_PG_MIRROR", mirror.as_ref())];
        spawn("download", &variables).says()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[tokio::test]
async fn it_is_fetched_once_and_kept() {
    let cache = open_directory();
    let package = jar(&["initdb", "pg_ctl", "postgres"]);
    let repository = Repository::answering(response("200 OK", package.len(), &package)).await;
    // What a download that broke off leaves behind where nobody looks: initdb, and no server.
    fs::create_dir_all(cached(cache.path()).join("bin")).unwrap();
    fs::write(cached(cache.path()).join("bin/initdb"), "half of it").unwrap();

    start(cache.path(), &format!("{}/", repository.url)).await.unwrap();
    let arch = if cfg!(target_arch = "aarch64") { "arm64v8" } else { "amd64" };
    let expected = format!(
        "GET /maven2/io/zonky/test/postgres/embedded-postgres-binaries-linux-{arch}/17.8.0/\
         embedded-postgres-binaries-linux-{arch}-17.8.0.jar HTTP/1.1"
    );
    assert_eq!(repository.asked(), [expected]);
    start(cache.path(), &repository.url).await.unwrap();
    assert_eq!(repository.asked().len(), 1, "the second start finds it in the cache");
    let beside = fs::read_dir(cached(cache.path()).parent().unwrap()).unwrap().count();
    assert_eq!(beside, 1, "nothing half done stands beside it");
}

#[tokio::test]
async fn a_bad_download_tells_what_to_do_and_is_not_kept() {
    let cache = open_directory();
    let package = jar(&["initdb", "pg_ctl", "postgres"]);
    let half = &package[..package.len() / 2];
    let headless = jar(&["initdb", "pg_ctl"]);
    let page = b"<html>Not here</html>";
    for (answer, what, problem) in [
        (response("404 Not Found", 0, b""), "fetching one from", "HTTP 404 Not Found"),
        (response("200 OK", package.len(), half), "fetching one from", "the answer broke off"),
        (response("200 OK", half.len(), half), "not a usable package", "Invalid PostgreSQL binaries package"),
        (response("200 OK", page.len(), page), "not a usable package", "Invalid PostgreSQL binaries package"),
        (response("200 OK", headless.len(), &headless), "not a usable package", "it has no postgres"),
    ] {
        let repository = Repository::answering(answer).await;
        let error = start(cache.path(), &repository.url).await.unwrap_err();
        for part in [what, problem, &repository.url, "install the package postgresql", "SEAWALL_PG_BIN"] {
            assert!(error.contains(part), "no {part:?} in: {error}");
        }
        let kept: Vec<_> = fs::read_dir(cached(cache.path()).parent().unwrap()).unwrap().flatten().collect();
        assert!(kept.iter().all(|entry| super::is_empty(&entry.path())), "{problem}: {kept:?}");
    }
    let error = start(cache.path(), "http://127.0.0.1:1").await.unwrap_err();
    assert!(error.contains("http://127.0.0.1:1/maven2/") && error.contains("SEAWALL_PG_MIRROR"), "{error}");

    let repository = Repository::answering(response("200 OK", package.len(), &package)).await;
    start(cache.path(), &repository.url).await.unwrap();
}
