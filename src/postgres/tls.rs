//! TLS to Postgres: libpq's modes on rustls, with the provider chosen explicitly.
//!
//! | mode | encrypted | chain verified | host name verified |
//! |---|---|---|---|
//! | disable | no | | |
//! | prefer | if it can be had | no | no |
//! | require | yes | if a root certificate is given | no |
//! | verify-ca | yes | yes | no |
//! | verify-full | yes | yes | yes |
//!
//! A trusted root that is itself the server's certificate is accepted as such (OpenSSL does so, and Postgres's own
//! documentation makes such certificates); the chain rules of webpki would refuse it. Revocation is not checked.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::Socket;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::settings::{Settings, SettingsError, TlsMode};

/// Makes the TLS half of connections, and of the requests that cancel their statements.
#[derive(Clone)]
pub(super) struct Tls(MakeRustlsConnect);

impl Tls {
    /// Reads the certificates that `settings` names.
    pub(super) fn new(settings: &Settings) -> Result<Self, SettingsError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(Verifier::new(settings, Arc::clone(&provider))?);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| SettingsError::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match (&settings.tls_client_cert, &settings.tls_client_key) {
            (None, None) => config.with_no_client_auth(),
            (Some(cert), Some(key)) => {
                let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, &error.to_string()))?;
                config
                    .with_client_auth_cert(certificates(cert)?, key_der)
                    .map_err(|error| unreadable(key, &error.to_string()))?
            }
            _ => return Err(SettingsError::HalfAClientCertificate),
        };
        Ok(Self(MakeRustlsConnect::new(config)))
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
    type TlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
    type Error = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Self::TlsConnect, Self::Error> {
        // A Unix socket has no name, and this is called for those that never speak TLS as well. The placeholder is in
        // no certificate, so verify-full refuses it.
        let name = if ServerName::try_from(host).is_ok() { host } else { "name.invalid" };
        <MakeRustlsConnect as MakeTlsConnect<Socket>>::make_tls_connect(&mut self.0, name)
    }
}

/// What is asked of a server before anything is known of its certificate.
pub(super) const fn ssl_mode(mode: TlsMode) -> SslMode {
    match mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    }
}

/// Whether an attempt failed in TLS, so that `prefer` may try without: a failed handshake, or an alert after it, which
/// is how TLS 1.3 refuses a missing client certificate.
pub(super) fn failed_in_tls(error: &tokio_postgres::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if inner.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>) {
            return true;
        }
        source = error.source();
    }
    false
}

fn unreadable(path: &Path, reason: &str) -> SettingsError {
    SettingsError::Certificate { path: path.to_owned(), reason: reason.to_owned() }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, &error.to_string()))?;
    if found.is_empty() { Err(unreadable(path, "it holds no certificate in PEM")) } else { Ok(found) }
}

/// How much of a server's certificate is verified.
#[derive(Debug)]
enum Trust {
    /// Nothing: encryption keeps out those who listen, not those who answer in the server's place. Signatures aren't
    /// verified either: they would prove who holds a key that nobody vouches for.
    Anybody,
    /// The chain.
    Chain(Roots),
    /// The chain and the name.
    ChainAndName(Roots),
}

#[derive(Debug)]
struct Roots {
    anchors: RootCertStore,
    exact: Vec<CertificateDer<'static>>,
}

impl Roots {
    fn load(settings: &Settings) -> Result<Self, SettingsError> {
        let mut anchors = RootCertStore::empty();
        let mut exact = vec![];
        if let Some(path) = &settings.tls_root_cert {
            exact = certificates(path)?;
            for certificate in &exact {
                anchors.add(certificate.clone()).map_err(|error| unreadable(path, &error.to_string()))?;
            }
        } else {
            // Some of a platform's roots may be unreadable; those that are not are what its operator trusts.
            anchors.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        if anchors.is_empty() { Err(SettingsError::NoRoots) } else { Ok(Self { anchors, exact }) }
    }
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(settings: &Settings, provider: Arc<CryptoProvider>) -> Result<Self, SettingsError> {
        let trust = match settings.tls {
            TlsMode::Require if settings.tls_root_cert.is_some() => Trust::Chain(Roots::load(settings)?),
            TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Trust::Anybody,
            TlsMode::VerifyCa => Trust::Chain(Roots::load(settings)?),
            TlsMode::VerifyFull => Trust::ChainAndName(Roots::load(settings)?),
        };
        Ok(Self { trust, provider })
    }

    fn chain(
        &self,
        roots: &Roots,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if roots.exact.iter().any(|root| root == certificate) {
            return Ok(());
        }
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(parsed, &roots.anchors, intermediates, now, algorithms)
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let roots = match &self.trust {
            Trust::Anybody => return Ok(ServerCertVerified::assertion()),
            Trust::Chain(roots) | Trust::ChainAndName(roots) => roots,
        };
        let parsed = ParsedCertificate::try_from(certificate)?;
        self.chain(roots, certificate, &parsed, intermediates, now)?;
        if let Trust::ChainAndName(_) = self.trust {
            verify_server_name(&parsed, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if let Trust::Anybody = self.trust {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if let Trust::Anybody = self.trust {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A hint for what TLS errors alone leave unclear, in the terms of the settings.
pub(super) fn hint(error: &tokio_postgres::Error) -> Option<&'static str> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(rustls::Error::InvalidCertificate(why)) = inner.and_then(|e| e.downcast_ref::<rustls::Error>()) {
            return Some(match why {
                CertificateError::UnknownIssuer => "the server's certificate is not signed by a root of tls_root_cert",
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    "the server's certificate is for another host; tls = \"verify-ca\" does not look at the name"
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "the server's certificate has expired"
                }
                _ => "the server's certificate is not accepted",
            });
        }
        source = error.source();
    }
    None
}
