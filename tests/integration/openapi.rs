//! What client developers read: the OpenAPI document and the page, by public tools and against what the service really does.
//!
//! `SEAWALL_REQUESTS` sets how many requests are generated, 2,000 by default; `SEAWALL_WRITE_GOLDEN=1` writes the document that
//! the sample shop's is compared with.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::support::client::{get, get_with, request};
use super::support::service::{TestService, migrate, plan};
use super::support::{TestDatabase, database};

const ODD: &str = "CREATE TYPE shop.size AS ENUM ('s', 'm', 'l'); CREATE DOMAIN shop.code AS text CHECK (length(VALUE) < 9); \
    CREATE TYPE shop.point AS (x float8, at timestamptz, sizes shop.size[]); \
    CREATE TABLE shop.odd (id int PRIMARY KEY, b bool NOT NULL, i2 int2, i8 int8 NOT NULL, f4 float4, n numeric(12,3), u uuid, \
    d date, ts timestamp, tz timestamptz NOT NULL, by bytea, j jsonb, size shop.size NOT NULL, code shop.code, point shop.point, \
    tags text[] NOT NULL, grid int[], r int4range, \"odd name\" text NOT NULL); \
    INSERT INTO shop.odd VALUES \
    (1, true, 5, 9007199254740993, 1.5, 1.500, gen_random_uuid(), '2026-11-23', '2026-11-23 08:30', '2026-11-23 08:30+00', '\\x00ff', \
     '{\"a\": [1, null]}', 's', 'abc', ROW(1.25, '2026-11-23 08:30+00', '{s,NULL}')::shop.point, '{a,NULL}', '{{1,2},{3,4}}', '[1,5)', 'x'), \
    (2, false, NULL, 2, 'NaN', 'NaN', NULL, 'infinity', NULL, 'infinity', NULL, NULL, 'l', NULL, NULL, '{}', NULL, 'empty', 'y')";

const QUERIES: &str = r#"
[invalidation]
source = "log"
[queries.odd]
description = "Every odd type.\n\nIn <one> row & more."
sql = "SELECT * FROM shop.odd ORDER BY id"
[queries.one]
sql = "SELECT * FROM shop.odd WHERE id = :id"
result = "row"
params.id = { min = 1, max = 2 }
[queries.total]
sql = "SELECT sum(n) FROM shop.odd WHERE n <> 'NaN'"
result = "value"
[queries.joined]
sql = "SELECT o.id, p.name FROM shop.odd o LEFT JOIN shop.products p ON p.id = o.id + 100000"
[queries.asked]
sql = """SELECT :b::bool AS b, :i2::int2 AS i2, :i8::int8 AS i8, :n::numeric AS n, :f::float8 AS f, :u::uuid AS u, :d::date AS d,
  :ts::timestamp AS ts, :tz::timestamptz AS tz, :size::shop.size AS size, :t::text AS t, :ids::int[] AS ids, :o::int AS o"""
params = { t = { max_length = 5, default = "x" }, o = { required = false }, ids = { required = false }, i2 = { min = -5, max = 5 } }
[queries.documents]
sql = "SELECT :j::jsonb AS j"
[queries.broken]
sql = "SELECT nothing FROM shop.nowhere"
"#;

async fn odd() -> (TestService, TestDatabase) {
    let database = database().await;
    database.client().await.batch_execute(ODD).await.expect("odd types");
    let plan = plan(&database.url, QUERIES);
    migrate(&plan).await;
    (plan.start().await, database)
}

fn tool(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/python/bin").join(name);
    assert!(path.exists(), "{} is not there; `make tools` installs it", path.display());
    path
}

/// Runs a public tool to its end; panics with what it says where that is no success.
async fn run(name: &str, args: &[&str]) -> String {
    // It leaves files where it runs.
    let dir = tempfile::tempdir().expect("a directory");
    let child = Command::new(tool(name)).args(args).current_dir(&dir).stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(Duration::from_secs(600), child).await.expect("it ends").expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{name}: {said}");
    said
}

async fn document(service: &TestService) -> Value {
    let answer = get(service.queries, "/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{answer:?}");
    answer.json()
}

