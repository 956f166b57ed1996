//! Servers of this process: one that all tests share, with a database for each, and private ones for tests that stop,
//! restart or encrypt theirs. They end with the process, however that ends: a shell waits on a pipe that closes then.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use seawall::postgres::Settings;
use tokio_postgres::{Client, NoTls};

use super::WITHIN;
use super::eventually::eventually;

/// `nobody` on every system that these tests run on as root; a server refuses to be root.
const NOBODY: u32 = 65534;

/// A server of this process.
pub struct Server {
    pub port: u16,
    pub dir: PathBuf,
    options: Vec<String>,
    running: Mutex<Option<Child>>,
    _ended_with_us: ChildStdin,
}

/// Where its programs are.
pub fn binaries() -> PathBuf {
    if let Some(dir) = std::env::var_os("SEAWALL_PG_BIN") {
        return dir.into();
    }
    let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|dirs| dirs.filter_map(|dir| Some(dir.ok()?.path().join("bin"))).collect())
        .unwrap_or_default();
    found.retain(|dir| dir.join("initdb").exists());
    found.sort();
    found.pop().unwrap_or_else(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .find(|dir| dir.join("initdb").exists())
            .expect("PostgreSQL's initdb is on the PATH, below /usr/lib/postgresql, or in SEAWALL_PG_BIN")
    })
}

/// A program that runs as the server does.
pub fn unprivileged(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/");
    command
}

impl Server {
    /// The one that tests share.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        let server = SHARED.get_or_init(|| Self::launch(&["shared_preload_libraries=pg_stat_statements"], |_| {}));
        server.reachable().await;
        server
    }

    /// A private one with these settings, its directory changed by `adapt` before it starts.
    pub async fn private(options: &[&str], adapt: impl FnOnce(&Self)) -> Self {
        let server = Self::launch(options, adapt);
        server.reachable().await;
        server
    }

    fn launch(options: &[&str], adapt: impl FnOnce(&Self)) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let parent = std::env::temp_dir().join(format!("seawall-{}-{number}", std::process::id()));
        fs::create_dir(&parent).expect("a directory of our own");
        if geteuid().is_root() {
            chown(&parent, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let dir = parent.join("data");
        let initdb = unprivileged(binaries().join("initdb"))
            .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C", "-N", "--no-instructions", "-D"])
            .arg(&dir)
            .output()
            .expect("initdb runs");
        assert!(initdb.status.success(), "initdb: {}", String::from_utf8_lossy(&initdb.stderr));
        #[expect(clippy::zombie_processes, reason = "it ends after this process")]
        let mut guard = unprivileged("sh")
            .args(["-c", "cat >/dev/null; kill -QUIT \"$(head -n 1 \"$1/data/postmaster.pid\")\"; rm -rf \"$1\"", "sh"])
            .arg(&parent)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free port").port();
        let server = Self {
            port,
            dir,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            running: Mutex::new(None),
            _ended_with_us: guard.stdin.take().expect("piped"),
        };
        adapt(&server);
        server.start();
        server
    }

    /// Writes a file that the server can read and others can't.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, text).expect("its directory is writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        if geteuid().is_root() {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        path
    }

    /// Starts it, without waiting until it answers.
    pub fn start(&self) {
        let mut command = unprivileged(binaries().join("postgres"));
        command.arg("-D").arg(&self.dir).arg("-p").arg(self.port.to_string());
        let socket_dir =
            format!("unix_socket_directories={}", self.dir.parent().unwrap_or(Path::new("/tmp")).display());
        for option in ["fsync=off", "listen_addresses=127.0.0.1", "max_connections=150", &socket_dir] {
            command.arg("-c").arg(option);
        }
        for option in &self.options {
            command.arg("-c").arg(option);
        }
        let log = fs::File::create(self.dir.parent().expect("it has one").join("log")).expect("a log");
        let child = command.stdout(Stdio::null()).stderr(log).spawn().expect("postgres runs");
        *self.running.lock().expect("not poisoned") = Some(child);
    }

    /// Stops it at once, connections and all, and waits for its end.
    pub fn stop(&self) {
        let child = self.running.lock().expect("not poisoned").take();
        let mut child = child.expect("it runs");
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::INT).expect("it is ours");
        child.wait().expect("it ends");
    }

    /// Ends it without a clean shutdown: what comes next is crash recovery.
    #[allow(dead_code, reason = "not every test binary that has this harness needs it")]
    pub fn crash(&self) {
        let child = self.running.lock().expect("not poisoned").take();
        let mut child = child.expect("it runs");
        kill_process(Pid::from_child(&child), Signal::QUIT).expect("it is ours");
        child.wait().expect("it ends");
    }

    /// A standby that follows it, when it has caught up.
    #[allow(dead_code, reason = "not every test binary that has this harness needs it")]
    pub async fn standby(&self) -> Self {
        let standby = Self::launch(&[], |standby| {
            fs::remove_dir_all(&standby.dir).expect("it is ours");
            let copied = unprivileged(binaries().join("pg_basebackup"))
                .args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-c", "fast", "-p", &self.port.to_string(), "-D"])
                .arg(&standby.dir)
                .output()
                .expect("pg_basebackup runs");
            assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        });
        standby.reachable().await;
        standby
    }

    /// Waits until it answers.
    pub async fn reachable(&self) {
        eventually("the server answers", WITHIN, async || {
            self.client("postgres").await.map(|_| ()).map_err(|error| error.to_string())
        })
        .await;
    }

    /// A connection string for `database`.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A plain client.
    pub async fn client(&self, database: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.running.lock().expect("not poisoned").take() {
            let _ = kill_process(Pid::from_child(&child), Signal::QUIT);
            let _ = child.wait();
        }
    }
}

