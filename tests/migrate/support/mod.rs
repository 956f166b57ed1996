//! What the tests of this binary share: a database with an owner, a service and a writer, none of them a superuser.

pub mod catalog;
#[path = "../../support/eventually.rs"]
pub mod eventually;
#[path = "../../postgres/support/server.rs"]
#[expect(dead_code, reason = "other binaries use the rest")]
pub mod server;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use seawall::catalog::tags::table_of;
use seawall::catalog::verdict::Wanted;
use seawall::postgres::Settings;
use seawall::postgres::migrate::{self, Report};
use tokio_postgres::{Client, NoTls, Row};

use server::{Database, Server};

/// Long enough for a slow machine; a test that waits this long has failed.
pub const WITHIN: Duration = Duration::from_secs(60);

/// A database with schema `shop`, owned by a role that is no superuser.
pub struct Shop {
    pub server: &'static Server,
    pub database: String,
    /// Superuser.
    pub admin: Client,
    /// Owns schema `shop`, may create schemas.
    pub owner: Client,
    /// May read and write tables in `shop`, and has no grant on schema `seawall`.
    pub writer: Client,
    /// Names of the roles.
    pub roles: Roles,
}

pub struct Roles {
    pub owner: String,
    pub service: String,
    pub writer: String,
}

impl Shop {
    /// With `sql` run in it by the owner.
    pub async fn new(sql: &str) -> Self {
        let Database { name, server, admin } = Database::new("").await;
        Self::within(server, name, admin, sql).await
    }

    /// In a database that is there.
    pub async fn within(server: &'static Server, database: String, admin: Client, sql: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let role = |kind: &str| format!("{kind}_{}_{number}", std::process::id());
        let roles = Roles { owner: role("owner"), service: role("service"), writer: role("writer") };
        let Roles { owner, service, writer } = &roles;
        batch(
            &admin,
            &format!(
                "CREATE ROLE {owner} LOGIN; CREATE ROLE {service} LOGIN; CREATE ROLE {writer} LOGIN; \
                 GRANT CREATE ON DATABASE {database} TO {owner}; CREATE SCHEMA shop AUTHORIZATION {owner}; \
                 GRANT USAGE ON SCHEMA shop TO {writer}; \
                 ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA shop \
                 GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON TABLES TO {writer}"
            ),
        )
        .await;
        let owner = connect(server, owner, &database).await;
        let writer = connect(server, writer, &database).await;
        batch(&owner, sql).await;
        Self { server, database, admin, owner, writer, roles }
    }

    /// Settings to connect as `role`.
    pub fn settings(&self, role: &str) -> Settings {
        Settings::new(format!("postgres://{role}@127.0.0.1:{}/{}", self.server.port, self.database))
    }

    /// One more connection.
    pub async fn connect(&self, role: &str) -> Client {
        connect(self.server, role, &self.database).await
    }

    /// A table of schema `shop` with sets of row columns.
    pub async fn wanted(&self, table: &str, columns: &[&[&str]]) -> Wanted {
        wanted(&self.admin, "shop", table, columns).await
    }

    /// Migrates as the owner.
    pub async fn migrate(&self, wanted: &[Wanted]) -> Report {
        let done = migrate::migrate(&self.settings(&self.roles.owner), &self.roles.service, wanted).await;
        done.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Migrates for one table, which must work.
    pub async fn announce(&self, table: &str, columns: &[&[&str]]) {
        let report = self.migrate(&[self.wanted(table, columns).await]).await;
        assert_eq!((report.left, report.imprecise), (vec![], vec![]), "{table}");
    }

    /// The tags that `sql` announces, run by the writer.
    pub async fn tags(&self, sql: &str) -> BTreeSet<String> {
        self.tags_by(&self.writer, sql).await
    }

    /// The tags that `sql` announces, run by `client` in a transaction of its own.
    pub async fn tags_by(&self, client: &Client, sql: &str) -> BTreeSet<String> {
        batch(client, "BEGIN").await;
        let tags = self.tags_within(client, sql).await;
        batch(client, "COMMIT").await;
        tags
    }

    /// The same in the transaction that `client` is in; tags announced by it before count, too.
    pub async fn tags_within(&self, client: &Client, sql: &str) -> BTreeSet<String> {
        batch(client, sql).await;
        let xid = text(client, "SELECT pg_catalog.pg_current_xact_id()::text").await;
        // The log is read as it is on the disk of that transaction: from within it, by a role that may.
        let role = text(client, "SELECT current_user::text").await;
        let reader = self.server.client(&self.database).await.expect("a connection");
        batch(&reader, &format!("GRANT USAGE ON SCHEMA seawall TO {role}; GRANT SELECT ON seawall.event TO {role}"))
            .await;
        let rows = client.query("SELECT tag FROM seawall.event WHERE xid::text = $1", &[&xid]).await.expect("the log");
        batch(&reader, &format!("REVOKE ALL ON seawall.event FROM {role}; REVOKE ALL ON SCHEMA seawall FROM {role}"))
            .await;
        meant(&rows)
    }

    /// All tags in the log, that are committed.
    pub async fn log(&self) -> BTreeSet<String> {
        let rows = self.admin.query("SELECT DISTINCT tag FROM seawall.event", &[]).await.expect("the log");
        meant(&rows)
    }

    /// All that is installed.
    pub async fn catalog(&self) -> String {
        catalog::catalog(&self.admin, &self.roles.owner, &self.roles.service).await
    }

    /// Empties the log, so that what comes is told from what was.
    pub async fn forget(&self) {
        batch(&self.admin, "DELETE FROM seawall.event").await;
    }
}

/// Tags, and the tables of those that are of rows, as pods take them.
fn meant(rows: &[Row]) -> BTreeSet<String> {
    let tags: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    let tables = tags.iter().filter_map(|tag| table_of(tag));
    tags.iter().copied().chain(tables).map(str::to_owned).collect()
}

/// The table of that name, as an analysis would want it.
pub async fn wanted(client: &Client, schema: &str, table: &str, columns: &[&[&str]]) -> Wanted {
    let sql = "SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE n.nspname = $1 AND c.relname = $2";
    let relation = client.query_one(sql, &[&schema, &table]).await.expect("the table is there").get(0);
    let columns = columns.iter().map(|set| set.iter().map(|name| (*name).into()).collect()).collect();
    Wanted { relation, schema: schema.into(), name: table.into(), columns }
}

pub async fn connect(server: &Server, role: &str, database: &str) -> Client {
    let url = format!("postgres://{role}@127.0.0.1:{}/{database}", server.port);
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

#[track_caller]
pub fn batch<'a>(client: &'a Client, sql: &'a str) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        if let Err(error) = client.batch_execute(sql).await {
            panic!("{caller}: {sql}: {:?}", error.as_db_error());
        }
    }
}

pub async fn text(client: &Client, sql: &str) -> String {
    let row = client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {:?}", error.as_db_error()));
    row.get::<_, Option<String>>(0).unwrap_or_else(|| "NULL".into())
}

/// Tags as a set, for comparison.
pub fn set(tags: &[&str]) -> BTreeSet<String> {
    tags.iter().map(|tag| (*tag).to_owned()).collect()
}
