//! TLS to the server, in libpq's five modes.
//!
//! `prefer` and `require` encrypt and look at no certificate, as libpq does: they keep out who listens and not who
//! stands in between. `verify-ca` checks the chain, `verify-full` the host's name as well.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::settings::{Settings, SettingsError, TlsMode};

/// How the client library is to negotiate.
pub(super) fn negotiation(mode: TlsMode) -> SslMode {
    match mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer => SslMode::Prefer,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    }
}

/// The connector for these settings.
pub(super) fn connector(settings: &Settings) -> Result<MakeRustlsConnect, SettingsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("postgres.tls", error))?;
    let verifier: Arc<dyn ServerCertVerifier> = match settings.tls {
        TlsMode::Disable | TlsMode::Prefer | TlsMode::Require => Arc::new(Unverified(provider)),
        TlsMode::VerifyCa => Arc::new(AnyName(webpki(settings, provider)?)),
        TlsMode::VerifyFull => webpki(settings, provider)?,
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let config = match (&settings.tls_client_cert, &settings.tls_client_key) {
        (Some(cert), Some(key)) => {
            let chain = certificates("postgres.tls_client_cert", cert)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|e| unusable("postgres.tls_client_key", e))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| unusable("postgres.tls_client_key", e))?
        }
        (None, None) => builder.with_no_client_auth(),
        (Some(_), None) => return Err(unusable("postgres.tls_client_key", "is needed beside tls_client_cert")),
        (None, Some(_)) => return Err(unusable("postgres.tls_client_cert", "is needed beside tls_client_key")),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn unusable(key: &'static str, reason: impl std::fmt::Display) -> SettingsError {
    SettingsError::Tls { key, reason: reason.to_string() }
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SettingsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(unusable(key, format!("{}: no certificate", path.display())))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(unusable(key, format!("{}: {error}", path.display()))),
    }
}

fn webpki(settings: &Settings, provider: Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, SettingsError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.tls_root_cert {
        for certificate in certificates("postgres.tls_root_cert", path)? {
            roots.add(certificate).map_err(|e| unusable("postgres.tls_root_cert", e))?;
        }
    } else {
        // A platform's store may hold certificates that can't be read; the others count.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|e| unusable("postgres.tls_root_cert", e))
}

/// Takes any certificate, but no broken signature: `prefer` and `require`.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Checks all but the host's name: `verify-ca`.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            // The name is looked at last: the chain is good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
