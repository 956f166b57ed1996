//! The rules of the listeners' certificates.

use super::{accepted, refused, refused_for};

fn pair(dir: &std::path::Path) {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a pair");
    std::fs::write(dir.join("crt"), key.cert.pem()).expect("written");
    std::fs::write(dir.join("key"), key.signing_key.serialize_pem()).expect("written");
}

#[test]
fn certificate_and_key_are_there_together_and_fit() {
    let (dir, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    pair(dir.path());
    pair(other.path());
    let (dir, other) = (dir.path().display(), other.path().display());
    for section in ["server", "admin"] {
        let (cert, key) =
            (format!("{section}.tls_cert = \"{dir}/crt\"\n"), format!("{section}.tls_key = \"{dir}/key\"\n"));
        let config = accepted(&format!("{cert}{key}{section}.tls_client_ca = \"{dir}/crt\""));
        let files = if section == "server" { config.server.tls() } else { config.admin.tls() }.expect("TLS");
        assert!(files.client_ca.is_some() && config.files.is_empty(), "watched on their own: {:?}", config.files);
        refused_for(&cert, &format!("{section}.tls_cert"), "set tls_key as well");
        refused_for(&key, &format!("{section}.tls_key"), "set tls_cert as well");
        let ca = format!("{section}.tls_client_ca = \"{dir}/crt\"");
        refused_for(&ca, &format!("{section}.tls_client_ca"), "set tls_cert and tls_key as well");
        let wrong = format!("{cert}{section}.tls_key = \"{other}/key\"");
        refused_for(&wrong, &format!("{section}.tls_key"), "isn't the key of the certificate");
        let gone = format!("{key}{section}.tls_cert = \"{dir}/gone\"");
        refused_for(&gone, &format!("{section}.tls_cert"), "write the path to a file in PEM");
        let bad_ca = format!("{cert}{key}{section}.tls_client_ca = \"{dir}/key\"");
        refused_for(&bad_ca, &format!("{section}.tls_client_ca"), "holds no certificate");
    }
    assert!(accepted("").server.tls().is_none());
    assert!(accepted("server.tls_cert = \"\"\nserver.tls_key = \"\"").server.tls().is_none());
    // At once, with everything else.
    let all = format!(
        "server.tls_cert = \"{dir}/gone\"\nserver.tls_key = \"{dir}/key\"\nadmin.tls_key = \"{dir}/key\"\nserver.max_waiters = 0"
    );
    assert_eq!(refused(&all).len(), 3);
}
