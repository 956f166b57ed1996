//! The client examples, run as their readers would run them: through a moment without Postgres, with a token, and to a write of
//! their own that they read back.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use super::support::chaos::{Chaos, Mode};
use super::support::client::get_with;
use super::support::eventually::eventually;
use super::support::service::{TestService, migrate, plan};
use super::support::{TestDatabase, database};

const WITHIN: Duration = Duration::from_secs(60);
const TOKEN: &str = "an-api-token-of-the-examples";

/// Between a client and the service: what the service said.
struct Recorder {
    port: u16,
    said: Arc<Mutex<Vec<u8>>>,
}

impl Recorder {
    async fn before(service: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let said = Arc::new(Mutex::new(vec![]));
        let into = Arc::clone(&said);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let into = Arc::clone(&into);
                tokio::spawn(async move { pass(client, TcpStream::connect(service).await?, &into).await });
            }
        });
        Self { port, said }
    }

    /// How many answers of this status there were.
    fn answers(&self, status: u16) -> usize {
        let said = self.said.lock().expect("nobody panicked").clone();
        String::from_utf8_lossy(&said).matches(&format!("HTTP/1.1 {status} ")).count()
    }
}

async fn pass(mut client: TcpStream, mut service: TcpStream, said: &Mutex<Vec<u8>>) -> std::io::Result<()> {
    let ((mut from_client, mut to_client), (mut from_service, mut to_service)) = (client.split(), service.split());
    let there = tokio::io::copy(&mut from_client, &mut to_service);
    let back = async {
        let mut bytes = vec![0; 8 << 10];
        loop {
            match from_service.read(&mut bytes).await? {
                0 => return Ok(0),
                n => {
                    said.lock().expect("nobody panicked").extend_from_slice(&bytes[..n]);
                    to_client.write_all(&bytes[..n]).await?;
                }
            }
        }
    };
    tokio::select! { ended = there => ended, ended = back => ended }.map(drop)
}

/// A shop whose events are asked for so seldom that only `Seawall-After` can bring a write in time.
struct Shop {
    service: TestService,
    database: TestDatabase,
    proxy: Chaos,
    recorder: Recorder,
}

impl Shop {
    async fn open() -> Self {
        let database = database().await;
        let port = database.url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port");
        let proxy = Chaos::before(port.parse().expect("a port"));
        let shipped = include_str!("../../config.toml");
        let queries = &shipped[shipped.find("\n[queries.product]").expect("the sample")..];
        let toml = format!(
            "[postgres]\nreconnect_max = \"50ms\"\n[invalidation]\nsource = \"log\"\npoll_interval = \"10s\"\n\
             [defaults]\nmax_lag = \"10m\"\n[auth.tokens.example]\nsha256 = \"{:x}\"\nqueries = [\"*\"]\n{queries}",
            Sha256::digest(TOKEN)
        );
        let plan = plan(&database.url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port)), &toml);
        migrate(&plan).await;
        let service = plan.start().await;
        Self { recorder: Recorder::before(service.queries).await, service, database, proxy }
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("SEAWALL_URL", format!("http://127.0.0.1:{}", self.recorder.port))
            .env("SEAWALL_TOKEN", TOKEN)
            .env("DATABASE_URL", &self.database.url)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// What an example prints, by its labels; it begins where Postgres is away for a moment.
    async fn run(&self, mut example: Command) -> Vec<(String, String)> {
        self.proxy.set(Mode::Away).await;
        let running = tokio::spawn(async move { example.output().await });
        eventually("a request is refused", WITHIN, async || {
            match self.service.metric("seawall_requests_total{outcome=\"error\",query=\"product\"}").await {
                refused if refused > 0.0 => Ok(()),
                _ => Err("none yet"),
            }
        })
        .await;
        self.proxy.set(Mode::Pass).await;
        let said = lines(&ended(running.await.expect("no panic")));
        assert!(self.recorder.answers(503) >= 1, "it was asked again where it was refused");
        assert_eq!(self.recorder.answers(304), 1, "what it has it is not sent again");
        said
    }

    async fn stock(&self) -> i64 {
        let client = self.database.client().await;
        let row = client.query_one("SELECT stock::int8 FROM shop.products WHERE id = 1", &[]).await.expect("a row");
        row.get(0)
    }
}

