//! The two ends of a link, on two threads: one task for each end, as the connections of a pair have.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::{block_on, check};
use crate::pairing::link::{CloseCause, End, Incoming, Next, Outgoing, Pace, SpareChannels, link};

/// A batch with its number. The references to the mark tell how many batches there are.
type Batch = (usize, Arc<()>);

type Channels = SpareChannels<Batch>;

/// How a side ends its direction.
#[derive(Clone, Copy, Debug)]
enum Ending {
    LastBatch,
    NoMore,
    Dropped,
}

use Ending::{Dropped, LastBatch, NoMore};

/// What a side does with its end.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// How many batches it sends, each with a credit.
    sends: usize,
    ending: Ending,
    /// How many batches it receives before it drops that half of its end.
    receives: usize,
}

/// A side that receives everything.
const ALL: usize = usize::MAX;

impl Plan {
    /// What the other side gets if it receives everything: how many batches, and the close cause.
    fn gives(self) -> (usize, Option<CloseCause>) {
        match self.ending {
            LastBatch => (self.sends + 1, Some(CloseCause::Left)),
            NoMore => (self.sends, Some(CloseCause::Left)),
            Dropped => (self.sends, Some(CloseCause::Lost)),
        }
    }

    /// Plays a side, in a task that looks at both halves of its end whenever it is woken.
    ///
    /// Returns how many batches have come, and the close cause if that has.
    fn play(self, end: End<Batch>, mark: Arc<()>) -> (usize, Option<CloseCause>) {
        let channels = Channels::default();
        let mut sender = Sender { outgoing: Some(end.outgoing), sent: 0, plan: self, mark };
        let mut receiver =
            Receiver { incoming: Some(end.incoming), received: 0, owes: false, cause: None, most: self.receives };
        block_on(poll_fn(|cx| {
            sender.advance(cx, &channels);
            receiver.advance(cx, &channels);
            let is_over = sender.outgoing.is_none() && receiver.incoming.is_none();
            if is_over { Poll::Ready(()) } else { Poll::Pending }
        }));
        (receiver.received, receiver.cause)
    }
}

struct Sender {
    outgoing: Option<Outgoing<Batch>>,
    sent: usize,
    plan: Plan,
    mark: Arc<()>,
}

impl Sender {
    fn advance(&mut self, cx: &mut Context<'_>, channels: &Channels) {
        while self.sent < self.plan.sends
            && let Some(outgoing) = &mut self.outgoing
        {
            if outgoing.poll_ready(cx).is_pending() {
                return;
            }
            outgoing.send((self.sent, Arc::clone(&self.mark)), channels);
            self.sent += 1;
        }
        let Some(outgoing) = self.outgoing.take() else { return };
        match self.plan.ending {
            LastBatch => outgoing.finish(Some((self.sent, Arc::clone(&self.mark))), CloseCause::Left),
            NoMore => outgoing.finish(None, CloseCause::Left),
            Dropped => drop(outgoing),
        }
    }
}

struct Receiver {
    incoming: Option<Incoming<Batch>>,
    received: usize,
    /// Whether the last batch is taken, and not written yet.
    owes: bool,
    cause: Option<CloseCause>,
    most: usize,
}

impl Receiver {
    fn advance(&mut self, cx: &mut Context<'_>, channels: &Channels) {
        while self.received < self.most
            && let Some(incoming) = &mut self.incoming
        {
            let next = match std::mem::take(&mut self.owes) {
                true if thread_rng().gen_bool(0.5) => incoming.give_credit_and_poll_next(Pace::Fast, cx, channels),
                true => {
                    incoming.give_credit(Pace::Fast);
                    incoming.poll_next(cx, channels)
                }
                false => incoming.poll_next(cx, channels),
            };
            match next {
                Poll::Pending => return,
                Poll::Ready(Next::Batch((number, _))) => {
                    assert_eq!(number, self.received, "in order, and each once");
                    self.received += 1;
                    self.owes = true;
                }
                Poll::Ready(Next::End(cause)) => {
                    self.cause = Some(cause);
                    break;
                }
            }
        }
        self.incoming = None;
    }
}

