//! The operations listener: a thread of its own, which answers while every worker is busy.
//!
//! It is an HTTP server of one request for each connection. All of a connection has a deadline, and connections are
//! bounded: the oldest is closed to admit a new one. So strangers that are silent keep no scraper out.
//!
//! It answers until the last worker has ended, also while the relay drains.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::yield_now;
use futures_lite::{AsyncWriteExt, FutureExt};

use super::history::INTERVAL;
use super::overview::Overview;
use super::site::Site;
use crate::http::answer::Form;
use crate::http::head::{self, Head, field_room};
use crate::http::opening::linger;
use crate::limits::slots::{Slot, Slots};
use crate::runtime::addresses::SocketConfig;
use crate::runtime::clock::Clock;
use crate::runtime::executor::Executor;
use crate::runtime::io_error::is_of_connection;
use crate::runtime::reactor::Reactor;
use crate::runtime::spawn::Spawn;
use crate::runtime::stop::Stop;
use crate::runtime::stream::Stream;
use crate::runtime::transport::{Listener, Transport};

/// The maximum number of connections. A scraper, an orchestrator and some browsers have one each.
const CONNECTIONS: usize = 64;

/// The files of the listener: its connections, its sockets and those of its reactor.
pub(crate) const FILES: usize = CONNECTIONS + 8;

/// How long a connection may take, from accept to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// The pause after an accept that failed for want of file descriptors or memory.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// The options of the listener's sockets.
pub(crate) const SOCKETS: SocketConfig = SocketConfig { write_timeout: DEADLINE, max_segment: 0 };

/// The operations listener before it runs.
#[derive(Debug)]
pub(crate) struct Operations<L> {
    pub(crate) listener: L,
    pub(crate) overview: Overview,
}

impl<L: Listener> Operations<L> {
    /// Answers on this thread, until the signal.
    pub(crate) fn run(self, reactor: &Arc<Reactor>, mut ended: Stop) {
        let executor = Executor::default();
        let until = async {
            // The signal comes first: nothing else ends.
            ended.wait().or(self.serve(&executor)).await;
        };
        reactor.block_on(executor.run(until));
    }

    /// Accepts connections and takes samples. It never ends.
    async fn serve(self, executor: &impl Spawn) {
        let Self { listener, overview } = self;
        let clock = Arc::clone(&overview.handshakes.clock);
        let (site, slots) = (Rc::new(Site::new(overview)), Arc::new(Slots::new(CONNECTIONS)));
        let accept = async {
            loop {
                match listener.accept() {
                    Ok((socket, _)) => {
                        let slot = slots.take(0, clock.now());
                        executor.spawn(serve_one(socket, slot, Rc::clone(&site), Arc::clone(&clock)));
                        // One at a time: each answer is made before the next connection is accepted.
                        yield_now().await;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if poll_fn(|cx| listener.poll_acceptable(cx)).await.is_err() {
                            clock.sleep_until(clock.now() + ACCEPT_BACKOFF).await;
                        }
                    }
                    Err(error) if is_of_connection(&error) => yield_now().await,
                    Err(_) => clock.sleep_until(clock.now() + ACCEPT_BACKOFF).await,
                }
            }
        };
        let sample = async {
            loop {
                site.sample();
                clock.sleep_until(clock.now() + INTERVAL).await;
            }
        };
        accept.or(sample).await;
    }
}

/// Answers the request of one connection, until its deadline, or until its slot is needed.
async fn serve_one<T: Transport>(socket: T, slot: Slot, site: Rc<Site>, clock: Arc<dyn Clock>) {
    let exchange = async {
        let mut stream = Stream(socket.clone());
        // An error is the stream's, and there is nothing to be told.
        let Ok(head) = head::read(&mut stream, Vec::new()).await else { return false };
        let bytes = match head {
            Ok(head) => answer(&head, &site),
            Err(rejected) => rejected.into_answer().map(|answer| answer.encode(Form::UNKNOWN)),
        };
        match bytes {
            Some(bytes) => stream.write_all(&bytes).await.is_ok(),
            None => false,
        }
    };
    let overdue = async {
        clock.sleep_until(clock.now() + DEADLINE).await;
        false
    };
    let crowded = async {
        slot.revoked().await;
        false
    };
    if exchange.or(overdue).or(crowded).await {
        linger(socket, &*clock).or(slot.revoked()).await;
    }
}

/// The bytes of the answer to a request.
fn answer(head: &Head, site: &Site) -> Option<Vec<u8>> {
    let mut room = field_room();
    match head.parse(&mut room) {
        Ok(request) => {
            let form = Form { version: request.version, is_bare: request.method == "HEAD" };
            Some(site.answer(&request).encode(form))
        }
        Err(rejected) => rejected.into_answer().map(|answer| answer.encode(Form::UNKNOWN)),
    }
}
