//! What every runtime has to do. These tests run on the one that is compiled.

use std::net::{SocketAddr, TcpStream};

use super::addresses;
use super::port::Port;
use super::reactor::Reactor;
use super::transport::Listener;

#[test]
fn all_addresses_have_the_same_port_and_all_accept() {
    let addresses = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| address.parse::<SocketAddr>().unwrap());
    let port = Port::new(addresses::listen_on_all(&addresses, addresses::configure).unwrap());
    let local = port.local_addrs().unwrap();
    assert_eq!((local.len(), local[0].port()), (2, local[1].port()));
    Reactor::new().unwrap().block_on(async {
        for nth in [0, 1, 1, 1, 0, 0, 1] {
            let client = TcpStream::connect(local[nth]).unwrap();
            let (_, peer) = port.accept().await.unwrap();
            assert_eq!(peer, client.local_addr().unwrap().ip());
        }
        // A crowd on one address does not keep the other waiting.
        let crowd: Vec<_> = (0..9).map(|_| TcpStream::connect(local[0]).unwrap()).collect();
        let other = TcpStream::connect(local[1]).unwrap();
        let first_two = [port.accept().await.unwrap().1, port.accept().await.unwrap().1];
        assert!(first_two.contains(&other.local_addr().unwrap().ip()), "{first_two:?}");
        drop(crowd);
    });
}
