//! Queries are prepared when the database comes, and again when it has been away.

use std::sync::Arc;
use std::time::Duration;

use seawall::catalog::{Catalog, Declaration, InForce, Shape};
use seawall::postgres::{Postgres, Settings};
use seawall::readthrough::origin::{Origin as _, OriginState};
use serde_json::json;

use crate::support::eventually::eventually;
use crate::support::server::Server;
use crate::support::{Origin, WITHIN, declare};

fn catalog(sql: &[&str]) -> Arc<InForce> {
    let declarations = sql.iter().enumerate().map(|(n, sql)| {
        let name = format!("q{n}");
        Declaration { name: name.into(), ..declare(sql) }
    });
    Arc::new(InForce::from_pointee(Catalog::new(declarations.collect())))
}

fn settings(server: &Server) -> Settings {
    let mut settings = Settings::new(server.url("postgres"));
    settings.reconnect_max = Duration::from_millis(100);
    settings
}

#[tokio::test]
async fn a_database_that_comes_later_is_waited_for() {
    let server = Server::private(&[], |_| {}).await;
    server.stop();
    let in_force = catalog(&["SELECT 1 AS a"]);
    let catalog = in_force.load_full();
    let postgres = Arc::new(Postgres::new(settings(&server), |_| {}).expect("usable settings"));
    let supervisor = tokio::spawn({
        let (postgres, in_force) = (Arc::clone(&postgres), Arc::clone(&in_force));
        async move { postgres.supervise(in_force).await }
    });
    postgres.first_attempt().await;
    assert!(matches!(postgres.state(), OriginState::Away(_)));
    assert!(matches!(&**catalog.get("q0").expect("declared").shape(), Shape::Pending));
    server.start();
    eventually("the query is prepared", WITHIN, async || {
        catalog.get("q0").expect("declared").prepared().map(|_| ()).ok_or_else(|| postgres.state())
    })
    .await;
    supervisor.abort();
}

#[tokio::test]
async fn a_broken_query_is_tried_again_at_once_after_a_reconnect() {
    let server = Server::private(&[], |_| {}).await;
    let in_force = catalog(&["SELECT a FROM late", "SELECT 2 AS b"]);
    let catalog = in_force.load_full();
    let origin = Arc::new(Origin::new(settings(&server)));
    let supervisor = tokio::spawn({
        let (origin, in_force) = (Arc::clone(&origin), Arc::clone(&in_force));
        async move { origin.postgres.supervise(in_force).await }
    });
    origin.postgres.first_attempt().await;
    let (late, other) = (catalog.get("q0").expect("declared"), catalog.get("q1").expect("declared"));
    assert!(matches!(&**late.shape(), Shape::Broken(_)));
    assert!(other.prepared().is_some());
    let admin = server.client("postgres").await.expect("a connection");
    admin.batch_execute("CREATE TABLE late AS SELECT 1 AS a; CHECKPOINT").await.expect("a table");
    server.stop();
    origin.fetch(other, json!({})).await.expect_err("it is away");
    server.start();
    eventually("the query is repaired", Duration::from_secs(10), async || {
        late.prepared().map(|_| ()).ok_or_else(|| origin.postgres.state())
    })
    .await;
    assert_eq!(origin.postgres.state(), OriginState::Up);
    supervisor.abort();
}
