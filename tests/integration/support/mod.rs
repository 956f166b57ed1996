//! The harness: a cluster per process, a database per test, gates that hold statements, and no sleeps.

pub mod authority;
#[path = "../../support/chaos.rs"]
pub mod chaos;
pub mod client;
#[path = "../../support/eventually.rs"]
pub mod eventually;
#[path = "../../support/http.rs"]
pub mod http;
#[path = "../../support/pod.rs"]
#[expect(dead_code, reason = "the oracle asks its pods for more")]
pub mod pod;
#[path = "../../support/ports.rs"]
pub mod ports;
#[path = "../../support/redis.rs"]
pub mod redis;
pub mod service;
#[path = "../../support/topology.rs"]
pub mod topology;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::Duration;

use seawall::postgres::embedded::{Embedded, EmbeddedOptions};
use tokio_postgres::{Client, NoTls};

use eventually::eventually;

/// The cluster that all tests of this process share. It ends with the process: the watchdog sees to it.
fn cluster() -> &'static Embedded {
    static CLUSTER: OnceLock<Embedded> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        // Both ends of two thousand connections are in this process.
        seawall::cli::raise_descriptor_limit(8192);
        // A runtime of its own: each test's ends with the test.
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let options =
                    EmbeddedOptions { preload_statements: true, max_connections: 400, ..EmbeddedOptions::default() };
                let cluster = Embedded::start(options).await.expect("tests need a PostgreSQL");
                assert!(cluster.has_statements(), "tests count with pg_stat_statements: install PostgreSQL's contrib");
                cluster.load_shop("template_shop").await.expect("the shop");
                cluster.statements("template_shop", "%").await.expect("the extension");
                let template = connect(&cluster.url("template_shop")).await;
                template
                    .batch_execute(
                        "CREATE ROLE app LOGIN PASSWORD 'app-password'; GRANT USAGE ON SCHEMA shop TO app; \
                         GRANT SELECT ON ALL TABLES IN SCHEMA shop TO app",
                    )
                    .await
                    .expect("the role");
                cluster
            })
        })
        .join()
        .expect("the cluster starts")
    })
}

/// The URL of a database of the cluster, as superuser.
pub fn url(database: &str) -> String {
    cluster().url(database)
}

/// A connection whose traffic runs in a task of its own.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// A database of a test's own, with the sample shop in it.
pub struct TestDatabase {
    /// As superuser.
    pub url: String,
    /// As a role that may read the shop and nothing else.
    pub app_url: String,
}

/// Makes a database from the template.
pub async fn database() -> TestDatabase {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("t_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let cluster = tokio::task::spawn_blocking(cluster).await.expect("the cluster starts");
    let client = connect(&cluster.url("postgres")).await;
    // Two copies of one template at once are refused: the template is in use.
    eventually("a database is made", Duration::from_secs(60), async || {
        let made = client.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template_shop")).await;
        made.map_err(|e| e.to_string())
    })
    .await;
    TestDatabase {
        url: cluster.url(&name),
        app_url: format!("postgres://app:app-password@127.0.0.1:{}/{name}", cluster.port()),
    }
}

impl TestDatabase {
    /// A connection as superuser.
    pub async fn client(&self) -> Client {
        connect(&self.url).await
    }

    /// How often statements like `pattern` have run in this database.
    pub async fn statements_like(&self, pattern: &str) -> i64 {
        let sql = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
                   WHERE d.datname = current_database() AND query LIKE $1 AND query NOT LIKE '%pg_stat_statements%' \
                   AND query NOT LIKE 'EXPLAIN%'";
        self.client().await.query_one(sql, &[&pattern]).await.expect("a count").get(0)
    }

    /// Statements like `pattern` that run now in this database.
    pub async fn count_active(&self, pattern: &str) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
                   AND query LIKE $1 AND pid <> pg_backend_pid()";
        self.client().await.query_one(sql, &[&pattern]).await.expect("a count").get(0)
    }
}

/// Holds statements that contain its SQL, until it is opened: an advisory lock that its own session has.
pub struct Gate {
    number: i64,
    holder: Client,
}

impl Gate {
    /// A gate of its own number, closed.
    pub async fn closed(database: &TestDatabase) -> Self {
        static NUMBER: AtomicI64 = AtomicI64::new(1_000);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let holder = database.client().await;
        holder.batch_execute(&format!("SELECT pg_advisory_lock({number})")).await.expect("the lock");
        Self { number, holder }
    }

    /// Closes it again.
    pub async fn close(&self) {
        let sql = format!("SELECT pg_advisory_lock({})", self.number);
        self.holder.batch_execute(&sql).await.expect("the lock");
    }

    /// A row source that waits at the gate, once per statement.
    pub fn sql(&self) -> String {
        format!("(SELECT pg_advisory_xact_lock_shared({}) OFFSET 0)", self.number)
    }

    /// Lets everything through, from now on.
    pub async fn open(&self) {
        let sql = format!("SELECT pg_advisory_unlock({})", self.number);
        self.holder.batch_execute(&sql).await.expect("unlocked");
    }

    /// Waits until `n` statements wait at the gate.
    pub async fn held(&self, n: i64) {
        eventually("statements wait at the gate", Duration::from_secs(10), async || {
            let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid::int8 = $1";
            let waiting: i64 = self.holder.query_one(sql, &[&self.number]).await.expect("a count").get(0);
            if waiting == n { Ok(()) } else { Err(format!("{waiting} of {n} wait")) }
        })
        .await;
    }
}
