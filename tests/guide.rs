//! The guide, pasted step by step: it does what it says, from an empty server to a closed service.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use seawall::postgres::embedded::{Embedded, EmbeddedOptions};
use tokio::process::Command;

/// All of it takes some seconds.
const LONGEST: Duration = Duration::from_secs(120);

const GUIDE: &str = include_str!("../docs/guide.md");

/// What its steps print, in this order.
const SAYS: &[&str] = &[
    "product  row  ttl-only",
    "triggers installed",
    "product  row  exact",
    "cache-status: seawall; fwd=uri-miss; stored",
    "cache-status: seawall; hit; ttl=",
    "\"price\":12.34",
    "[{\"id\":",
    "2 queries: the configuration is valid",
    "{\"status\":\"alive\"}",
    "\"code\":\"unauthorized\"",
    "\"price\":12.34",
    "\"shop\".\"categories\": triggers installed",
    // What is added has perhaps been taken already, since the file is watched; the next step asks for it.
    "\"reloaded\":true",
    "\"slug\":\"anchors\"",
    "seawall_requests_total{outcome=\"hit\",query=\"product\"}",
    "\"version\":",
];

/// The steps to be pasted, but for the first, which builds what cargo has built for this test.
fn steps() -> String {
    let blocks = GUIDE.split("```sh\n").skip(2).map(|rest| rest.split("```").next().expect("a block ends"));
    blocks.collect::<Vec<_>>().join("\n")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

#[tokio::test]
async fn every_step_of_the_guide_does_what_it_says() {
    let postgres = Embedded::start(EmbeddedOptions::default()).await.expect("a server");
    let url = postgres.url("postgres");
    let (user, password) =
        url.split_once("//").and_then(|(_, rest)| rest.split_once('@')?.0.split_once(':')).expect("a user");
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::create_dir(dir.path().join("sample")).expect("made");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("sample/shop.sql");
    std::fs::copy(sample, dir.path().join("sample/shop.sql")).expect("copied");

    // Ports of its own, and nothing left behind, however it ends.
    let (queries, admin) = (free_port(), free_port());
    let steps = steps()
        .replace("8080", &queries.to_string())
        .replace("9090", &admin.to_string())
        .replace("seawall health", &format!("seawall health --url http://127.0.0.1:{admin}/livez"));
    let script = format!("trap 'kill $! 2>/dev/null' EXIT\n{steps}");
    let bin = Path::new(env!("CARGO_BIN_EXE_seawall")).parent().expect("a directory");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").expect("a path"));
    let shell = Command::new("sh")
        .args(["-eu", "-c", &script])
        .current_dir(&dir)
        .env("PATH", path)
        .env("PGHOST", "127.0.0.1")
        .env("PGPORT", postgres.port().to_string())
        .env("PGUSER", user)
        .env("PGPASSWORD", password)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let ended = tokio::time::timeout(LONGEST, shell).await.expect("it ends").expect("a shell");
    let (said, wrong) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{said}\n{wrong}");
    let mut rest = &*said;
    for text in SAYS {
        let at = rest.find(text).unwrap_or_else(|| panic!("{text:?} is not in\n{rest}\nof\n{said}\n{wrong}"));
        rest = &rest[at + text.len()..];
    }
}
