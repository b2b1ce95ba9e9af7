//! One task for each connection: its socket on one side, its end of a link on the other.
//!
//! The two directions, [`Inbound`] and [`Outbound`], advance independently of each other: a loop that alternates them
//! would stand still when both clients stream. What they share is decided here: how a connection ends.
//!
//! | what happens                          | to the peer, after all that came before | to this client            |
//! |---------------------------------------|-----------------------------------------|---------------------------|
//! | the client sends a close frame        | 1000 `peer disconnected`                | its code back             |
//! | its stream ends between two messages  | 1000 `peer disconnected`                |                           |
//! | ... within a message, or is reset     | 1011 `peer connection lost`             |                           |
//! | it violates the protocol              | 1011 `peer connection lost`             | the violation's code      |
//! | the relay stops                       | 1001 `relay stopping`                   | (its peer's end says so)  |
//! | the link ends with a farewell         |                                         | the farewell's code       |
//!
//! After a close frame is queued for the client, the connection lasts until the client has closed too and its stream
//! has ended, but no longer than [`CLOSE_TIMEOUT`]. If nothing can be written to it any more, what it sent before is
//! still read, as fast as its peer takes it, and the end of its stream says how it departed.

mod inbound;
mod outbound;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::link::Farewell;
use crate::pool::Pool;
use crate::reframe::Reframer;
use crate::seats::Claim;
use crate::stats::Stats;
use crate::stop::{Stop, StopOnDrop};
use crate::tick::Tick;
use crate::transport::{Clock, Sleep, Transport};

use inbound::Inbound;
use outbound::Outbound;

/// How long a close frame may remain unanswered, and a closed connection open. Long enough for a slow link, short
/// enough that a vanished client does not matter.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a connection shares with others.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) pool: Rc<Pool>,
    pub(crate) tick: Rc<Tick>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stats: Arc<Stats>,
    /// Tells it to close.
    pub(crate) stop: Stop,
    /// Tells by its end that the connection has ended.
    pub(crate) alive: StopOnDrop,
}

/// A connection after its opening handshake.
pub(crate) struct Connection<T> {
    socket: T,
    inbound: Inbound,
    outbound: Outbound,
    stop: Stop,
    stopping: bool,
    /// When to give up on the closing handshake; set when it begins.
    close_timeout: Option<Sleep>,
    clock: Arc<dyn Clock>,
    shut_down: bool,
    _alive: StopOnDrop,
}

impl<T: Transport> Connection<T> {
    /// A connection on `socket` that has claimed its seat. `read_ahead` is what the client sent right behind its
    /// opening handshake.
    pub(crate) fn new(
        socket: T,
        read_ahead: &[u8],
        claim: Claim,
        reframer: Reframer,
        surroundings: Surroundings,
    ) -> Self {
        let Claim { seat, end, .. } = claim;
        let inbound = Inbound::new(read_ahead, seat, end.outgoing, reframer, &surroundings);
        let Surroundings { pool, stop, alive, clock, .. } = surroundings;
        Self {
            socket,
            inbound,
            outbound: Outbound::new(end.incoming, pool),
            stop,
            stopping: false,
            close_timeout: None,
            clock,
            shut_down: false,
            _alive: alive,
        }
    }
}

/// Forwards until both the client and the link have ended. It is a future by itself, as an async function would take
/// up its size twice.
impl<T: Transport> Future for Connection<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if !this.stopping && this.stop.poll(cx).is_ready() {
            this.stopping = true;
            this.inbound.leave(Farewell::Stopping);
        }
        loop {
            if this.inbound.poll(cx, &this.socket, &mut this.outbound).is_ready() {
                return Poll::Ready(()); // nobody is there to be told anything
            }
            let was_closing = this.outbound.is_closing();
            this.outbound.poll(cx, &this.socket);
            if was_closing || !this.outbound.is_closing() || this.outbound.is_broken() {
                break;
            }
            // The link has ended. What the client still sends has nowhere to go, but has to be read for its answer.
            this.inbound.leave(Farewell::Left);
        }
        if this.outbound.is_closing() && !this.outbound.is_broken() {
            let timeout =
                this.close_timeout.get_or_insert_with(|| this.clock.sleep_until(this.clock.now() + CLOSE_TIMEOUT));
            if timeout.as_mut().poll(cx).is_ready() {
                this.inbound.leave(Farewell::Lost);
                return Poll::Ready(());
            }
            if this.outbound.is_flushed() && this.inbound.has_closed() && !this.shut_down {
                // The server is to close first (RFC 6455, section 7.1.1). An error says that the client was faster.
                this.shut_down = true;
                let _ = this.socket.shut_down();
            }
        }
        Poll::Pending
    }
}
