//! A proxy between a client and the relay that buffers without bound.
//!
//! nginx, HAProxy and Caddy behave like this:
//!
//! - The proxy takes everything that either side sends at once, and forwards it at its own pace. The relay's send
//!   buffer is empty long before the client has received anything.
//! - A reset or a failure on one side resets the other side at once. The proxy drops everything that it holds.
//! - The end of a stream is passed on after everything before it. When both streams have ended, the proxy closes both
//!   connections.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::{AsyncRead, AsyncWrite};

use super::executor::Random;
use super::network::Socket;
use super::trace::trace;
use crate::runtime::clock::{Clock, Sleep};
use crate::runtime::transport::Transport;

/// The pace of one direction: after each pause, the proxy forwards at most this many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) bytes: usize,
    pub(super) pause: Duration,
}

impl Pace {
    /// The pace of a client's line.
    ///
    /// The slowest line is slightly faster than the 4 KiB/s that the relay has to allow for. It takes four minutes for
    /// the most that a peer sends.
    pub(super) fn of_a_line(random: &mut Random) -> Self {
        let rate = [5, 8, 32, 256][random.below(4)] << 10;
        // The pauses are short: a probed client has two seconds, and its reader may spend most of them on its own
        // pauses.
        let pause = Duration::from_millis(20 + random.below(80) as u64);
        Self { bytes: (rate * pause.as_millis() as usize / 1000).max(1), pause }
    }

    /// The pace of a direction that nothing slows down: all bytes, after at most 20 ms.
    pub(super) fn prompt(random: &mut Random) -> Self {
        Self { bytes: usize::MAX, pause: Duration::from_millis(random.below(20) as u64) }
    }

    /// The rate in bytes per second.
    pub(super) fn rate(self) -> usize {
        (self.bytes as f64 / self.pause.as_secs_f64()) as usize
    }
}

/// The state of one direction of a proxy, for the checks.
#[derive(Default)]
pub(super) struct Load {
    /// The number of bytes that the proxy holds.
    held: Cell<usize>,
    is_pausing: Cell<bool>,
    paused_for: Cell<Duration>,
}

impl Load {
    /// The number of bytes that the proxy holds.
    pub(super) fn held(&self) -> usize {
        self.held.get()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.get() == 0
    }

    /// Whether bytes wait for the end of a pause.
    pub(super) fn is_pausing(&self) -> bool {
        self.is_pausing.get()
    }

    /// The total delay that the proxy's pauses may have caused.
    pub(super) fn paused_for(&self) -> Duration {
        self.paused_for.get()
    }
}

/// One direction of a proxy.
struct Direction {
    from: Socket,
    to: Socket,
    pace: Pace,
    held: VecDeque<u8>,
    /// The number of bytes that may be sent before the next pause.
    allowed: usize,
    pause: Option<Sleep>,
    end_has_come: bool,
    load: Rc<Load>,
    clock: Arc<dyn Clock>,
}

impl Direction {
    fn new(from: &Socket, to: &Socket, pace: Pace, clock: &Arc<dyn Clock>) -> Self {
        Self {
            from: from.clone(),
            to: to.clone(),
            pace,
            held: VecDeque::new(),
            allowed: 0,
            pause: None,
            end_has_come: false,
            load: Rc::default(),
            clock: Arc::clone(clock),
        }
    }

    /// Ready when the end of the stream has been passed on.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let taken = self.poll_take(cx);
        let forwarded = self.poll_forward(cx);
        self.load.held.set(self.held.len());
        self.load.is_pausing.set(self.pause.is_some());
        taken?;
        ready!(forwarded)?;
        if !self.end_has_come {
            return Poll::Pending;
        }
        Poll::Ready(self.to.shut_down())
    }

    /// Takes everything from the source.
    ///
    /// The buffer needs no bound: each client of a world sends less than 1.5 MB.
    fn poll_take(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut bytes = [0; 16 * 1024];
        while !self.end_has_come {
            let Poll::Ready(count) = Pin::new(&mut self.from).poll_read(cx, &mut bytes) else { break };
            let count = count?;
            self.end_has_come = count == 0;
            self.held.extend(&bytes[..count]);
        }
        Ok(())
    }

    /// Ready when the proxy holds nothing for this direction.
    fn poll_forward(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            if self.allowed == 0 {
                let pause = self.pause.get_or_insert_with(|| {
                    self.load.paused_for.set(self.load.paused_for.get() + self.pace.pause);
                    self.clock.sleep_until(self.clock.now() + self.pace.pause)
                });
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
                self.allowed = self.pace.bytes;
            }
            let (front, _) = self.held.as_slices();
            let next = &front[..front.len().min(self.allowed)];
            let count = ready!(Pin::new(&mut self.to).poll_write(cx, next))?;
            self.held.drain(..count);
            self.allowed -= count;
        }
        self.allowed = 0; // later bytes have a pause of their own
        Poll::Ready(Ok(()))
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        self.load.held.set(0);
        self.load.is_pausing.set(false);
    }
}

