//! TLS of the client: rustls with Mozilla's list of authorities, and those of a file.
//!
//! The list is part of the binary: a container from scratch has none, and systems keep theirs in different places.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_rustls::TlsConnector;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use smol::net::TcpStream;

use super::failure::Failure;
use super::stream::Stream;
use super::target::Target;

/// A WebSocket is an upgrade of HTTP/1.1.
const PROTOCOL: &[u8] = b"http/1.1";

/// The first second of 1970, when no certificate was valid yet.
const BEGIN_OF_TIME: UnixTime = UnixTime::since_unix_epoch(Duration::ZERO);

/// The last second of the year 9999, when every certificate has expired.
const END_OF_TIME: UnixTime = UnixTime::since_unix_epoch(Duration::from_secs(253_402_300_799));

/// What TLS needs: the authorities, and the ciphers.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
}

/// The certificates that a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// How many there are, the server's own included.
    pub count: usize,
    /// From when to when they are valid, in seconds since 1970. None: they lead to no known authority.
    pub validity: Option<Range<u64>>,
}

impl Tls {
    /// TLS that trusts Mozilla's authorities, and the certificates in this file.
    ///
    /// # Errors
    ///
    /// The error names the file.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = ca_file {
            add(&mut roots, path).map_err(|error| format!("cannot read certificates from {path:?}: {error}"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
        let inner = verifier.map_err(|error| error.to_string())?;
        let verifier = Arc::new(Verifier { inner, seen: Mutex::default() });
        let config = Self::config(provider, Arc::clone(&verifier)).map_err(|error| error.to_string())?;
        Ok(Self { config: Arc::new(config), verifier })
    }

    fn config(provider: Arc<CryptoProvider>, verifier: Arc<Verifier>) -> Result<ClientConfig, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(config)
    }

    /// The target's stream over a connected socket.
    pub async fn wrap(&self, target: &Target, socket: TcpStream) -> Result<Box<dyn Stream>, Failure> {
        if !target.is_secure {
            return Ok(Box::new(socket));
        }
        let name = ServerName::try_from(target.host.clone());
        let name = name.map_err(|error| Failure::Tls(io::Error::other(error)))?;
        let stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, socket).await;
        Ok(Box::new(stream.map_err(Failure::Tls)?))
    }

    /// The certificates of the last handshake, valid or not.
    pub fn certificates(&self) -> Option<Certificates> {
        self.verifier.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

/// webpki's verifier, with a note of what it has seen.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
    seen: Mutex<Option<Certificates>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verify = |time| self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time);
        // webpki tells the limits of the validity only of a certificate that is not valid.
        let limit = |time| match verify(time) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidYetContext { not_before: limit, .. }
                | CertificateError::ExpiredContext { not_after: limit, .. },
            )) => Some(limit.as_secs()),
            _ => None,
        };
        let validity = limit(BEGIN_OF_TIME).zip(limit(END_OF_TIME)).map(|(begin, end)| begin..end);
        let seen = Certificates { count: 1 + intermediates.len(), validity };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        verify(now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
