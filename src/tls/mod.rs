//! TLS of the listeners: what they show, whom they let in, and handshakes.
//!
//! Certificate and key are read together and held against each other before they are taken, so that a pair that is being
//! replaced is never taken half. What is in force is behind one pointer: connections that are open keep what they were
//! made with, the next one gets the new.
//!
//! TLS 1.2 and 1.3 with rustls's safe defaults; HTTP/2 and HTTP/1.1 by ALPN. Sessions are resumed by tickets, whose keys
//! are made with each pair and leave with it: a client certificate is never remembered beyond the authorities it was
//! verified by.

mod accept;
mod connect;

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};

pub use accept::{HANDSHAKE_TIMEOUT, Refusal, TlsStream};
pub use connect::{Connector, Trust};

/// Longest file that is read, in bytes: a hundred certificates.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// The files of one listener, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate that is shown, and those between it and a root.
    pub cert: PathBuf,
    /// Its key, not encrypted.
    pub key: PathBuf,
    /// Authorities that sign clients' certificates; with it, a client without one is turned away.
    pub client_ca: Option<PathBuf>,
}

/// Which of the files is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`Files::cert`]
    Cert,
    /// [`Files::key`]
    Key,
    /// [`Files::client_ca`]
    ClientCa,
}

/// Why the files can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct Unfit {
    /// Which of them.
    pub part: Part,
    /// Where it is.
    pub path: PathBuf,
    /// What is wrong, and the remedy.
    pub reason: String,
}

/// A certificate, its key, and whom it lets in: fit for each other.
struct Identity {
    config: Arc<ServerConfig>,
    not_after: i64,
}

/// What a listener shows and whom it lets in, replaced while it serves.
pub struct Tls {
    files: Files,
    present: ArcSwap<Identity>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads `files`.
    ///
    /// # Errors
    /// [`Unfit`] where one can't be read, holds no PEM of its kind, or the key is another certificate's. A certificate that has
    /// expired is taken: see [`Tls::expires`].
    pub fn new(files: Files) -> Result<Arc<Self>, Unfit> {
        let present = ArcSwap::from_pointee(Identity::load(&files)?);
        Ok(Arc::new(Self { files, present }))
    }

    /// Reads the files again; the next connections get what they hold now.
    ///
    /// # Errors
    /// [`Unfit`]; then everything stays as it is.
    pub fn reload(&self) -> Result<(), Unfit> {
        self.present.store(Arc::new(Identity::load(&self.files)?));
        Ok(())
    }

    /// Where it comes from.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Until when the certificate in force is valid, in time since 1970.
    pub fn expires(&self) -> Duration {
        Duration::from_secs(u64::try_from(self.present.load().not_after).unwrap_or(0))
    }
}

impl Identity {
    fn load(files: &Files) -> Result<Self, Unfit> {
        let provider = Arc::new(ring::default_provider());
        let unfit = |part, reason: String| files.unfit(part, reason);
        let chain = certificates(&files.cert).map_err(|reason| unfit(Part::Cert, reason))?;
        let not_after = not_after(&chain[0]).map_err(|reason| unfit(Part::Cert, reason))?;
        let key = private_key(&files.key).map_err(|reason| unfit(Part::Key, reason))?;
        let pair = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            let reason = match error {
                rustls::Error::InconsistentKeys(_) => {
                    format!(
                        "it isn't the key of the certificate in {}; write the one it was made with",
                        files.cert.display()
                    )
                }
                other => format!("it can't be used: {other}; write a key in PEM (PKCS#8, SEC1 or PKCS#1)"),
            };
            unfit(Part::Key, reason)
        })?;
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| unfit(Part::Cert, error.to_string()))?;
        let config = match &files.client_ca {
            None => config.with_no_client_auth(),
            Some(path) => {
                let verifier = clients_of(path, &provider).map_err(|reason| unfit(Part::ClientCa, reason))?;
                config.with_client_cert_verifier(verifier)
            }
        };
        let mut config = config.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = ring::Ticketer::new().map_err(|error| unfit(Part::Cert, error.to_string()))?;
        Ok(Self { config: Arc::new(config), not_after })
    }
}

impl Files {
    fn unfit(&self, part: Part, reason: String) -> Unfit {
        let path = match part {
            Part::Cert => &self.cert,
            Part::Key => &self.key,
            Part::ClientCa => self.client_ca.as_ref().unwrap_or(&self.cert),
        };
        Unfit { part, path: path.clone(), reason }
    }
}

fn clients_of(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, String> {
    let roots = Arc::new(roots(path)?);
    WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider)).build().map_err(|error| error.to_string())
}

fn roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| format!("a certificate in it is no authority: {error}"))?;
    }
    Ok(roots)
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: std::io::Error| format!("it can't be read: {error}; write the path to a file in PEM");
    let mut bytes = vec![];
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err("it is longer than 256KiB".into()) } else { Ok(bytes) }
}

/// One at least.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("it isn't PEM: {error}"))?;
    if found.is_empty() {
        return Err("it holds no certificate in PEM; write the path to one, its intermediates behind it".into());
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            "it holds no private key in PEM; write the path to one that isn't encrypted".into()
        }
        other => format!("it isn't PEM: {other}"),
    })
}

/// When a certificate ends, in seconds since 1970.
fn not_after(certificate: &CertificateDer<'_>) -> Result<i64, String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|error| format!("its first certificate can't be read: {error}"))?;
    Ok(parsed.validity().not_after.timestamp())
}

#[cfg(test)]
mod tests;