/// A proxy: [up](Self::up) to the relay, and [down](Self::down) to the client.
pub(super) struct Proxy {
    number: usize,
    client: Socket,
    relay: Socket,
    up: Direction,
    down: Direction,
}

impl Proxy {
    /// Creates a proxy between two sockets, with one pace towards the relay and one towards the client.
    pub(super) fn new(
        number: usize,
        client: Socket,
        relay: Socket,
        [up, down]: [Pace; 2],
        clock: &Arc<dyn Clock>,
    ) -> Self {
        let up = Direction::new(&client, &relay, up, clock);
        let down = Direction::new(&relay, &client, down, clock);
        Self { number, client, relay, up, down }
    }

    /// The loads of both directions, up first.
    pub(super) fn loads(&self) -> [Rc<Load>; 2] {
        [Rc::clone(&self.up.load), Rc::clone(&self.down.load)]
    }

    /// Forwards until both directions have ended or one side fails.
    pub(super) async fn run(mut self) {
        if poll_fn(|cx| self.poll(cx)).await.is_err() {
            let lost = self.down.held.len();
            trace(|| format!("client {}: its proxy resets both sides and drops {lost} bytes", self.number));
            self.client.reset();
            self.relay.reset();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A reset takes precedence over unread bytes, and counts even after both streams have ended.
        for socket in [&self.client, &self.relay] {
            if socket.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        // Both directions are polled, because each registers its own wakers.
        match [self.up.poll(cx)?, self.down.poll(cx)?] {
            [Poll::Ready(()), Poll::Ready(())] => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::config::Config;
    use crate::simulation::actor::{Actor, message};
    use crate::simulation::network::connection;
    use crate::simulation::stage::Stage;

    const SECOND: Duration = Duration::from_secs(1);

    /// A proxy without a relay, which delivers 100 bytes per second, and the sockets of its two sides.
    fn stand_alone(stage: &mut Stage) -> [Actor; 2] {
        let (near, to_client, near_cable) = connection(0, ["near", "far"], 10_000, stage.random.split());
        let (to_relay, far, far_cable) = connection(0, ["near", "far"], 10_000, stage.random.split());
        for cable in [near_cable, far_cable] {
            cable.hold_steady();
            stage.cables_to_proxies.push(cable);
        }
        let paces = [Pace { bytes: usize::MAX, pause: Duration::ZERO }, Pace { bytes: 100, pause: SECOND }];
        let proxy = Proxy::new(0, to_client, to_relay, paces, &stage.shared_clock());
        stage.executor.spawn(("proxy of client", 0), proxy.run());
        [Actor(near), Actor(far)]
    }

    #[test]
    fn the_end_of_a_stream_follows_all_held_bytes() {
        let mut stage = Stage::new(Random::new(0), Config::default());
        let [mut near, mut far] = stand_alone(&mut stage);
        far.send(&[7; 1000]);
        drop(far);
        stage.pass(5 * SECOND);
        assert_eq!(near.receive().len(), 500);
        stage.pass(SECOND * 6);
        assert_eq!(near.receive().len(), 500);
        assert_eq!(near.0.receive(&mut [0]).ok(), Some(0), "the end of the stream");
        drop(near);
        stage.stop();
        stage.check_empty();
    }

    #[test]
    fn a_byte_for_a_closed_side_drops_all_held_bytes() {
        let mut stage = Stage::new(Random::new(0), Config::default());
        let [mut near, mut far] = stand_alone(&mut stage);
        far.send(&[7; 1000]);
        drop(far);
        stage.pass(5 * SECOND);
        near.send(&message(b"got it"));
        stage.pass(10 * SECOND);
        assert_eq!(near.receive().len(), 500);
        assert!(!near.try_send(b"more"), "the near side was not reset");
        drop(near);
        stage.stop();
        stage.check_empty();
    }
}
