//! A PostgreSQL that may be killed, restarted, copied, and succeeded by its standby. It ends with this process, however that
//! ends: a shell waits on a pipe that closes then.
//!
//! One server at a time is the primary; who connects asks [`Cluster::port`] each time. Its commits outlive a crash of the
//! server (`synchronous_commit` stays on), not of the machine (`fsync` is off).

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use seawall::postgres::embedded::find_binaries;
use tokio_postgres::{Client, NoTls};

use super::eventually::eventually;
use super::ports;

/// `nobody` on every system that these tests run on as root; a server refuses to be root.
const NOBODY: u32 = 65534;

const WITHIN: Duration = Duration::from_secs(60);

/// Beside what is there by default: what a standby needs.
const SETTINGS: &str = "\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nmax_connections = 150\n\
    wal_level = replica\nmax_wal_senders = 4\ntimezone = 'UTC'\nlog_timezone = 'UTC'\n\
    shared_buffers = '32MB'\n";

/// Whether transactions may be prepared. Where they may, writers ring nobody's doorbell, and pods poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepares {
    Sometimes,
    Never,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended, a checkpoint is written.
    Clean,
    /// As in a crash.
    Immediate,
}

#[derive(Clone, Debug)]
struct Server {
    dir: PathBuf,
    port: u16,
}

/// The primary, and what it leaves behind.
pub struct Cluster {
    parent: PathBuf,
    bin: PathBuf,
    primary: Mutex<Server>,
    directories: AtomicU32,
    _ended_with_us: ChildStdin,
}

/// A standby that follows.
pub struct Standby(Server);

/// A copy of the primary's files, made while it was down.
pub struct Copy(PathBuf);

