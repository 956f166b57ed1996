//! The program as its callers see it: exit codes, what is printed where, and what never is.
//!
//! Each test runs the real binary as a child, with a deadline: a command that hangs fails its test and is killed. No
//! database is needed; where one is named, nothing listens there.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

/// No command here has work for so long, on a machine under load neither.
const LONGEST: Duration = Duration::from_secs(60);

/// A loopback port that needs root to listen on and that nobody uses: connecting is refused at once.
const NOTHING: &str = "127.0.0.1:1";

const PASSWORD: &str = "hunter2-of-the-test";

/// One query, and the database of `url`.
fn minimal(url: &str) -> String {
    format!("[postgres]\nurl = {url:?}\n[queries.answer]\nsql = \"SELECT 42 AS answer WHERE 1 = :one\"\n")
}

fn url_with_password() -> String {
    format!("postgres://app:{PASSWORD}@{NOTHING}/shop")
}

/// Three mistakes in three sections.
const THREE_PROBLEMS: &str = r#"
[server]
listen = "localhost:8080"

[cache]
max_bytes = "1KiB"

[postgres]
url = "postgres://app@localhost/shop"

[queries.answer]
sql = "SELECT 42 AS answer"
ttl = "soon"
"#;

/// Their keys.
const THREE_KEYS: [&str; 3] = ["server.listen", "cache.max_bytes", "queries.answer.ttl"];

/// A configuration in a directory of its own, which goes with it.
struct File {
    path: PathBuf,
    _dir: TempDir,
}

impl File {
    fn with(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).expect("the configuration is written");
        Self { path, _dir: dir }
    }

    fn arg(&self) -> &str {
        self.path.to_str().expect("a path in UTF-8")
    }
}

/// What a command left behind.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 on stderr"),
        }
    }
}

impl Ran {
    #[track_caller]
    fn exits(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

async fn seawall(args: &[&str]) -> Ran {
    seawall_in(args, &[]).await
}

/// Runs the program with `variables` beside an environment in which nothing else concerns it.
async fn seawall_in(args: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command
        .args(args)
        .env_remove("DATABASE_URL")
        .env_remove("RUST_LOG")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(LONGEST, command.output()).await;
    ended.unwrap_or_else(|_| panic!("{args:?} hangs")).expect("the program runs").into()
}

/// Answers one request with `status`; gives the URL to ask.
async fn stub(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut head = vec![];
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the rest of the request"));
        }
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.expect("somebody reads the answer");
    });
    format!("http://{address}/livez")
}

fn shipped() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml").to_string_lossy().into_owned()
}

#[tokio::test]
async fn the_shipped_configuration_is_valid_and_every_query_is_named() {
    let mut names: Vec<String> = std::fs::read_to_string(shipped())
        .expect("the shipped configuration")
        .lines()
        .filter_map(|line| Some(line.strip_prefix("[queries.")?.strip_suffix(']')?.to_owned()))
        .collect();
    assert!(names.len() > 3, "{names:?}");
    names.sort();
    let ran = seawall(&["check", "--offline", "--config", &shipped()]).await;
    ran.exits(0);
    for name in &names {
        assert!(ran.stdout.lines().any(|line| line.starts_with(&format!("{name}  "))), "{name}: {}", ran.stdout);
    }
    assert!(ran.stdout.contains(&format!("{} queries", names.len())), "{}", ran.stdout);
    assert_eq!(ran.stderr, "");

    let ran = seawall(&["check", "--offline", "--format", "json", "--config", &shipped()]).await;
    let report = ran.exits(0).json();
    assert_eq!(report["usable"], true);
    assert_eq!(report["warnings"], Value::Array(vec![]), "the database was not asked");
    let listed: Vec<&str> =
        report["queries"].as_array().expect("an array").iter().filter_map(|q| q["name"].as_str()).collect();
    assert_eq!(listed, names);
}

#[tokio::test]
async fn every_problem_is_reported_at_once_with_its_line_and_key() {
    let file = File::with(THREE_PROBLEMS);
    for command in [&["check"][..], &["check", "--offline"], &["serve"]] {
        let args = [command, &["--config", file.arg()]].concat();
        let ran = seawall(&args).await;
        ran.exits(2);
        assert_eq!(ran.stderr.lines().count(), 3, "{}", ran.stderr);
        for (line, key) in [3, 6, 13].into_iter().zip(THREE_KEYS) {
            assert!(ran.stderr.contains(&format!("line {line}: {key}: ")), "{key}: {}", ran.stderr);
        }
        assert_eq!(ran.stdout, "");
    }
}

