//! Every mode against every kind of server: what libpq's table says.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use seawall::postgres::{Postgres, Settings, SettingsError, TlsMode};
use serde_json::json;

use crate::support::eventually::eventually;
use crate::support::server::{Database, Server};
use crate::support::{Origin, WITHIN, query};

use TlsMode::{Disable, Prefer, Require, VerifyCa, VerifyFull};

struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// Certificate and key for localhost.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// A server with TLS and the files that its clients need.
struct Encrypted {
    server: Server,
    root: PathBuf,
    other_root: PathBuf,
    client_cert: PathBuf,
    client_key: PathBuf,
}

/// Roles: `postgres` as it likes; `secure` only with TLS; `known` only with TLS and a client certificate; `lax` with TLS
/// and a client certificate, or without TLS.
const HBA: &str = "host all postgres all trust\n\
    hostssl all secure all trust\n\
    hostssl all known all trust clientcert=verify-ca\n\
    hostssl all lax all trust clientcert=verify-ca\n\
    hostnossl all lax all trust\n";

impl Encrypted {
    async fn new() -> Self {
        let (authority, other) = (Authority::new("seawall test"), Authority::new("somebody else"));
        let (cert, key) = authority.sign("localhost");
        let (client_cert, client_key) = authority.sign("a client");
        let server = Server::private(&["ssl=on", "ssl_ca_file=root.crt"], |server| {
            server.write("server.crt", &cert);
            server.write("server.key", &key);
            server.write("root.crt", &authority.certificate);
            server.write("pg_hba.conf", HBA);
        })
        .await;
        let admin = server.client("postgres").await.expect("a connection");
        admin
            .batch_execute("CREATE ROLE secure LOGIN; CREATE ROLE known LOGIN; CREATE ROLE lax LOGIN")
            .await
            .expect("roles");
        Self {
            root: server.dir.join("root.crt"),
            other_root: server.write("other.crt", &other.certificate),
            client_cert: server.write("client.crt", &client_cert),
            client_key: server.write("client.key", &client_key),
            server,
        }
    }

    fn settings(&self, role: &str, host: &str, tls: TlsMode) -> Settings {
        let port = self.server.port;
        let mut settings = Settings::new(format!("postgres://{role}@{host}:{port}/postgres?hostaddr=127.0.0.1"));
        settings.tls = tls;
        settings
    }
}

/// How a connection comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Plain,
    Tls,
    Refused,
}

use How::{Plain, Refused, Tls};

