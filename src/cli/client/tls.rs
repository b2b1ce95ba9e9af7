//! TLS of the client: rustls with Mozilla's list of authorities, and those of a file.
//!
//! The list is part of the binary: a container from scratch has none, and systems keep theirs in different places.

use std::io;
use std::path::Path;
use std::sync::Arc;

use futures_rustls::TlsConnector;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use smol::net::TcpStream;

use super::dial::Stream;
use super::failure::Failure;
use super::target::Target;

/// A WebSocket is an upgrade of HTTP/1.1.
const PROTOCOL: &[u8] = b"http/1.1";

/// What TLS needs: the authorities, and the ciphers.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// TLS that trusts Mozilla's authorities, and the certificates in this file.
    ///
    /// # Errors
    ///
    /// The error names the file.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = ca_file {
            add(&mut roots, path).map_err(|error| format!("cannot read certificates from {path:?}: {error}"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { config: Arc::new(config) })
    }

    /// The target's stream over a connected socket.
    pub(crate) async fn wrap(&self, target: &Target, socket: TcpStream) -> Result<Box<dyn Stream>, Failure> {
        if !target.is_secure {
            return Ok(Box::new(socket));
        }
        let name = ServerName::try_from(target.host.clone());
        let name = name.map_err(|error| Failure::Tls(io::Error::other(error)))?;
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, socket).await;
        Ok(Box::new(stream.map_err(Failure::Tls)?))
    }
}

/// Adds the certificates of a file.
fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let certificates: Result<Vec<_>, _> = certificates.collect();
    let certificates = certificates.map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err(String::from("there is no certificate in PEM"));
    }
    certificates.into_iter().try_for_each(|certificate| roots.add(certificate)).map_err(|error| error.to_string())
}
