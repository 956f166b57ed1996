//! The listeners' certificates, while the service runs: watched, replaced, and told of in metrics.

use std::sync::Arc;

use super::StartError;
use super::watch::{LOOKS, Seen, Watch};
use crate::clock;
use crate::config::Config;
use crate::http::secure::Secure;
use crate::telemetry::metrics::{Listener, Metrics};
use crate::tls::{Files, Tls};

/// Those that there are.
pub(super) struct Certificates {
    all: Vec<(Listener, Arc<Tls>)>,
    metrics: Arc<Metrics>,
}

impl Certificates {
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let mut all = vec![];
        for (listener, files) in [(Listener::Queries, config.server.tls()), (Listener::Admin, config.admin.tls())] {
            let Some(files) = files else { continue };
            let tls = Tls::new(files).map_err(StartError::Certificate)?;
            tell(&metrics, listener, &tls);
            all.push((listener, tls));
        }
        Ok(Self { all, metrics })
    }

    /// What `listener` serves with; `None`: plain HTTP.
    pub(super) fn secure(&self, listener: Listener) -> Option<Secure> {
        let (_, tls) = self.all.iter().find(|(of, _)| *of == listener)?;
        Some(Secure::new(Arc::clone(tls), listener, &self.metrics))
    }

    /// Reads all of them again; what is no good leaves the one in force where it is, and is warned of.
    pub(super) fn reload(&self) {
        for (listener, tls) in &self.all {
            self.reload_one(*listener, tls);
        }
    }

    fn reload_one(&self, listener: Listener, tls: &Tls) {
        match tls.reload() {
            Ok(()) => {
                tracing::info!(listener = listener.as_str(), "the certificate is reloaded");
                tell(&self.metrics, listener, tls);
            }
            Err(error) => {
                self.metrics.certificate(listener, false, tls.expires());
                tracing::error!(
                    listener = listener.as_str(),
                    %error,
                    "the certificate is not reloaded: the present one stays in force"
                );
            }
        }
    }

    /// Takes what changes and stands still. Never ends.
    pub(super) async fn watch(&self) {
        let mut watched: Vec<_> = self.all.iter().map(|(_, tls)| watch(tls.files())).collect();
        let mut looks = tokio::time::interval(LOOKS);
        loop {
            looks.tick().await;
            for ((listener, tls), watch) in self.all.iter().zip(&mut watched) {
                if watch.look() == Seen::Settled {
                    self.reload_one(*listener, tls);
                }
            }
        }
    }
}

fn watch(files: &Files) -> Watch {
    Watch::new(files.cert.clone(), std::iter::once(&files.key).chain(&files.client_ca).cloned().collect())
}

fn tell(metrics: &Metrics, listener: Listener, tls: &Tls) {
    let expires = tls.expires();
    metrics.certificate(listener, true, expires);
    if expires <= clock::time_of_day() {
        let certificate = tls.files().cert.display().to_string();
        tracing::warn!(
            listener = listener.as_str(),
            certificate,
            "this certificate has expired: clients will refuse it"
        );
    }
}
