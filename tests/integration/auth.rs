//! Who may ask what, over a whole service: nobody learns of what only another may see.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::support::client::{Answer, get_with, raw, request};
use super::support::service::{TestService, migrate_as, plan};
use super::support::{Gate, TestDatabase, connect, database};

const SECRET: &str = "a secret of more than thirty-two bytes";

fn digest(token: &str) -> String {
    format!("{:x}", Sha256::digest(token))
}

fn jwt(claims: &Value) -> String {
    let header = Header { kid: Some("main".into()), ..Header::new(Algorithm::HS256) };
    encode(&header, claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}

fn of_org(org: u32) -> String {
    format!("Bearer {}", jwt(&json!({ "exp": 4_000_000_000_u64, "sub": format!("user of {org}"), "org_id": org })))
}

/// `open` for everybody, `shop` for the token `web`, `own` and `gated` for who has a claim, `secret` for the token `back`.
fn config(gate: &str) -> String {
    let own = "SELECT :claims.org_id::int4 AS org";
    format!(
        "[queries.open]\nsql = \"SELECT 1 AS n\"\n[queries.shop]\nsql = \"SELECT 2 AS n WHERE :id::int4 > 0\"\nresult = \"row\"\n\
         client_ttl = \"1h\"\n[queries.own]\nsql = \"{own}\"\nclient_ttl = \"1h\"\n\
         [queries.same]\nsql = \"SELECT 7 AS n, :claims.org_id::int4 IS NULL AS none\"\n\
         [queries.none]\nsql = \"SELECT 1 AS n WHERE :claims.org_id::int4 IS NULL\"\nresult = \"row\"\n\
         [queries.gated]\nsql = \"\"\"SELECT :claims.org_id::int4 AS org, {gate} IS NULL AS held\"\"\"\n\
         [queries.secret]\nsql = \"SELECT 3 AS n\"\n\
         [auth]\nanonymous = [\"open\"]\n\
         [auth.tokens.web]\nsha256 = \"{web}\"\nqueries = [\"open\", \"shop\"]\n\
         [auth.tokens.back]\nsha256 = [\"{back}\", \"{next}\"]\nqueries = [\"*\"]\nclaims = {{ org_id = 1 }}\n\
         [auth.tokens.slow]\nsha256 = \"{slow}\"\nqueries = [\"*\"]\nrate = 1\nburst = 2\n\
         [auth.tokens.narrow]\nsha256 = \"{narrow}\"\nqueries = [\"*\"]\nclaims = {{ org_id = 5 }}\nconcurrency = 1\n\
         [auth.jwt]\nqueries = [\"own\", \"same\", \"none\", \"gated\"]\n\
         [auth.jwt.keys.main]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n",
        web = digest("web-token"),
        back = digest("back-token"),
        next = digest("next-token"),
        slow = digest("slow-token"),
        narrow = digest("narrow-token"),
    )
}

async fn guarded() -> (TestService, TestDatabase) {
    let database = database().await;
    (plan(&database.url, &config("null")).start().await, database)
}

async fn ask(service: &TestService, path: &str, authorization: Option<&str>) -> Answer {
    let fields: Vec<(&str, &str)> = authorization.iter().map(|value| ("Authorization", *value)).collect();
    get_with(service.queries, path, &fields).await
}

/// What an answer says but for what it must be different in: the time that it was made, and the name that was asked for.
fn told(answer: &Answer, name: &str) -> String {
    let head: Vec<&str> = answer.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect();
    format!("{}\n{}", head.join("\n"), answer.text()).replace(&format!("\\\"{name}\\\""), "NAME")
}

/// A caller; names of queries that it may not ask, each with one that nothing has.
type Case<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)]);