#[tokio::test]
async fn problems_are_json_where_that_is_asked_for() {
    let file = File::with(THREE_PROBLEMS);
    let ran = seawall(&["check", "--format", "json", "--config", file.arg()]).await;
    let report = ran.exits(2).json();
    assert_eq!(report["usable"], false);
    let problems = report["problems"].as_array().expect("an array");
    let keys: Vec<&str> = problems.iter().filter_map(|p| p["key"].as_str()).collect();
    assert_eq!(keys, THREE_KEYS);
    assert!(problems.iter().all(|p| p["line"].is_u64() && p["message"].is_string()), "{report}");
}

#[tokio::test]
async fn a_misspelt_key_gets_a_suggestion() {
    let text = minimal("postgres://app@localhost/shop");
    for (wrong, meant) in [
        ("[cache]\nmax_byte = \"1GiB\"", "did you mean max_bytes?"),
        ("[server]\nmax_waitres = 5", "did you mean max_waiters?"),
        ("[postgress]\nurl = \"\"", "did you mean [postgres]?"),
        ("[queries.other]\nsql = \"SELECT :id\"\nparams.ids = \"int4\"", "did you mean id?"),
    ] {
        let file = File::with(&format!("{text}\n{wrong}\n"));
        let ran = seawall(&["check", "--offline", "--config", file.arg()]).await;
        ran.exits(2);
        assert!(ran.stderr.contains(meant), "{wrong}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_url_of_redis_is_refused_with_what_it_lacks_and_without_its_password() {
    let redis = "[redis]\nurl = \"redis+sentinel://:hunter2@h\"\n";
    let file = File::with(&format!("{}\n{redis}", minimal("postgres://app@localhost/shop")));
    let ran = seawall(&["check", "--offline", "--config", file.arg()]).await;
    ran.exits(2);
    assert!(ran.stderr.contains("redis.url: it doesn't say which master; write"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let ran = seawall(&["check", "--config", "/nowhere/seawall.toml"]).await;
    ran.exits(2);
    assert!(ran.stderr.contains("/nowhere/seawall.toml") && ran.stderr.contains("--config"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_database_that_is_away_fails_the_check_and_not_the_offline_one() {
    let file = File::with(&minimal(&url_with_password()));
    let ran = seawall(&["check", "--config", file.arg()]).await;
    ran.exits(1);
    assert!(ran.stdout.contains("can't be reached"), "{}", ran.stdout);
    let ran = seawall(&["check", "--format", "json", "--config", file.arg()]).await;
    let report = ran.exits(1).json();
    assert!(report["database"].is_string() && report["usable"] == false, "{report}");
    seawall(&["check", "--offline", "--config", file.arg()]).await.exits(0);
}

#[tokio::test]
async fn verdicts_can_be_denied_only_where_the_database_is_asked() {
    let ran = seawall(&["check", "--offline", "--deny", "ttl-only", "--config", &shipped()]).await;
    ran.exits(2);
    assert!(ran.stderr.contains("--offline") && ran.stderr.contains("--deny"), "{}", ran.stderr);
}

#[tokio::test]
async fn health_is_the_status_of_the_answer() {
    let ran = seawall(&["health", "--url", &stub("200 OK", "ok").await]).await;
    ran.exits(0);
    assert_eq!(ran.stdout, "ok\n");
    let ran = seawall(&["health", "--url", &stub("503 Service Unavailable", "draining").await]).await;
    ran.exits(1);
    assert_eq!(ran.stdout, "draining\n");
}

#[tokio::test]
async fn health_without_an_answer_fails_within_seconds() {
    // The kernel accepts for a listener that nobody looks at, so this one never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let silent = silent.local_addr().map(|at| (at.to_string(), silent)).expect("an address");
    for (authority, why) in [(NOTHING, "refused"), (&silent.0, "no answer within")] {
        let begun = Instant::now();
        let ran = seawall(&["health", "--url", &format!("http://{authority}/livez")]).await;
        ran.exits(1);
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        assert!(ran.stderr.contains(authority) && ran.stderr.contains(why), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn a_port_in_use_ends_serve_with_the_key_that_names_it() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("an address");
    for (key, other) in [("listen", "admin_listen"), ("admin_listen", "listen")] {
        let file = File::with(&format!(
            "[server]\n{key} = \"{address}\"\n{other} = \"127.0.0.1:0\"\n{}",
            minimal(&url_with_password())
        ));
        let ran = seawall(&["serve", "--config", file.arg()]).await;
        ran.exits(1);
        assert!(ran.stderr.contains(&format!("server.{key} = {address}: ")), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn bad_usage_is_told_from_failure() {
    for args in [
        &[][..],
        &["migrate", "--unknown"],
        &["unknown"],
        &["check", "--unknown"],
        &["check", "--format", "xml"],
        &["check", "--deny", "everything"],
        &["health", "--url", "ftp://localhost/livez"],
        &["health", "--url", "https://localhost/livez", "--ca", "/nowhere"],
        &["health", "--cert", "alone.pem"],
        &["serve", "--config"],
    ] {
        let ran = seawall(args).await;
        ran.exits(2);
        assert_eq!(ran.stdout, "", "{args:?}");
        assert_ne!(ran.stderr, "", "{args:?}");
    }
}

#[tokio::test]
async fn a_password_is_in_no_output() {
    let url = url_with_password();
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("an address");
    let texts = [
        // Good, and nobody there.
        minimal(&url),
        // From the environment, on its own and within a URL.
        minimal("${DATABASE_URL}"),
        minimal(&format!("postgres://app:${{PASSWORD}}@{NOTHING}/shop")),
        minimal(&format!("host=127.0.0.1 port=1 user=app password='{PASSWORD}' dbname=shop")),
        // Bad in every way that there is: a mode, an option, a scheme, a port, a form, a type, a quote that is missing.
        minimal(&format!("{url}?sslmode=maybe")),
        minimal(&format!("{url}?no_such_option=1")),
        minimal(&url.replace("postgres:", "mysql:")),
        minimal(&url.replace(":1/", ":port/")),
        minimal(&format!("host=h password='{PASSWORD}")),
        minimal(PASSWORD),
        minimal(&url).replace("url = ", "urll = "),
        minimal(&url).replace("url = \"", "url = [\"").replace("shop\"", "shop\"]"),
        minimal(&url).replace("shop\"", "shop"),
        // The place for a digest has the token itself.
        format!("[admin]\ntoken_sha256 = \"{PASSWORD}\"\n{}", minimal(&url)),
        format!("[server]\nlisten = \"{address}\"\nadmin_listen = \"127.0.0.1:0\"\n{}", minimal(&url)),
    ];
    let variables = [("DATABASE_URL", &*url), ("PASSWORD", PASSWORD), ("RUST_LOG", "debug")];
    for (n, text) in texts.iter().enumerate() {
        let file = File::with(text);
        for args in [&["check"][..], &["check", "--offline"], &["check", "--format", "json"]] {
            let ran = seawall_in(&[args, &["--config", file.arg()]].concat(), &variables).await;
            let said = format!("{}{}", ran.stdout, ran.stderr);
            assert!(!said.contains(PASSWORD), "{n}: {args:?}: {said}");
            assert_ne!(said, "", "{n}: {args:?}");
        }
    }
    // Those that can be served at all end at the address that is taken.
    let file = File::with(texts.last().expect("a text"));
    let ran = seawall_in(&["serve", "--config", file.arg()], &variables).await;
    ran.exits(1);
    assert!(!format!("{}{}", ran.stdout, ran.stderr).contains(PASSWORD), "{}", ran.stderr);
}

#[tokio::test]
#[cfg(unix)]
async fn a_hangup_reloads_and_a_bad_file_leaves_the_service_as_it_is() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let text = |ttl: &str| {
        let ports = "[server]\nlisten = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\nwatch_config = false\n";
        format!("{ports}{}ttl = {ttl:?}\n", minimal(&url_with_password()))
    };
    let file = File::with(&text("1h"));
    let mut child = Command::new(env!("CARGO_BIN_EXE_seawall"))
        .args(["serve", "--config", file.arg(), "--log-format", "json"])
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the program runs");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut until = async |said: &str| loop {
        let line = tokio::time::timeout(LONGEST, lines.next_line()).await.unwrap_or_else(|_| panic!("never: {said}"));
        let line = line.expect("UTF-8").unwrap_or_else(|| panic!("it ended before: {said}"));
        assert!(!line.contains(PASSWORD), "{line}");
        if line.contains(said) {
            return line;
        }
    };
    let pid =
        rustix::process::Pid::from_raw(i32::try_from(child.id().expect("it runs")).expect("a pid")).expect("a pid");
    let send = |signal| rustix::process::kill_process(pid, signal).expect("it is there");
    until("listening").await;
    // Until it listens for it, a hangup ends a process.
    until("\"ready\"").await;
    std::fs::write(&file.path, text("2h")).expect("written");
    send(rustix::process::Signal::HUP);
    assert!(until("the configuration is reloaded").await.contains("\"changed\":\"answer\""));
    std::fs::write(&file.path, text("soon")).expect("written");
    send(rustix::process::Signal::HUP);
    assert!(until("the configuration is not reloaded").await.contains("queries.answer.ttl"));
    send(rustix::process::Signal::TERM);
    assert!(child.wait().await.expect("it ends").success());
}