/// A database of one test, on the shared server.
pub struct Database {
    pub name: String,
    pub server: &'static Server,
    /// The test's own view of it.
    pub admin: Client,
}

impl Database {
    /// An empty one, with `sql` run in it.
    pub async fn new(sql: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = Server::shared().await;
        let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let postgres = server.client("postgres").await.expect("a connection");
        eventually("the template is free", WITHIN, async || {
            postgres.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await
        })
        .await;
        let admin = server.client(&name).await.expect("a connection");
        admin.batch_execute("CREATE EXTENSION pg_stat_statements").await.expect("the extension is there");
        admin.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        Self { name, server, admin }
    }

    /// Settings for it.
    pub fn settings(&self) -> Settings {
        Settings::new(self.server.url(&self.name))
    }

    /// Settings for it, as the role `role` of its own, which is created.
    pub async fn settings_as(&self, role: &str) -> Settings {
        self.admin.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.expect("a new role");
        Settings::new(format!("postgres://{role}@127.0.0.1:{}/{}", self.server.port, self.name))
    }

    /// How often statements whose text is like `pattern` have run here.
    pub async fn calls_of(&self, pattern: &str) -> i64 {
        let sql = "SELECT coalesce(sum(calls), 0)::int8 FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid \
                   WHERE d.datname = current_database() AND query LIKE $1 AND query NOT LIKE '%pg_stat_statements%'";
        self.admin.query_one(sql, &[&pattern]).await.expect("it counts").get(0)
    }

    /// How many of Seawall's sessions here run a statement at this moment.
    pub async fn active(&self) -> i64 {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
                   AND application_name = 'seawall'";
        self.admin.query_one(sql, &[]).await.expect("it counts").get(0)
    }

    /// Ends Seawall's sessions here, and waits until they are gone.
    pub async fn terminate(&self) {
        let sql = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                   WHERE datname = current_database() AND application_name = 'seawall'";
        self.admin.query(sql, &[]).await.expect("it may");
    }
}
