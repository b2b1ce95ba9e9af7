//! Keeps a client from sending faster than its pair, and all clients together, may. Nothing is dropped: what is not read
//! waits in the system's queue, and TCP slows the client.

use std::sync::PoisonError;
use std::task::{Context, Poll};
use std::time::Instant;

use crate::limits::fair_rate::{Answer, Place};
use crate::limits::pair_rate::Allowance;
use crate::limits::token_bucket::TokenBucket;
use crate::runtime::clock::{Clock, Sleep};
use crate::telemetry::counters::Telemetry;

/// What a connection has to wait for before it reads.
pub(super) struct Throttle {
    allowance: Allowance,
    /// How much to read at once at most, in bytes.
    portion: usize,
    /// How much has come that was not allowed yet, in bytes: what the client sent right behind its opening handshake.
    unpaid: usize,
    /// Where the client waits for its share of the rate of all.
    place: Option<Place>,
    /// Until then.
    pause: Option<(Instant, Sleep)>,
    /// Whether the client waits, so that each wait is counted once.
    waits: bool,
    /// Whether a portion may pass that is not [paid for](Self::spend) yet.
    passes: bool,
    /// Whether a portion was asked for in this step.
    asked: bool,
}

impl Throttle {
    /// None if there is nothing to wait for. So many bytes were read ahead.
    pub(super) fn new(allowance: Allowance, read_ahead: usize) -> Option<Box<Self>> {
        let of_pair = allowance.pair.as_deref().map(|budget| with(budget, |budget| budget.portion()));
        let of_all = allowance.share.as_ref().map(|share| share.portion());
        let portion = of_pair.into_iter().chain(of_all).min()?;
        Some(Box::new(Self {
            allowance,
            portion,
            unpaid: read_ahead,
            place: None,
            pause: None,
            waits: false,
            passes: false,
            asked: false,
        }))
    }

    pub(super) fn portion(&self) -> usize {
        self.portion
    }

    /// Whether what was read ahead has to wait.
    pub(super) fn has_unpaid(&self) -> bool {
        self.unpaid > 0
    }

    /// Ready when the client may send a portion, which is to be [paid for](Self::spend) in the same step, or when what was
    /// read ahead may pass, which is paid for here.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>, clock: &dyn Clock, telemetry: &Telemetry) -> Poll<()> {
        self.asked = true;
        loop {
            let now = clock.now();
            let answer = self.ask(cx, now);
            if answer == Answer::Pass {
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
            let Answer::At(until) = answer else {
                self.pause = None;
                return Poll::Pending; // it is woken when it is first
            };
            let pause = self.pause.take().filter(|(end, _)| *end == until);
            let (_, sleep) = self.pause.insert(pause.unwrap_or_else(|| (until, clock.sleep_until(until))));
            if sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
    }

    fn ask(&mut self, cx: &Context<'_>, now: Instant) -> Answer {
        let until = self.allowance.pair.as_deref().and_then(|budget| with(budget, |budget| budget.wait(now)));
        if let Some(until) = until {
            self.leave();
            return Answer::At(until);
        }
        match &self.allowance.share {
            Some(share) => share.ask(&mut self.place, cx.waker(), now),
            None => Answer::Pass,
        }
    }

    /// Pays for what the client has sent, which may be nothing, if it was [allowed](Self::poll_ready).
    pub(super) fn spend(&mut self, bytes: usize, now: Instant) {
        if std::mem::take(&mut self.passes) {
            if let Some(budget) = &self.allowance.pair {
                with(budget, |budget| budget.spend(bytes, now));
            }
            if let Some(share) = &self.allowance.share {
                share.spend(bytes, now);
            }
        }
    }

    /// So many bytes of what the client has sent were dropped.
    pub(super) fn weigh(&self, dropped: u64) {
        if let Some(share) = &self.allowance.share {
            share.weigh(dropped);
        }
    }

    /// Ends a step. A client that waits for something else than a rate must not keep the others in the queue waiting.
    pub(super) fn end_step(&mut self) {
        if !std::mem::take(&mut self.asked) {
            self.leave();
        }
        self.settle();
    }

    /// Lets the next waiter have its turn if a portion passed and nothing was read, as when the link has ended meanwhile.
    fn settle(&mut self) {
        if let (true, Some(share)) = (std::mem::take(&mut self.passes), &self.allowance.share) {
            share.pass_on();
        }
    }

    fn leave(&mut self) {
        if let (Some(place), Some(share)) = (self.place.take(), &self.allowance.share) {
            share.leave(place);
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.leave();
        self.settle();
    }
}

/// A budget is right after each step of it, also of one that panics.
fn with<R>(budget: &std::sync::Mutex<TokenBucket>, step: impl FnOnce(&mut TokenBucket) -> R) -> R {
    step(&mut budget.lock().unwrap_or_else(PoisonError::into_inner))
}
