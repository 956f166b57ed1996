//! Other queries in the place of those in force while definitions change: whichever comes first, what is in force is judged by the
//! definitions that its answers rest on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join;
use seawall::app::postgres_settings;
use seawall::catalog::{Catalog, Declaration, InForce};
use seawall::chance::Chance;
use seawall::clock::Clock;
use seawall::postgres::{Postgres, StreamSettings};
use seawall::readthrough::{Bounds, Readthrough};
use seawall::telemetry::metrics::Metrics;
use tokio::task::JoinSet;

use super::support::eventually::eventually;
use super::support::service::{migrate, plan};
use super::support::{TestDatabase, database};

const WITHIN: Duration = Duration::from_secs(20);

/// A view whose answers keep their form, whatever they come from.
fn shelf(table: &str, column: &str) -> String {
    format!("CREATE OR REPLACE VIEW shop.shelf AS SELECT id::bigint AS id, {column}::text AS name FROM shop.{table}")
}

const QUERIES: &str = "[invalidation]\nsource = \"log\"\n[defaults]\nmax_lag = \"100ms\"\n[queries.shelf]\n\
    sql = \"SELECT id, name FROM shop.shelf ORDER BY id\"\n[queries.categories]\nsql = \"SELECT id, slug FROM shop.categories\"\n\
    [queries.products]\nsql = \"SELECT id, name FROM shop.products\"\n";

const BOUNDS: Bounds = Bounds {
    max_bytes: 1 << 20,
    packed_max_bytes: 1 << 20,
    entry_max_bytes: 1 << 20,
    max_fills: 4,
    max_queued_fills: 10,
    max_waiters: 10,
    proactive: 0,
};

/// The parts that know what queries depend on, as the service puts them together.
struct Parts {
    database: TestDatabase,
    postgres: Arc<Postgres>,
    in_force: Arc<InForce>,
    read: Arc<Readthrough>,
    _tasks: JoinSet<()>,
}

impl Parts {
    async fn start() -> Self {
        let database = database().await;
        database.client().await.batch_execute(&shelf("products", "name")).await.expect("a view");
        let plan = plan(&database.url, QUERIES);
        migrate(&plan).await;
        let config = plan.config;
        let settings = postgres_settings(&config, &database.url);
        let postgres = Arc::new(Postgres::new(settings.clone(), |_| {}).expect("a URL"));
        let catalog = Catalog::new(config.queries);
        let (origin, metrics) = (Arc::clone(&postgres), Arc::new(Metrics::new()));
        let read = Readthrough::new(&catalog, origin, BOUNDS, Clock::system(), Chance::system(), metrics);
        let in_force = Arc::new(InForce::from_pointee(catalog));
        let stream = StreamSettings {
            channel: config.invalidation.channel,
            retention: config.invalidation.retention,
            poll_interval: config.invalidation.poll_interval,
        };
        let mut tasks = JoinSet::new();
        let supervised = Arc::clone(&in_force);
        let supervising = Arc::clone(&postgres);
        tasks.spawn(async move { supervising.supervise(supervised).await });
        let following = Arc::clone(&postgres).follow(settings, stream, Arc::clone(&read), Arc::clone(&in_force));
        tasks.spawn(async move { following.await.expect("a URL") });
        let parts = Self { database, postgres, in_force, read, _tasks: tasks };
        parts.rests_on("products").await;
        parts
    }

    /// Tables that the view's query depends on as it is in force.
    fn tables(&self) -> Vec<String> {
        let verdict = self.in_force.load().get("shelf").expect("declared").verdict();
        let dependencies = verdict.iter().flat_map(|verdict| &verdict.dependencies);
        dependencies.map(|dependency| dependency.relation.name.to_string()).collect()
    }

    async fn rests_on(&self, table: &str) {
        eventually("it is judged by what there is", WITHIN, async || match self.tables() {
            tables if tables == [table] => Ok(()),
            tables => Err(format!("{tables:?}")),
        })
        .await;
    }

    /// The same queries with another lifetime, made of those in force now.
    fn with_a_lifetime_of(&self, seconds: u64) -> Catalog {
        let present = self.in_force.load();
        let declarations: Vec<Declaration> = present
            .iter()
            .map(|query| {
                let mut declaration = query.declaration().clone();
                declaration.policy.ttl = Duration::from_secs(seconds);
                declaration
            })
            .collect();
        present.succeed(declarations)
    }

    async fn define(&self, table: &str, column: &str) {
        self.database.client().await.batch_execute(&shelf(table, column)).await.expect("a view");
    }

    async fn succeed(&self, next: Catalog) {
        self.postgres.succeed(next, &self.in_force, &self.read).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_judged_anew_since_a_configuration_was_read_stays_judged_so() {
    let parts = Parts::start().await;
    let next = parts.with_a_lifetime_of(100);
    parts.define("categories", "slug").await;
    parts.rests_on("categories").await;
    parts.succeed(next).await;
    let query = Arc::clone(parts.in_force.load().get("shelf").expect("declared"));
    assert_eq!(query.policy().ttl, Duration::from_secs(100), "it is in force");
    assert_eq!(parts.tables(), ["categories"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_of_a_definition_and_a_configuration_comes_first_both_are_in_force_in_the_end() {
    let parts = Parts::start().await;
    for round in 0..20 {
        let (table, column) = if round % 2 == 0 { ("categories", "slug") } else { ("products", "name") };
        // Made of what was in force before.
        let next = parts.with_a_lifetime_of(100 + round);
        match round % 4 {
            0 | 1 => {
                join(parts.define(table, column), parts.succeed(next)).await;
            }
            2 => {
                parts.define(table, column).await;
                parts.succeed(next).await;
            }
            _ => {
                parts.succeed(next).await;
                parts.define(table, column).await;
            }
        }
        parts.rests_on(table).await;
        let ttl = parts.in_force.load().get("shelf").expect("declared").policy().ttl;
        assert_eq!(ttl, Duration::from_secs(100 + round));
    }
}
