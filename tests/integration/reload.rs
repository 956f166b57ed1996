//! Another configuration under a running service: nothing fails, nothing unrelated is dropped, nothing bad is taken.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::support::client::{Answer, get, get_with, request};
use super::support::eventually::eventually;
use super::support::service::{TestService, migrate, plan, plan_at, text};
use super::support::{TestDatabase, database};

const WITHIN: Duration = Duration::from_secs(20);

/// A service with a file of its own. Files are watched only where a test is about that.
struct Shop {
    service: TestService,
    database: TestDatabase,
    dir: tempfile::TempDir,
}

const QUIET: &str = "[server]\nwatch_config = false\n";

/// Two queries with the log behind them; `more` follows.
fn toml(head: &str, more: &str) -> String {
    format!(
        "{head}[invalidation]\nsource = \"log\"\n[defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\n\
         [queries.product]\nsql = \"SELECT id, price FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
         depends = {{ \"shop.products\" = \"id = :id\" }}\n\
         [queries.categories]\nsql = \"SELECT id, slug FROM shop.categories ORDER BY id\"\n{more}"
    )
}

impl Shop {
    async fn open(head: &str, more: &str) -> Self {
        let database = database().await;
        let dir = tempfile::tempdir().expect("a directory");
        migrate(&plan(&database.url, &toml(head, more))).await;
        let service = plan_at(&dir.path().join("config.toml"), &database.url, &toml(head, more)).start().await;
        Self { service, database, dir }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    fn write(&self, toml: &str) {
        fs::write(self.path(), text(&self.database.url, toml)).expect("written");
    }

    /// Writes, and reloads by request.
    async fn reload(&self, toml: &str) -> Answer {
        self.write(toml);
        request(self.service.admin, "POST", "/reload", &[], b"").await
    }

    async fn ask(&self, path: &str) -> Answer {
        get(self.service.queries, &format!("/v1/queries/{path}")).await
    }

    async fn statements(&self, query: &str) -> f64 {
        self.service.metric(&format!("seawall_db_queries_total{{query=\"{query}\"}}")).await
    }
}

fn reloaded(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_reloads_under_load_fail_no_request_and_drop_no_unrelated_entry() {
    let shop = Shop::open(QUIET, "").await;
    for id in 1..=50 {
        assert_eq!(shop.ask(&format!("product?id={id}")).await.status, 200);
    }
    let filled = shop.statements("product").await;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load: Vec<_> = (0..2)
        .map(|place| {
            let (stop, asked, address) = (Arc::clone(&stop), Arc::clone(&asked), shop.service.queries);
            tokio::spawn(async move {
                let mut id = place;
                while !stop.load(Ordering::Relaxed) {
                    id = id % 50 + 1;
                    let answer = get(address, &format!("/v1/queries/product?id={id}")).await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                    assert!(answer.header("cache-status").expect("a label").starts_with("seawall; hit; ttl="));
                    let changing = get(address, "/v1/queries/categories").await;
                    assert_eq!(changing.status, 200, "{changing:?}");
                    asked.fetch_add(2, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for n in 0..500 {
        // A lifetime each time; a query that comes and goes; every tenth time another statement; at times nonsense.
        let mut more = format!("ttl = \"{}s\"\n", 1000 + n);
        if n % 2 == 0 {
            let _ = write!(more, "[queries.coming]\nsql = \"SELECT count(*) AS n FROM shop.reviews\"\n");
        }
        let mut whole = toml(QUIET, &more);
        if n % 10 == 0 {
            whole = whole.replace("ORDER BY id", &format!("ORDER BY id -- {n}"));
        }
        if n % 25 == 7 {
            let refused = shop.reload(&whole.replace("[queries.product]", "[queries.product")).await;
            assert_eq!((refused.status, refused.code().as_str()), (422, "bad_config"));
            continue;
        }
        let answer = reloaded(&shop.reload(&whole).await);
        assert_eq!(answer["broken"], json!([]), "{answer}");
        if n % 2 == 0 {
            assert_eq!(shop.ask("coming").await.status, 200, "at once");
        } else {
            assert_eq!(shop.ask("coming").await.code(), "unknown_query");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for one in load {
        one.await.expect("no request failed");
    }
    assert!(asked.load(Ordering::Relaxed) >= 500, "there was a load: {asked:?}");
    assert_eq!(shop.statements("product").await, filled, "not one unrelated entry was filled again");
    assert_eq!(shop.service.metric("seawall_config_reload_success").await, 1.0);
    assert_eq!(shop.service.metric("seawall_config_reloads_total{outcome=\"refused\"}").await, 20.0);
    assert_eq!(shop.service.metric("seawall_config_reloads_total{outcome=\"ok\"}").await, 481.0, "the start is one");

    // Events still find what is kept.
    let client = shop.database.client().await;
    client.batch_execute("UPDATE shop.products SET price = 7.77 WHERE id = 7").await.expect("written");
    shop.service.catch_up(&client).await;
    assert!(shop.ask("product?id=7").await.text().contains("7.77"));
    assert_eq!(shop.statements("product").await, filled + 1.0, "that one, and no other");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_file_of_any_kind_changes_nothing_and_says_why() {
    let shop = Shop::open(QUIET, "").await;
    let good = toml(QUIET, "");
    let before = shop.ask("categories").await;
    for (bad, key) in [
        (good.replace("ttl = \"1h\"", "ttl = \"1x\""), "defaults.ttl"),
        (good.replace("SELECT id, slug", "DELETE FROM"), "queries.categories.sql"),
        (good.replace("[defaults]", "[defaultz]"), "defaultz"),
        (good.replace("ttl = \"1h\"", "ttl = \""), ""),
        (String::new(), "queries"),
        (good.replace("SELECT id, slug", "SELECT :"), "queries.categories.sql"),
        (good.replace("sql = \"SELECT id, slug", "sql_file = \"no.sql\"\n# "), "queries.categories.sql_file"),
    ] {
        let answer = shop.reload(&bad).await;
        assert_eq!((answer.status, answer.code().as_str()), (422, "bad_config"), "{bad}");
        let document = answer.json();
        assert_eq!(document["errors"][0]["param"], key, "{document}");
        assert_eq!(shop.service.metric("seawall_config_reload_success").await, 0.0);
        let now = shop.ask("categories").await;
        assert_eq!((now.status, &now.body), (200, &before.body));
    }
    fs::remove_file(shop.path()).expect("removed");
    let answer = request(shop.service.admin, "POST", "/reload", &[], b"").await;
    assert_eq!(answer.code(), "bad_config", "a file that is gone is a bad one");
    assert_eq!(reloaded(&shop.reload(&good).await)["changed"], json!([]));
    assert_eq!(shop.service.metric("seawall_config_reload_success").await, 1.0);
    assert_eq!(shop.statements("categories").await, 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_added_changed_and_removed_is_said_and_so_is_what_needs_a_restart() {
    let shop = Shop::open(QUIET, "[queries.old]\nsql = \"SELECT 1 AS n\"\n").await;
    assert_eq!(shop.ask("old").await.text(), "[{\"n\":1}]");
    let next =
        toml(QUIET, "[queries.new]\nsql = \"SELECT 2 AS n\"\n[queries.off]\nsql = \"SELECT * FROM shop.none\"\n")
            .replace("SELECT id, slug", "SELECT slug")
            .replace(
                QUIET,
                "[server]\nwatch_config = false\nlisten = \"127.0.0.1:1\"\nmax_connections = 5\nexpose_stamp = true\n",
            );
    let answer = reloaded(&shop.reload(&next).await);
    assert_eq!(answer["added"], json!(["new", "off"]));
    assert_eq!((&answer["changed"], &answer["removed"]), (&json!(["categories"]), &json!(["old"])));
    assert_eq!(answer["needs_restart"], json!(["server.listen", "server.max_connections"]));
    assert_eq!(answer["broken"][0]["query"], "off", "it is said, and keeps nothing else from coming into force");
    assert!(shop.ask("new").await.header("seawall-stamp").is_some(), "in force at once");
    assert_eq!(shop.ask("old").await.code(), "unknown_query");
    assert_eq!(shop.ask("off").await.code(), "query_broken");
    assert!(!shop.ask("categories").await.text().contains("\"id\""), "no entry of the old shape");
    let status = get(shop.service.admin, "/status").await.json();
    assert_eq!(status["needs_restart"], json!(["server.listen", "server.max_connections"]));
    let series = "seawall_query_verdict{query=\"old\",verdict=\"exact\"}";
    assert_eq!(shop.service.metric(series).await, 0.0, "of what is gone there is no verdict");
    reloaded(&shop.reload(&toml(QUIET, "")).await);
    assert_eq!(get(shop.service.admin, "/status").await.json()["needs_restart"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_comes_back_has_not_missed_what_happened_meanwhile() {
    let reviews = "[queries.reviews]\nsql = \"SELECT count(*) AS n FROM shop.reviews\"\nresult = \"value\"\n";
    let shop = Shop::open(QUIET, reviews).await;
    let client = shop.database.client().await;
    let before: u64 = shop.ask("reviews").await.text().parse().expect("a number");
    reloaded(&shop.reload(&toml(QUIET, "")).await);
    // An announced write, and one that no trigger announces.
    client
        .batch_execute("DELETE FROM shop.reviews WHERE id = (SELECT min(id) FROM shop.reviews)")
        .await
        .expect("written");
    client
        .batch_execute(
            "BEGIN; ALTER TABLE shop.reviews DISABLE TRIGGER USER; \
             DELETE FROM shop.reviews WHERE id = (SELECT min(id) FROM shop.reviews); \
             ALTER TABLE shop.reviews ENABLE TRIGGER USER; COMMIT",
        )
        .await
        .expect("written");
    reloaded(&shop.reload(&toml(QUIET, reviews)).await);
    shop.service.catch_up(&client).await;
    eventually("the count is right", WITHIN, async || {
        let now: u64 = shop.ask("reviews").await.text().parse().expect("a number");
        if now == before - 2 { Ok(()) } else { Err(now) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_statement_of_dependencies_or_tags_starts_anew() {
    let shop = Shop::open(QUIET, "").await;
    shop.ask("product?id=1").await;
    shop.ask("categories").await;
    let next = toml(QUIET, "tags = [\"menu\"]\n").replace("depends = { \"shop.products\" = \"id = :id\" }\n", "");
    assert_eq!(reloaded(&shop.reload(&next).await)["changed"], json!(["categories", "product"]));
    shop.ask("product?id=1").await;
    shop.ask("categories").await;
    assert_eq!((shop.statements("product").await, shop.statements("categories").await), (2.0, 2.0));
    let client = shop.database.client().await;
    client.batch_execute("SELECT seawall.invalidate('menu')").await.expect("announced");
    shop.service.catch_up(&client).await;
    shop.ask("categories").await;
    assert_eq!(shop.statements("categories").await, 3.0, "it has its new tag");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_change_at_once_and_a_grant_never_lags_behind_what_there_is() {
    let digest = |token: &str| {
        use sha2::Digest as _;
        format!("{:x}", sha2::Sha256::digest(token))
    };
    let auth = |token: &str, queries: &str| {
        format!("[auth.tokens.web]\nsha256 = \"{}\"\nqueries = [{queries}]\n", digest(token))
    };
    let shop = Shop::open(QUIET, &auth("one", "\"*\"")).await;
    let by = async |token: &str, query: &str| {
        let value = format!("Bearer {token}");
        get_with(shop.service.queries, &format!("/v1/queries/{query}"), &[("Authorization", &value)]).await.status
    };
    assert_eq!(by("one", "categories").await, 200);
    let secret = "[queries.secret]\nsql = \"SELECT 1 AS n\"\n";
    reloaded(&shop.reload(&toml(QUIET, &format!("{secret}{}", auth("two", "\"categories\"")))).await);
    assert_eq!((by("one", "categories").await, by("two", "categories").await), (401, 200));
    assert_eq!((by("two", "secret").await, by("two", "nothing").await), (404, 404));
    let admin = format!("[admin]\ntoken_sha256 = \"{}\"\n", digest("admin"));
    reloaded(&shop.reload(&toml(&format!("{QUIET}{admin}"), &auth("two", "\"*\""))).await);
    assert_eq!(get(shop.service.admin, "/status").await.status, 401);
    let with = [("Authorization", "Bearer admin")];
    assert_eq!(get_with(shop.service.admin, "/status", &with).await.status, 200);
    assert_eq!(request(shop.service.admin, "POST", "/reload", &[], b"").await.status, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_is_taken_by_itself_and_never_half_of_it() {
    let shop = Shop::open("", "").await;
    let next = text(&shop.database.url, &toml("", "[queries.last]\nsql = \"SELECT 1 AS n\"\n"));
    // In place, and with a stop in the middle that is a good configuration by itself.
    let good_half = next.find("[queries.categories]").expect("the last but one");
    let stops = AtomicBool::new(false);
    let writing = async {
        let mut end = 0;
        while end < next.len() {
            end = (end + 97).min(next.len());
            if (good_half..good_half + 97).contains(&end) {
                end = good_half;
            }
            fs::write(shop.path(), &next[..end]).expect("written");
            // Faster than anybody looks twice.
            tokio::task::yield_now().await;
        }
        stops.store(true, Ordering::Relaxed);
    };
    let asking = async {
        while !stops.load(Ordering::Relaxed) {
            assert_eq!(shop.ask("categories").await.status, 200, "no half is in force");
        }
    };
    tokio::join!(writing, asking);
    eventually("the whole is in force", WITHIN, async || match shop.ask("last").await.status {
        200 => Ok(()),
        status => Err(status),
    })
    .await;
    assert_eq!(shop.ask("categories").await.status, 200);

    // An atomic rename, as editors and mounted secrets do.
    let other = shop.dir.path().join("next.toml");
    fs::write(&other, text(&shop.database.url, &toml("", ""))).expect("written");
    fs::rename(&other, shop.path()).expect("renamed");
    eventually("the next is in force", WITHIN, async || match shop.ask("last").await.status {
        404 => Ok(()),
        status => Err(status),
    })
    .await;

    // A bad one stays out, and the metric says so.
    shop.write("nonsense");
    eventually("it was refused", WITHIN, async || match shop.service.metric("seawall_config_reload_success").await {
        0.0 => Ok(()),
        n => Err(n),
    })
    .await;
    assert_eq!(shop.ask("categories").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_new_queries_cannot_be_judged_they_keep_nothing_and_the_others_are_what_they_were() {
    let shop = Shop::open(QUIET, "").await;
    assert_eq!(shop.ask("product?id=1").await.status, 200);
    let (client, watching) = (shop.database.client().await, shop.database.client().await);
    // Preparing reads catalogs; an analysis makes a temporary view, which is written down.
    client.batch_execute("BEGIN; LOCK TABLE pg_catalog.pg_depend IN SHARE MODE").await.expect("locked");
    let analyses = async || {
        let sql = "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database \
                   WHERE datname = current_database() AND relation = 'pg_depend'::regclass AND NOT granted";
        watching.query_one(sql, &[]).await.expect("a count").get::<_, i64>(0)
    };

    let coming = "[queries.coming]\nsql = \"SELECT count(*) AS n FROM shop.categories\"\n";
    reloaded(&shop.reload(&toml(QUIET, coming)).await);
    for n in 1..=2 {
        assert_eq!(shop.ask("coming").await.status, 200);
        assert_eq!(shop.statements("coming").await, f64::from(n));
    }
    assert_eq!(shop.ask("product?id=1").await.status, 200);
    assert_eq!(shop.statements("product").await, 1.0);

    // Taken back while an analysis is under way, which then fails.
    eventually("another analysis waits", WITHIN, async || match analyses().await {
        1 => Ok(()),
        n => Err(n),
    })
    .await;
    reloaded(&shop.reload(&toml(QUIET, "")).await);
    eventually("it has failed", WITHIN, async || match analyses().await {
        0 => Ok(()),
        n => Err(n),
    })
    .await;
    // The stream has noticed that when it has polled a few times more.
    for _ in 0..5 {
        watching.batch_execute("SELECT pg_current_xact_id()").await.expect("one is given out");
        shop.service.catch_up(&watching).await;
    }
    for _ in 0..2 {
        assert_eq!(shop.ask("product?id=1").await.status, 200);
        assert_eq!(shop.ask("product?id=2").await.status, 200);
    }
    assert_eq!(shop.statements("product").await, 2.0, "what was kept is, and what comes is, too");

    // And once they can be, all are.
    client.batch_execute("ROLLBACK").await.expect("unlocked");
    reloaded(&shop.reload(&toml(QUIET, coming)).await);
    let before = shop.statements("coming").await;
    eventually("it is kept", WITHIN, async || {
        assert_eq!(shop.ask("coming").await.status, 200);
        let label = shop.ask("coming").await.header("cache-status").expect("a label").to_owned();
        if label.contains("hit") { Ok(()) } else { Err(label) }
    })
    .await;
    assert!(shop.statements("coming").await > before);
}
