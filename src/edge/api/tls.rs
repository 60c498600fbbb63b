//! TLS before the API: the certificate, and the authority that callers' certificates must come from.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::settings::TlsSettings;

/// What new connections are met with; a reload reads the files again, so that a renewed certificate needs no restart.
pub struct Tls {
    settings: TlsSettings,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub fn new(settings: &TlsSettings) -> Result<Tls, String> {
        Ok(Tls { settings: settings.clone(), config: RwLock::new(read(settings)?) })
    }

    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// What the files hold now.
    pub fn fresh(&self) -> Result<Arc<ServerConfig>, String> {
        read(&self.settings)
    }

    pub fn take(&self, fresh: Arc<ServerConfig>) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = fresh;
    }
}

fn read(settings: &TlsSettings) -> Result<Arc<ServerConfig>, String> {
    let wrong = |file: &Path, why: String| format!("[api] {}: {why}", file.display());
    let chain = certificates(&settings.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&settings.key_file)
        .map_err(|error| wrong(&settings.key_file, error.to_string()))?;
    let builder = ServerConfig::builder();
    let builder = match &settings.client_ca_file {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(file)? {
                roots.add(authority).map_err(|error| wrong(file, error.to_string()))?;
            }
            let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
                .build()
                .map_err(|error| wrong(file, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let config = builder.with_single_cert(chain, key).map_err(|error| wrong(&settings.cert_file, error.to_string()))?;
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: String| format!("[api] {}: {why}", file.display());
    let all: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?.collect();
    match all {
        Ok(all) if all.is_empty() => Err(wrong("holds no certificate (PEM)".into())),
        Ok(all) => Ok(all),
        Err(error) => Err(wrong(error.to_string())),
    }
}
