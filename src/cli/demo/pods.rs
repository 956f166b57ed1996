//! Pods of the demo: processes of this same program, each with a configuration, a log and addresses of its own, and what
//! they say of themselves.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::processes::Processes;
use super::{DemoError, QUERY, load};
use crate::config::overlay;

/// A start takes a fraction of a second, and on a machine with every core busy some more.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// One of them.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `pod-1` and so on.
    pub name: String,
    /// Of its query listener.
    pub queries: SocketAddr,
    /// Of its admin listener.
    pub admin: SocketAddr,
    config: PathBuf,
}

/// What one says that it has done for a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All requests.
    pub requests: u64,
    /// Answered at once.
    pub memory: u64,
    /// Answered with what another pod had filled.
    pub redis: u64,
    /// Waited for a statement.
    pub postgres: u64,
    /// Statements sent.
    pub statements: u64,
}

impl std::ops::Sub for Counts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            requests: self.requests - before.requests,
            memory: self.memory - before.memory,
            redis: self.redis - before.redis,
            postgres: self.postgres - before.postgres,
            statements: self.statements - before.statements,
        }
    }
}

/// A port that is free now.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// What all pods have in common.
pub(super) struct Common<'a> {
    /// The configuration that they share, as text.
    pub(super) text: &'a str,
    /// Where it stands.
    pub(super) base_dir: &'a Path,
    pub(super) postgres: &'a str,
    pub(super) redis: &'a str,
}

impl Pod {
    /// The `n`th, its configuration written; not started.
    pub(super) fn new(n: u32, common: &Common<'_>, processes: &Processes) -> Result<Self, DemoError> {
        let name = format!("pod-{n}");
        let (queries, admin) = (free_address()?, free_address()?);
        let (listen, admin_listen) = (queries.to_string(), admin.to_string());
        let set: &[(&[&str], &str)] = &[
            (&["server", "listen"], &listen),
            (&["server", "admin_listen"], &admin_listen),
            (&["postgres", "url"], common.postgres),
            (&["redis", "url"], common.redis),
            // Everything of the demo shares the cores of one machine: a slow answer is no outage here.
            (&["redis", "timeout"], "400ms"),
            // As in the demo of one process: a stampede is not to fail for want of cores.
            (&["queries", QUERY, "timeout"], "30s"),
        ];
        // The demo's own client speaks plain HTTP, and its Postgres has one address.
        let unset: &[&[&str]] = &[
            &["server", "tls_cert"],
            &["server", "tls_key"],
            &["server", "tls_client_ca"],
            &["admin", "tls_cert"],
            &["admin", "tls_key"],
            &["admin", "tls_client_ca"],
            &["postgres", "listen_url"],
        ];
        let text = overlay(common.text, common.base_dir, set, unset).ok_or(DemoError::NoQuery)?;
        let config = processes.write(&format!("{name}.toml"), &text)?;
        Ok(Self { name, queries, admin, config })
    }

    /// Starts it; it is not [`ready`](Self::ready) yet.
    pub(super) fn start(&self, program: &Path, processes: &mut Processes) -> Result<(), DemoError> {
        let mut command = Command::new(program);
        command.arg("serve").arg("--config").arg(&self.config);
        processes.start(&self.name, command)?;
        Ok(())
    }

    /// Waits until it would get requests from a balancer.
    pub(super) async fn ready(&self, processes: &mut Processes) -> Result<(), DemoError> {
        let begun = Instant::now();
        loop {
            if load::get_http1(self.admin, "/readyz").await.is_ok_and(|answer| answer.status.is_success()) {
                return Ok(());
            }
            if processes.ended(&self.name).is_some() || begun.elapsed() > READY_WITHIN {
                return Err(DemoError::process(&self.name, processes));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// What it has done so far for `query`, from its metrics.
    pub(super) async fn counts(&self, query: &str) -> Result<Counts, DemoError> {
        let answer = load::get_http1(self.admin, "/metrics").await?;
        Ok(read(&String::from_utf8_lossy(&answer.body), query))
    }
}

/// Of the Prometheus text format what the demo needs: labels in any order, no quotes in their values.
fn read(metrics: &str, query: &str) -> Counts {
    let sum = |name: &str, labels: &[(&str, &str)]| -> u64 {
        let mut sum = 0.0;
        for line in metrics.lines() {
            let Some((head, value)) = line.rsplit_once(' ') else { continue };
            let Some((found, rest)) = head.split_once('{') else { continue };
            let has = |(label, value): &(&str, &str)| {
                rest.split([',', '}']).any(|pair| pair == format!("{label}=\"{value}\""))
            };
            if found == name && has(&("query", query)) && labels.iter().all(has) {
                sum += value.parse::<f64>().unwrap_or_default();
            }
        }
        // Counts of one demo, far below 2^53.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let sum = sum as u64;
        sum
    };
    let served = |by| sum("seawall_request_duration_seconds_count", &[("served", by)]);
    Counts {
        requests: sum("seawall_requests_total", &[]),
        memory: served("memory"),
        redis: served("redis"),
        postgres: served("postgres"),
        statements: sum("seawall_db_queries_total", &[]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_one_query_are_read_from_metrics() {
        let text = "# TYPE seawall_requests_total counter\n\
                    seawall_requests_total{outcome=\"hit\",query=\"page\"} 7\n\
                    seawall_requests_total{outcome=\"miss\",query=\"page\"} 1\n\
                    seawall_requests_total{outcome=\"hit\",query=\"page_two\"} 100\n\
                    seawall_request_duration_seconds_count{query=\"page\",served=\"memory\"} 5\n\
                    seawall_request_duration_seconds_count{query=\"page\",served=\"redis\"} 2\n\
                    seawall_request_duration_seconds_count{query=\"page\",served=\"postgres\"} 1\n\
                    seawall_db_queries_total{query=\"page\"} 1\n";
        assert_eq!(read(text, "page"), Counts { requests: 8, memory: 5, redis: 2, postgres: 1, statements: 1 });
    }
}
