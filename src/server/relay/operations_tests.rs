//! The operations listener of a relay with workers that are busy for ever.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use super::*;
use crate::runtime::tcp::Tcp;

/// A listener that blocks the thread of its worker, until the sender is dropped.
struct Blocks {
    port: Port,
    until: Arc<Mutex<Receiver<()>>>,
    blocked: Sender<()>,
}

impl Listener for Blocks {
    type Socket = Tcp;

    fn share(&self) -> Self {
        Self { port: self.port.share(), until: Arc::clone(&self.until), blocked: self.blocked.clone() }
    }

    fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.port.poll_acceptable(cx)
    }

    fn accept(&self) -> io::Result<(Tcp, IpAddr)> {
        let _ = self.blocked.send(());
        let _ = self.until.lock().unwrap_or_else(PoisonError::into_inner).recv();
        self.port.accept()
    }
}

fn get(relay: &RelayHandle, path: &str) -> String {
    let mut socket = TcpStream::connect(relay.ops_addr().unwrap()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(socket, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).unwrap();
    response
}

#[test]
fn operations_listener_answers_while_every_worker_is_busy() {
    let port = Port::listen("127.0.0.1", 0, Config::default().sockets()).unwrap();
    let addresses = port.local_addrs().unwrap();
    let ((release, until), (blocked, is_blocked)) = (channel(), channel());
    let listener = Blocks { port, until: Arc::new(Mutex::new(until)), blocked };
    let ops_address = Some("127.0.0.1:0".parse().unwrap());
    let config = Config { workers: NonZeroUsize::new(2), ops_address, ..Config::default() };
    let relay = start(config, listener, addresses, Arc::new(SystemClock)).unwrap();
    // Both threads are in `accept`.
    (0..2).for_each(|_| is_blocked.recv_timeout(Duration::from_secs(60)).unwrap());
    assert!(get(&relay, "/livez").ends_with("\r\n\r\nalive\n"));
    assert!(get(&relay, "/metrics").contains("\narc_relay_workers 2\n"));
    assert!(get(&relay, "/info").contains("\"workers\":2"));
    drop(release);
    let address = relay.ops_addr().unwrap();
    smol::block_on(relay.stop());
    assert!(TcpStream::connect(address).is_err(), "the operations listener has outlived the relay");
}
