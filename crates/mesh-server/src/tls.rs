//! The server's side of TLS, with rustls and ring.

use std::path::Path;
use std::sync::Arc;

use mesh_api::problem::Problem;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Reads a certificate chain and its key.
pub fn acceptor(cert: &Path, key: &Path) -> Result<TlsAcceptor, Problem> {
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(cert, "certificate chain", &error.to_string()))?;
    if chain.is_empty() {
        return Err(unusable(cert, "certificate chain", "it holds no certificate"));
    }
    let private = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| unusable(key, "private key", &error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| unusable(cert, "certificate chain", &error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn unusable(path: &Path, what: &str, why: &str) -> Problem {
    Problem::new(
        "TLS_UNUSABLE",
        format!("{} can't serve as {what}: {why}", path.display()),
        "tls-cert and tls-key name PEM files, the server's own certificate first",
    )
}