/// What a program printed, which must have ended well.
fn ended(output: std::io::Result<std::process::Output>) -> String {
    let output = output.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

fn lines(text: &str) -> Vec<(String, String)> {
    let split = |line: &str| {
        let (label, said) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} in {text}"));
        (label.to_owned(), said.trim().to_owned())
    };
    text.lines().map(split).collect()
}

fn clients(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(path)
}

fn tools(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(path);
    assert!(path.exists(), "{} is not there; `make tools` installs it", path.display());
    path
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// What Python and TypeScript print of the product, before and after the write.
async fn is_as_expected(shop: &Shop, said: &[(String, String)], before: i64) {
    let of = |label: &str| &said.iter().find(|(l, _)| l == label).unwrap_or_else(|| panic!("{label} in {said:?}")).1;
    let product = json(of("product"));
    assert_eq!((&product["id"], product["stock"].as_i64()), (&Value::from(1), Some(before)));
    assert_eq!(json(of("again")), product);
    let written = json(of("written"));
    assert_eq!(written["stock"].as_i64(), Some(before + 1), "its own write");
    assert_eq!(shop.stock().await, before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_by_curl_do_what_they_say() {
    let shop = Shop::open().await;
    let before = shop.stock().await;
    let said = shop.run(shop.command(clients("curl.sh"))).await;
    let labels: Vec<&str> = said.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels, ["product", "posted", "again", "absent", "bad", "written"]);
    let answer = |at: usize| {
        let (status, body) = said[at].1.split_once(' ').unwrap_or((&said[at].1, ""));
        (status, if body.is_empty() { Value::Null } else { json(body) })
    };
    let (status, product) = answer(0);
    assert_eq!((status, &product["id"], product["stock"].as_i64()), ("200", &Value::from(1), Some(before)));
    assert_eq!((answer(1), answer(2)), (("200", product), ("304", Value::Null)));
    for (at, code, expected) in [(3, "no_row", "404"), (4, "bad_parameter", "400")] {
        let (status, problem) = answer(at);
        assert_eq!((status, problem["code"].as_str()), (expected, Some(code)));
    }
    let (status, written) = answer(5);
    assert_eq!((status, written["stock"].as_i64()), ("200", Some(before + 1)), "its own write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_in_python_does_what_it_says() {
    let shop = Shop::open().await;
    let before = shop.stock().await;
    let mut example = shop.command(tools("python/bin/python3"));
    example.arg("-B").arg(clients("python/example.py"));
    let said = shop.run(example).await;
    let labels: Vec<&str> = said.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels, ["product", "again", "absent", "bad", "written"]);
    assert_eq!((&*said[2].1, &*said[3].1), ("404 no_row", "400 bad_parameter id"));
    is_as_expected(&shop, &said, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_in_typescript_is_typed_by_the_document_and_does_what_it_says() {
    let shop = Shop::open().await;
    let before = shop.stock().await;
    // As `npm run example` has it, with what is installed elsewhere.
    let dir = tempfile::tempdir().expect("a directory");
    for file in ["seawall.ts", "example.ts", "package.json", "tsconfig.json"] {
        std::fs::copy(clients("typescript").join(file), dir.path().join(file)).expect("copied");
    }
    std::os::unix::fs::symlink(tools("typescript/node_modules"), dir.path().join("node_modules")).expect("linked");
    let bearer = format!("Bearer {TOKEN}");
    let document = get_with(shop.service.queries, "/openapi.json", &[("Authorization", &bearer)]).await.text();
    std::fs::write(dir.path().join("openapi.json"), document).expect("written");
    for script in ["types", "build"] {
        let mut npm = shop.command("npm");
        npm.args(["run", "--silent", script]).current_dir(&dir).env("SEAWALL_DOCUMENT", "openapi.json");
        ended(npm.output().await);
    }
    let mut example = shop.command("node");
    example.arg("dist/example.js").current_dir(&dir);
    let said = shop.run(example).await;
    let labels: Vec<&str> = said.iter().map(|(label, _)| label.as_str()).collect();
    assert_eq!(labels, ["product", "again", "unknown", "absent", "bad", "written"]);
    assert_eq!((&*said[2].1, &*said[3].1, &*said[4].1), ("404 unknown_query", "404 no_row", "400 bad_parameter id"));
    is_as_expected(&shop, &said, before).await;
}
