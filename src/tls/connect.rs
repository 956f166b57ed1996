//! The other end: what `seawall health` asks a listener with.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{certificates, private_key, roots};

/// How a server is verified.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'a> {
    /// By what the platform trusts.
    Platform,
    /// By the authorities in this file.
    Authorities(&'a Path),
    /// Not at all.
    Anybody,
}

/// Makes connections TLS.
pub struct Connector(tokio_rustls::TlsConnector);

impl Connector {
    /// `identity`: a certificate and its key to show.
    ///
    /// # Errors
    /// Says which file can't be used, and why.
    pub fn new(trust: Trust<'_>, identity: Option<(&Path, &Path)>) -> Result<Self, String> {
        let in_file = |path: &Path| {
            let name = path.display().to_string();
            move |why: String| format!("{name}: {why}")
        };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match trust {
            Trust::Anybody => builder.dangerous().with_custom_certificate_verifier(Arc::new(Nobody(provider))),
            Trust::Authorities(path) => builder.with_root_certificates(roots(path).map_err(in_file(path))?),
            Trust::Platform => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                builder.with_root_certificates(roots)
            }
        };
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = certificates(cert).map_err(in_file(cert))?;
                let key_der = private_key(key).map_err(in_file(key))?;
                builder.with_client_auth_cert(chain, key_der).map_err(|error| in_file(key)(error.to_string()))?
            }
        };
        Ok(Self(tokio_rustls::TlsConnector::from(Arc::new(config))))
    }

    /// Makes `stream` a TLS connection to `host`.
    ///
    /// # Errors
    /// Whatever the handshake says.
    pub async fn connect<S>(&self, host: &str, stream: S) -> std::io::Result<tokio_rustls::client::TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
        self.0.connect(name, stream).await
    }
}

/// Verifies nobody, but that whoever answers holds the key of what it shows.
#[derive(Debug)]
struct Nobody(Arc<CryptoProvider>);

impl ServerCertVerifier for Nobody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
