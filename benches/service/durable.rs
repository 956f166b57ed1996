//! A PostgreSQL whose commits reach the disk: what writers pay is a matter of how commits share a flush, and the embedded one
//! never flushes.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use seawall::postgres::embedded::find_binaries;

/// `nobody`, where this runs as root: PostgreSQL refuses to be it.
const NOBODY: u32 = 65534;

/// The server; dropped, it is killed.
pub struct Durable {
    server: Child,
    bin: PathBuf,
    port: u16,
    _dir: tempfile::TempDir,
}

fn unprivileged(program: &Path) -> Command {
    // This process keeps to one core; writers and their server have all of them, as they would elsewhere.
    let mut command = Command::new("taskset");
    command.args(["-c", "0-1023"]).arg(program);
    if rustix::process::getuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

impl Durable {
    pub fn start() -> Self {
        let bin = find_binaries().expect("a search").expect("PostgreSQL's programs");
        // Not below a file system in memory, which has nothing to flush to.
        let dir = tempfile::tempdir_in("/var/tmp").expect("a directory");
        if rustix::process::getuid().is_root() {
            chown(dir.path(), Some(NOBODY), Some(NOBODY)).expect("ours");
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).expect("ours");
        let data = dir.path().join("data");
        let made = unprivileged(&bin.join("initdb")).args(["-A", "trust", "-U", "postgres", "-D"]).arg(&data).status();
        assert!(made.expect("initdb").success());
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let server = unprivileged(&bin.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-c", &format!("port={port}"), "-c", "unix_socket_directories=", "-c", "max_connections=100"])
            .spawn()
            .expect("postgres");
        let durable = Self { server, bin, port, _dir: dir };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "PostgreSQL does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        durable
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// Transactions a second of so many clients that run `script` for so many seconds.
    pub fn pgbench(&self, script: &Path, clients: u32, seconds: u32) -> f64 {
        let out = Command::new(self.bin.join("pgbench"))
            .args(["-n", "-M", "prepared", "-h", "127.0.0.1", "-U", "postgres", "-p", &self.port.to_string()])
            .args(["-c", &clients.to_string(), "-j", "2", "-T", &seconds.to_string(), "-f"])
            .arg(script)
            .arg("postgres")
            .output()
            .expect("pgbench");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let line =
            text.lines().find(|line| line.starts_with("tps = ")).unwrap_or_else(|| panic!("pgbench said: {text}"));
        line.split(' ').nth(2).and_then(|tps| tps.parse().ok()).expect("a number")
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
