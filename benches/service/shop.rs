//! The table, and the configuration of the queries that the questions ask.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use seawall::postgres::embedded::Embedded;

/// Rows of the table, each with 373 bytes of JSON.
pub const PRODUCTS: u32 = 100_000;

/// What the slow queries wait in the database. They wait and don't compute, so that the database's processor is never
/// the limit, and what is compared is the number of statements: work of the same length would make many slower still.
pub const SLOW_SECONDS: f64 = 0.05;

/// Room for a million small answers, so that nothing that is measured was evicted.
const STORE: &str = "2GiB";

/// A database with the table, and a configuration file.
pub struct Shop {
    url: String,
    dir: tempfile::TempDir,
}

impl Shop {
    pub async fn open(postgres: &Embedded) -> Self {
        let url = postgres.url("postgres");
        let client = connect(&url).await;
        client
            .batch_execute(&format!(
                "CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
                 CREATE TABLE products (id int PRIMARY KEY, name text NOT NULL, price text NOT NULL, description text NOT NULL);
                 INSERT INTO products SELECT i, 'Product number ' || lpad(i::text, 6, '0'), to_char((i % 9973) / 100.0, 'FM00.00'),
                     left(repeat(md5(i::text) || ' ', 10), 373 - 71 - length(i::text)) FROM generate_series(1, {PRODUCTS}) i;
                 ANALYZE products;"
            ))
            .await
            .expect("the table");
        Self { url, dir: tempfile::tempdir().expect("a directory") }
    }

    /// The database, for the superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A configuration with `queries`, in TOML.
    pub fn config(&self, queries: &str) -> PathBuf {
        self.config_of(&self.url, queries)
    }

    /// The same for the database at `url`.
    pub fn config_of(&self, url: &str, queries: &str) -> PathBuf {
        let mut text = String::from(
            // Servers of one bench follow each other in one file.
            "[server]\nwatch_config = false\nlisten = \"127.0.0.1:${PORT}\"\nadmin_listen = \"127.0.0.1:${ADMIN_PORT}\"\n[defaults]\nttl = \"1h\"\n",
        );
        let _ = writeln!(text, "[postgres]\nurl = \"{url}\"\n[cache]\nmax_bytes = \"{STORE}\"\n{queries}");
        let path = self.file("config.toml");
        fs::write(&path, text).expect("written");
        path
    }

    /// The path of a file that goes with the bench.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// A product by its id.
pub const PRODUCT: &str = "[queries.product]\nsql = \"SELECT * FROM products WHERE id = :id\"\nresult = \"row\"\n\
    depends = { products = \"id = :id\" }\n";

/// SQL of a product by its id, which takes [`SLOW_SECONDS`].
pub fn slow_sql(id: &str) -> String {
    format!("SELECT p.* FROM products p, (SELECT pg_sleep({SLOW_SECONDS}) OFFSET 0) s WHERE p.id = {id}")
}
