//! Why there is no embedded Postgres, and what to do about it.
//!
//! Each variant is one thing that its reader can mend; its text names the remedy, since whoever meets it is trying
//! Seawall for the first time.

use std::io;
use std::path::PathBuf;

/// What keeps an embedded Postgres from running. The texts carry the remedy.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// `SEAWALL_PG_BIN` is set, and its directory can't be used.
    #[error("SEAWALL_PG_BIN={} can't be used: {problem}; point it at a directory that holds initdb, pg_ctl and \
             postgres (PostgreSQL 13 or newer), or unset it", dir.display())]
    NamedBinaries {
        /// What the variable says.
        dir: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// No PostgreSQL on the machine, and none could be fetched.
    #[error(
        "no PostgreSQL was found on this machine, and fetching one from {url} failed: {problem}; install the \
             package postgresql, set SEAWALL_PG_BIN to the directory of its initdb, pg_ctl and postgres, or set \
             SEAWALL_PG_MIRROR to a reachable mirror of Maven Central"
    )]
    Download {
        /// Of the package that was asked for.
        url: String,
        /// What happened.
        problem: String,
    },
    /// Something was fetched, and it isn't PostgreSQL.
    #[error(
        "what {url} gave is not a usable package of PostgreSQL: {problem}; nothing of it was kept; install the \
             package postgresql, or set SEAWALL_PG_BIN or SEAWALL_PG_MIRROR"
    )]
    Package {
        /// Where it came from.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Root, and no way to become somebody else.
    #[error(
        "PostgreSQL refuses to run as root, and {problem}; install util-linux (which has setpriv), or run Seawall \
             as an ordinary user"
    )]
    Root {
        /// What is missing.
        problem: &'static str,
    },
    /// As root: a directory that the user for whom PostgreSQL runs can't enter.
    #[error("PostgreSQL runs as user {user} here, who can't enter {}; {remedy}", path.display())]
    Unreachable {
        /// The directory.
        path: PathBuf,
        /// Who can't.
        user: String,
        /// What helps.
        remedy: &'static str,
    },
    /// `initdb` failed.
    #[error("initdb could not make a cluster in {}; it said:\n{output}", dir.display())]
    Init {
        /// The run directory; gone by now.
        dir: PathBuf,
        /// The end of its output.
        output: String,
    },
    /// The server didn't start.
    #[error(
        "PostgreSQL did not start on port {port}; the end of its log:\n{log}\n(check the settings that were given \
             to it; nothing was left behind)"
    )]
    Start {
        /// The last port that was tried.
        port: u16,
        /// The end of its log.
        log: String,
    },
    /// The server didn't stop politely; it was stopped all the same.
    #[error("PostgreSQL did not stop politely and was stopped at once; the end of its log:\n{log}")]
    Stop {
        /// The end of its log.
        log: String,
    },
    /// The sample could not be loaded.
    #[error("the sample shop could not be loaded into database {database}: {}", said(source))]
    Shop {
        /// Where it should have gone.
        database: String,
        /// What Postgres said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// Statements could not be counted.
    #[error("statements can't be counted: {}; install PostgreSQL's contrib package", said(source))]
    Count {
        /// What Postgres said.
        #[source]
        source: tokio_postgres::Error,
    },
    /// A file or a process of the run.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What could not be done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The server's own words where there are some.
fn said(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned())
}

impl EmbeddedError {
    /// For `map_err`.
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
