//! Redis over TLS, by a user of its own and in a database of a number: what is wrong with any of it means that nothing is shared,
//! and says so.

use std::path::Path;
use std::time::Duration;

use seawall::config::{Config, Database};

use super::support::authority::Authority;
use super::support::client::get;
use super::support::database;
use super::support::eventually::eventually;
use super::support::ports;
use super::support::redis::TestRedis;
use super::support::service::{TestService, migrate, plan};
use super::support::topology::{MASTER, Sentinel};

const WITHIN: Duration = Duration::from_secs(20);

const QUERIES: &str = "[invalidation]\nsource = \"log\"\n[queries.product]\n\
    sql = \"SELECT id FROM shop.products WHERE id = :id\"\nresult = \"row\"\n";

async fn product(pod: &TestService, id: u32) {
    let answer = get(pod.queries, &format!("/v1/queries/product?id={id}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn shared(pod: &TestService, outcome: &str) -> f64 {
    pod.metric(&format!("seawall_shared_values_total{{outcome=\"{outcome}\"}}")).await
}

/// A Redis with TLS beside the plain port by which the harness asks, and a user `app` who may do what Seawall does and no more.
struct Secured {
    redis: TestRedis,
    tls: u16,
}

impl Secured {
    async fn start(authority: &Authority, further: &[&str]) -> Self {
        let (cert, key) = authority.put("redis", authority.sign(2090));
        let (port, ca) = (ports::free(), authority.path("ca.pem"));
        let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        let (cert, key, ca) = (text(&cert), text(&key), text(&ca));
        let tls = port.to_string();
        let mut more = vec!["--tls-port", &tls, "--tls-cert-file", &cert, "--tls-key-file", &key];
        more.extend(["--tls-ca-cert-file", &ca, "--tls-auth-clients", "no", "--requirepass", "of-the-harness"]);
        more.extend(further);
        let redis = TestRedis::start_with(":of-the-harness@", &more).await;
        let words = "ACL SETUSER app on >p@ss/word resetkeys ~seawall:* resetchannels &seawall:* -@all +get +pttl +set +del +pexpire +getrange \
                     +multi +exec +publish +subscribe +ping +evalsha +script|load +select +role +cluster|slots +asking";
        redis.ask::<()>(&words.split_whitespace().collect::<Vec<_>>()).await;
        Self { redis, tls: port }
    }

    fn section(&self, login: &str, host: &str, ca: &Path) -> String {
        format!("[redis]\nurl = \"rediss://{login}{host}:{}/3\"\ntls_root_cert = \"{}\"\n", self.tls, ca.display())
    }
}

/// Asks, and waits until nothing is shared: what `/readyz` says of it.
async fn trouble(pod: &TestService) -> String {
    for id in 1..=5 {
        product(pod, id).await;
    }
    let why = eventually("nothing is shared", WITHIN, async || {
        let ready = get(pod.admin, "/readyz").await;
        assert_eq!(ready.status, 200);
        let text = ready.text();
        if text.contains("nothing is shared") { Ok(text) } else { Err(text) }
    })
    .await;
    assert_eq!((shared(pod, "published").await, shared(pod, "hit").await), (0.0, 0.0));
    why
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_shared_over_tls_by_a_user_in_a_database_or_not_at_all() {
    let (authority, other) = (Authority::new(), Authority::new());
    let secured = Secured::start(&authority, &[]).await;
    let database = database().await;
    let start = async |section: &str| plan(&database.url, &format!("{section}{QUERIES}")).start().await;

    migrate(&plan(&database.url, QUERIES)).await;
    let good = secured.section("app:p%40ss%2Fword@", "localhost", &authority.path("ca.pem"));
    let (first, second) = (start(&good).await, start(&good.replace("localhost", "127.0.0.1")).await);
    product(&first, 1).await;
    eventually("it is shared", WITHIN, async || match shared(&first, "published").await {
        1.0 => Ok(()),
        _ => Err(first.read.degraded()),
    })
    .await;
    product(&second, 1).await;
    assert_eq!((shared(&second, "hit").await, shared(&second, "failed").await), (1.0, 0.0));
    let keyspace: String = secured.redis.ask(&["INFO", "keyspace"]).await;
    assert!(keyspace.contains("db3:keys=1") && !keyspace.contains("db0"), "{keyspace}");

    for (section, why) in [
        (secured.section("app:p%40ss%2Fword@", "localhost", &other.path("ca.pem")), "invalid peer certificate"),
        (good.replace("p%40ss", "wrong"), "authentication failed"),
        (good.replace("app:p%40ss%2Fword@", ""), "Authentication required"),
        // The port that speaks no TLS.
        (good.replace(&secured.tls.to_string(), &secured.redis.port().to_string()), ""),
        // And the one that speaks nothing else.
        (format!("[redis]\nurl = \"redis://localhost:{}\"\n", secured.tls), ""),
    ] {
        let said = trouble(&start(&section).await).await;
        assert!(said.contains(why) && !said.contains("p@ss") && !said.contains("wrong%2F"), "{section}: {said}");
    }
    let keyspace: String = secured.redis.ask(&["INFO", "keyspace"]).await;
    assert!(keyspace.contains("db3:keys=1") && !keyspace.contains("db0"), "{keyspace}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_clusters_are_spoken_to_over_tls_too() {
    let (authority, other, database) = (Authority::new(), Authority::new(), database().await);
    migrate(&plan(&database.url, QUERIES)).await;

    let bus = ports::free().to_string();
    let of_cluster = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--tls-cluster", "yes"];
    let cluster = Secured::start(&authority, &of_cluster).await;
    cluster.redis.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    eventually("it has all slots", WITHIN, async || {
        let info: String = cluster.redis.ask(&["CLUSTER", "INFO"]).await;
        if info.contains("cluster_state:ok") { Ok(()) } else { Err(info) }
    })
    .await;

    let master = Secured::start(&authority, &[]).await;
    let sentinels = ports::free();
    let dir = authority.path("");
    let dir = dir.display();
    let secure = format!(
        "tls-port {sentinels}\ntls-replication yes\ntls-cert-file {dir}/redis.crt\ntls-key-file {dir}/redis.key\n\
         tls-ca-cert-file {dir}/ca.pem\ntls-auth-clients no\nsentinel auth-pass {MASTER} of-the-harness"
    );
    let _sentinel = Sentinel::start(master.tls, 1, &secure).await;

    let login = "app:p%40ss%2Fword@localhost";
    for (redis, url) in [
        (&cluster.redis, format!("rediss+cluster://{login}:{}", cluster.tls)),
        (&master.redis, format!("rediss+sentinel://{login}:{sentinels}/{MASTER}")),
    ] {
        let section = |by: &Authority| {
            format!("[redis]\nurl = \"{url}\"\ntls_root_cert = \"{}\"\n{QUERIES}", by.path("ca.pem").display())
        };
        let said = trouble(&plan(&database.url, &section(&other)).start().await).await;
        assert!(said.contains("invalid peer certificate"), "{said}");
        let pod = plan(&database.url, &section(&authority)).start().await;
        product(&pod, 1).await;
        eventually("it is shared", WITHIN, async || match shared(&pod, "published").await {
            1.0 => Ok(()),
            _ => Err(pod.read.degraded()),
        })
        .await;
        assert_eq!(redis.values().await.len(), 1);
    }
}

#[tokio::test]
async fn an_authority_that_can_not_be_read_keeps_the_service_from_starting() {
    let authority = Authority::new();
    let garbage = authority.path("garbage.pem");
    std::fs::write(&garbage, "hunter2").expect("written");
    let toml = format!(
        "[postgres]\nurl = \"postgres://app@localhost/shop\"\n[redis]\nurl = \"rediss://h\"\ntls_root_cert = \"{}\"\n{QUERIES}",
        garbage.display()
    );
    let config = Config::parse(&toml, Path::new("."), Database::Configured, &|_| None).expect("it is there");
    let error =
        seawall::app::App::new(config, "postgres://app@localhost/shop").err().expect("no certificate").to_string();
    assert!(
        error.contains("redis.tls_root_cert") && error.contains("garbage.pem") && !error.contains("hunter2"),
        "{error}"
    );
}
