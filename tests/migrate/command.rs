//! `seawall migrate` as its callers see it: exit codes, what is printed, and that printing touches nothing; and what
//! `seawall check` says of a database that is in use by others.

use std::process::Output;

use seawall::postgres::migrate;
use serde_json::Value;
use tokio::process::Command;

use crate::support::server::binaries;
use crate::support::{Shop, batch, text};

/// `seawall migrate` for a query that reads nothing.
async fn seawall(shop: &Shop, args: &[&str]) -> Output {
    command(shop, "migrate", "SELECT 1 AS one", args).await
}

/// The program with a configuration for `shop` and one query of `sql`; the service's and the migrating role differ.
async fn command(shop: &Shop, command: &str, sql: &str, args: &[&str]) -> Output {
    let url = |role: &str| format!("postgres://{role}@127.0.0.1:{}/{}", shop.server.port, shop.database);
    let config = format!(
        "[postgres]\nurl = {:?}\nmigrate_url = {:?}\n[queries.one]\nsql = {sql:?}\n",
        url(&shop.roles.service),
        url(&shop.roles.owner)
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), config).expect("written");
    let mut program = Command::new(env!("CARGO_BIN_EXE_seawall"));
    program.arg(command).arg("--config").arg(file.path()).args(args).env_remove("RUST_LOG").kill_on_drop(true);
    tokio::time::timeout(crate::support::WITHIN, program.output()).await.expect("it ends").expect("it runs")
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

#[tokio::test]
async fn check_warns_of_what_it_sees_in_the_database_and_stays_usable() {
    let shop = Shop::new("CREATE TABLE shop.products (id int)").await;
    let service = &shop.roles.service;
    batch(&shop.owner, &format!("GRANT USAGE ON SCHEMA shop TO {service}; GRANT SELECT ON shop.products TO {service}"))
        .await;
    let sql = "SELECT id FROM shop.products";
    let check = async |args: &[&str]| {
        let ran = command(&shop, "check", sql, args).await;
        assert_eq!(ran.status.code(), Some(0), "{ran:?}");
        stdout(&ran)
    };
    let kinds = |report: &Value| -> Vec<String> {
        let warnings = report["warnings"].as_array().expect("an array");
        warnings.iter().map(|w| w["kind"].as_str().expect("a kind").to_owned()).collect()
    };
    let json = async || serde_json::from_str::<Value>(&check(&["--format", "json"]).await).expect("JSON");
    // The test's own sessions are other roles'.
    assert_eq!(kinds(&json().await), ["sessions_hidden"]);
    assert!(!check(&[]).await.contains("warning"), "nothing is wrong");

    batch(
        &shop.owner,
        "CREATE FUNCTION shop.tell() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN PERFORM pg_notify('changes', NEW.id::text); RETURN NULL; END $$; \
         CREATE TRIGGER tell AFTER INSERT ON shop.products FOR EACH ROW EXECUTE FUNCTION shop.tell()",
    )
    .await;
    let said = check(&[]).await;
    assert!(said.contains("warning: trigger tell on shop.products, which queries depend on, notifies"), "{said}");
    assert!(said.contains(&format!("note: role {service} may not see")), "{said}");
    assert!(said.contains("1 queries: all usable"), "{said}");
    let report = json().await;
    assert_eq!(kinds(&report), ["notify_trigger", "sessions_hidden"]);
    assert_eq!(report["usable"], true);
    let found = &report["warnings"][0];
    assert_eq!((&found["table"], &found["depended_on"]), (&"shop.products".into(), &true.into()));
    assert!(found["message"].as_str().is_some_and(|message| said.contains(message)), "{found}");

    batch(&shop.admin, &format!("GRANT pg_read_all_stats TO {service}")).await;
    assert_eq!(kinds(&json().await), ["notify_trigger"]);
}
