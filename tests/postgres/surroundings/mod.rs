//! What `seawall check` warns of, as a look at a real database finds it: who notifies, and what holds the log back.

mod holders;
mod notify;

use std::time::Duration;

use seawall::catalog::Catalog;
use seawall::catalog::verdict;
use seawall::postgres::{Postgres, Settings, Surroundings, migrate};
use tokio_postgres::Client;

use crate::support::declare;
use crate::support::server::Server;

/// Longer than any test, and shorter than any transaction that an operator should hear of.
const LONG: Duration = Duration::from_secs(3600);

/// One look as `settings` say, beside queries that read `tables`.
async fn look(settings: &Settings, tables: &[&str], retention: Duration) -> Surroundings {
    let postgres = Postgres::new(settings.clone(), |_| {}).expect("usable settings");
    let catalog = analysed(&postgres, tables).await;
    postgres.surroundings(&catalog, retention).await.expect("the database answers")
}

async fn analysed(postgres: &Postgres, tables: &[&str]) -> Catalog {
    let declared = tables.iter().enumerate().map(|(n, table)| {
        let mut declaration = declare(&format!("SELECT * FROM {table}"));
        declaration.name = format!("q{n}").into();
        declaration
    });
    let catalog = Catalog::new(declared.collect());
    postgres.prepare_all(&catalog).await.expect("the database answers");
    postgres.analyse_all(&catalog).await.expect("the database answers");
    catalog
}

/// Installs what `seawall migrate` does for queries that read `tables`; `service` may use it.
async fn install(settings: &Settings, service: &str, tables: &[&str]) {
    let postgres = Postgres::new(settings.clone(), |_| {}).expect("usable settings");
    let catalog = analysed(&postgres, tables).await;
    let verdicts: Vec<_> = catalog.iter().filter_map(|query| query.verdict()).collect();
    let wanted = verdict::wanted(verdicts.iter().map(|verdict| &**verdict));
    let report = migrate::migrate(settings, service, &wanted).await.expect("it migrates");
    assert_eq!(report.left, vec![]);
}

/// A session that has run `sql`, and the process that serves it.
async fn session(server: &Server, database: &str, sql: &str) -> (Client, String) {
    let client = server.client(database).await.expect("a connection");
    // First: what is asked by the extended protocol leaves a portal, which would keep its snapshot in a transaction.
    let pid = client.query_one("SELECT pg_backend_pid()::text", &[]).await.expect("it has one").get(0);
    run(&client, sql).await;
    (client, pid)
}

async fn run(client: &Client, sql: &str) {
    client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}
