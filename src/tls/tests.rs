//! Files that fit, and all those that don't.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use super::*;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).expect("written");
        path
    }
}

fn pair(expires: i32) -> (String, String) {
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
    params.not_after = date_time_ymd(expires, 1, 1);
    let key = KeyPair::generate().expect("a key");
    (params.self_signed(&key).expect("a certificate").pem(), key.serialize_pem())
}

#[test]
fn files_that_fit_are_taken_and_others_are_refused_by_name_and_reason() {
    let dir = Dir::new();
    let ((cert, key), (_, other_key)) = (pair(2090), pair(2090));
    let authority = {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority").pem()
    };
    let (good_cert, good_key) = (dir.put("cert", &cert), dir.put("key", &key));
    let files = |cert: &PathBuf, key: &PathBuf, client_ca: Option<PathBuf>| Files {
        cert: cert.clone(),
        key: key.clone(),
        client_ca,
    };
    let tls = Tls::new(files(&good_cert, &good_key, None)).expect("fit");
    assert_eq!(tls.expires().as_secs(), 3_786_912_000, "2090-01-01");
    assert!(Tls::new(files(&good_cert, &good_key, Some(dir.put("ca", &authority)))).is_ok());

    let refused = |files: Files| {
        let unfit = Tls::new(files).expect_err("unfit");
        (unfit.part, unfit.reason)
    };
    let (empty, gone) = (dir.put("empty", ""), dir.0.path().join("gone"));
    let half = dir.put("half", &cert[..cert.len() / 2]);
    let garbled = dir.put("garbled", "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n");
    let encrypted = dir.put("encrypted", &key.replace("PRIVATE", "ENCRYPTED PRIVATE"));
    let huge = dir.put("huge", &"#".repeat(300 * 1024));
    let wrong = dir.put("wrong", &other_key);
    for (files, part, reason) in [
        (files(&gone, &good_key, None), Part::Cert, "can't be read"),
        (files(&empty, &good_key, None), Part::Cert, "holds no certificate"),
        (files(&half, &good_key, None), Part::Cert, "isn't PEM"),
        (files(&garbled, &good_key, None), Part::Cert, "can't be read"),
        (files(&huge, &good_key, None), Part::Cert, "longer than 256KiB"),
        (files(&good_cert, &gone, None), Part::Key, "can't be read"),
        (files(&good_cert, &good_cert, None), Part::Key, "holds no private key"),
        (files(&good_cert, &encrypted, None), Part::Key, "isn't encrypted"),
        (files(&good_cert, &wrong, None), Part::Key, "isn't the key of the certificate"),
        (files(&good_cert, &good_key, Some(gone.clone())), Part::ClientCa, "can't be read"),
        (files(&good_cert, &good_key, Some(good_key.clone())), Part::ClientCa, "holds no certificate"),
    ] {
        let (named, why) = refused(files);
        assert!(named == part && why.contains(reason), "{named:?}: {why}, wanted {part:?}: {reason}");
        assert!(!why.contains("MIG") && !why.contains(&key[40..60]), "no key in it: {why}");
    }
}

#[test]
fn a_pair_that_is_replaced_by_halves_is_taken_whole() {
    let dir = Dir::new();
    let ((cert, key), (next_cert, next_key)) = (pair(2090), pair(2091));
    let files = Files { cert: dir.put("cert", &cert), key: dir.put("key", &key), client_ca: None };
    let tls = Tls::new(files).expect("fit");
    dir.put("cert", &next_cert);
    assert_eq!(tls.reload().expect_err("the key isn't there yet").part, Part::Key);
    assert_eq!(tls.expires().as_secs(), 3_786_912_000, "the present one stays");
    dir.put("key", &next_key);
    tls.reload().expect("both are there");
    assert_eq!(tls.expires().as_secs(), 3_818_448_000, "2091-01-01");
}

#[test]
fn one_that_has_expired_is_taken_and_says_so() {
    let dir = Dir::new();
    let (cert, key) = pair(2001);
    let tls = Tls::new(Files { cert: dir.put("cert", &cert), key: dir.put("key", &key), client_ca: None });
    assert_eq!(tls.expect("fit").expires().as_secs(), 978_307_200);
}
