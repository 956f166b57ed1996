//! What an answer looks like: bytes, headers, revalidation, bounds.

use super::support::client::{get, post, request};
use super::support::database;
use super::support::service::plan;

const TOML: &str = "[queries.product]\nsql = \"SELECT id, name, price FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
    [queries.ids]\nsql = \"SELECT id FROM shop.products WHERE id = ANY(:ids) ORDER BY id DESC -- newest first\"\n\
    [queries.count]\nsql = \"SELECT count(*) FROM shop.products;\"\nresult = \"value\"\n\
    [queries.two]\nsql = \"SELECT id FROM shop.products WHERE id <= :n\"\nresult = \"row\"\n\
    [queries.twice]\nsql = \"SELECT id, name AS id FROM shop.products\"\n\
    [queries.missing]\nsql = \"SELECT x FROM shop.nowhere\"\n\
    [queries.big]\nsql = \"SELECT repeat('x', :n::int4) AS x\"\n\
    [queries.many]\nsql = \"SELECT n FROM generate_series(1, :n::int4) AS n\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spellings_of_one_value_and_both_methods_are_one_key_and_one_statement() {
    let database = database().await;
    let service = plan(&database.url, TOML).start().await;
    let q = service.queries;
    let first = get(q, "/v1/queries/product?id=42").await;
    assert_eq!(first.header("cache-status"), Some("seawall; fwd=uri-miss; stored"));
    assert_eq!(first.json()["id"], 42);
    for path in ["?id=042", "?id=%2B42", "?&id=42&", "?id=%34%32"] {
        let again = get(q, &format!("/v1/queries/product{path}")).await;
        assert_eq!(again.body, first.body, "{path}");
        assert!(again.header("cache-status").expect("labelled").starts_with("seawall; hit; ttl="), "{path}");
    }
    for body in ["{\"id\":42}", "{\"id\":\"042\"}", " { \"id\" : 42 } "] {
        let again = post(q, "/v1/queries/product", body).await;
        assert_eq!(again.body, first.body, "{body}");
        assert!(again.header("cache-status").expect("labelled").starts_with("seawall; hit; ttl="), "{body}");
    }
    assert_eq!(database.statements_like("%__seawall_row%").await, 1);
    assert_eq!(
        get(q, "/v1/queries/ids?ids=1&ids=3&ids=2").await.body,
        get(q, "/v1/queries/ids?ids=[1,3,2]").await.body
    );
    assert_eq!(get(q, "/v1/queries/ids?ids=[]").await.body, b"[]");
    assert_eq!(post(q, "/v1/queries/ids", "{\"ids\":[1,3,2]}").await.json()[0]["id"], 3);
    assert_eq!(get(q, "/v1/queries/count").await.text(), "2000");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_carries_its_headers_and_revalidates_from_memory() {
    let database = database().await;
    let service = plan(&database.url, TOML).start().await;
    let q = service.queries;
    let filled = get(q, "/v1/queries/product?id=1").await;
    let etag = filled.header("etag").expect("tagged").to_owned();
    assert_eq!(filled.header("content-type"), Some("application/json"));
    assert_eq!(filled.header("age"), Some("0"));
    assert_eq!(filled.header("cache-control"), Some("no-cache"));
    assert_eq!(filled.header("seawall-stamp"), None);
    assert!(filled.header("date").is_some());

    let same = request(q, "GET", "/v1/queries/product?id=1", &[("If-None-Match", &etag)], b"").await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(same.header("etag"), Some(etag.as_str()));
    assert_eq!(same.header("cache-control"), Some("no-cache"));
    assert!(same.header("cache-status").expect("labelled").starts_with("seawall; hit; ttl="));
    let other = request(q, "GET", "/v1/queries/product?id=1", &[("If-None-Match", "\"other\"")], b"").await;
    assert_eq!((other.status, &other.body), (200, &filled.body));

    let head = request(q, "HEAD", "/v1/queries/product?id=1", &[], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), Some(filled.body.len().to_string().as_str()));
    assert_eq!(head.header("etag"), Some(etag.as_str()));

    let debug = request(q, "GET", "/v1/queries/product?id=1", &[("Seawall-Debug", "1")], b"").await;
    let stamp = debug.header("seawall-stamp").expect("asked for");
    assert!(seawall::stamp::Snapshot::parse(stamp).is_ok(), "{stamp}");
    assert_eq!(service.metric("seawall_requests_total{outcome=\"hit\",query=\"product\"}").await, 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_an_answer_that_is_kept_with_a_tag() {
    let database = database().await;
    let service = plan(&database.url, TOML).start().await;
    let first = get(service.queries, "/v1/queries/product?id=-1").await;
    assert_eq!((first.status, first.json()["code"].as_str()), (404, Some("no_row")));
    assert_eq!(first.header("cache-status"), Some("seawall; fwd=uri-miss; stored"));
    let again = get(service.queries, "/v1/queries/product?id=-1").await;
    assert!(again.header("cache-status").expect("labelled").starts_with("seawall; hit; ttl="));
    assert_eq!(again.header("etag"), first.header("etag"));
    assert_eq!(database.statements_like("%__seawall_row%").await, 1);
    // An answer like any other, whatever its status: a cache that saves such statements shows it.
    for outcome in ["miss", "hit"] {
        let series = format!("seawall_requests_total{{outcome=\"{outcome}\",query=\"product\"}}");
        assert_eq!(service.metric(&series).await, 1.0, "{outcome}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_may_not_be_are_refused_each_with_its_own_code() {
    let database = database().await;
    let service = plan(&database.url, TOML).start().await;
    let q = service.queries;
    for (path, status, code) in [
        ("/v1/queries/two?n=2", 500, "not_one_row"),
        ("/v1/queries/twice", 500, "query_broken"),
        ("/v1/queries/missing", 500, "query_broken"),
        ("/v1/queries/many?n=10001", 422, "too_many_rows"),
        ("/v1/queries/big?n=17825792", 422, "result_too_large"),
    ] {
        let answer = get(q, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path}");
        assert!(!answer.text().contains("nowhere") && !answer.text().contains("SELECT"), "{path} tells nothing");
    }
    assert_eq!(get(q, "/v1/queries/two?n=1").await.status, 200);
    assert_eq!(get(q, "/v1/queries/many?n=10000").await.status, 200);
    // Larger than an entry may be, and not larger than an answer: given, not stored.
    let given = get(q, "/v1/queries/big?n=2000000").await;
    assert_eq!((given.status, given.header("cache-status")), (200, Some("seawall; fwd=uri-miss")));
    let ready = get(service.admin, "/readyz").await;
    assert_eq!((ready.status, ready.json()["status"].as_str()), (200, Some("degraded")));
    assert_eq!(service.metric("seawall_degraded{reason=\"query_broken\"}").await, 1.0);
    assert_eq!(service.metric("seawall_query_verdict{query=\"missing\",verdict=\"broken\"}").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_the_pages_and_the_admin_listener_answer() {
    let database = database().await;
    let service = plan(&database.url, TOML).start().await;
    let list = get(service.queries, "/v1/queries").await.json();
    let product = list["queries"].as_array().expect("a list").iter().find(|q| q["name"] == "product").expect("listed");
    assert_eq!(product["params"][0]["type"], "int4");
    assert_eq!(product["columns"][2]["name"], "price");
    for (address, path, needle) in [
        (service.queries, "/livez", "alive"),
        (service.queries, "/readyz", "degraded"),
        (service.queries, "/problems/bad_parameter", "bad_parameter"),
        (service.queries, "/problems/", "deadline"),
        (service.admin, "/livez", "alive"),
        (service.admin, "/metrics", "# HELP seawall_requests_total"),
        (service.admin, "/status", "\"lineage\""),
    ] {
        let answer = get(address, path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text().contains(needle), "{path}: {}", answer.text());
    }
    assert_eq!(get(service.admin, "/nope").await.code(), "unknown_path");
    assert_eq!(get(service.queries, "/problems/nope").await.status, 404);
}
