//! A proxy between a client and the relay: it buffers, forwards at its own pace, and passes on ends and resets.
//!
//! nginx, HAProxy and Caddy behave like this. The proxy takes whatever either side sends at once, so the relay's socket
//! is empty long before the client has anything. A reset or a failure on one side resets the other side at once, and what
//! the proxy holds is lost. The end of a stream is passed on behind what came before it. When both streams have ended,
//! both connections are closed.

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

/// How fast one direction is forwarded: after each pause, up to so many bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) bytes: usize,
    pub(super) pause: Duration,
}

impl Pace {
    /// As a client's line is. The slowest is a little faster than the 4 KiB/s that the relay has to allow for, and takes four
    /// minutes for the most that a peer sends.
    pub(super) fn of_a_line(random: &mut Random) -> Self {
        let rate = [5, 8, 32, 256][random.below(4)] << 10;
        // Short, as a client that is asked has two seconds, most of which its reader may spend on pauses.
        let pause = Duration::from_millis(20 + random.below(80) as u64);
        Self { bytes: (rate * pause.as_millis() as usize / 1000).max(1), pause }
    }

    /// As a proxy passes on what it has no cause to hold: all of it, soon.
    pub(super) fn prompt(random: &mut Random) -> Self {
        Self { bytes: usize::MAX, pause: Duration::from_millis(random.below(20) as u64) }
    }

    /// Bytes a second.
    pub(super) fn rate(self) -> usize {
        (self.bytes as f64 / self.pause.as_secs_f64()) as usize
    }
}

/// What the checks ask about one direction of a proxy.
#[derive(Default)]
pub(super) struct Load {
    /// How many bytes it holds.
    held: Cell<usize>,
    is_pausing: Cell<bool>,
    paused_for: Cell<Duration>,
}

impl Load {
    pub(super) fn is_empty(&self) -> bool {
        self.held.get() == 0
    }

    /// Whether something waits for the end of a pause.
    pub(super) fn is_pausing(&self) -> bool {
        self.is_pausing.get()
    }

    /// How much later than without the proxy something may have come.
    pub(super) fn paused_for(&self) -> Duration {
        self.paused_for.get()
    }
}

/// One direction.
struct Direction {
    from: Socket,
    to: Socket,
    pace: Pace,
    held: VecDeque<u8>,
    /// How many bytes may be sent before the next pause.
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

    /// Ready when the end has been passed on.
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

    /// Takes all there is: the buffer has no bound, as a world's clients send less than a megabyte and a half each.
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

    /// Ready when nothing is held.
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
        self.allowed = 0; // what comes later has its own pause
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
    /// Between these two sockets, with a pace for what is sent up and one for what is sent down.
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

    /// What it holds, up and down.
    pub(super) fn loads(&self) -> [Rc<Load>; 2] {
        [Rc::clone(&self.up.load), Rc::clone(&self.down.load)]
    }

    /// Forwards until both directions have ended or one side fails.
    pub(super) async fn run(mut self) {
        if poll_fn(|cx| self.poll(cx)).await.is_err() {
            let lost = self.down.held.len();
            trace(|| format!("client {}: its proxy resets both sides and drops {lost} bytes for it", self.number));
            self.client.reset();
            self.relay.reset();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A reset counts even when both streams have ended before, and before what is still to be read.
        for socket in [&self.client, &self.relay] {
            if socket.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
        }
        // Both are polled, as each waits for things of its own.
        match [self.up.poll(cx)?, self.down.poll(cx)?] {
            [Poll::Ready(()), Poll::Ready(())] => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::relay::Config;
    use crate::simulation::actor::{Actor, message};
    use crate::simulation::network::connection;
    use crate::simulation::stage::Stage;

    const SECOND: Duration = Duration::from_secs(1);

    /// A proxy on its own, which delivers a hundred bytes a second, with the sockets of its two sides.
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
    fn an_end_is_passed_on_behind_what_is_held() {
        let mut stage = Stage::new(Random::new(0), Config::default());
        let [mut near, mut far] = stand_alone(&mut stage);
        far.send(&[7; 1000]);
        drop(far);
        stage.pass(5 * SECOND);
        assert_eq!(near.receive().len(), 500);
        stage.pass(SECOND * 6);
        assert_eq!(near.receive().len(), 500);
        assert_eq!(near.0.receive(&mut [0]).ok(), Some(0), "its end");
        drop(near);
        stage.stop();
        stage.check_empty();
    }

    #[test]
    fn a_late_byte_for_a_side_that_has_gone_loses_what_is_held() {
        let mut stage = Stage::new(Random::new(0), Config::default());
        let [mut near, mut far] = stand_alone(&mut stage);
        far.send(&[7; 1000]);
        drop(far);
        stage.pass(5 * SECOND);
        near.send(&message(b"got it"));
        stage.pass(10 * SECOND);
        assert_eq!(near.receive().len(), 500);
        assert!(!near.try_send(b"more"), "it was not told");
        drop(near);
        stage.stop();
        stage.check_empty();
    }
}
