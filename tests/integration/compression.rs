//! Bodies in codings: packed once for however many ask, never in the place of another body, and each with a tag of its own.

use std::io::Read as _;
use std::time::Duration;

use seawall::coding::Coding;
use serde_json::json;

use super::support::client::{Answer, get_with, request};
use super::support::eventually::eventually;
use super::support::service::{TestService, migrate, plan, plan_at, text};
use super::support::{TestDatabase, database};

const WITHIN: Duration = Duration::from_secs(20);
const ROWS: &str = "/v1/queries/rows?category=1";

/// `rows` packs well, `small` is below a kibibyte.
const QUERIES: &str = "[invalidation]\nsource = \"log\"\n[defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\n\
    [queries.rows]\nsql = \"SELECT id, name, price FROM shop.products WHERE category_id = :category ORDER BY id\"\n\
    [queries.small]\nsql = \"SELECT repeat('x', 900) AS x\"\n";

struct Shop {
    service: TestService,
    database: TestDatabase,
}

impl Shop {
    async fn open(more: &str) -> Self {
        let database = database().await;
        let plan = plan(&database.url, &format!("{more}{QUERIES}"));
        migrate(&plan).await;
        Self { service: plan.start().await, database }
    }

    async fn ask(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        get_with(self.service.queries, path, fields).await
    }

    async fn taking(&self, coding: Coding) -> Answer {
        self.ask(ROWS, &[("Accept-Encoding", coding.as_str())]).await
    }

    /// Asks until the answer comes packed.
    async fn packed(&self, coding: Coding) -> Answer {
        eventually("a packed answer", WITHIN, async || {
            let answer = self.taking(coding).await;
            if answer.header("content-encoding").is_some() { Ok(answer) } else { Err(answer.head) }
        })
        .await
    }

    async fn packs(&self, coding: Coding, outcome: &str) -> f64 {
        let series = format!("seawall_compressions_total{{coding=\"{}\",outcome=\"{outcome}\"}}", coding.as_str());
        self.service.metric(&series).await
    }

    async fn bytes(&self, coding: Coding) -> f64 {
        self.service.metric(&format!("seawall_compressed_bytes{{coding=\"{}\"}}", coding.as_str())).await
    }
}

fn unpacked(answer: &Answer) -> Vec<u8> {
    let mut body = vec![];
    let packed = &answer.body[..];
    match answer.header("content-encoding") {
        None => return answer.body.clone(),
        Some("zstd") => body = zstd::bulk::decompress(packed, 1 << 24).expect("zstd"),
        Some("br") => drop(brotli::Decompressor::new(packed, 4096).read_to_end(&mut body).expect("brotli")),
        Some("gzip") => drop(flate2::read::GzDecoder::new(packed).read_to_end(&mut body).expect("gzip")),
        Some(other) => panic!("{other:?} was not asked for"),
    }
    body
}

