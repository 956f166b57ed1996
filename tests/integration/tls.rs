//! TLS to the server, in libpq's five modes, against certificates made here.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use seawall::catalog::Catalog;
use seawall::postgres::embedded::{Embedded, EmbeddedOptions};
use seawall::postgres::{Postgres, Settings, TlsMode};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).expect("valid");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    /// A certificate for `name`, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("valid");
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &self.0).expect("signed").pem(), key.serialize_pem())
    }
}

/// What a mode makes of a server.
async fn reach(url: &str, tls: TlsMode, root: Option<&Path>, client: Option<(&Path, &Path)>) -> Result<(), String> {
    let settings = Settings {
        url: url.to_owned(),
        pool_size: 1,
        connect_timeout: Duration::from_secs(5),
        search_path: None,
        timezone: "UTC".into(),
        tls,
        tls_root_cert: root.map(Into::into),
        tls_client_cert: client.map(|(cert, _)| cert.into()),
        tls_client_key: client.map(|(_, key)| key.into()),
        result_max_bytes: 1 << 20,
        reconnect_max: Duration::from_secs(1),
    };
    let postgres = Arc::new(Postgres::new(settings, |_| {}).map_err(|e| e.to_string())?);
    postgres.prepare_all(&Catalog::default()).await.map_err(|e| e.to_string())
}

/// Whether the connection to `url` in this mode is encrypted, by the server's word.
async fn encrypted(url: &str, server: &Embedded) -> bool {
    let _ = url;
    let client = super::support::connect(&format!("{}?sslmode=disable", server.url("postgres"))).await;
    let sql =
        "SELECT bool_or(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'seawall'";
    client.query_one(sql, &[]).await.expect("a row").get::<_, Option<bool>>(0).unwrap_or(false)
}

async fn server(dir: &Path, cert: &str, key: &str, client_ca: &str) -> Embedded {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    let (cert, key, ca) = (write("server.crt", cert), write("server.key", key), write("client-ca.crt", client_ca));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("closed");
    // The server runs as another user where this is root, and a key must be its own.
    let probe = Embedded::start(EmbeddedOptions::default()).await.expect("a Postgres");
    for path in [&cert, &key, &ca] {
        probe.own(path).expect("given");
    }
    probe.stop().await.expect("stopped");
    let setting = |name: &str, path: &Path| (name.to_owned(), path.display().to_string());
    let options = EmbeddedOptions {
        settings: vec![
            ("ssl".into(), "on".into()),
            setting("ssl_cert_file", &cert),
            setting("ssl_key_file", &key),
            setting("ssl_ca_file", &ca),
        ],
        ..EmbeddedOptions::default()
    };
    Embedded::start(options).await.expect("a Postgres with TLS")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_makes_of_each_server_what_libpq_would() {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("opened");
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (cert, key) = ours.sign("localhost");
    let encrypting = server(dir.path(), &cert, &key, &ours.0.pem()).await;
    let plain = Embedded::start(EmbeddedOptions::default()).await.expect("a Postgres");
    let (root, other_root) = (dir.path().join("root.crt"), dir.path().join("other.crt"));
    std::fs::write(&root, ours.0.pem()).expect("written");
    std::fs::write(&other_root, theirs.0.pem()).expect("written");

    let by_name = encrypting.url("postgres").replace("127.0.0.1", "localhost");
    let by_address = encrypting.url("postgres");
    let unencrypted = plain.url("postgres");
    for (mode, name, address, stranger, without) in [
        // mode; the certificate's name; another name; an unknown authority; a server without TLS
        (TlsMode::Disable, true, true, true, true),
        (TlsMode::Prefer, true, true, true, true),
        (TlsMode::Require, true, true, true, false),
        (TlsMode::VerifyCa, true, true, false, false),
        (TlsMode::VerifyFull, true, false, false, false),
    ] {
        for (case, url, root, expected) in [
            ("the certificate's name", &by_name, &root, name),
            ("another name", &by_address, &root, address),
            ("an unknown authority", &by_name, &other_root, stranger),
            ("a server without TLS", &unencrypted, &root, without),
        ] {
            let reached = reach(url, mode, Some(root), None).await;
            assert_eq!(reached.is_ok(), expected, "{mode:?}, {case}: {reached:?}");
            if let Err(error) = reached {
                assert!(
                    !error.contains(url.split(':').nth(2).expect("a password").split('@').next().expect("it")),
                    "{error}"
                );
            }
        }
    }

    // A server that asks for a certificate.
    let hba = encrypting.data_dir().join("pg_hba.conf");
    std::fs::write(&hba, "local all all trust\nhostnossl all all 127.0.0.1/32 scram-sha-256\nhostssl all all all scram-sha-256 clientcert=verify-ca\n")
        .expect("written");
    let admin = super::support::connect(&format!("{}?sslmode=disable", encrypting.url("postgres"))).await;
    admin.batch_execute("SELECT pg_reload_conf()").await.expect("reloaded");
    let (client_cert, client_key) = ours.sign("client");
    let paths = (dir.path().join("client.crt"), dir.path().join("client.key"));
    std::fs::write(&paths.0, client_cert).expect("written");
    std::fs::write(&paths.1, client_key).expect("written");
    super::support::eventually::eventually("the server asks for a certificate", Duration::from_secs(5), async || {
        match reach(&by_name, TlsMode::VerifyFull, Some(&root), None).await {
            Err(error) if error.contains("certificate") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let presented = reach(&by_name, TlsMode::VerifyFull, Some(&root), Some((&paths.0, &paths.1))).await;
    assert_eq!(presented, Ok(()));
    assert!(!encrypted(&by_name, &encrypting).await, "no connection outlives its pool");
}

#[tokio::test]
async fn files_that_are_no_certificates_are_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let nonsense = dir.path().join("nonsense.crt");
    std::fs::write(&nonsense, "nonsense").expect("written");
    let error = reach("postgres://u@localhost/d", TlsMode::VerifyFull, Some(&nonsense), None).await;
    let error = error.expect_err("no certificate");
    assert!(error.contains("postgres.tls_root_cert") && error.contains("nonsense.crt"), "{error}");
}