async fn how(settings: Settings) -> How {
    let origin = Origin::new(settings);
    let q = query("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    if origin.postgres.prepare(&q).await.is_err() {
        return Refused;
    }
    match origin.text(&q).await.as_str() {
        r#"[{"ssl":true}]"# => Tls,
        r#"[{"ssl":false}]"# => Plain,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_good_certificate_is_taken_in_every_mode() {
    let e = Encrypted::new().await;
    for host in ["localhost", "127.0.0.1"] {
        for (mode, expected) in [(Disable, Plain), (Prefer, Tls), (Require, Tls), (VerifyCa, Tls), (VerifyFull, Tls)] {
            let mut settings = e.settings("postgres", host, mode);
            settings.tls_root_cert = Some(e.root.clone());
            assert_eq!(how(settings).await, expected, "{mode:?} {host}");
        }
    }
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused_by_verify_full_alone() {
    let e = Encrypted::new().await;
    for (mode, expected) in [(Disable, Plain), (Prefer, Tls), (Require, Tls), (VerifyCa, Tls), (VerifyFull, Refused)] {
        let mut settings = e.settings("postgres", "db.example.com", mode);
        settings.tls_root_cert = Some(e.root.clone());
        assert_eq!(how(settings).await, expected, "{mode:?}");
    }
}

#[tokio::test]
async fn an_unknown_authority_is_refused_by_whoever_verifies() {
    let e = Encrypted::new().await;
    let modes = [(Disable, Plain), (Prefer, Tls), (Require, Refused), (VerifyCa, Refused), (VerifyFull, Refused)];
    for (mode, expected) in modes {
        let mut settings = e.settings("postgres", "localhost", mode);
        settings.tls_root_cert = Some(e.other_root.clone());
        assert_eq!(how(settings).await, expected, "{mode:?}");
    }
    assert_eq!(
        how(e.settings("postgres", "localhost", Require)).await,
        Tls,
        "without a root there is nothing to verify"
    );
}

#[tokio::test]
async fn a_server_without_tls_is_enough_for_disable_and_prefer() {
    let db = Database::new("").await;
    let root = Encrypted::new().await;
    let modes = [(Disable, Plain), (Prefer, Plain), (Require, Refused), (VerifyCa, Refused), (VerifyFull, Refused)];
    for (mode, expected) in modes {
        let mut settings = db.settings();
        settings.tls = mode;
        settings.tls_root_cert = Some(root.root.clone());
        assert_eq!(how(settings).await, expected, "{mode:?}");
    }
}

#[tokio::test]
async fn a_required_client_certificate_is_shown_or_the_connection_is_refused() {
    let e = Encrypted::new().await;
    let modes = [(Disable, Refused), (Prefer, Refused), (Require, Refused), (VerifyCa, Refused), (VerifyFull, Refused)];
    for (mode, expected) in modes {
        let mut settings = e.settings("known", "localhost", mode);
        settings.tls_root_cert = Some(e.root.clone());
        assert_eq!(how(settings.clone()).await, expected, "{mode:?} without");
        settings.tls_client_cert = Some(e.client_cert.clone());
        settings.tls_client_key = Some(e.client_key.clone());
        let expected = if mode == Disable { Refused } else { Tls };
        assert_eq!(how(settings).await, expected, "{mode:?} with");
    }
}

#[tokio::test]
async fn prefer_does_without_tls_where_tls_is_turned_away() {
    let e = Encrypted::new().await;
    assert_eq!(how(e.settings("lax", "localhost", Prefer)).await, Plain);
    assert_eq!(how(e.settings("lax", "localhost", Require)).await, Refused);
    assert_eq!(how(e.settings("secure", "localhost", Prefer)).await, Tls);
    assert_eq!(how(e.settings("secure", "localhost", Disable)).await, Refused);
}

#[tokio::test]
async fn a_root_that_is_the_servers_own_certificate_is_trusted() {
    let authority = Authority::new("itself");
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let own = params.self_signed(&key).expect("a certificate").pem();
    let server = Server::private(&["ssl=on"], |server| {
        server.write("server.crt", &own);
        server.write("server.key", &key.serialize_pem());
    })
    .await;
    let stranger = server.write("stranger.crt", &authority.certificate);
    for (host, root, mode, expected) in [
        ("localhost", "server.crt", VerifyFull, Tls),
        ("elsewhere", "server.crt", VerifyCa, Tls),
        ("elsewhere", "server.crt", VerifyFull, Refused),
        ("localhost", "stranger.crt", VerifyCa, Refused),
    ] {
        let url = format!("postgres://postgres@{host}:{}/postgres?hostaddr=127.0.0.1", server.port);
        let mut settings = Settings::new(url);
        settings.tls = mode;
        settings.tls_root_cert = Some(server.dir.join(root));
        assert_eq!(how(settings).await, expected, "{host} {root} {mode:?}");
    }
    assert!(stranger.exists());
}

#[tokio::test]
async fn a_cancel_travels_as_its_connection_does() {
    let e = Encrypted::new().await;
    let mut settings = e.settings("secure", "localhost", VerifyFull);
    settings.tls_root_cert = Some(e.root.clone());
    let origin = Arc::new(Origin::new(settings));
    let q = query("SELECT 1 AS a FROM pg_sleep(60)");
    origin.ready(&q).await;
    let admin = e.server.client("postgres").await.expect("a connection");
    let active = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'seawall' AND state = 'active'";
        admin.query_one(sql, &[]).await.expect("a count").get::<_, i64>(0)
    };
    let fetch = tokio::spawn({
        let (origin, q) = (Arc::clone(&origin), Arc::clone(&q));
        async move { origin.fetch(&q, json!({})).await }
    });
    eventually("the statement runs", WITHIN, async || match active().await {
        1 => Ok(()),
        n => Err(n),
    })
    .await;
    fetch.abort();
    eventually("no statement runs", Duration::from_millis(100), async || match active().await {
        0 => Ok(()),
        n => Err(n),
    })
    .await;
}

#[tokio::test]
async fn certificate_files_are_read_at_the_start() {
    let e = Encrypted::new().await;
    let refused = |change: &dyn Fn(&mut Settings)| {
        let mut settings = e.settings("postgres", "localhost", VerifyFull);
        settings.tls_root_cert = Some(e.root.clone());
        change(&mut settings);
        Postgres::new(settings, |_| {}).err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(refused(&|_| {}), "");
    assert!(refused(&|s| s.tls_root_cert = Some("/nowhere/root.pem".into())).contains("/nowhere/root.pem"));
    assert!(refused(&|s| s.tls_root_cert = Some(e.client_key.clone())).contains("no certificate"));
    let half = refused(&|s| s.tls_client_cert = Some(e.client_cert.clone()));
    assert_eq!(half, SettingsError::HalfAClientCertificate.to_string());
    let swapped = refused(&|s| {
        s.tls_client_cert = Some(e.client_key.clone());
        s.tls_client_key = Some(e.client_cert.clone());
    });
    assert!(swapped.contains("client.crt"), "{swapped}");
}

#[tokio::test]
async fn a_refusal_says_what_to_look_at() {
    let e = Encrypted::new().await;
    let reason = async |host: &str, root: &PathBuf| {
        let mut settings = e.settings("postgres", host, VerifyFull);
        settings.tls_root_cert = Some(root.clone());
        Origin::new(settings).postgres.prepare(&query("SELECT 1 AS a")).await.expect_err("refused").to_string()
    };
    assert!(reason("localhost", &e.other_root).await.contains("not signed by a root of tls_root_cert"));
    assert!(reason("elsewhere", &e.root).await.contains("for another host"));
}
