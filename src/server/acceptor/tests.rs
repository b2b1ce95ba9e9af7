//! Accepts that fail, and workers that are busy.

use std::cell::Cell;
use std::future::Future;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use rustix::io::Errno;

use super::*;
use crate::limits::capacity::INBOX;
use crate::limits::resources::Resources;
use crate::runtime::clock::{Clock, Sleep, SystemClock};
use crate::runtime::port::Port;
use crate::runtime::reactor::Reactor;
use crate::runtime::tcp::Tcp;
use crate::server::config::Config;
use crate::server::relay::Parts;

/// The system's clock, which counts the sleeps.
#[derive(Debug, Default)]
struct CountingClock(AtomicUsize);

impl Clock for CountingClock {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn sleep_until(&self, deadline: Instant) -> Sleep {
        self.0.fetch_add(1, Relaxed);
        SystemClock.sleep_until(deadline)
    }
}

/// A port at which the first accepts fail.
struct Failing {
    port: Port,
    errors: Vec<Errno>,
    accepts: Cell<usize>,
}

impl Listener for Failing {
    type Socket = Tcp;

    async fn accept(&self) -> io::Result<(Tcp, IpAddr)> {
        let nth = self.accepts.replace(self.accepts.get() + 1);
        match self.errors.get(nth) {
            Some(&error) => Err(error.into()),
            None => self.port.accept().await,
        }
    }
}

fn port() -> (Port, SocketAddr) {
    let port = Port::listen("127.0.0.1", 0, Duration::from_secs(30)).unwrap();
    let address = port.local_addrs().unwrap()[0];
    (port, address)
}

fn parts<L: Listener>(listener: L, workers: usize, clock: Arc<dyn Clock>) -> Parts<L> {
    let config = Config { workers: NonZeroUsize::new(workers).unwrap(), ..Config::default() };
    Parts::new(&config, listener, clock, Resources::AMPLE)
}

/// Runs an acceptor beside a future.
fn run_beside<L: Listener>(acceptor: Acceptor<L>, future: impl Future<Output = ()>) {
    let patience = SystemClock.sleep_until(Instant::now() + Duration::from_secs(60));
    Reactor::new().unwrap().block_on(future.or(acceptor.run()).or(async {
        patience.await;
        panic!("it hangs");
    }));
}

#[test]
fn full_inbox_sends_connections_to_workers_with_room() {
    const CONNECTIONS: usize = 4 * INBOX;
    let (listener, address) = port();
    let Parts { request_stop: _running, acceptor, workers, .. } = parts(listener, 3, Arc::new(SystemClock));
    let _clients: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
    // Two workers take nothing.
    run_beside(acceptor, async {
        for _ in 0..CONNECTIONS - 2 * INBOX {
            workers[1].inbox.recv().await.unwrap();
            workers[1].relay.room.tell();
        }
    });
    assert_eq!([0, 2].map(|idle: usize| workers[idle].inbox.len()), [INBOX; 2]);
}

#[test]
fn error_of_one_connection_does_not_delay_the_next() {
    let errors = [Errno::CONNABORTED, Errno::PROTO, Errno::NETDOWN, Errno::HOSTUNREACH];
    let (port, address) = port();
    let clock = Arc::new(CountingClock::default());
    let failing = Failing { port, errors: errors.repeat(100), accepts: Cell::new(0) };
    let Parts { request_stop: _running, acceptor, workers, .. } =
        parts(failing, 1, Arc::<CountingClock>::clone(&clock));
    let _client = TcpStream::connect(address).unwrap();
    run_beside(acceptor, async {
        workers[0].inbox.recv().await.unwrap();
    });
    assert_eq!(clock.0.load(Relaxed), 0, "there was a pause");
    assert_eq!(workers[0].relay.handshakes.telemetry.counters(Default::default()).accept_errors, 400);
}

#[test]
fn want_of_a_resource_or_an_unknown_error_is_followed_by_a_pause() {
    let errors = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL];
    let (port, address) = port();
    let clock = Arc::new(CountingClock::default());
    let failing = Failing { port, errors: errors.to_vec(), accepts: Cell::new(0) };
    let Parts { request_stop: _running, acceptor, workers, .. } =
        parts(failing, 1, Arc::<CountingClock>::clone(&clock));
    let _client = TcpStream::connect(address).unwrap();
    run_beside(acceptor, async {
        workers[0].inbox.recv().await.unwrap();
    });
    assert_eq!(clock.0.load(Relaxed), errors.len());
}
