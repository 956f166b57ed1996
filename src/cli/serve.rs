//! `seawall serve`: the service.

use std::path::Path;

use crate::app::{App, Listeners};
use crate::cli::{BAD_USAGE, ConfigArg, FAILED, StopSignal, raise_descriptor_limit};
use crate::config::{Config, Database, Problems};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArg,
    /// Start a private Postgres with the sample shop and use it instead of postgres.url.
    #[cfg(feature = "embedded")]
    #[arg(long)]
    embedded: bool,
}

#[cfg(feature = "embedded")]
fn database(args: &Args) -> Database {
    if args.embedded { Database::Embedded } else { Database::Configured }
}

#[cfg(not(feature = "embedded"))]
fn database(_: &Args) -> Database {
    Database::Configured
}

/// [`Config::load`], or [`Config::load_again`].
type How = fn(&Path, Database) -> Result<Config, Problems>;

/// With an embedded Postgres, the configuration that ships with Seawall stands in for one that isn't there.
#[cfg(feature = "embedded")]
fn load(args: &Args, database: Database, how: How) -> Result<Config, Problems> {
    if args.embedded && !args.config.config.exists() {
        super::demo::load_config(&args.config.config)
    } else {
        how(&args.config.config, database)
    }
}

#[cfg(not(feature = "embedded"))]
fn load(args: &Args, database: Database, how: How) -> Result<Config, Problems> {
    how(&args.config.config, database)
}

/// Runs the service until it is told to stop.
pub async fn serve(args: Args) -> u8 {
    let database = database(&args);
    let config = match load(&args, database, Config::load) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return BAD_USAGE;
        }
    };
    // Addresses first: a port that is taken is the commonest reason, and nothing has been started yet.
    let listeners = match Listeners::bind(&config) {
        Ok(listeners) => listeners,
        Err(error) => {
            eprintln!("seawall: {error}");
            return FAILED;
        }
    };
    raise_descriptor_limit(config.server.max_connections);
    match database {
        Database::Configured => {
            let url = config.postgres.url.as_ref().map(|url| url.expose().to_owned()).unwrap_or_default();
            run(config, &url, listeners, args, StopSignal::new()).await
        }
        #[cfg(feature = "embedded")]
        Database::Embedded => embedded(config, listeners, args).await,
        #[cfg(not(feature = "embedded"))]
        Database::Embedded => BAD_USAGE,
    }
}

#[cfg(feature = "embedded")]
async fn embedded(config: Config, listeners: Listeners, args: Args) -> u8 {
    use crate::postgres::embedded::{Embedded, EmbeddedOptions};
    let mut stop = StopSignal::new();
    tracing::info!("starting a private Postgres with the sample shop");
    let started = tokio::select! {
        started = async {
            let postgres = Embedded::start(EmbeddedOptions::default()).await?;
            postgres.load_shop("postgres").await?;
            Ok::<_, crate::postgres::embedded::EmbeddedError>(postgres)
        } => started,
        () = stop.told() => return 0,
    };
    match started {
        Ok(postgres) => {
            let url = postgres.url("postgres");
            // Without it queries live by their ttl, and the log says so.
            if let Err(error) = super::migrate::bring_up(&config, &url).await {
                tracing::warn!(%error, "the private Postgres has no event log");
            }
            let code = run(config, &url, listeners, args, stop).await;
            if let Err(error) = postgres.stop().await {
                tracing::warn!(%error, "the private Postgres did not stop cleanly");
            }
            code
        }
        Err(error) => {
            eprintln!("seawall: {error}");
            FAILED
        }
    }
}

async fn run(config: Config, url: &str, listeners: Listeners, args: Args, mut stop: StopSignal) -> u8 {
    let (listen, admin) = (listeners.queries.local_addr(), listeners.admin.local_addr());
    match App::new(config, url) {
        Ok(mut app) => {
            let watched = app.watches().then(|| args.config.config.clone());
            app.reload_from(Box::new(move || load(&args, database(&args), Config::load_again)), watched);
            if let (Ok(listen), Ok(admin)) = (listen, admin) {
                tracing::info!(%listen, %admin, queries = app.catalog().len(), "listening");
            }
            app.run(listeners, stop.told()).await;
            0
        }
        Err(error) => {
            eprintln!("seawall: {error}");
            BAD_USAGE
        }
    }
}
