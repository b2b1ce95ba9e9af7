//! Who is in the opening handshake, and who has to leave when there are too many.
//!
//! Whoever opens connections and says nothing on them costs the relay a socket and some memory for each, so there is a
//! bound. If the newest were turned away beyond it, a stranger who opens a hundred connections in a second would keep
//! everybody else out. So the *oldest* is given up: an honest client has said all it has to say within a round trip or
//! two, and whoever is still there when a thousand others have come is most likely silent on purpose. With room for 1024
//! and a handshake of 50 ms, twenty thousand strangers in a second have to come before one honest client is given up.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// With no more than these there is nothing to be gained from giving one up: most of them are about to end.
const FEW: usize = 16;

/// All who are in the opening handshake, on any worker.
#[derive(Debug)]
pub(crate) struct Handshakes {
    limit: usize,
    there: Mutex<There>,
}

#[derive(Debug, Default)]
struct There {
    /// How many have ever come: the number of the next one.
    come: u64,
    /// Whom to tell, if they wait to be, by number: so the oldest is the first. Who is not here any more is given up.
    by_age: BTreeMap<u64, Option<Waker>>,
}

/// A handshake's place among the others, which it leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    handshakes: Arc<Handshakes>,
    number: u64,
}

impl Handshakes {
    /// Room for `limit` handshakes at a time, and for one at least.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), there: Mutex::default() }
    }

    /// Lets one in. If there is no room for it, the oldest is given up.
    pub(crate) fn enter(self: &Arc<Self>) -> Place {
        let mut there = self.lock();
        let number = there.come;
        there.come += 1;
        let oldest = if there.by_age.len() == self.limit { there.by_age.pop_first() } else { None };
        there.by_age.insert(number, None);
        drop(there);
        tell(oldest);
        Place { handshakes: Arc::clone(self), number }
    }

    /// Gives up the oldest quarter, for want of something else than room here, unless they are few. Says whether it did.
    pub(crate) fn make_room(&self) -> bool {
        let mut there = self.lock();
        let count = there.by_age.len();
        if count <= FEW {
            return false;
        }
        let oldest: Vec<_> = (0..count / 4).filter_map(|_| there.by_age.pop_first()).collect();
        drop(there);
        tell(oldest);
        true
    }

    fn lock(&self) -> MutexGuard<'_, There> {
        // Each step leaves it whole.
        self.there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes those who are given up. Nobody waits for the lock meanwhile.
fn tell(given_up: impl IntoIterator<Item = (u64, Option<Waker>)>) {
    given_up.into_iter().filter_map(|(_, waker)| waker).for_each(Waker::wake);
}

impl Place {
    /// Whether it was given up in favour of others.
    pub(crate) fn is_given_up(&self) -> bool {
        !self.handshakes.lock().by_age.contains_key(&self.number)
    }

    /// Waits until it is given up. One task does so at a time.
    pub(crate) async fn given_up(&self) {
        poll_fn(|cx| self.poll_given_up(cx)).await;
    }

    fn poll_given_up(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut there = self.handshakes.lock();
        let Some(waker) = there.by_age.get_mut(&self.number) else { return Poll::Ready(()) };
        let previous = waker.replace(cx.waker().clone());
        drop(there);
        drop(previous); // which may do anything
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let waker = self.handshakes.lock().by_age.remove(&self.number);
        drop(waker); // as above
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once, zip};

    fn is_given_up(place: &Place) -> bool {
        let is_told = block_on(poll_once(place.given_up())).is_some();
        assert_eq!(is_told, place.is_given_up());
        is_told
    }

    /// Who of them is given up, by position.
    fn given_up(places: &[Place]) -> Vec<usize> {
        (0..places.len()).filter(|&nth| is_given_up(&places[nth])).collect()
    }

    #[test]
    fn the_oldest_is_given_up_when_there_is_no_room() {
        let handshakes = Arc::new(Handshakes::new(3));
        let mut places: Vec<_> = (0..3).map(|_| handshakes.enter()).collect();
        assert!(given_up(&places).is_empty());
        places.push(handshakes.enter());
        assert_eq!(given_up(&places), [0]);
        places.push(handshakes.enter());
        assert_eq!(given_up(&places), [0, 1]);
    }

    #[test]
    fn who_is_given_up_is_told() {
        let handshakes = Arc::new(Handshakes::new(1));
        let place = handshakes.enter();
        block_on(zip(place.given_up(), async { drop(handshakes.enter()) }));
    }

    #[test]
    fn who_has_left_needs_no_room() {
        let handshakes = Arc::new(Handshakes::new(2));
        let first = handshakes.enter();
        for _ in 0..10 {
            drop(handshakes.enter());
        }
        assert!(!is_given_up(&first));
        assert_eq!(handshakes.lock().by_age.len(), 1);
    }

    #[test]
    fn room_for_none_is_room_for_one() {
        let handshakes = Arc::new(Handshakes::new(0));
        assert!(!is_given_up(&handshakes.enter()));
    }

    #[test]
    fn the_oldest_quarter_makes_room_unless_they_are_few() {
        let handshakes = Arc::new(Handshakes::new(100));
        let mut places: Vec<_> = (0..FEW).map(|_| handshakes.enter()).collect();
        assert!(!handshakes.make_room());
        assert!(given_up(&places).is_empty());
        places.extend((0..4).map(|_| handshakes.enter()));
        assert!(handshakes.make_room());
        assert_eq!(given_up(&places), [0, 1, 2, 3, 4]);
    }
}
