//! What every runtime has to do. These tests run on the one that is compiled.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_lite::FutureExt;
use futures_lite::future::yield_now;
use socket2::SockRef;

use super::addresses;
use super::executor::Executor;
use super::port::Port;
use super::reactor::Reactor;
use super::spawn::Spawn;
use super::tcp::Tcp;
use super::timer::Timer;
use super::transport::{Listener, Transport};

const MOMENT: Duration = Duration::from_millis(20);

/// Both ends of a connection.
fn sockets() -> (Tcp, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    near.set_nonblocking(true).unwrap();
    (near.into(), listener.accept().unwrap().0)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let overdue = async {
        Timer::at(Instant::now() + Duration::from_secs(60)).await;
        panic!("it hangs");
    };
    Reactor::new().unwrap().block_on(future.or(overdue))
}

/// What a wait for an event of a socket polls.
type Event = fn(&Tcp, &mut Context<'_>) -> Poll<io::Result<()>>;

const READABLE: Event = Tcp::poll_readable;
const WRITABLE: Event = Tcp::poll_writable;
const ENDED: Event = Tcp::poll_ended;

async fn wait(socket: &Tcp, event: Event) {
    poll_fn(|cx| event(socket, cx)).await.unwrap();
}

async fn is_pending(socket: &Tcp, event: Event) -> bool {
    outlasts_a_moment(wait(socket, event)).await
}

/// Whether a wait that begins now outlasts some turns of the reactor.
pub(super) async fn outlasts_a_moment(wait: impl Future<Output = ()>) -> bool {
    let waits = async {
        wait.await;
        false
    };
    waits
        .or(async {
            Timer::at(Instant::now() + MOMENT).await;
            true
        })
        .await
}

/// Receives until there is nothing more, and then until `count` bytes have come.
async fn receive(socket: &Tcp, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        wait(socket, READABLE).await;
        let mut buffer = [0; 64];
        match socket.receive(&mut buffer) {
            Ok(count) => {
                bytes.extend(&buffer[..count]);
                if count == buffer.len() {
                    socket.mark_readable();
                }
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
    bytes
}

#[test]
fn a_socket_is_readable_when_bytes_have_come_and_not_before() {
    block_on(async {
        let (near, mut far) = sockets();
        for bytes in [&b"one"[..], b"two", &[7; 1000]] {
            far.write_all(bytes).unwrap();
            assert_eq!(receive(&near, bytes.len()).await, bytes);
            // A socket may be reported once too often, and a read then finds nothing.
            while !is_pending(&near, READABLE).await {
                assert_eq!(near.receive(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
            }
        }
    });
}

#[test]
fn a_marked_socket_is_reported_once_more() {
    block_on(async {
        let (near, mut far) = sockets();
        far.write_all(b"two words").unwrap();
        wait(&near, READABLE).await;
        while near.receive(&mut [0; 4]).is_err() {
            wait(&near, READABLE).await;
        }
        near.mark_readable();
        wait(&near, READABLE).await;
        assert_eq!(near.receive(&mut [0; 8]).unwrap(), 5);
    });
}

#[test]
fn a_full_socket_is_writable_when_the_other_side_has_read() {
    block_on(async {
        let (near, mut far) = sockets();
        let mut sent = 0;
        while let Ok(count) = near.send(&[1; 64 << 10], false) {
            sent += count;
        }
        assert!(is_pending(&near, WRITABLE).await);
        let reader = thread::spawn(move || {
            let mut bytes = vec![0; sent];
            far.read_exact(&mut bytes).unwrap();
            far
        });
        wait(&near, WRITABLE).await;
        assert!(near.send(&[1], false).is_ok_and(|count| count == 1));
        drop(reader.join().unwrap());
    });
}

#[test]
fn the_end_of_a_stream_is_readable_and_reported() {
    block_on(async {
        let (near, far) = sockets();
        assert!(is_pending(&near, ENDED).await);
        far.shutdown(Shutdown::Write).unwrap();
        wait(&near, ENDED).await;
        wait(&near, READABLE).await;
        assert_eq!(near.receive(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn the_end_behind_unread_bytes_is_reported_when_they_are_read() {
    block_on(async {
        let (near, mut far) = sockets();
        far.write_all(b"last words").unwrap();
        drop(far);
        let mut polls = 0;
        let ended = poll_fn(|cx| {
            polls += 1;
            near.poll_ended(cx)
        });
        let is_seen_at_once = ended.or(async {
            Timer::at(Instant::now() + MOMENT).await;
            Err(io::ErrorKind::TimedOut.into())
        });
        // Linux tells, and then nothing is left to try.
        assert_eq!(is_seen_at_once.await.is_ok(), cfg!(all(target_os = "linux", not(feature = "portable"))));
        assert!(polls < 10, "the wait spins: {polls} polls");
        assert_eq!(receive(&near, 10).await, b"last words");
        wait(&near, ENDED).await;
        assert_eq!(near.receive(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn a_reset_is_reported_and_then_received() {
    block_on(async {
        let (near, far) = sockets();
        assert!(is_pending(&near, ENDED).await);
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        wait(&near, ENDED).await;
        wait(&near, READABLE).await;
        assert_eq!(near.receive(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        wait(&near, READABLE).await;
        assert_eq!(near.receive(&mut [0; 8]).unwrap(), 0, "the system reports a reset once");
    });
}

#[test]
fn a_reset_behind_unread_bytes_is_reported_and_loses_none_of_them() {
    block_on(async {
        let (near, mut far) = sockets();
        far.write_all(b"last words").unwrap();
        // Another wait looks at the bytes.
        let _ = is_pending(&near, ENDED).await;
        SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        while is_pending(&near, ENDED).await {}
        assert_eq!(receive(&near, 10).await, b"last words");
        wait(&near, READABLE).await;
        assert_eq!(near.receive(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_socket_moves_to_another_thread_with_what_it_has() {
    let (near, mut far) = sockets();
    let near = block_on(async {
        assert_eq!(receive(&near, 0).await, b"");
        while !is_pending(&near, READABLE).await {
            assert_eq!(near.receive(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
        near.deregister()
    });
    let received = thread::spawn(move || block_on(async { receive(&near, 5).await }));
    far.write_all(b"after").unwrap();
    assert_eq!(received.join().unwrap(), b"after");
}

/// The next connection, and its remote address.
async fn next(port: &Port) -> (Tcp, IpAddr) {
    loop {
        match port.accept() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll_fn(|cx| port.poll_acceptable(cx)).await.unwrap();
            }
            accepted => return accepted.unwrap(),
        }
    }
}

#[test]
fn all_addresses_have_the_same_port_and_all_accept() {
    let addresses = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| address.parse::<SocketAddr>().unwrap());
    let port = Port::new(addresses::listen_on_all(&addresses, addresses::configure).unwrap()).unwrap();
    let local = port.local_addrs().unwrap();
    assert_eq!((local.len(), local[0].port()), (2, local[1].port()));
    block_on(async {
        for nth in [0, 1, 1, 1, 0, 0, 1] {
            let client = TcpStream::connect(local[nth]).unwrap();
            let (socket, peer) = next(&port).await;
            assert_eq!(peer, client.local_addr().unwrap().ip());
            (&client).write_all(b"hello").unwrap();
            assert_eq!(receive(&socket, 5).await, b"hello");
        }
        // A crowd on one address does not keep the other waiting.
        let crowd: Vec<_> = (0..9).map(|_| TcpStream::connect(local[0]).unwrap()).collect();
        let other = TcpStream::connect(local[1]).unwrap();
        let first_two = [next(&port).await.1, next(&port).await.1];
        assert!(first_two.contains(&other.local_addr().unwrap().ip()), "{first_two:?}");
        drop(crowd);
    });
}

/// As after a stop of the process: bytes have come, and then a deadline has passed.
#[test]
fn events_are_reported_before_a_timer() {
    // The portable runtime does not keep the order on an overloaded machine (docs/systems.md). Without the rule it never does.
    let attempts = if cfg!(all(target_os = "linux", not(feature = "portable"))) { 1 } else { 4 };
    let orders: Vec<_> = (0..attempts).map(|_| order_behind_a_stop()).collect();
    assert!(orders.contains(&["socket", "timer"]), "{orders:?}");
}

/// Which of the two is reported first.
fn order_behind_a_stop() -> [&'static str; 2] {
    let log = Rc::new(RefCell::new(Vec::new()));
    let (near, mut far) = sockets();
    let executor = Executor::default();
    let (timer_log, socket_log) = (Rc::clone(&log), Rc::clone(&log));
    executor.spawn(async move {
        let mut timer = pin!(Timer::at(Instant::now() + MOMENT));
        assert!(poll_fn(|cx| Poll::Ready(timer.as_mut().poll(cx))).await.is_pending());
        yield_now().await; // the other task waits now
        yield_now().await;
        far.write_all(b"in time").unwrap();
        thread::sleep(2 * MOMENT);
        timer.await;
        timer_log.borrow_mut().push("timer");
    });
    executor.spawn(async move {
        receive(&near, 7).await;
        socket_log.borrow_mut().push("socket");
    });
    block_on(executor.run(async {
        while log.borrow().len() < 2 {
            yield_now().await;
        }
    }));
    let order = log.borrow();
    [order[0], order[1]]
}

#[test]
fn timers_end_in_the_order_of_their_deadlines_and_never_early() {
    let (executor, ended) = (Executor::default(), Rc::new(RefCell::new(Vec::new())));
    let start = Instant::now();
    for number in [3, 1, 2] {
        let ended = Rc::clone(&ended);
        executor.spawn(async move {
            Timer::at(start + number * MOMENT).await;
            assert!(start.elapsed() >= number * MOMENT, "early");
            ended.borrow_mut().push(number);
        });
    }
    block_on(executor.run(async {
        while ended.borrow().len() < 3 {
            Timer::at(Instant::now() + MOMENT).await;
        }
    }));
    assert_eq!(ended.borrow()[..], [1, 2, 3]);
}

fn run(executor: &Executor, turns: usize) {
    futures_lite::future::block_on(executor.run(async move {
        for _ in 0..turns {
            yield_now().await;
        }
    }));
}

#[test]
fn busy_tasks_take_one_step_in_a_turn_and_none_starves() {
    let executor = Executor::default();
    let steps: Rc<RefCell<[Vec<u32>; 3]>> = Rc::default();
    for task in 0..3 {
        let (steps, turn) = (Rc::clone(&steps), executor.turn());
        executor.spawn(async move {
            loop {
                steps.borrow_mut()[task].push(turn.get());
                yield_now().await;
            }
        });
    }
    run(&executor, 20);
    for steps in &*steps.borrow() {
        assert!(steps.len() >= 20, "it starves: {steps:?}");
        assert!(steps.is_sorted_by(|one, next| one < next), "two steps in a turn: {steps:?}");
    }
}

#[test]
fn tasks_woken_by_a_task_run_without_another_event() {
    let executor = Executor::default();
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..4).map(|_| async_channel::bounded::<()>(1)).unzip();
    // Each task wakes the one that was spawned before it, and the first one wakes the executor's own future.
    for (sender, receiver) in senders.iter().cloned().zip(receivers.iter().skip(1).cloned()) {
        executor.spawn(async move {
            receiver.recv().await.unwrap();
            sender.try_send(()).unwrap();
        });
    }
    senders[3].try_send(()).unwrap();
    block_on(executor.run(async { receivers[0].recv().await.unwrap() }));
}

#[test]
fn all_tasks_of_a_share_are_woken_once() {
    let (executor, log) = (Executor::default(), Rc::new(RefCell::new(Vec::new())));
    for name in ["a", "b"] {
        let log = Rc::clone(&log);
        executor.spawn(poll_fn(move |_| {
            log.borrow_mut().push(name);
            Poll::Pending
        }));
    }
    run(&executor, 1);
    executor.wake(0, 1);
    executor.wake(0, 1);
    run(&executor, 2);
    assert_eq!(log.borrow()[..], ["a", "b", "a", "b"]);
    executor.wake(1, 2);
    run(&executor, 2);
    assert_eq!(log.borrow()[4..], ["b"]);
}

#[test]
fn a_panic_ends_only_its_task() {
    let (executor, log) = (Executor::default(), Rc::new(RefCell::new(Vec::new())));
    executor.spawn(async { panic!("a bug") });
    let noted = Rc::clone(&log);
    executor.spawn(async move {
        noted.borrow_mut().push("first");
        yield_now().await;
        noted.borrow_mut().push("again");
    });
    run(&executor, 3);
    assert_eq!(log.borrow()[..], ["first", "again"]);
    executor.wake(0, 1); // nothing is left that this could wake
    run(&executor, 1);
}

/// Counts how often the thread of an executor is woken.
#[derive(Default)]
struct WakeCount(AtomicUsize);

impl Wake for WakeCount {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn another_thread_can_wake_a_task_and_the_executor_with_it() {
    let (executor, count) = (Executor::default(), Arc::new(WakeCount::default()));
    let (sender, receiver) = async_channel::bounded::<()>(1);
    let done = Rc::new(Cell::new(false));
    let noted = Rc::clone(&done);
    executor.spawn(async move {
        receiver.recv().await.unwrap();
        noted.set(true);
    });
    let waker = Waker::from(Arc::clone(&count));
    let mut running = pin!(executor.run(pending()));
    let mut poll_until_idle = || {
        let mut seen = usize::MAX;
        while seen != count.0.load(SeqCst) {
            seen = count.0.load(SeqCst);
            assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        seen
    };
    let before = poll_until_idle();
    thread::spawn(move || sender.try_send(()).unwrap()).join().unwrap();
    assert!(count.0.load(SeqCst) > before, "the executor was not woken");
    poll_until_idle();
    assert!(done.get());
}

#[test]
fn tasks_are_dropped_with_the_executor() {
    let executor = Executor::default();
    let held = Rc::new(());
    for waits in [true, false] {
        let held = Rc::clone(&held);
        executor.spawn(async move {
            if waits {
                pending::<()>().await;
            }
            yield_now().await;
            drop(held);
        });
        run(&executor, 0);
    }
    // This one is ready, and its waker is also in a channel.
    let (sender, receiver) = async_channel::bounded::<()>(1);
    let also = Rc::clone(&held);
    executor.spawn(async move {
        let _ = receiver.recv().await;
        drop(also);
    });
    run(&executor, 1);
    sender.try_send(()).unwrap();
    drop(executor);
    assert_eq!(Rc::strong_count(&held), 1);
    let _ = sender.try_send(());
}

/// Such as by a connection to accept.
#[test]
fn an_executor_whose_own_future_was_woken_becomes_idle_again() {
    let (executor, count) = (Executor::default(), Arc::new(WakeCount::default()));
    let waker = Waker::from(Arc::clone(&count));
    let mut running = pin!(executor.run(pending()));
    let mut poll = || assert!(running.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    poll();
    waker.wake_by_ref();
    let mut polls = 0;
    loop {
        let seen = count.0.load(SeqCst);
        poll();
        polls += 1;
        if count.0.load(SeqCst) == seen {
            break;
        }
        assert!(polls < 10, "it spins");
    }
}
