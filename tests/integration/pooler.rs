//! A real pooler between the service and Postgres.

use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::support::client::get;
use super::support::eventually::eventually;
use super::support::service::{migrate, plan};
use super::support::{TestDatabase, connect, database};

const QUERIES: &str = "[queries.product]\nsql = \"SELECT price FROM shop.products WHERE id = :id\"\nresult = \"value\"\n\
    depends = { \"shop.products\" = \"id = :id\" }\n";

/// `PgBouncer`, which refuses to be root as Postgres does. Dropped, it is killed.
struct Pooler {
    process: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl Pooler {
    fn start(database: &TestDatabase, mode: &str) -> Self {
        const NOBODY: u32 = 65534;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let dir = tempfile::tempdir().expect("a directory");
        let server: tokio_postgres::Config = database.url.parse().expect("a URL");
        let password = String::from_utf8_lossy(server.get_password().unwrap_or_default()).into_owned();
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={} user={} password={password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nauth_type = any\npool_mode = {mode}\nunix_socket_dir =\n\
             ignore_startup_parameters = extra_float_digits\n",
            server.get_ports()[0],
            server.get_user().expect("a user"),
        );
        let file = dir.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).expect("written");
        // Where Debian has it, which is not on everybody's path.
        let installed = std::path::Path::new("/usr/sbin/pgbouncer");
        let mut command = Command::new(if installed.exists() { installed } else { "pgbouncer".as_ref() });
        command.arg("-q").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        if rustix::process::getuid().is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("ours");
            chown(&file, Some(NOBODY), Some(NOBODY)).expect("ours");
            command.uid(NOBODY).gid(NOBODY);
        }
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).expect("ours");
        let process = command.spawn().expect("this test needs PgBouncer: scripts/tools.sh pgbouncer");
        Self { process, port, _dir: dir }
    }

    fn url(&self, database: &TestDatabase) -> String {
        let server: tokio_postgres::Config = database.url.parse().expect("a URL");
        format!("postgres://any@127.0.0.1:{}/{}", self.port, server.get_dbname().expect("a database"))
    }

    async fn up(&self) {
        eventually("the pooler listens", Duration::from_secs(20), async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_pooler_in_the_streams_way_is_noticed_and_nobodys_session_is_touched() {
    for source in ["log", "notify"] {
        let database = database().await;
        let pooler = Pooler::start(&database, "transaction");
        pooler.up().await;
        let toml = |listen: &str| {
            format!("[invalidation]\nsource = \"{source}\"\n[postgres]\nlisten_url = \"{listen}\"\n{QUERIES}")
        };
        let direct = plan(&database.url, &toml(&database.url));
        if source == "log" {
            migrate(&direct).await;
        }
        let service = plan(&database.url, &toml(&pooler.url(&database))).start().await;
        eventually("it is noticed", Duration::from_secs(20), async || {
            let ready = get(service.admin, "/readyz").await.text();
            if ready.contains("set postgres.listen_url to the server itself") { Ok(()) } else { Err(ready) }
        })
        .await;
        assert_eq!(service.metric("seawall_degraded{reason=\"pooler\"}").await, 1.0);
        for _ in 0..2 {
            let answer = get(service.queries, "/v1/queries/product?id=1").await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let label = answer.header("cache-status").expect("a label");
            assert!(!label.contains("hit"), "{source}: nothing counts as fresh: {label}");
        }
        // Whoever else uses the pooler finds its sessions as they were.
        let other = connect(&pooler.url(&database)).await;
        for setting in ["search_path", "default_transaction_read_only", "enable_seqscan"] {
            let source = "SELECT source FROM pg_settings WHERE name = $1";
            let row =
                other.query_typed(source, &[(&setting, tokio_postgres::types::Type::TEXT)]).await.expect("a setting");
            assert_ne!(row[0].get::<_, &str>(0), "session", "{setting}");
        }
        // With a direct connection beside it all is well.
        assert!(direct.start().await.metric("seawall_degraded{reason=\"pooler\"}").await == 0.0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_pooler_is_in_nobodys_way() {
    let database = database().await;
    let pooler = Pooler::start(&database, "session");
    pooler.up().await;
    let toml = format!("[invalidation]\nsource = \"log\"\n{QUERIES}");
    migrate(&plan(&database.url, &toml)).await;
    let service = plan(&pooler.url(&database), &toml).start().await;
    let ask = async || get(service.queries, "/v1/queries/product?id=1").await;
    ask().await;
    assert!(ask().await.header("cache-status").is_some_and(|label| label.contains("hit")));
    let client = database.client().await;
    client.batch_execute("UPDATE shop.products SET price = 77 WHERE id = 1").await.expect("written");
    service.catch_up(&client).await;
    assert_eq!(ask().await.text(), "77.00");
    assert_eq!(get(service.admin, "/readyz").await.text(), "{\"status\":\"ok\",\"reasons\":[]}");
}
