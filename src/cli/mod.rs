//! The commands, one file each. Exit codes: 0 done, 1 failed, 2 bad usage or configuration.

pub mod check;
#[cfg(feature = "embedded")]
pub mod demo;
pub mod health;
pub mod migrate;
pub mod serve;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// A Postgres-aware read-through cache that runs as a service: one question, one statement.
#[derive(Debug, Parser)]
#[command(name = "seawall", version, max_term_width = 100)]
pub struct Cli {
    /// How log lines look: text on a terminal and JSON elsewhere, unless given. RUST_LOG sets the level.
    #[arg(long, global = true, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs the service.
    Serve(serve::Args),
    /// Plays the incident that Seawall exists for, against an embedded Postgres, then stays up.
    #[cfg(feature = "embedded")]
    Demo(demo::Args),
    /// Validates the configuration and prepares every query.
    Check(check::Args),
    /// Asks a running service how it is: exit code 0 or 1.
    Health(health::Args),
    /// Installs or upgrades schema seawall and the triggers that the queries need.
    Migrate(migrate::Args),
}

/// Exit code for a failure while running.
pub const FAILED: u8 = 1;
/// Exit code for bad usage or configuration.
pub const BAD_USAGE: u8 = 2;

/// Where the configuration is.
#[derive(Debug, clap::Args)]
pub struct ConfigArg {
    /// The configuration file.
    #[arg(long, short, default_value = "config.toml")]
    pub config: PathBuf,
}

/// Runs a command to its exit code.
pub fn run(cli: Cli) -> ExitCode {
    log_to_stderr(cli.log_format, cli.command.log_level());
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("seawall: no runtime could be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => serve::serve(args).await,
            #[cfg(feature = "embedded")]
            Command::Demo(args) => demo::demo(args).await,
            Command::Check(args) => check::check(args).await,
            Command::Health(args) => health::health(&args).await,
            Command::Migrate(args) => migrate::migrate(args).await,
        }
    });
    // What still runs (an abandoned statement's clean-up, say) must not hold up the exit.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    ExitCode::from(code)
}

impl Command {
    /// What is logged unless `RUST_LOG` says. Reports that are read as they come have the failures in them already.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info,pg_embed=warn",
            #[cfg(feature = "embedded")]
            Self::Demo(_) => "warn",
            Self::Check(_) | Self::Health(_) => "error",
            // What it waits for, while it waits.
            Self::Migrate(_) => "error,seawall::postgres::migrate::session=info",
        }
    }
}

fn log_to_stderr(format: LogFormat, level: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    if format == LogFormat::Json || (format == LogFormat::Auto && !terminal) {
        builder.json().flatten_event(true).init();
    } else {
        builder.with_ansi(terminal).init();
    }
}

/// Ctrl-C or SIGTERM. From its making on none is missed: one that comes while nobody waits is there for who waits next.
pub(crate) struct StopSignal {
    #[cfg(unix)]
    kinds: [Option<tokio::signal::unix::Signal>; 2],
}

impl StopSignal {
    /// Listens. A signal that can't be listened for ends the process as it does any other.
    pub(crate) fn new() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let listen = |kind| match signal(kind) {
                Ok(signal) => Some(signal),
                Err(error) => {
                    tracing::warn!(%error, ?kind, "a signal can't be listened for");
                    None
                }
            };
            Self { kinds: [SignalKind::interrupt(), SignalKind::terminate()].map(listen) }
        }
        #[cfg(not(unix))]
        Self {}
    }

    /// Resolves when one has come. Cancel safe.
    pub(crate) async fn told(&mut self) {
        #[cfg(unix)]
        {
            async fn one(signal: &mut Option<tokio::signal::unix::Signal>) {
                match signal {
                    Some(signal) => {
                        signal.recv().await;
                    }
                    None => std::future::pending().await,
                }
            }
            let [interrupted, terminated] = &mut self.kinds;
            tokio::select! {
                () = one(interrupted) => {}
                () = one(terminated) => {}
            }
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}

/// Raises the limit of file descriptors as far as it may: a connection is one.
pub fn raise_descriptor_limit(wanted: usize) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        let hard = limit.maximum.unwrap_or(u64::MAX);
        // Beside the connections: pools, listeners, logs.
        let target = (wanted as u64).saturating_add(256).min(hard);
        if limit.current.is_some_and(|soft| soft < target) {
            let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(target), maximum: limit.maximum });
            if raised.is_err() || target < wanted as u64 {
                tracing::warn!(
                    limit = target.min(hard),
                    max_connections = wanted,
                    "fewer file descriptors are allowed than server.max_connections"
                );
            }
        }
    }
}
