//! Pods of different sets of queries beside each other, as in a rolling deploy: what both have is shared, and nothing else.

use std::fs;
use std::time::Duration;

use super::support::client::{Answer, get, request};
use super::support::eventually::eventually;
use super::support::redis::TestRedis;
use super::support::service::{TestService, migrate, plan, plan_at, text};
use super::support::{TestDatabase, database};

const WITHIN: Duration = Duration::from_secs(20);

const HEAD: &str = "[server]\nwatch_config = false\n[defaults]\njitter = 0.0\nearly_refresh = 0\nttl = \"1h\"\n";
const LOG: &str = "[invalidation]\nsource = \"log\"\n";

const A: &str = "[queries.a]\nsql = \"SELECT id, price FROM shop.products WHERE id = :id\"\nresult = \"row\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n";
const B: &str = "[queries.b]\nsql = \"SELECT id, slug FROM shop.categories WHERE id = :id\"\n";
const C: &str = "[queries.c]\nsql = \"SELECT count(*) AS n FROM shop.reviews WHERE product_id = :id\"\n";

/// A database with the log and triggers for whatever is asked, a Redis, and pods over both.
struct Rollout {
    database: TestDatabase,
    redis: TestRedis,
    head: String,
    files: tempfile::TempDir,
}

impl Rollout {
    /// `sql` comes before triggers for `queries` do. Nothing but fingerprints tells of definitions later: no event triggers.
    async fn begin(sql: &str, head: &str, queries: &[&str]) -> Self {
        let (database, redis) = (database().await, TestRedis::start().await);
        let head = format!("{}{LOG}{HEAD}{head}", redis.section(""));
        let client = database.client().await;
        client.batch_execute(sql).await.expect(sql);
        let rollout = Self { database, redis, head, files: tempfile::tempdir().expect("a directory") };
        migrate(&plan(&rollout.database.url, &rollout.config(queries))).await;
        let quiet = "DO $$ DECLARE e name; BEGIN FOR e IN SELECT evtname FROM pg_event_trigger LOOP \
                     EXECUTE format('DROP EVENT TRIGGER %I', e); END LOOP; END $$";
        client.batch_execute(quiet).await.expect("dropped");
        rollout
    }

    fn config(&self, queries: &[&str]) -> String {
        format!("{}{}", self.head, queries.concat())
    }

    async fn pod(&self, queries: &[&str]) -> TestService {
        plan(&self.database.url, &self.config(queries)).start().await
    }

    /// One that can be reloaded.
    async fn pod_at(&self, file: &str, queries: &[&str]) -> TestService {
        plan_at(&self.files.path().join(file), &self.database.url, &self.config(queries)).start().await
    }

