//! `seawall migrate` as its callers see it: exit codes, what is printed, and that printing touches nothing.

use std::process::Output;

use seawall::postgres::migrate;
use tokio::process::Command;

use crate::support::server::binaries;
use crate::support::{Shop, text};

/// The program with a configuration for `shop`, whose service and migrating roles differ.
async fn seawall(shop: &Shop, args: &[&str]) -> Output {
    let url = |role: &str| format!("postgres://{role}@127.0.0.1:{}/{}", shop.server.port, shop.database);
    let config = format!(
        "[postgres]\nurl = {:?}\nmigrate_url = {:?}\n[queries.one]\nsql = \"SELECT 1 AS one\"\n",
        url(&shop.roles.service),
        url(&shop.roles.owner)
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), config).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_seawall"));
    command.arg("migrate").arg("--config").arg(file.path()).args(args).env_remove("RUST_LOG").kill_on_drop(true);
    tokio::time::timeout(crate::support::WITHIN, command.output()).await.expect("it ends").expect("it runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

const SCHEMAS: &str = "SELECT count(*)::text FROM pg_namespace WHERE nspname = 'seawall'";

#[tokio::test]
async fn it_installs_says_so_and_finds_nothing_to_do_the_next_time() {
    let shop = Shop::new("").await;
    let first = seawall(&shop, &[]).await;
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    assert!(stdout(&first).contains("versions 1 to"), "{first:?}");
    assert!(stdout(&first).contains("no event triggers"), "{first:?}");
    let second = seawall(&shop, &[]).await;
    assert_eq!(second.status.code(), Some(0), "{second:?}");
    assert!(stdout(&second).contains("up to date"), "{second:?}");
    let gone = seawall(&shop, &["--uninstall"]).await;
    assert_eq!(gone.status.code(), Some(0), "{gone:?}");
    assert_eq!(text(&shop.admin, SCHEMAS).await, "0");
}

#[tokio::test]
async fn what_it_prints_touches_nothing_and_run_by_psql_does_the_same() {
    let shop = Shop::new("CREATE TABLE shop.\"it's\" (id int, \"a\nb\" text)").await;
    let wanted = [shop.wanted("it's", &[&["id"], &["a\nb"]]).await];
    let printed = seawall(&shop, &["--print"]).await;
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    assert!(stdout(&printed).contains("CREATE SCHEMA seawall"), "{printed:?}");
    assert_eq!(text(&shop.admin, SCHEMAS).await, "0", "nothing is touched");
    let psql = async |sql: &str| {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), sql).expect("written");
        let port = shop.server.port.to_string();
        let ran = Command::new(binaries().join("psql"))
            .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port])
            .args(["-U", &shop.roles.owner, "-d", &shop.database, "-f"])
            .arg(file.path())
            .output()
            .await
            .expect("psql runs");
        assert!(ran.status.success(), "{sql}\n{}", String::from_utf8_lossy(&ran.stderr));
    };
    let settings = shop.settings(&shop.roles.owner);
    let script = async || {
        let script = migrate::script(&settings, &shop.roles.service, &wanted).await;
        script.unwrap_or_else(|error| panic!("{error}")).0
    };
    psql(&script().await).await;
    let by_psql = shop.catalog().await;
    let other = Shop::new("CREATE TABLE shop.\"it's\" (id int, \"a\nb\" text)").await;
    other.announce("it's", &[&["id"], &["a\nb"]]).await;
    assert_eq!(by_psql, other.catalog().await);
    // Up to date, it is a script that does nothing.
    let rest = script().await;
    assert!(!rest.contains("CREATE OR REPLACE") && !rest.contains("GRANT"), "{rest}");
    psql(&stdout(&seawall(&shop, &["--print", "--uninstall"]).await)).await;
    assert_eq!(text(&shop.admin, SCHEMAS).await, "0");
}

#[tokio::test]
async fn a_failure_is_1_and_a_bad_configuration_2() {
    let shop = Shop::new("CREATE SCHEMA seawall; CREATE TABLE seawall.mine ()").await;
    let failed = seawall(&shop, &[]).await;
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("schema seawall with other things in it"), "{failed:?}");
    assert_eq!(stdout(&failed), "");
    let missing = Command::new(env!("CARGO_BIN_EXE_seawall")).args(["migrate", "--config", "/nowhere"]).output().await;
    assert_eq!(missing.expect("it runs").status.code(), Some(2));
}
