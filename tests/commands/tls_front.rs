//! A proxy that speaks TLS in front of a relay, with certificates of its own authority.

use std::fs;
use std::net::{SocketAddr, TcpListener as Listener};
use std::path::PathBuf;
use std::sync::Arc;

use futures_lite::AsyncWriteExt;
use futures_lite::io::{copy, split};
use futures_rustls::TlsAcceptor;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use smol::net::{TcpListener, TcpStream};

use crate::support::scratch;

/// A proxy that runs as long as its value lives.
pub(crate) struct TlsFront {
    pub(crate) address: SocketAddr,
    /// The certificate of the authority, in PEM.
    pub(crate) ca_file: PathBuf,
    _accepting: smol::Task<()>,
}

impl TlsFront {
    /// Starts a proxy for `upstream`, with a certificate for these names.
    pub(crate) fn start(upstream: SocketAddr, names: &[&str]) -> Self {
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
        let listener = Listener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ca_file = scratch(&format!("authority-{}.pem", address.port()));
        fs::write(&ca_file, authority.pem()).unwrap();

        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::try_from(listener).unwrap();
        let accepting = smol::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                smol::spawn(forward(acceptor.clone(), socket, upstream)).detach();
            }
        });
        Self { address, ca_file, _accepting: accepting }
    }
}

/// Copies both ways until both have ended. A client that does not trust the certificate ends it before.
async fn forward(acceptor: TlsAcceptor, socket: TcpStream, upstream: SocketAddr) {
    let Ok(client) = acceptor.accept(socket).await else { return };
    let relay = TcpStream::connect(upstream).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_relay, mut to_relay)) = (split(client), split(relay));
    let up = async {
        let _ = copy(&mut from_client, &mut to_relay).await;
        let _ = to_relay.close().await;
    };
    let down = async {
        let _ = copy(&mut from_relay, &mut to_client).await;
        let _ = to_client.close().await;
    };
    futures_lite::future::zip(up, down).await;
}