    async fn reload(&self, pod: &TestService, file: &str, queries: &[&str]) {
        fs::write(self.files.path().join(file), text(&self.database.url, &self.config(queries))).expect("written");
        let answer = request(pod.admin, "POST", "/reload", &[], b"").await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Runs what changes definitions, and waits until each of `pods` has noticed and judged anew.
    async fn redefine(&self, pods: &[&TestService], sql: &str) {
        let mut before = vec![];
        for pod in pods {
            before.push(flushes(pod).await);
        }
        self.database.client().await.batch_execute(sql).await.expect(sql);
        for (pod, before) in pods.iter().zip(before) {
            // The second one comes with the first look at what was judged.
            eventually("it is judged anew", WITHIN, async || match flushes(pod).await - before {
                2.0 => Ok(()),
                n => Err(n),
            })
            .await;
        }
    }
}

async fn flushes(pod: &TestService) -> f64 {
    pod.metric("seawall_flushes_total{reason=\"schema\"}").await
}

async fn ask(pod: &TestService, query: &str, id: u32) -> Answer {
    let answer = get(pod.queries, &format!("/v1/queries/{query}?id={id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

fn label(answer: &Answer) -> &str {
    answer.header("cache-status").expect("a label")
}

async fn statements(pod: &TestService, query: &str) -> f64 {
    pod.metric(&format!("seawall_db_queries_total{{query=\"{query}\"}}")).await
}

async fn published(pod: &TestService) -> f64 {
    pod.metric("seawall_shared_values_total{outcome=\"published\"}").await
}

/// Has `pod` fill what nobody has, and waits until it is shared.
async fn fill(pod: &TestService, query: &str, id: u32) -> Answer {
    let (shared, sent) = (published(pod).await, statements(pod, query).await);
    let answer = ask(pod, query, id).await;
    assert!(label(&answer).contains("; stored"), "{answer:?}");
    assert_eq!(statements(pod, query).await, sent + 1.0);
    eventually("it is shared", WITHIN, async || match published(pod).await - shared {
        1.0 => Ok(()),
        n => Err(n),
    })
    .await;
    answer
}

/// Has `pod` find what another has filled, without a statement.
async fn find(pod: &TestService, query: &str, id: u32, filled: &Answer) {
    let sent = statements(pod, query).await;
    let answer = ask(pod, query, id).await;
    assert!(label(&answer).ends_with("; detail=redis"), "{answer:?}");
    assert_eq!((&answer.body, statements(pod, query).await), (&filled.body, sent));
}

/// Each fills something that the other finds.
async fn share(one: &TestService, other: &TestService, query: &str, id: u32) {
    find(other, query, id, &fill(one, query, id).await).await;
    find(one, query, id + 1, &fill(other, query, id + 1).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_both_versions_of_a_deploy_ask_is_shared_both_ways() {
    let rollout = Rollout::begin("", "", &[A, B, C]).await;
    let (old, new) = (rollout.pod(&[A, B]).await, rollout.pod(&[A, C]).await);
    share(&old, &new, "a", 1).await;
    fill(&old, "b", 1).await;
    fill(&new, "c", 1).await;
    // Of a write both know.
    let client = rollout.database.client().await;
    client.batch_execute("UPDATE shop.products SET price = 7.77 WHERE id = 1").await.expect("written");
    for pod in [&old, &new] {
        pod.catch_up(&client).await;
    }
    let filled = fill(&new, "a", 1).await;
    assert!(filled.text().contains("7.77"));
    find(&old, "a", 1, &filled).await;
    // Warm from its first request on, whatever it asks beside.
    find(&rollout.pod(&[A]).await, "a", 1, &filled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_and_new_texts_of_a_query_live_side_by_side() {
    let rollout = Rollout::begin("", "", &[A, B]).await;
    let changed = A.replace("id, price", "id, price + 1 AS price");
    let (old, new) = ([A, B], [&*changed, B]);
    let (first, second) = (rollout.pod(&old).await, rollout.pod(&new).await);
    let (of_old, of_new) = (fill(&first, "a", 7).await, fill(&second, "a", 7).await);
    assert_ne!(of_old.body, of_new.body);
    assert_eq!(rollout.redis.values().await.len(), 2);
    for (queries, filled) in [(&old, &of_old), (&new, &of_new)] {
        let pod = rollout.pod(queries).await;
        find(&pod, "a", 7, filled).await;
    }
    for (pod, filled) in [(&first, &of_old), (&second, &of_new)] {
        let again = ask(pod, "a", 7).await;
        assert_eq!((&again.body, statements(pod, "a").await), (&filled.body, 1.0), "its own");
    }
    share(&first, &second, "b", 1).await;
}

const VIEW: &str = "CREATE VIEW shop.priced AS SELECT id, price * 1 AS price FROM shop.products";
const OVER_A_VIEW: &str = "[queries.a]\nsql = \"SELECT id, price FROM shop.priced WHERE id = :id\"\nresult = \"row\"\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_definition_parts_a_querys_answers_and_no_others() {
    let rollout = Rollout::begin(VIEW, "", &[OVER_A_VIEW, B, C]).await;
    let (with_b, with_c) = ([OVER_A_VIEW, B], [OVER_A_VIEW, C]);
    let (first, second) = (rollout.pod(&with_b).await, rollout.pod(&with_c).await);
    let filled = fill(&first, "a", 7).await;

    // Of c alone: whoever comes later finds a's, and nothing of c's from before.
    let of_c = fill(&second, "c", 7).await;
    rollout.redefine(&[&second], "ALTER TABLE shop.reviews ADD COLUMN helpful int").await;
    assert_eq!(flushes(&first).await, 0.0, "it asks nothing of it");
    let third = rollout.pod(&with_c).await;
    find(&third, "a", 7, &filled).await;
    assert_eq!(fill(&third, "c", 7).await.body, of_c.body);

    // Of a: no event says so, and both of its answers are within their lifetimes.
    let view = VIEW.replace("CREATE VIEW", "CREATE OR REPLACE VIEW").replace("* 1", "* 2");
    rollout.redefine(&[&first, &second], &view).await;
    let changed = fill(&first, "a", 7).await;
    assert_ne!(changed.body, filled.body);
    find(&second, "a", 7, &changed).await;
    let fresh = rollout.pod(&with_b).await;
    find(&fresh, "a", 7, &changed).await;
    share(&fresh, &second, "a", 8).await;
    // Nobody who comes later is to find the one from before, be there a newer one or not.
    rollout.redis.ask::<()>(&["FLUSHALL"]).await;
    let stale = fill(&fresh, "a", 20).await;
    rollout.database.client().await.batch_execute(&view.replace("* 2", "* 3")).await.expect("replaced");
    let latest = ask(&rollout.pod(&with_c).await, "a", 20).await;
    assert_ne!(latest.body, stale.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reloaded_pod_shares_with_fresh_ones_and_with_those_yet_to_be_reloaded() {
    let rollout = Rollout::begin("", "", &[A, B, C]).await;
    let (old, new) = ([A, B], [A, B, C]);
    let reloaded = rollout.pod_at("reloaded.toml", &old).await;
    let waits = rollout.pod(&old).await;
    let before = fill(&reloaded, "a", 1).await;
    rollout.reload(&reloaded, "reloaded.toml", &new).await;
    let fresh = rollout.pod(&new).await;
    find(&fresh, "a", 1, &before).await;
    share(&reloaded, &fresh, "a", 10).await;
    share(&reloaded, &fresh, "c", 10).await;
    share(&reloaded, &waits, "a", 20).await;
    share(&fresh, &waits, "b", 1).await;
    // And once a definition has changed, after which all names are new.
    rollout.redefine(&[&reloaded, &waits, &fresh], "ALTER TABLE shop.products ADD COLUMN note text").await;
    share(&reloaded, &fresh, "a", 30).await;
    share(&waits, &reloaded, "a", 40).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_is_reloaded_with_another_bound_on_a_parameter_is_judged_like_a_fresh_pods() {
    let bounded = |max: u32| format!("{A}params = {{ id = {{ max = {max} }} }}\n");
    let (old, new) = (bounded(100), bounded(200));
    let rollout = Rollout::begin("", "", &[&old]).await;
    let reloaded = rollout.pod_at("bounded.toml", &[&old]).await;
    rollout.reload(&reloaded, "bounded.toml", &[&new]).await;
    let status = get(reloaded.admin, "/status").await.text();
    assert!(status.contains("exact"), "{status}");
    share(&reloaded, &rollout.pod(&[&new]).await, "a", 150).await;
    let client = rollout.database.client().await;
    client.batch_execute("UPDATE shop.products SET price = 7.77 WHERE id = 150").await.expect("written");
    reloaded.catch_up(&client).await;
    assert!(ask(&reloaded, "a", 150).await.text().contains("7.77"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_that_takes_a_name_over_parts_what_was_shared_before() {
    let unqualified = A.replace("shop.products", "products");
    let path = "[postgres]\nsearch_path = \"early, shop\"\n";
    let rollout = Rollout::begin("CREATE SCHEMA early", path, &[&unqualified, B, C]).await;
    let (with_b, with_c) = ([&*unqualified, B], [&*unqualified, C]);
    let (first, second) = (rollout.pod(&with_b).await, rollout.pod(&with_c).await);
    share(&first, &second, "a", 7).await;
    // Statements of its triggers are nowhere: it lives by the ttl, and says nothing of what it has taken over.
    let take_over =
        "CREATE TABLE early.products AS SELECT * FROM shop.products; UPDATE early.products SET price = 555.55";
    rollout.redefine(&[&first, &second], take_over).await;
    let other = fill(&second, "a", 7).await;
    assert!(other.text().contains("555.55"), "{other:?}");
    find(&first, "a", 7, &other).await;
    let fresh = rollout.pod(&with_b).await;
    find(&fresh, "a", 7, &other).await;
    // It has seen no change and flushes nothing: what was shared before lies under another name.
    assert!(fill(&fresh, "a", 8).await.text().contains("555.55"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_other_roles_nothing_is_shared() {
    let rollout = Rollout::begin("", "", &[A]).await;
    let grant = "GRANT USAGE ON SCHEMA seawall TO app; GRANT SELECT ON ALL TABLES IN SCHEMA seawall TO app; \
                 GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA seawall TO app; \
                 GRANT INSERT ON ALL TABLES IN SCHEMA seawall TO app";
    rollout.database.client().await.batch_execute(grant).await.expect("granted");
    let owner = rollout.pod(&[A]).await;
    fill(&owner, "a", 7).await;
    let other = plan(&rollout.database.app_url, &rollout.config(&[A])).start().await;
    fill(&other, "a", 7).await;
    assert_eq!(rollout.redis.values().await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_log_pods_share_as_ever() {
    for (source, knows) in [("none", false), ("notify", true), ("log", false)] {
        let (database, redis) = (database().await, TestRedis::start().await);
        let head = format!("{}[invalidation]\nsource = \"{source}\"\n{HEAD}", redis.section(""));
        let first = plan(&database.url, &format!("{head}{A}{B}")).start().await;
        let second = plan(&database.url, &format!("{head}{A}{C}")).start().await;
        if !knows {
            // The history is known by a first answer.
            ask(&first, "b", 1).await;
            ask(&second, "c", 1).await;
        }
        eventually("both have shared", WITHIN, async || match (knows, redis.values().await.len()) {
            (true, _) | (_, 2) => Ok(()),
            (_, n) => Err(n),
        })
        .await;
        share(&first, &second, "a", 7).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_log_other_roles_and_other_options_share_nothing_either() {
    let (database, redis) = (database().await, TestRedis::start().await);
    let config = format!("{}[invalidation]\nsource = \"none\"\n{HEAD}{A}{B}", redis.section(""));
    // A setting of nobody's but the application's: policies may ask for it, and no catalog knows it.
    let tenant = |n: u32| format!("{}?options=-c%20shop.tenant%3D{n}", database.url);
    let asks_as = [database.url.clone(), database.app_url.clone(), tenant(1), tenant(2)];
    for (n, url) in asks_as.iter().enumerate() {
        let pod = plan(url, &config).start().await;
        // The history is known by a first answer.
        ask(&pod, "b", u32::try_from(n).expect("few") + 1).await;
        eventually("it is shared", WITHIN, async || match published(&pod).await {
            1.0 => Ok(()),
            n => Err(n),
        })
        .await;
        fill(&pod, "a", 7).await;
    }
    let again = plan(&tenant(2), &config).start().await;
    ask(&again, "b", 9).await;
    let sent = statements(&again, "a").await;
    ask(&again, "a", 7).await;
    assert_eq!(statements(&again, "a").await, sent, "who asks by the same finds it");
}