const WEB: Option<&str> = Some("Bearer web-token");
const BACK: Option<&str> = Some("Bearer back-token");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_caller_may_not_ask_is_not_there_for_it_in_any_way() {
    let (service, _database) = guarded().await;
    let mine = of_org(1);
    // Warm, so that a hit would be there to be told from a miss.
    for path in ["/v1/queries/secret", "/v1/queries/shop?id=1", "/v1/queries/own"] {
        assert_eq!(ask(&service, path, BACK).await.status, 200, "{path}");
    }
    // Of the same length as those that there are.
    let callers: [Case<'_>; 4] = [
        (None, &[("shop", "shoq"), ("own", "owm"), ("secret", "secres")]),
        (Some("Bearer nobody"), &[("open", "opem"), ("shop", "shoq"), ("secret", "secres")]),
        (WEB, &[("own", "owm"), ("secret", "secres")]),
        (Some(&mine), &[("shop", "shoq"), ("open", "opem"), ("secret", "secres")]),
    ];
    for (caller, pairs) in callers {
        for (there, not_there) in pairs {
            for method in ["GET", "HEAD", "POST", "PUT", "DELETE"] {
                for rest in ["", "?id=1", "?nonsense", "?id=%ff"] {
                    let mut answers = vec![];
                    for name in [there, not_there] {
                        let mut fields = vec![("If-None-Match", "*"), ("Content-Type", "application/json")];
                        fields.extend(caller.map(|value| ("Authorization", value)));
                        let body: &[u8] = if method == "POST" { b"{\"id\": 1}" } else { b"" };
                        let path = format!("/v1/queries/{name}{rest}");
                        let answer = request(service.queries, method, &path, &fields, body).await;
                        assert!(matches!(answer.status, 401 | 404), "{method} {path}: {answer:?}");
                        answers.push(told(&answer, name));
                    }
                    assert_eq!(answers[0], answers[1], "{method} {there}{rest} by {caller:?}");
                }
            }
        }
    }
    let series = service.metric("seawall_requests_total{outcome=\"rejected\",query=\"secret\"}").await;
    assert_eq!(series, 0.0, "refusals count for no query that could be told by them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_shows_what_its_reader_may_ask() {
    let (service, _database) = guarded().await;
    let names = async |caller: Option<&str>| {
        let answer = ask(&service, "/v1/queries", caller).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let list = answer.json();
        let names = list["queries"].as_array().expect("a list").iter().map(|q| q["name"].as_str().expect("a name"));
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(None).await, "open");
    assert_eq!(names(WEB).await, "open shop");
    assert_eq!(names(Some(&of_org(1))).await, "gated none own same");
    assert_eq!(names(BACK).await, "gated none open own same secret shop");
    assert_eq!(ask(&service, "/v1/queries", Some("Bearer x")).await.status, 401);
    let list = ask(&service, "/v1/queries", BACK).await.text();
    assert!(!list.contains("claims"), "no parameter that a request could give: {list}");
    let ready = ask(&service, "/readyz", None).await;
    assert!(ready.status == 200 && !ready.text().contains("shop"), "{ready:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_and_the_page_show_what_their_reader_may_ask() {
    let (service, _database) = guarded().await;
    let all = ["open", "shop", "own", "same", "none", "gated", "secret"];
    let mine = of_org(1);
    let callers: [(Option<&str>, &[&str]); 4] =
        [(None, &["open"]), (WEB, &["open", "shop"]), (Some(&mine), &["gated", "none", "own", "same"]), (BACK, &all)];
    let mut tags = vec![];
    for (caller, seen) in callers {
        let (document, page) = (ask(&service, "/openapi.json", caller).await, ask(&service, "/docs", caller).await);
        tags.push(document.header("etag").expect("a tag").to_owned());
        for answer in [&document, &page] {
            assert_eq!((answer.status, answer.header("vary")), (200, Some("authorization")), "{answer:?}");
            assert!(answer.header("cache-control").is_some_and(|it| it.starts_with("private")), "{answer:?}");
        }
        let document = document.json();
        for name in all {
            let (there, path) = (seen.contains(&name), format!("/v1/queries/{name}"));
            assert_eq!(document["paths"].get(&path).is_some(), there, "{name} for {caller:?}");
            assert_eq!(page.text().contains(&path), there, "{name} for {caller:?}");
        }
        assert!(
            !document.to_string().contains("claims.") && !document.to_string().contains("org_id"),
            "nobody gives claims"
        );
        assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], "bearer");
        assert!(page.text().contains("type=\"password\""), "the page asks for a token");
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "each has a document of its own");
    for path in ["/openapi.json", "/docs"] {
        assert_eq!(ask(&service, path, Some("Bearer x")).await.status, 401, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_with_other_claims_share_no_answer_and_no_tag_of_one() {
    let (service, _database) = guarded().await;
    let (one, two) = (of_org(1), of_org(2));
    for _again in 0..2 {
        assert_eq!(ask(&service, "/v1/queries/own", Some(&one)).await.text(), "[{\"org\":1}]");
        assert_eq!(ask(&service, "/v1/queries/own", Some(&two)).await.text(), "[{\"org\":2}]");
    }
    assert_eq!(service.metric("seawall_db_queries_total{query=\"own\"}").await, 2.0, "one fill for each");
    // The same claims from elsewhere are the same caller's.
    assert_eq!(ask(&service, "/v1/queries/own", BACK).await.text(), "[{\"org\":1}]");
    assert_eq!(service.metric("seawall_db_queries_total{query=\"own\"}").await, 2.0);

    // Equal bodies, and an answer that says that there is nothing: another's tag is no match.
    for (path, status) in [("/v1/queries/same", 200), ("/v1/queries/none", 404)] {
        let (first, second) = (ask(&service, path, Some(&one)).await, ask(&service, path, Some(&two)).await);
        assert_eq!((first.status, second.status), (status, status));
        assert_eq!(first.body, second.body);
        let tag = first.header("etag").expect("a tag");
        assert_ne!(Some(tag), second.header("etag"), "{path}");
        let asked = get_with(service.queries, path, &[("Authorization", &two), ("If-None-Match", tag)]).await;
        assert_eq!(asked.status, status, "no 304 for another's tag");
        for answer in [&first, &second] {
            assert_eq!(answer.header("vary"), Some("authorization"));
            assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
        }
        if status == 200 {
            let own = get_with(service.queries, path, &[("Authorization", &one), ("If-None-Match", tag)]).await;
            assert_eq!((own.status, own.header("vary")), (304, Some("authorization")));
        }
    }
    let kept = ask(&service, "/v1/queries/own", Some(&one)).await;
    assert!(kept.header("cache-control").expect("a lifetime").starts_with("private, max-age="), "{kept:?}");
    let public = ask(&service, "/v1/queries/open", None).await;
    assert_eq!((public.header("vary"), public.header("cache-control")), (None, Some("no-cache")));
    let limited = ask(&service, "/v1/queries/shop?id=1", WEB).await;
    assert!(limited.header("cache-control").expect("a lifetime").starts_with("private, max-age="), "not for everybody");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sets_a_claim_and_who_lacks_one_is_told_which() {
    let (service, _database) = guarded().await;
    let one = of_org(1);
    let set = [("Authorization", one.as_str()), ("Content-Type", "application/json")];
    for path in ["/v1/queries/own?claims.org_id=2", "/v1/queries/own?claims%2Eorg_id=2", "/v1/queries/own?org_id=2"] {
        let answer = get_with(service.queries, path, &set).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{path}");
    }
    for body in [r#"{"claims.org_id": 2}"#, r#"{"org_id": 2}"#, r#"{"claims": {"org_id": 2}}"#] {
        let answer = request(service.queries, "POST", "/v1/queries/own", &set, body.as_bytes()).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, "bad_parameter"), "{body}");
    }
    let posted = request(service.queries, "POST", "/v1/queries/own", &set, b"{}").await;
    assert_eq!((posted.status, posted.text().as_str()), (200, "[{\"org\":1}]"), "a POST has them, too");
    assert_eq!(posted.header("vary"), Some("authorization"));

    for claims in [json!({ "exp": 4e9 }), json!({ "exp": 4e9, "org_id": "x" }), json!({ "exp": 4e9, "org_id": [1] })] {
        let answer = ask(&service, "/v1/queries/own", Some(&format!("Bearer {}", jwt(&claims)))).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "claim_refused"), "{claims}");
        assert!(answer.json()["detail"].as_str().expect("a detail").starts_with("claims.org_id: "), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flights_are_shared_by_equal_claims_alone() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let service = plan(&database.url, &config(&gate.sql())).start().await;
    let callers = [of_org(1), of_org(2), BACK.expect("a token").to_owned()];
    let asked: Vec<_> = callers
        .iter()
        .flat_map(|caller| std::iter::repeat_n(caller.clone(), 20))
        .map(|caller| {
            let address = service.queries;
            tokio::spawn(async move { get_with(address, "/v1/queries/gated", &[("Authorization", &caller)]).await })
        })
        .collect();
    super::support::eventually::eventually("all wait", Duration::from_secs(20), async || {
        let n = service.metric("seawall_waiters").await;
        if n == 60.0 { Ok(()) } else { Err(n) }
    })
    .await;
    gate.held(2).await;
    gate.open().await;
    let mut orgs = vec![];
    for answer in asked {
        orgs.push(answer.await.expect("no panic").json()[0]["org"].as_u64().expect("a number"));
    }
    let expected: Vec<u64> = [1, 2, 1].into_iter().flat_map(|org| std::iter::repeat_n(org, 20)).collect();
    assert_eq!(orgs, expected);
    assert_eq!(service.metric("seawall_db_queries_total{query=\"gated\"}").await, 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_credentials_are_one_401_wherever_they_are_shown() {
    let (service, _database) = guarded().await;
    let long = format!("Bearer {}", "x".repeat(20_000));
    let expired = format!("Bearer {}", jwt(&json!({ "exp": 1 })));
    let future = format!("Bearer {}", jwt(&json!({ "exp": 4_000_000_001_u64, "nbf": 4_000_000_000_u64 })));
    let elsewhere = format!("Bearer {}", jwt(&json!({ "exp": 4e9, "aud": "others" })));
    let none = "Bearer eyJhbGciOiJub25lIn0.eyJleHAiOjQwMDAwMDAwMDB9.".to_owned();
    let cases = [
        ("Basic d2ViOnRva2Vu", "invalid_request", "malformed"),
        ("Bearer", "invalid_request", "malformed"),
        ("Bearer web-tokem", "invalid_token", "unknown"),
        (&long, "invalid_token", "unknown"),
        (&none, "invalid_token", "unknown"),
        (&expired, "invalid_token", "expired"),
        (&future, "invalid_token", "not_yet"),
        (&elsewhere, "invalid_token", "elsewhere"),
    ];
    for (value, error, reason) in cases {
        let series = format!("seawall_unauthorized_total{{reason=\"{reason}\"}}");
        let before = service.metric(&series).await;
        for path in ["/v1/queries/open", "/v1/queries/shop?id=1", "/v1/queries/nothing", "/v1/queries"] {
            let answer = ask(&service, path, Some(value)).await;
            assert_eq!((answer.status, answer.code().as_str()), (401, "unauthorized"), "{path} {reason}");
            assert_eq!(answer.header("www-authenticate"), Some(format!("Bearer error=\"{error}\"").as_str()));
        }
        assert_eq!(service.metric(&series).await - before, 4.0, "{reason}");
    }
    let two = [("Authorization", "Bearer web-token"), ("Authorization", "Bearer web-token")];
    assert_eq!(get_with(service.queries, "/v1/queries/open", &two).await.status, 401, "which is meant?");
    let missing = ask(&service, "/v1/queries/shop?id=1", None).await;
    assert_eq!((missing.status, missing.header("www-authenticate")), (401, Some("Bearer")));
    // A megabyte never comes so far: it is no head that can be read.
    let huge =
        format!("GET /v1/queries/open HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", "x".repeat(1 << 20));
    let answer = raw(service.queries, huge.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 431"), "{:?}", String::from_utf8_lossy(&answer[..answer.len().min(80)]));
    assert_eq!(service.metric("seawall_db_queries_total{query=\"open\"}").await, 0.0, "none of it cost a statement");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_and_a_number_of_waiters_are_a_callers_own() {
    let database = database().await;
    let gate = Gate::closed(&database).await;
    let service = plan(&database.url, &config(&gate.sql())).start().await;
    for _ in 0..2 {
        assert_eq!(ask(&service, "/v1/queries/open", Some("Bearer slow-token")).await.status, 200);
    }
    let mut refused = 0;
    // A token comes back each second; ten at once are more than could have come back.
    for _ in 0..10 {
        let answer = ask(&service, "/v1/queries/open", Some("Bearer slow-token")).await;
        if answer.status == 429 {
            refused += 1;
            assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("too_many_requests", Some("1")));
        }
    }
    assert!(refused >= 5, "{refused} of ten");
    assert_eq!(ask(&service, "/v1/queries/open", BACK).await.status, 200, "others have their own");

    let narrow = Some("Bearer narrow-token");
    assert_eq!(ask(&service, "/v1/queries/open", narrow).await.status, 200);
    let address = service.queries;
    let waits = tokio::spawn(async move {
        get_with(address, "/v1/queries/gated", &[("Authorization", "Bearer narrow-token")]).await
    });
    gate.held(1).await;
    let second = ask(&service, "/v1/queries/gated", narrow).await;
    assert_eq!((second.status, second.code().as_str()), (429, "too_many_requests"));
    assert_eq!(ask(&service, "/v1/queries/open", narrow).await.status, 200, "a hit waits for nothing");
    gate.open().await;
    assert_eq!(waits.await.expect("no panic").status, 200);
    assert_eq!(ask(&service, "/v1/queries/gated", narrow).await.status, 200, "the place is free again");
    for (caller, outcome, least) in [("slow", "rate", 5.0), ("narrow", "concurrency", 1.0), ("narrow", "admitted", 5.0)]
    {
        let series = format!("seawall_caller_requests_total{{caller=\"{caller}\",outcome=\"{outcome}\"}}");
        assert!(service.metric(&series).await >= least, "{series}");
    }
}

/// Documents of several tenants, which a policy tells apart by a setting.
const TENANTS: &str = "CREATE TABLE shop.documents (id int PRIMARY KEY, org int NOT NULL, title text NOT NULL); \
    INSERT INTO shop.documents VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 2, 'three'); \
    ALTER TABLE shop.documents ENABLE ROW LEVEL SECURITY; \
    CREATE POLICY own ON shop.documents USING (org = nullif(current_setting('seawall.claims.org_id', true), '')::int); \
    CREATE VIEW shop.titles WITH (security_invoker = off) AS SELECT title FROM shop.documents; \
    GRANT SELECT ON shop.documents, shop.titles TO app;";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_a_policy_chooses_are_refused_unless_the_claims_are_named_and_never_anothers() {
    let database = database().await;
    let client = database.client().await;
    client.batch_execute(TENANTS).await.expect("tenants");
    let text = format!(
        "[postgres]\npool_size = 1\n[invalidation]\nsource = \"log\"\n\
         [queries.careless]\nsql = \"SELECT title FROM shop.documents ORDER BY id\"\n\
         [queries.documents]\nsql = \"SELECT title FROM shop.documents ORDER BY id\"\nclaims = [\"org_id\"]\n\
         [queries.bare]\nsql = \"SELECT current_setting('seawall.claims.org_id', true) AS left_behind, :n::int4 AS n\"\n\
         [queries.broken]\nsql = \"SELECT 1 / (:n::int4 - count(*)) AS x FROM shop.documents\"\nclaims = [\"org_id\"]\n\
         [auth]\nanonymous = [\"bare\", \"careless\"]\n[auth.jwt]\nqueries = [\"*\"]\n\
         [auth.jwt.keys.main]\nalgorithm = \"HS256\"\nsecret = \"{SECRET}\"\n"
    );
    migrate_as(&plan(&database.app_url, &text), &database.url).await;
    let service = plan(&database.app_url, &text).start().await;
    let careless = ask(&service, "/v1/queries/careless", None).await;
    assert_eq!((careless.status, careless.code().as_str()), (500, "query_broken"));
    let reason = service.read.routes().find("careless").map(|route| format!("{:?}", **route.query().shape()));
    assert!(reason.as_deref().is_some_and(|reason| reason.contains("name the claims")), "{reason:?}");

    let (one, two) = (of_org(1), of_org(2));
    let left_behind = async |n: u32| {
        let answer = ask(&service, &format!("/v1/queries/bare?n={n}"), None).await;
        let value = answer.json()[0]["left_behind"].clone();
        assert!(value.is_null() || value == "", "a claim is left behind: {answer:?}");
    };
    for round in 0..3 {
        assert_eq!(ask(&service, "/v1/queries/documents", Some(&one)).await.text(), "[{\"title\":\"one\"}]");
        left_behind(3 * round).await;
        let answer = ask(&service, "/v1/queries/documents", Some(&two)).await;
        assert_eq!(answer.text(), "[{\"title\":\"two\"}, \n {\"title\":\"three\"}]");
        left_behind(3 * round + 1).await;
        // A statement that fails with the claim set: 1 / (2 - 2).
        let failed = ask(&service, "/v1/queries/broken?n=2", Some(&two)).await;
        assert!(failed.status >= 400, "{failed:?}");
        left_behind(3 * round + 2).await;
    }
    assert_eq!(service.metric("seawall_db_queries_total{query=\"documents\"}").await, 2.0, "one fill for each");
    let lacking = format!("Bearer {}", jwt(&json!({ "exp": 4e9 })));
    assert_eq!(ask(&service, "/v1/queries/documents", Some(&lacking)).await.status, 403);

    // A write reaches both, by the table.
    let writer = connect(&database.url).await;
    writer.batch_execute("UPDATE shop.documents SET title = 'four' WHERE id = 3").await.expect("written");
    service.catch_up(&writer).await;
    let answer = ask(&service, "/v1/queries/documents", Some(&two)).await;
    assert_eq!(answer.text(), "[{\"title\":\"two\"}, \n {\"title\":\"four\"}]");
}