fn answer_schema<'a>(document: &'a Value, query: &str) -> &'a Value {
    &document["paths"][format!("/v1/queries/{query}")]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_is_valid_by_a_public_validator_also_where_a_query_is_broken() {
    let (service, _database) = odd().await;
    let text = document(&service).await.to_string();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("openapi.json");
    std::fs::write(&path, text).expect("written");
    let said = run("openapi-spec-validator", &["--schema", "3.1", path.to_str().expect("UTF-8")]).await;
    assert!(said.contains("OK"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn types_and_null_are_what_postgres_says() {
    let (service, _database) = odd().await;
    let document = document(&service).await;
    let row = &answer_schema(&document, "one")["properties"];
    assert_eq!(row["id"], json!({ "type": "integer", "format": "int32" }));
    assert_eq!(row["i2"]["type"], json!(["integer", "null"]));
    assert_eq!(row["i8"]["type"], "integer");
    assert_eq!(row["size"], json!({ "type": "string", "enum": ["s", "m", "l"] }));
    assert_eq!(row["tags"]["type"], "array");
    assert_eq!(row["odd name"]["type"], "string");
    let number = json!({ "type": "number" });
    let (no_number, absent) = (json!({ "enum": ["NaN", "Infinity", "-Infinity"] }), json!({ "type": "null" }));
    assert_eq!(row["f4"], json!({ "anyOf": [number, no_number, absent] }));
    assert_eq!(row["point"]["type"], json!(["object", "null"]));
    let point = &row["point"]["properties"];
    let size = json!({ "anyOf": [{ "type": "string", "enum": ["s", "m", "l"] }, absent] });
    assert_eq!(point["sizes"], json!({ "type": ["array", "null"], "items": { "anyOf": [size, { "type": "array" }] } }));
    let joined = &answer_schema(&document, "joined")["items"]["properties"];
    assert_eq!(joined["id"]["type"], json!(["integer", "null"]), "an outer join may have made it null");
    let taken = &document["paths"]["/v1/queries/asked"]["post"]["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(taken["properties"]["t"], json!({ "type": "string", "maxLength": 5, "default": "x" }));
    assert_eq!((&taken["properties"]["i2"]["minimum"], &taken["properties"]["i2"]["maximum"]), (&json!(-5), &json!(5)));
    assert!(!taken["required"].as_array().expect("a list").contains(&json!("o")));
    assert_eq!(document["paths"]["/v1/queries/broken"]["get"]["parameters"].as_array().map(Vec::len), Some(5));
    // Examples are requests that work.
    let example =
        &document["paths"]["/v1/queries/asked"]["post"]["requestBody"]["content"]["application/json"]["example"];
    let json_type = [("Content-Type", "application/json")];
    let answer =
        request(service.queries, "POST", "/v1/queries/asked", &json_type, example.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{example}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_document_has_a_tag_and_head_and_other_methods_are_answered() {
    let (service, _database) = odd().await;
    let first = get(service.queries, "/openapi.json").await;
    let tag = first.header("etag").expect("a tag").to_owned();
    let again = get_with(service.queries, "/openapi.json", &[("If-None-Match", &tag)]).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    for path in ["/openapi.json", "/docs"] {
        let head = request(service.queries, "HEAD", path, &[], b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        let posted = request(service.queries, "POST", path, &[], b"").await;
        assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_escapes_what_the_configuration_says_and_lets_no_other_script_run() {
    let (service, _database) = odd().await;
    let page = get(service.queries, "/docs").await;
    let text = page.text();
    assert!(text.contains("In &lt;one&gt; row &amp; more.") && !text.contains("<one>"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'")
            && policy.contains("script-src 'sha256-")
            && !policy.contains("script-src 'unsafe")
    );
    assert!(
        !text.contains("src=") && !text.contains("http://") && !text.contains("https://"),
        "nothing from elsewhere"
    );
    for code in ["overloaded", "bad_parameter", ""] {
        let problem = get(service.queries, &format!("/problems/{code}")).await;
        assert_eq!((problem.status, problem.header("content-type")), (200, Some("text/html; charset=utf-8")));
        assert!(problem.text().contains("Try again?"));
    }
}

/// The sample shop's document, as it was looked at last: a change of it is a change for every client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shops_document_is_the_one_that_was_looked_at() {
    let database = database().await;
    let shipped = include_str!("../../config.toml");
    let queries = &shipped[shipped.find("\n[queries.product]").expect("the sample")..];
    let service = plan(&database.url, queries).start().await;
    let mut made = document(&service).await;
    made["info"]["version"] = json!("VERSION");
    let made = serde_json::to_string_pretty(&made).expect("JSON") + "\n";
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/openapi/shop.json");
    if std::env::var_os("SEAWALL_WRITE_GOLDEN").is_some() {
        std::fs::write(&golden, &made).expect("written");
    }
    let known = std::fs::read_to_string(&golden).expect("it is there");
    assert!(known == made, "it has changed: look at it, and run this with SEAWALL_WRITE_GOLDEN=1\n{made}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_requests_get_documented_answers_and_never_an_error_of_the_service() {
    let (service, _database) = odd().await;
    let wanted: f64 = std::env::var("SEAWALL_REQUESTS").ok().and_then(|n| n.parse().ok()).unwrap_or(2000.0);
    let mut document = document(&service).await;
    // A broken query answers 500, and a transaction that never was is waited for in vain: both are documented, and not asked here.
    document["paths"].as_object_mut().expect("paths").remove("/v1/queries/broken");
    for operations in document["paths"].as_object_mut().expect("paths").values_mut() {
        for operation in operations.as_object_mut().expect("operations").values_mut() {
            for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
                if parameter["name"] == "Seawall-After" {
                    parameter["schema"] = json!({ "type": "string", "pattern": "^elsewhere:[0-9]{1,19}$" });
                }
            }
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("openapi.json");
    std::fs::write(&path, document.to_string()).expect("written");
    let (path, url) = (path.to_str().expect("UTF-8"), format!("http://{}", service.queries));
    let total = async || {
        let text = get(service.admin, "/metrics").await.text();
        let requests = text.lines().filter(|line| line.starts_with("seawall_requests_total{"));
        requests.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum::<f64>()
    };
    let mut seed = 1;
    while total().await < wanted {
        let seeded = seed.to_string();
        let args = [
            "run",
            path,
            "--url",
            &url,
            "--seed",
            &seeded,
            "--max-examples",
            "60",
            "--phases",
            "examples,coverage,fuzzing",
            "--workers",
            "1",
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
             response_schema_conformance,allow_header_conformance",
            "--warnings",
            "off",
            "--no-color",
        ];
        run("st", &args).await;
        seed += 1;
        assert!(seed < 20, "few requests are made: {}", total().await);
    }
}