fn tag(answer: &Answer) -> String {
    answer.header("etag").expect("a tag").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_is_packed_once_for_each_coding_however_many_ask() {
    let shop = Shop::open("").await;
    let plain = shop.ask(ROWS, &[]).await;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("accept-encoding")));
    let mut tags = vec![tag(&plain)];
    for coding in Coding::ALL {
        // What a memory that has the body says at once is the body; what follows is packed.
        assert_eq!(shop.taking(coding).await.header("content-encoding"), None, "nobody waits for a compressor");
        let packed = shop.packed(coding).await;
        assert_eq!(packed.header("content-encoding"), Some(coding.as_str()));
        assert_eq!(packed.header("vary"), Some("accept-encoding"));
        assert_eq!(packed.header("content-length"), Some(&*packed.body.len().to_string()));
        assert!(packed.body.len() * 2 < plain.body.len(), "{} of {}", packed.body.len(), plain.body.len());
        assert!(unpacked(&packed) == plain.body, "{coding:?}");
        tags.push(tag(&packed));

        let readers: Vec<_> = (0..50)
            .map(|_| {
                let address = shop.service.queries;
                tokio::spawn(async move { get_with(address, ROWS, &[("Accept-Encoding", coding.as_str())]).await })
            })
            .collect();
        for reader in readers {
            let answer = reader.await.expect("no panic");
            assert_eq!((answer.status, &answer.body), (200, &packed.body));
        }
        assert_eq!(shop.packs(coding, "kept").await, 1.0);
        assert!(shop.bytes(coding).await > packed.body.len() as f64);
        // Those fifty, and the ones before that found it.
        let saved = format!("seawall_compression_saved_bytes_total{{coding=\"{}\"}}", coding.as_str());
        let each = (plain.body.len() - packed.body.len()) as f64;
        let times = shop.service.metric(&saved).await / each;
        assert!(times >= 51.0 && times.fract() == 0.0, "{times} times {each}");
    }
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), 4, "another representation has another tag: {tags:?}");
    assert_eq!(shop.service.metric("seawall_db_queries_total{query=\"rows\"}").await, 1.0);
    // The head is the same without the body.
    let packed = shop.packed(Coding::Brotli).await;
    let head = request(shop.service.queries, "HEAD", ROWS, &[("Accept-Encoding", "br")], b"").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    for field in ["content-length", "content-encoding", "etag", "vary"] {
        assert_eq!(head.header(field), packed.header(field), "{field}");
    }
    let posted = [("Accept-Encoding", "br"), ("Content-Type", "application/json")];
    let posted = request(shop.service.queries, "POST", "/v1/queries/rows", &posted, b"{\"category\":1}").await;
    assert_eq!((posted.status, posted.body), (200, packed.body));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_has_any_form_of_the_body_is_told_so_by_the_tag_it_has() {
    let shop = Shop::open("").await;
    let plain = tag(&shop.ask(ROWS, &[]).await);
    let mut known = vec![plain.clone()];
    for coding in Coding::ALL {
        known.push(tag(&shop.packed(coding).await));
    }
    for taken in ["identity", "gzip", "zstd"] {
        for tag in &known {
            let list = format!("\"other\", W/{tag}");
            for sent in [tag.as_str(), &list] {
                let answer = shop.ask(ROWS, &[("Accept-Encoding", taken), ("If-None-Match", sent)]).await;
                assert_eq!((answer.status, answer.body.len()), (304, 0), "{taken} with {sent}: {answer:?}");
                assert_eq!(answer.header("etag"), Some(tag.as_str()), "{taken} with {sent}");
                assert_eq!(answer.header("vary"), Some("accept-encoding"));
                assert_eq!(answer.header("content-encoding"), None);
            }
        }
        let star = shop.ask(ROWS, &[("Accept-Encoding", taken), ("If-None-Match", "*")]).await;
        assert_eq!((star.status, star.header("etag")), (304, Some(plain.as_str())));
    }
    let unknown = plain.replace(plain.chars().nth(5).expect("long"), "-");
    for sent in [unknown.clone(), known[1].replace("-zstd", "-deflate"), known[1].replace(&plain[1..23], "x")] {
        assert_eq!(shop.ask(ROWS, &[("If-None-Match", &sent)]).await.status, 200, "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_write_no_form_of_the_old_body_is_given() {
    let shop = Shop::open("").await;
    let client = shop.database.client().await;
    let mut last = shop.ask(ROWS, &[]).await;
    for n in 0..20 {
        let before: Vec<Answer> = [shop.packed(Coding::Zstd).await, shop.packed(Coding::Gzip).await].into();
        client.execute("UPDATE shop.products SET price = price + 1 WHERE category_id = 1", &[]).await.expect("written");
        shop.service.catch_up(&client).await;
        // At once: the body as it is, or a packed form of it. Never one of before.
        for coding in [Coding::Zstd, Coding::Gzip, Coding::Zstd] {
            let after = shop.taking(coding).await;
            assert!(before.iter().all(|old| tag(old) != tag(&after)), "write {n}: {after:?}");
            assert!(unpacked(&after) != last.body, "write {n}: the old body came in {coding:?}");
        }
        let now = shop.ask(ROWS, &[]).await;
        assert!(now.body != last.body);
        assert!(unpacked(&shop.packed(Coding::Zstd).await) == now.body);
        let old = shop.ask(ROWS, &[("If-None-Match", &tag(&before[0]))]).await;
        assert_eq!(old.status, 200, "what was packed of the old body is not known any more");
        last = now;
    }
    assert!(shop.bytes(Coding::Zstd).await < last.body.len() as f64, "the forms of before are gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_go_with_what_they_are_of() {
    let shop = Shop::open("").await;
    shop.ask(ROWS, &[]).await;
    for coding in Coding::ALL {
        shop.packed(coding).await;
        assert!(shop.bytes(coding).await > 0.0);
    }
    let purge = json!({ "query": "rows", "params": { "category": 1 }, "mode": "purge" }).to_string();
    let fields = [("Content-Type", "application/json")];
    let purged = request(shop.service.admin, "POST", "/v1/invalidate", &fields, purge.as_bytes()).await;
    assert_eq!(purged.status, 200, "{purged:?}");
    for coding in Coding::ALL {
        assert_eq!(shop.bytes(coding).await, 0.0, "{coding:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_pay_is_sent_as_it_is() {
    let shop = Shop::open("").await;
    let gzip = [("Accept-Encoding", "gzip")];
    // Too short: no form, and nothing that varies.
    for _ in 0..3 {
        let small = shop.ask("/v1/queries/small", &gzip).await;
        assert_eq!((small.status, small.header("content-encoding"), small.header("vary")), (200, None, None));
    }
    // Not to be transformed, refused, or in codings that nobody has here.
    shop.ask(ROWS, &[]).await;
    shop.packed(Coding::Gzip).await;
    for fields in [
        &[("Accept-Encoding", "gzip"), ("Cache-Control", "no-transform")][..],
        &[("Accept-Encoding", "gzip;q=0")],
        &[("Accept-Encoding", "deflate, compress")],
        &[("Accept-Encoding", "")],
        &[("Accept-Encoding", "identity, gzip;q=0.5")],
    ] {
        let answer = shop.ask(ROWS, fields).await;
        assert_eq!((answer.header("content-encoding"), answer.header("vary")), (None, Some("accept-encoding")));
    }
    assert_eq!(shop.taking(Coding::Gzip).await.header("content-encoding"), Some("gzip"));
    // Problems are never packed.
    let problem = shop.ask("/v1/queries/rows?category=x", &gzip).await;
    assert_eq!((problem.code().as_str(), problem.header("content-encoding")), ("bad_parameter", None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_packs_badly_is_tried_once() {
    // Any text of some length packs to nine tenths; a short one doesn't.
    let database = database().await;
    let sql = "SELECT 'seawall' AS x";
    let toml = format!("[server]\ncompression_min_bytes = 0\n[queries.short]\nsql = \"{sql}\"\nttl = \"1h\"\n");
    let shop = Shop { service: plan(&database.url, &toml).start().await, database };
    let gzip = [("Accept-Encoding", "gzip")];
    eventually("it was tried", WITHIN, async || {
        assert_eq!(shop.ask("/v1/queries/short", &gzip).await.header("content-encoding"), None);
        match shop.packs(Coding::Gzip, "pointless").await {
            tried if tried > 0.0 => Ok(()),
            _ => Err("not yet"),
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(shop.ask("/v1/queries/short", &gzip).await.header("content-encoding"), None);
    }
    assert_eq!((shop.packs(Coding::Gzip, "pointless").await, shop.bytes(Coding::Gzip).await), (1.0, 0.0));
    assert_eq!(shop.packs(Coding::Gzip, "kept").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_codings_are_changed_while_it_runs() {
    let database = database().await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.toml");
    let toml = |server: &str| format!("[server]\nwatch_config = false\n{server}{QUERIES}");
    let first = plan_at(&file, &database.url, &toml(""));
    migrate(&first).await;
    let shop = Shop { service: first.start().await, database };
    shop.ask(ROWS, &[]).await;
    shop.packed(Coding::Zstd).await;
    let both = [("Accept-Encoding", "gzip, zstd")];
    for (server, vary, coding) in [
        ("compression = []\n", None, None),
        ("compression = [\"gzip\"]\n", Some("accept-encoding"), Some("gzip")),
        ("compression_min_bytes = \"1MiB\"\n", None, None),
        ("", Some("accept-encoding"), Some("zstd")),
    ] {
        std::fs::write(&file, text(&shop.database.url, &toml(server))).expect("written");
        let reloaded = request(shop.service.admin, "POST", "/reload", &[], b"").await;
        assert_eq!(reloaded.status, 200, "{reloaded:?}");
        assert_eq!(reloaded.json()["needs_restart"], json!([]), "{reloaded:?}");
        eventually(&format!("{coding:?}"), WITHIN, async || {
            let answer = shop.ask(ROWS, &both).await;
            assert_eq!((answer.status, answer.header("vary")), (200, vary));
            if answer.header("content-encoding") == coding { Ok(()) } else { Err(answer.head) }
        })
        .await;
    }
    assert_eq!(shop.service.metric("seawall_db_queries_total{query=\"rows\"}").await, 1.0);
    assert_eq!(shop.packs(Coding::Zstd, "kept").await, 1.0, "what was packed before serves again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_with_other_claims_share_no_form_and_no_tag() {
    use sha2::{Digest as _, Sha256};
    let digest = |token: &str| format!("{:x}", Sha256::digest(token));
    let auth = format!(
        "[queries.own]\nsql = \"SELECT repeat('same', 1000) AS x WHERE :claims.org_id::int4 > 0\"\nttl = \"1h\"\n\
         [auth.tokens.a]\nsha256 = \"{}\"\nqueries = [\"*\"]\nclaims = {{ org_id = 1 }}\n\
         [auth.tokens.b]\nsha256 = \"{}\"\nqueries = [\"*\"]\nclaims = {{ org_id = 2 }}\n",
        digest("token-a"),
        digest("token-b")
    );
    let database = database().await;
    let shop = Shop { service: plan(&database.url, &auth).start().await, database };
    let own = async |token: &str| {
        let bearer = format!("Bearer {token}");
        eventually("a packed answer", WITHIN, async || {
            let fields = [("Accept-Encoding", "br"), ("Authorization", &*bearer)];
            let answer = shop.ask("/v1/queries/own", &fields).await;
            assert_eq!((answer.status, answer.header("vary")), (200, Some("authorization, accept-encoding")));
            if answer.header("content-encoding").is_some() { Ok(answer) } else { Err(answer.head) }
        })
        .await
    };
    let (a, b) = (own("token-a").await, own("token-b").await);
    assert_eq!(unpacked(&a), unpacked(&b));
    assert_ne!(tag(&a), tag(&b), "the same bytes, and nobody can tell");
    assert_eq!(shop.packs(Coding::Brotli, "kept").await, 2.0);
    let fields = [("Accept-Encoding", "br"), ("Authorization", "Bearer token-b"), ("If-None-Match", &*tag(&a))];
    assert_eq!(shop.ask("/v1/queries/own", &fields).await.status, 200);
}
