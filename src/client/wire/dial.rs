//! From a target to a stream: addresses of a name, TCP, TLS.

use std::io;
use std::net::SocketAddr;
#[cfg(not(feature = "client"))]
use std::path::Path;
use std::time::Duration;

use futures_lite::FutureExt;
use smol::Timer;
use smol::net::{TcpStream, resolve};

use super::failure::Failure;
use super::stream::Stream;
use super::target::Target;

/// How long one address may take to accept while there are others.
const PATIENCE: Duration = Duration::from_secs(3);

/// The most addresses of a name that are tried.
const MOST_ADDRESSES: usize = 8;

/// Connects, with TLS if the target wants it.
pub async fn open(target: &Target, tls: &Tls) -> Result<Box<dyn Stream>, Failure> {
    let socket = connect(&addresses(target).await?).await?;
    tls.wrap(target, socket).await
}

/// Finds the addresses of the target's host.
pub async fn addresses(target: &Target) -> Result<Vec<SocketAddr>, Failure> {
    let lookup = |error| Failure::Lookup { host: target.host.clone(), error };
    let mut addresses = resolve((&*target.host, target.port)).await.map_err(lookup)?;
    addresses.truncate(MOST_ADDRESSES);
    if addresses.is_empty() { Err(lookup(io::Error::other("there is no address"))) } else { Ok(addresses) }
}

/// Connects to the first address that accepts.
async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, Failure> {
    let mut failure = Failure::Timeout;
    for (left, address) in addresses.iter().enumerate().map(|(nth, address)| (addresses.len() - nth - 1, address)) {
        let attempt = connect_to(*address);
        // The last one has as long as the caller gives.
        let attempted = if left == 0 { attempt.await } else { within(PATIENCE, attempt).await };
        match attempted {
            Ok(socket) => return Ok(socket),
            Err(failed) => failure = failed,
        }
    }
    Err(failure)
}

/// Connects to an address.
pub async fn connect_to(address: SocketAddr) -> Result<TcpStream, Failure> {
    let socket = TcpStream::connect(address).await.map_err(|error| Failure::Connect { address, error })?;
    // Small messages are not to wait for others. A failure costs time only.
    let _ = socket.set_nodelay(true);
    Ok(socket)
}

/// The result of a future, or [`Failure::Timeout`] if it takes longer.
pub async fn within<T>(bound: Duration, future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let timeout = async {
        Timer::after(bound).await;
        Err(Failure::Timeout)
    };
    future.or(timeout).await
}

/// TLS, in a build that has none.
#[derive(Debug)]
#[cfg(not(feature = "client"))]
pub struct Tls;

#[cfg(not(feature = "client"))]
impl Tls {
    pub fn new(_: Option<&Path>) -> Result<Self, String> {
        Ok(Self)
    }

    pub async fn wrap(&self, target: &Target, socket: TcpStream) -> Result<Box<dyn Stream>, Failure> {
        if target.is_secure { Err(Failure::NoTls) } else { Ok(Box::new(socket)) }
    }
}

#[cfg(feature = "client")]
pub use super::tls::Tls;
