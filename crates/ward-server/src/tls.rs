//! The certificate and the key of the listener, read once at start.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::key_file::{open_ordinary, open_private};

/// The PEM files of the listener, as the configuration names them.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The PEM file of the certificate chain, leaf first.
    pub certificate: PathBuf,
    /// The PEM file of the private key.
    pub key: PathBuf,
}

/// The reason why the listener cannot offer TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file does not exist, is not readable, or contains no such item.
    #[error("cannot read {what} from {}: {reason}", path.display())]
    Read {
        /// `"a certificate"` or `"a private key"`.
        what: &'static str,
        /// The path of the file, from the configuration.
        path: PathBuf,
        /// The cause, as the end of the error's sentence.
        reason: String,
    },
    /// Both files were read, but the key does not belong to the certificate.
    #[error("{} and {} do not make a TLS identity: {reason}", certificate.display(), key.display())]
    Identity {
        /// The path of the certificate chain.
        certificate: PathBuf,
        /// The path of the private key.
        key: PathBuf,
        /// The reason that rustls reports for the mismatch.
        reason: rustls::Error,
    },
}

/// Reads the PEM files and prepares a listener for TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1.
pub fn load(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = open_ordinary(&files.certificate)
        .map_err(pem::Error::Io)
        .and_then(|file| CertificateDer::pem_reader_iter(file).collect::<Result<Vec<_>, _>>())
        .map_err(|error| unreadable("a certificate", &files.certificate, error))?;
    if chain.is_empty() {
        return Err(unreadable("a certificate", &files.certificate, pem::Error::NoItemsFound));
    }
    let key = open_private(&files.key)
        .map_err(pem::Error::Io)
        .and_then(PrivateKeyDer::from_pem_reader)
        .map_err(|error| unreadable("a private key", &files.key, error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|reason| TlsError::Identity {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            reason,
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn unreadable(what: &'static str, path: &Path, error: pem::Error) -> TlsError {
    let reason = match error {
        pem::Error::NoItemsFound => "the file has none".to_owned(),
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            "there is no such file".to_owned()
        }
        pem::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    TlsError::Read { what, path: path.to_owned(), reason }
}
