//! Mutexes and atomics that threads share.
//!
//! `src/checks/` takes them from shuttle, which decides which thread goes on.
//!
//! Two rules hold for all mutexes:
//!
//! 1. **Poisoning is ignored.** Every change under a lock is whole even if its thread panics afterwards.
//! 2. **No waker is woken or dropped under a lock.** A waker's code is not ours and may do anything, such as taking the
//!    same lock. So a change [returns](with_lock) the wakers that it removes, and the caller wakes or drops them.

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::{
    sync::{Mutex, MutexGuard, RwLock, atomic},
    thread, thread_local,
};
use std::sync::PoisonError;
#[cfg(not(all(test, shuttle)))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, RwLock, atomic},
    thread, thread_local,
};

/// Locks a mutex, poisoned or not.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a change under the lock.
///
/// The result, such as a waker that was removed, is dropped outside of it.
#[inline]
pub(crate) fn with_lock<T: ?Sized, R>(mutex: &Mutex<T>, change: impl FnOnce(&mut T) -> R) -> R {
    change(&mut lock(mutex))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::task::{Wake, Waker};

    #[test]
    fn a_panic_under_the_lock_does_not_keep_others_from_it() {
        let mutex = Arc::new(Mutex::new(7));
        let other = Arc::clone(&mutex);
        let _ = thread::spawn(move || with_lock(&other, |_| panic!("a bug"))).join();
        assert!(mutex.is_poisoned());
        assert_eq!(*lock(&mutex), 7);
        assert_eq!(with_lock(&mutex, |value| *value), 7);
    }

    /// A waker that takes the lock when it is dropped.
    struct LocksWhenDropped(Arc<Mutex<Option<Waker>>>);

    impl Wake for LocksWhenDropped {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for LocksWhenDropped {
        fn drop(&mut self) {
            assert!(self.0.try_lock().is_ok(), "dropped under the lock");
        }
    }

    #[test]
    fn a_removed_waker_is_dropped_outside_of_the_lock() {
        let mutex = Arc::new(Mutex::new(None));
        *lock(&mutex) = Some(Waker::from(Arc::new(LocksWhenDropped(Arc::clone(&mutex)))));
        with_lock(&mutex, |waker| waker.replace(Waker::noop().clone()));
    }
}