/// Plays both sides on threads of their own, and checks what each has received.
fn play(near: Plan, far: Plan) {
    let (mark, ends) = (Arc::new(()), link());
    let far_mark = Arc::clone(&mark);
    let other = thread::spawn(move || far.play(ends.1, far_mark));
    let got = [near.play(ends.0, Arc::clone(&mark)), other.join().unwrap()];
    for (got, [from, to]) in got.into_iter().zip([[far, near], [near, far]]) {
        let (count, cause) = from.gives();
        let expected = if to.receives <= count { (to.receives, None) } else { (count, cause) };
        assert_eq!(got, expected);
    }
    assert_eq!(Arc::strong_count(&mark), 1, "a batch is left");
}

#[test]
fn everything_arrives_in_order_and_then_the_end() {
    check(|| {
        play(Plan { sends: 3, ending: LastBatch, receives: ALL }, Plan { sends: 2, ending: Dropped, receives: ALL });
    });
}

/// Sides of any kind.
///
/// They stream or only wait, leave at once, or receive no more while the other one sends.
#[test]
fn each_side_is_told_of_the_end_of_the_other() {
    check(|| {
        let [near, far] = [(); 2].map(|()| {
            let (sends, receives) = (thread_rng().gen_range(0..4), [0, 1, 2, ALL][thread_rng().gen_range(0..4)]);
            Plan { sends, ending: [LastBatch, NoMore, Dropped][thread_rng().gen_range(0..3)], receives }
        });
        play(near, far);
    });
}

/// The first side waits while a second one claims the far end.
///
/// That then moves to another thread, or is dropped as the handshake fails.
#[test]
fn claimed_end_moves_to_another_thread() {
    check(|| {
        let (mark, (near, far)) = (Arc::new(()), link());
        let (fails, far_mark) = (thread_rng().gen_bool(0.3), Arc::clone(&mark));
        let second = Plan { sends: 2, ending: NoMore, receives: ALL };
        let handshake = thread::spawn(move || match fails {
            true => drop(far),
            false => {
                let connection = thread::spawn(move || second.play(far, far_mark));
                assert_eq!(connection.join().unwrap(), (2, Some(CloseCause::Left)));
            }
        });
        let first = Plan { sends: 1, ending: LastBatch, receives: ALL };
        let expected = if fails { (0, Some(CloseCause::Lost)) } else { second.gives() };
        assert_eq!(first.play(near, Arc::clone(&mark)), expected);
        handshake.join().unwrap();
        assert_eq!(Arc::strong_count(&mark), 1, "a batch is left");
    });
}

/// The first side waits to be told of the second, which tells it or is dropped by a failed handshake.
///
/// No batch overtakes that.
#[test]
fn waiting_side_is_told_of_the_other_before_its_first_batch() {
    check(|| {
        let (mark, (near, far)) = (Arc::new(()), link());
        let (fails, far_mark) = (thread_rng().gen_bool(0.3), Arc::clone(&mark));
        let second = Plan { sends: 2, ending: NoMore, receives: ALL };
        let handshake = thread::spawn(move || match fails {
            true => drop(far),
            false => {
                far.outgoing.meet();
                second.play(far, far_mark);
            }
        });
        let mut near = near;
        let is_there = block_on(poll_fn(|cx| near.incoming.poll_met(cx)));
        assert_eq!(is_there, !fails);
        let first = Plan { sends: 1, ending: LastBatch, receives: ALL };
        let expected = if fails { (0, Some(CloseCause::Lost)) } else { second.gives() };
        assert_eq!(first.play(near, Arc::clone(&mark)), expected);
        handshake.join().unwrap();
        assert_eq!(Arc::strong_count(&mark), 1, "a batch is left");
    });
}
