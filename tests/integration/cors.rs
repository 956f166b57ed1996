//! Answers that browsers let scripts of other origins read.

use super::support::client::{Answer, request};
use super::support::service::{TestService, plan};
use super::support::{TestDatabase, database};

const QUERIES: &str = "[queries.one]\nsql = \"SELECT :id::int4 AS n WHERE :id::int4 > 0\"\nresult = \"row\"\n";
const APP: &str = "https://app.example";

async fn shared(cors: &str) -> (TestService, TestDatabase) {
    let database = database().await;
    (plan(&database.url, &format!("{QUERIES}{cors}")).start().await, database)
}

async fn ask(service: &TestService, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    request(service.queries, method, path, fields, b"").await
}

/// What an answer says about who may read it.
fn says(answer: &Answer) -> [Option<&str>; 3] {
    ["access-control-allow-origin", "access-control-allow-credentials", "vary"].map(|name| answer.header(name))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preflight_is_the_same_whatever_there_is_and_needs_no_token() {
    let auth = format!("[auth.tokens.web]\nsha256 = \"{}\"\nqueries = [\"one\"]\n", "0".repeat(64));
    let (service, _database) = shared(&format!("{auth}[cors]\norigins = [\"{APP}\"]\nheaders = [\"x-id\"]\n")).await;
    let mut answers = vec![];
    for path in ["/v1/queries/one?id=1", "/v1/queries/none", "/nowhere", "/v1/queries", "/docs"] {
        let fields = [
            ("Origin", APP),
            ("Access-Control-Request-Method", "GET"),
            ("Access-Control-Request-Headers", "authorization"),
        ];
        let answer = ask(&service, "OPTIONS", path, &fields).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{path}: {answer:?}");
        answers.push(answer.head.lines().filter(|line| !line.starts_with("date")).collect::<Vec<_>>().join("\n"));
    }
    answers.dedup();
    let [one] = &answers[..] else { panic!("they differ: {answers:#?}") };
    for line in [
        "access-control-allow-origin: https://app.example",
        "access-control-allow-methods: GET, HEAD, POST",
        "access-control-max-age: 600",
        "vary: origin",
    ] {
        assert!(one.contains(line), "{line} in {one}");
    }
    let allowed = one.lines().find(|line| line.starts_with("access-control-allow-headers")).expect("fields");
    assert!(
        allowed.contains("authorization") && allowed.contains("seawall-after") && allowed.contains("x-id"),
        "{allowed}"
    );
    // Another origin learns nothing; and what is no preflight is a method that nothing has.
    let other = [("Origin", "https://evil.example"), ("Access-Control-Request-Method", "GET")];
    let refused = ask(&service, "OPTIONS", "/v1/queries/one", &other).await;
    assert_eq!((refused.status, says(&refused)), (204, [None, None, Some("origin")]));
    assert!(!refused.head.contains("access-control"), "{refused:?}");
    assert_eq!(ask(&service, "OPTIONS", "/v1/queries/one", &[("Origin", APP)]).await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_says_who_may_read_it_and_that_others_get_another() {
    let (service, _database) =
        shared(&format!("[cors]\norigins = [\"http://b\", \"{APP}\"]\nallow_credentials = true\n")).await;
    let tag = ask(&service, "GET", "/v1/queries/one?id=1", &[]).await.header("etag").expect("a tag").to_owned();
    for (method, path, fields, status) in [
        ("GET", "/v1/queries/one?id=1", vec![], 200),
        ("HEAD", "/v1/queries/one?id=2", vec![], 200),
        ("GET", "/v1/queries/one?id=1", vec![("If-None-Match", &*tag)], 304),
        ("GET", "/v1/queries/one?id=0", vec![], 404),
        ("GET", "/v1/queries/one?id=x", vec![], 400),
        ("GET", "/v1/queries/none", vec![], 404),
        ("POST", "/v1/queries/one", vec![], 415),
        ("DELETE", "/v1/queries/one", vec![], 405),
        ("GET", "/openapi.json", vec![], 200),
        ("GET", "/nowhere", vec![], 404),
    ] {
        for (origin, allowed) in [(Some(APP), Some(APP)), (Some("https://evil.example"), None), (None, None)] {
            let mut fields = fields.clone();
            fields.extend(origin.map(|origin| ("Origin", origin)));
            let answer = ask(&service, method, path, &fields).await;
            assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
            let credentials = allowed.map(|_| "true");
            assert_eq!(says(&answer), [allowed, credentials, Some("origin")], "{method} {path} from {origin:?}");
            let exposed = answer.header("access-control-expose-headers").is_some_and(|names| names.contains("ETag"));
            assert_eq!(exposed, allowed.is_some(), "{answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_origin_is_any_and_without_the_section_nothing_is_said() {
    let (service, _database) = shared("[cors]\norigins = [\"*\"]\n").await;
    let answer = ask(&service, "GET", "/v1/queries/one?id=1", &[("Origin", "https://whoever.example")]).await;
    assert_eq!(says(&answer), [Some("*"), None, None]);
    let (service, _database) = shared("").await;
    let answer = ask(&service, "GET", "/v1/queries/one?id=1", &[("Origin", APP)]).await;
    assert!(answer.status == 200 && !answer.head.contains("access-control"), "{answer:?}");
    let fields = [("Origin", APP), ("Access-Control-Request-Method", "GET")];
    assert_eq!(ask(&service, "OPTIONS", "/v1/queries/one", &fields).await.status, 405);
}
