//! What every runtime has to do. These tests run on the one that is compiled.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};

use super::addresses;
use super::port::Port;
use super::reactor::Reactor;
use super::transport::Listener;

/// The remote address of the next connection.
async fn next(port: &Port) -> IpAddr {
    loop {
        match port.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| port.poll_acceptable(cx)).await.unwrap();
            }
            accepted => return accepted.unwrap().1,
        }
    }
}

#[test]
fn all_addresses_have_the_same_port_and_all_accept() {
    let addresses = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| address.parse::<SocketAddr>().unwrap());
    let port = Port::new(addresses::listen_on_all(&addresses, addresses::configure).unwrap()).unwrap();
    let local = port.local_addrs().unwrap();
    assert_eq!((local.len(), local[0].port()), (2, local[1].port()));
    Reactor::new().unwrap().block_on(async {
        for nth in [0, 1, 1, 1, 0, 0, 1] {
            let client = TcpStream::connect(local[nth]).unwrap();
            assert_eq!(next(&port).await, client.local_addr().unwrap().ip());
        }
        // A crowd on one address does not keep the other waiting.
        let crowd: Vec<_> = (0..9).map(|_| TcpStream::connect(local[0]).unwrap()).collect();
        let other = TcpStream::connect(local[1]).unwrap();
        let first_two = [next(&port).await, next(&port).await];
        assert!(first_two.contains(&other.local_addr().unwrap().ip()), "{first_two:?}");
        drop(crowd);
    });
}
