//! Accepts that fail, workers that are busy, and the queue at a stop.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::{Future, pending};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::task::Context;
use std::thread;
use std::time::Instant;

use rustix::io::Errno;

use super::*;
use crate::limits::resources::Resources;
use crate::runtime::clock::{Clock, Sleep, SystemClock};
use crate::runtime::port::Port;
use crate::runtime::reactor::Reactor;
use crate::runtime::stop::{StopOnDrop, stop};
use crate::runtime::tcp::Tcp;
use crate::server::config::Config;
use crate::server::relay::Parts;

const PATIENCE: Duration = Duration::from_secs(60);

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

    fn since_epoch(&self) -> Duration {
        SystemClock.since_epoch()
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

    fn share(&self) -> Self {
        unreachable!("it is for one worker");
    }

    fn poll_acceptable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.port.poll_acceptable(cx)
    }

    fn accept(&self) -> io::Result<(Tcp, IpAddr)> {
        let nth = self.accepts.replace(self.accepts.get() + 1);
        match self.errors.get(nth) {
            Some(&error) => Err(error.into()),
            None => self.port.accept(),
        }
    }
}

fn port() -> (Port, SocketAddr) {
    let port = Port::listen("127.0.0.1", 0, Config::default().sockets()).unwrap();
    let address = port.local_addrs().unwrap()[0];
    (port, address)
}

fn context(port: &Port, clock: Arc<dyn Clock>) -> Arc<RelayContext<Tcp>> {
    let config = Config { workers: NonZeroUsize::new(4), ..Config::default() };
    Parts::new(&config, port, clock, Resources::AMPLE).supervisor.relay
}

fn run(future: impl Future<Output = ()>) {
    let overdue = async {
        SystemClock.sleep_until(Instant::now() + PATIENCE).await;
        panic!("it hangs");
    };
    Reactor::new().unwrap().block_on(future.or(overdue));
}

/// Accepts one connection behind these errors.
///
/// Returns the number of sleeps, and of errors that were counted.
fn accept_behind(errors: &[Errno]) -> (usize, u64) {
    let (port, address) = port();
    let clock = Arc::new(CountingClock::default());
    let relay = context(&port, Arc::<CountingClock>::clone(&clock));
    let failing = Failing { port, errors: errors.to_vec(), accepts: Cell::new(0) };
    let _client = TcpStream::connect(address).unwrap();
    let (stop, accepted) = (StopFlag::default(), Cell::new(0));
    run(accept(failing, &relay, &relay.handshakes.telemetry.add_worker(), &stop, |_, _| {
        accepted.set(accepted.get() + 1);
        stop.set();
    }));
    assert_eq!(accepted.get(), 1);
    (clock.0.load(Relaxed), relay.handshakes.telemetry.counters(Default::default()).accept_errors)
}

#[test]
fn error_of_one_connection_does_not_delay_the_next() {
    let errors = [Errno::CONNABORTED, Errno::PROTO, Errno::NETDOWN, Errno::HOSTUNREACH];
    assert_eq!(accept_behind(&errors.repeat(100)), (0, 400));
}

#[test]
fn want_of_a_resource_or_an_unknown_error_is_followed_by_a_pause() {
    let errors = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL];
    assert_eq!(accept_behind(&errors), (errors.len(), 5));
}

#[test]
fn queue_is_empty_before_the_listener_is_closed() {
    let (port, address) = port();
    let relay = context(&port, Arc::new(SystemClock));
    let clients: Vec<_> = (0..3 * MOST_IN_A_TURN).map(|_| TcpStream::connect(address).unwrap()).collect();
    let (stop, accepted) = (StopFlag::default(), Cell::new(0));
    stop.set();
    run(accept(port, &relay, &relay.handshakes.telemetry.add_worker(), &stop, |_, _| accepted.set(accepted.get() + 1)));
    assert_eq!(accepted.get(), clients.len());
    assert!(TcpStream::connect(address).is_err(), "the listener is open");
}

#[test]
fn inherited_queue_is_left_to_the_next_relay() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let inherited = vec![listener.try_clone().unwrap()];
    let port = Port::inherit(inherited, Config::default().sockets()).unwrap();
    let relay = context(&port, Arc::new(SystemClock));
    let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stop = StopFlag::default();
    stop.set();
    let begin = |_, _| panic!("it is accepted");
    run(accept(port, &relay, &relay.handshakes.telemetry.add_worker(), &stop, begin));
    listener.accept().unwrap();
}