fn unprivileged(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Cluster {
    /// A new one, running.
    pub async fn start(prepares: Prepares) -> Self {
        let bin = find_binaries().expect("a directory").expect("tests need a PostgreSQL: see SEAWALL_PG_BIN");
        let parent = tempfile::Builder::new().prefix("seawall-oracle-").tempdir().expect("a directory").keep();
        fs::set_permissions(&parent, fs::Permissions::from_mode(0o700)).expect("it is ours");
        if rustix::process::geteuid().is_root() {
            chown(&parent, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        #[expect(clippy::zombie_processes, reason = "it ends after this process")]
        let mut guard = unprivileged("sh")
            .args([
                "-c",
                "cat >/dev/null; for pid in \"$1\"/*/postmaster.pid; do kill -QUIT \"$(head -n 1 \"$pid\")\"; done; \
                 rm -rf \"$1\"",
                "sh",
            ])
            .arg(&parent)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("a shell");
        let primary = Server { dir: parent.join("0"), port: ports::free() };
        let cluster = Self {
            parent,
            bin,
            primary: Mutex::new(primary.clone()),
            directories: AtomicU32::new(1),
            _ended_with_us: guard.stdin.take().expect("piped"),
        };
        let mut initdb = unprivileged(cluster.bin.join("initdb"));
        initdb.args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C", "-N", "-D"]).arg(&primary.dir);
        run(initdb).await;
        let conf = primary.dir.join("postgresql.conf");
        let most = match prepares {
            Prepares::Sometimes => 20,
            Prepares::Never => 0,
        };
        let settings = format!("{SETTINGS}max_prepared_transactions = {most}\n");
        fs::write(&conf, fs::read_to_string(&conf).expect("initdb wrote it") + &settings).expect("ours");
        cluster.launch(&primary).await;
        cluster
    }

    /// Where the primary listens, now.
    pub fn port(&self) -> u16 {
        self.primary().port
    }

    /// Of `role`, at the primary.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port())
    }

    /// A session of `role` at the primary, if it can be had.
    ///
    /// # Errors
    /// The server is down, or not up yet.
    pub async fn connect(&self, role: &str, database: &str) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url(role, database), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A session, waited for.
    pub async fn session(&self, role: &str, database: &str) -> Client {
        eventually("the server answers", WITHIN, async || {
            self.connect(role, database).await.map_err(|error| error.to_string())
        })
        .await
    }

    /// Stops the primary.
    pub async fn stop(&self, how: Stop) {
        self.halt(&self.primary(), how).await;
    }

    /// Starts it again.
    pub async fn resume(&self) {
        self.launch(&self.primary()).await;
    }

    /// Copies the primary's files; it must be down.
    pub async fn copy(&self) -> Copy {
        let copy = self.directory();
        duplicate(&self.primary().dir, &copy).await;
        Copy(copy)
    }

    /// Puts the copy in the place of the primary's files; it must be down.
    pub fn restore(&self, copy: Copy) {
        let primary = self.primary();
        fs::remove_dir_all(&primary.dir).expect("it is down");
        fs::rename(copy.0, &primary.dir).expect("one file system");
    }

    /// A standby of the primary, following.
    pub async fn follow(&self) -> Standby {
        let standby = Server { dir: self.directory(), port: ports::free() };
        let mut backup = unprivileged(self.bin.join("pg_basebackup"));
        backup.args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream", "-c", "fast", "-p"]);
        backup.arg(self.port().to_string()).arg("-D").arg(&standby.dir);
        run(backup).await;
        self.launch(&standby).await;
        Standby(standby)
    }

    /// Waits until the standby has all that the primary has.
    pub async fn catch_up(&self, standby: &Standby) {
        let there = self.session("postgres", "postgres").await;
        let written: String =
            there.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.expect("a position").get(0);
        let url = format!("postgres://postgres@127.0.0.1:{}/postgres", standby.0.port);
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("a hot standby");
        tokio::spawn(connection);
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn");
        eventually("the standby has caught up", WITHIN, async || {
            let caught_up: bool = client.query_one(&sql, &[]).await.expect("a position").get(0);
            caught_up.then_some(()).ok_or("behind")
        })
        .await;
    }

    /// From now on the standby misses what is written.
    pub async fn detach(&self, standby: &Standby) {
        self.halt(&standby.0, Stop::Clean).await;
    }

    /// Stops the primary for good, and promotes the standby with what it has.
    pub async fn succeed(&self, standby: Standby) {
        let Standby(standby) = standby;
        self.stop(Stop::Immediate).await;
        let old = std::mem::replace(&mut *self.primary.lock().expect("not poisoned"), standby.clone());
        if !standby.dir.join("postmaster.pid").exists() {
            self.launch(&standby).await;
        }
        let mut promote = unprivileged(self.bin.join("pg_ctl"));
        promote.args(["promote", "-w", "-t", "60", "-D"]).arg(&standby.dir);
        run(promote).await;
        fs::remove_dir_all(old.dir).expect("it is down");
    }

    fn primary(&self) -> Server {
        self.primary.lock().expect("not poisoned").clone()
    }

    fn directory(&self) -> PathBuf {
        self.parent.join(self.directories.fetch_add(1, Ordering::Relaxed).to_string())
    }

    async fn launch(&self, server: &Server) {
        let mut start = unprivileged(self.bin.join("pg_ctl"));
        start.args(["start", "-w", "-t", "60", "-D"]).arg(&server.dir).arg("-o").arg(format!("-p {}", server.port));
        start.arg("-l").arg(server.dir.join("log"));
        run(start).await;
    }

    async fn halt(&self, server: &Server, how: Stop) {
        let mode = match how {
            Stop::Clean => "fast",
            Stop::Immediate => "immediate",
        };
        let mut stop = unprivileged(self.bin.join("pg_ctl"));
        stop.args(["stop", "-w", "-t", "60", "-m", mode, "-D"]).arg(&server.dir);
        run(stop).await;
    }
}

async fn duplicate(from: &Path, to: &Path) {
    let mut copy = unprivileged("cp");
    copy.arg("-a").arg(from).arg(to);
    run(copy).await;
}

async fn run(mut command: Command) {
    let what = format!("{command:?}");
    let status = tokio::process::Command::from(std::mem::replace(&mut command, Command::new("true")))
        .status()
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(status.success(), "{what}: {status}");
}
