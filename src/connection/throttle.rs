//! Rate limits on a client's reads.
//!
//! There are three: that of its ticket and that of its pair (token buckets), and that of all clients together (fair
//! queueing). Each holds for itself, so the smallest decides.
//!
//! Nothing is dropped. Bytes that are not read wait in the kernel's queue, and TCP slows the client.

use std::task::{Context, Poll};
use std::time::Instant;

use crate::limits::fair_rate::{QueueNumber, Turn};
use crate::limits::pair_rate::Allowance;
use crate::runtime::clock::{Clock, Sleep};
use crate::runtime::sync::lock;
use crate::telemetry::counters::Telemetry;

/// The rate limits of a client, and its wait for them.
pub(super) struct Throttle {
    allowance: Allowance,
    /// The most bytes of a read.
    portion: usize,
    /// Bytes that have come without a permission: the client sent them right behind its opening handshake.
    unpaid: usize,
    /// The client's number in the queue for the rate of all clients.
    number: Option<QueueNumber>,
    /// The time to ask again, and its timer.
    pause: Option<(Instant, Sleep)>,
    /// Whether the client waits, so that the counter counts each wait once.
    waits: bool,
    /// Whether a portion is permitted and not [paid for](Self::spend) yet.
    passes: bool,
    /// Whether this step has asked for a portion.
    asked: bool,
}

impl Throttle {
    /// The limits of an allowance, if it has any. `read_ahead` bytes were read before.
    pub(super) fn new(allowance: Allowance, read_ahead: usize) -> Option<Box<Self>> {
        let of_buckets = allowance.buckets().map(|bucket| lock(bucket).portion());
        let of_all = allowance.share.as_ref().map(|share| share.portion());
        let portion = of_buckets.chain(of_all).min()?;
        Some(Box::new(Self {
            allowance,
            portion,
            unpaid: read_ahead,
            number: None,
            pause: None,
            waits: false,
            passes: false,
            asked: false,
        }))
    }

    /// The most bytes of a read.
    pub(super) fn portion(&self) -> usize {
        self.portion
    }

    /// Whether bytes that were read ahead have to wait.
    pub(super) fn has_unpaid(&self) -> bool {
        self.unpaid > 0
    }

    /// Ready when the limits permit a portion, which has to be [paid for](Self::spend) in the same step.
    ///
    /// If bytes were read ahead, these are permitted and paid for here.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, clock: &dyn Clock, telemetry: &Telemetry) -> Poll<()> {
        self.asked = true;
        loop {
            let now = clock.now();
            let turn = self.ask(cx, now);
            if turn == Turn::Pass {
                self.pause = None;
                (self.waits, self.passes) = (false, true);
                if self.has_unpaid() {
                    let unpaid = std::mem::take(&mut self.unpaid);
                    self.spend(unpaid, now);
                }
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut self.waits, true) {
                telemetry.throttled();
            }
            let Turn::At(until) = turn else {
                self.pause = None;
                return Poll::Pending; // the queue wakes the task when it is first
            };
            let pause = self.pause.take().filter(|(end, _)| *end == until);
            let (_, sleep) = self.pause.insert(pause.unwrap_or_else(|| (until, clock.sleep_until(until))));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
    }

    fn ask(&mut self, cx: &Context<'_>, now: Instant) -> Turn {
        // The latest is not needed: then this asks again.
        let until = self.allowance.buckets().find_map(|bucket| lock(bucket).wait(now));
        if let Some(until) = until {
            self.leave();
            return Turn::At(until);
        }
        match &self.allowance.share {
            Some(share) => share.ask(&mut self.number, cx.waker(), now),
            None => Turn::Pass,
        }
    }

    /// Pays for bytes that were read, maybe none, if a portion was [permitted](Self::poll_ready).
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        if std::mem::take(&mut self.passes) {
            self.allowance.buckets().for_each(|bucket| lock(bucket).spend(bytes, now));
            if let Some(share) = &self.allowance.share {
                share.spend(bytes, now);
            }
        }
    }

    /// Notes that some bytes of the client were text, and go to no peer.
    pub(super) fn weigh(&self, dropped: u64) {
        if let Some(share) = &self.allowance.share {
            share.weigh(dropped);
        }
    }

    /// Ends a step.
    ///
    /// A client that does not wait for a rate leaves the queue, so that it keeps no other client waiting.
    pub(super) fn end_step(&mut self) {
        if !std::mem::take(&mut self.asked) {
            self.leave();
        }
        self.settle();
    }

    /// Gives an unused portion to the next client in the queue: the link may have ended before the read.
    fn settle(&mut self) {
        if let (true, Some(share)) = (std::mem::take(&mut self.passes), &self.allowance.share) {
            share.pass_on();
        }
    }

    fn leave(&mut self) {
        if let (Some(number), Some(share)) = (self.number.take(), &self.allowance.share) {
            share.leave(number);
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.leave();
        self.settle();
    }
}