#[test]
fn want_of_files_at_a_stop_ends_the_accepting() {
    let (port, address) = port();
    let relay = context(&port, Arc::new(SystemClock));
    let failing = Failing { port, errors: vec![Errno::MFILE; 10_000], accepts: Cell::new(0) };
    let _client = TcpStream::connect(address).unwrap();
    let (stop, turns) = (StopFlag::default(), Cell::new(0));
    stop.set();
    let telemetry = relay.handshakes.telemetry.add_worker();
    let others = async {
        loop {
            turns.set(turns.get() + 1);
            yield_now().await;
        }
    };
    run(others.or(accept(failing, &relay, &telemetry, &stop, |_, _| {})));
    let errors = relay.handshakes.telemetry.counters(Default::default()).accept_errors;
    assert_eq!((errors, turns.get()), (64, 64 + 1), "other tasks have a turn behind each");
}

#[test]
fn other_tasks_run_between_many_connections() {
    let (port, address) = port();
    let relay = context(&port, Arc::new(SystemClock));
    let _clients: Vec<_> = (0..3 * MOST_IN_A_TURN).map(|_| TcpStream::connect(address).unwrap()).collect();
    let (stop, accepted, turns) = (StopFlag::default(), Cell::new(0), RefCell::new(vec![]));
    let others = async {
        while accepted.get() < 3 * MOST_IN_A_TURN {
            turns.borrow_mut().push(accepted.get());
            yield_now().await;
        }
    };
    run(others.or(accept(port, &relay, &relay.handshakes.telemetry.add_worker(), &stop, |_, _| {
        accepted.set(accepted.get() + 1);
    })));
    assert_eq!(*turns.borrow(), [0, MOST_IN_A_TURN, 2 * MOST_IN_A_TURN]);
}

/// Accepts on threads, each with a reactor of its own. They end when the signal is dropped.
///
/// `begin` gets the number of the thread and the address of the client.
fn accept_on_threads<F>(port: &Port, threads: usize, begin: F) -> (StopOnDrop, Vec<thread::JoinHandle<()>>)
where
    F: Fn(usize, SocketAddr) + Send + Clone + 'static,
{
    let (signal, stopped) = stop();
    let relay = context(port, Arc::new(SystemClock));
    let start = |number| {
        let (port, relay, mut stopped, begin) = (port.share(), Arc::clone(&relay), stopped.clone(), begin.clone());
        thread::spawn(move || {
            let flag = Rc::new(StopFlag::default());
            let stop = async {
                stopped.wait().await;
                flag.set();
                pending::<()>().await;
            };
            // Only the loopback's ports tell the clients apart.
            run(stop.or(accept(port, &relay, &relay.handshakes.telemetry.add_worker(), &flag, |socket, _| {
                begin(number, socket.peer());
            })));
        })
    };
    (signal, (0..threads).map(start).collect())
}

#[test]
fn crowd_is_accepted_by_four_workers_and_each_client_once() {
    const CLIENTS: usize = 600;
    let (port, address) = port();
    let (begins, begun) = mpsc::channel();
    let (signal, threads) = accept_on_threads(&port, 4, move |_, client| begins.send(client).unwrap());
    let crowds = [(); 4].map(|()| {
        thread::spawn(move || (0..CLIENTS / 4).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>())
    });
    let clients: Vec<_> = crowds.into_iter().flat_map(|crowd| crowd.join().unwrap()).collect();
    let accepted: Vec<_> = clients.iter().map(|_| begun.recv_timeout(PATIENCE).unwrap()).collect();
    let expected: BTreeSet<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    assert_eq!(accepted.into_iter().collect::<BTreeSet<_>>(), expected);
    drop((signal, port));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(TcpStream::connect(address).is_err(), "the listener is open");
    assert!(begun.try_recv().is_err(), "a client was accepted twice");
}

/// With a queue for each worker (`SO_REUSEPORT`), half of the clients would wait.
#[test]
fn busy_worker_strands_no_connection() {
    let (port, address) = port();
    let (begins, begun) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let (is_first, released) = (Arc::new(AtomicBool::new(true)), Arc::new(std::sync::Mutex::new(released)));
    let (signal, threads) = accept_on_threads(&port, 2, move |number, _| {
        // Before the send, because the test connects others behind it, and the other worker may be faster.
        let is_first = is_first.swap(false, Relaxed);
        begins.send(number).unwrap();
        if is_first {
            // The worker of the first client does nothing else from here on.
            let _ = released.lock().unwrap().recv();
        }
    });
    let _first = TcpStream::connect(address).unwrap();
    let busy = begun.recv_timeout(PATIENCE).unwrap();
    let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
    for _ in &crowd {
        assert_ne!(begun.recv_timeout(PATIENCE).expect("a client is stranded"), busy);
    }
    drop((release, signal));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
