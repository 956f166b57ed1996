//! Runs of wrk, a public load generator, on the core that isn't the server's.

use std::process::Command;

use super::process::{Child, LOAD_CPU};

/// What to ask: `prefix`, a number from 1 to `keys` drawn for each request, `suffix`.
#[derive(Clone)]
pub struct Target {
    pub prefix: String,
    pub keys: u32,
    pub suffix: String,
    /// Of the head, as it is sent.
    pub field: Option<String>,
}

/// What one run and the system say.
pub struct Run {
    pub per_second: f64,
    /// Server CPU time, user and system, by request.
    pub cpu_us: f64,
    pub p50_us: f64,
    pub p99_us: f64,
}

/// The last field counts answers that were none: refused, cut off, late, or of another status than 2xx and 3xx.
const SCRIPT: &str = "init = function(args) prefix, keys, suffix = args[1], tonumber(args[2]), args[3] or '' end\n\
    request = function() return wrk.format('GET', prefix .. math.random(keys) .. suffix) end\n\
    done = function(s, l) local e = s.errors\n\
      io.write(string.format('%d %d %f %f %d\\n', s.requests, s.duration, l:percentile(50), l:percentile(99),\n\
        e.connect + e.read + e.write + e.status + e.timeout)) end\n";

/// Loads `server` for that long, over as many keep-alive connections, each with one request at a time.
pub fn run(server: &Child, target: &Target, connections: u32, seconds: u32) -> Run {
    let script = std::env::temp_dir().join(format!("seawall-bench-{}.lua", std::process::id()));
    std::fs::write(&script, SCRIPT).expect("written");
    let before = server.cpu();
    let out = Command::new("taskset")
        .args(["-c", LOAD_CPU, "wrk", "-t1", &format!("-c{connections}"), &format!("-d{seconds}s"), "-s"])
        .arg(&script)
        .args(target.field.iter().flat_map(|field| ["-H", field]))
        .arg(format!("http://127.0.0.1:{}", server.port()))
        .args(["--", &target.prefix, &target.keys.to_string(), &target.suffix])
        .output()
        .expect("wrk");
    std::fs::remove_file(&script).expect("removed");
    let cpu = server.cpu() - before;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = text.lines().last().unwrap_or_default();
    let figures: Vec<f64> = line.split(' ').filter_map(|figure| figure.parse().ok()).collect();
    let [requests, micros, p50_us, p99_us, failed] = figures[..] else { panic!("wrk said: {text}") };
    assert!(failed < 1.0, "{failed} of {requests} requests for {}… failed", target.prefix);
    Run { per_second: requests / micros * 1e6, cpu_us: cpu / requests * 1e6, p50_us, p99_us }
}
