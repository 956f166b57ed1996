//! An authority that signs certificates for loopback.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType, date_time_ymd};
use seawall::tls::{Connector, Trust};

/// An authority, and a directory for what it signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    /// One of its own.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority");
        let key = KeyPair::generate().expect("a key");
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("ca.pem"), params.self_signed(&key).expect("an authority").pem())
            .expect("written");
        Self { issuer: Issuer::new(params, key), dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A certificate for `localhost` that ends with `year`, and its key.
    pub fn sign(&self, year: i32) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        // OpenSSL takes a certificate for its own issuer where their names are the same.
        params.distinguished_name.push(DnType::CommonName, "a service");
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        params.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("signed").pem(), key.serialize_pem())
    }

    /// The same in files, each in the place of the former one at once.
    pub fn put(&self, name: &str, (cert, key): (String, String)) -> (PathBuf, PathBuf) {
        for (what, text) in [("crt", cert), ("key", key)] {
            let (new, path) = (self.path("new"), self.path(&format!("{name}.{what}")));
            std::fs::write(&new, text).expect("written");
            std::fs::rename(new, path).expect("renamed");
        }
        (self.path(&format!("{name}.crt")), self.path(&format!("{name}.key")))
    }

    pub fn connector(&self) -> Connector {
        Connector::new(Trust::Authorities(&self.path("ca.pem")), None).expect("fit")
    }

    pub fn keys(&self, section: &str, more: &str) -> String {
        let dir = self.dir.path().display();
        format!("[{section}]\ntls_cert = \"{dir}/server.crt\"\ntls_key = \"{dir}/server.key\"\n{more}\n")
    }
}
