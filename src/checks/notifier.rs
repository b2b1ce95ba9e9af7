//! The notifier of a reactor: three states against an eventfd.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::task::Wake;

use shuttle::thread;

use super::check;
use crate::runtime::notifier::Notifier;
use crate::runtime::sync::atomic::{AtomicUsize, Ordering::SeqCst};

/// The thread of a reactor looks for work and sleeps, as `Reactor::block_on` does.
///
/// Others bring work and wake it.
#[test]
fn no_wake_up_is_lost() {
    check(|| {
        let notifier = Arc::new(Notifier::new().unwrap());
        let (work, woken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let others = [(); 2].map(|()| {
            let (notifier, work, woken) = (Arc::clone(&notifier), Arc::clone(&work), Arc::clone(&woken));
            thread::spawn(move || {
                work.fetch_add(1, SeqCst);
                notifier.wake_by_ref();
                woken.fetch_add(1, SeqCst);
            })
        });
        while work.load(SeqCst) < 2 {
            if notifier.try_sleep() {
                wait_for_event(&notifier, &woken);
            }
            notifier.set_awake();
        }
        others.into_iter().for_each(|other| other.join().unwrap());
    });
}

/// Waits until the eventfd is written. If both others have woken this thread, and it is not, none will.
fn wait_for_event(notifier: &Notifier, woken: &AtomicUsize) {
    loop {
        let is_last = woken.load(SeqCst) == 2;
        if rustix::io::read(notifier.as_fd(), &mut [0; 8]).is_ok() {
            return;
        }
        assert!(!is_last, "the thread sleeps, and was told by nothing");
        thread::yield_now();
    }
}
