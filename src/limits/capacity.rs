//! How much a relay can take at a time: what was asked for, or what the limit of open files allows.

use rustix::process::{Resource, getrlimit};

use crate::pairing::pair_table;

/// Files that are nobody's connection: the standard streams, the listener, a token file that is read, and what the
/// program around the library has open. With those of the workers no more than a quarter of all, should these be few.
const RESERVE: usize = 64;

/// But at least so many, which are needed where nobody has come, and for who is just coming.
const LEAST_RESERVE: usize = 24;

/// How many connections may be on their way to a worker. It is a matter of one turn of its executor.
pub(crate) const INBOX: usize = 16;

/// Files of a worker: an epoll and its notifier, what waits in its inbox, and as many that have just left that.
const FILES_OF_A_WORKER: usize = 2 + 2 * INBOX;

/// How many of the open files handshakes may take at most: one in so many, as long as they are no more than asked for.
const SHARE_OF_HANDSHAKES: usize = 4;

/// How many of the connections may linger in their closing handshake: one in so many. Strangers can make them take their time.
const SHARE_OF_LINGERING: usize = 4;

/// What is asked for. What is not is decided by the limit of open files.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) connections: Option<usize>,
    pub(crate) waiting: Option<usize>,
    pub(crate) pairs: usize,
    pub(crate) handshakes: usize,
    pub(crate) workers: usize,
}

/// How many there may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// WebSockets.
    pub(crate) connections: usize,
    /// Opening handshakes.
    pub(crate) handshakes: usize,
    /// WebSockets whose closing handshake takes long: a part of all.
    pub(crate) lingering: usize,
    pub(crate) table: pair_table::Capacity,
}

impl Capacity {
    #[cfg(test)]
    pub(crate) const ROOMY: Self = Self {
        connections: 100,
        handshakes: 100,
        lingering: 100,
        table: pair_table::Capacity { codes: 100, waiting: 100 },
    };

    /// What is possible with the limit of open files that this process has now.
    pub(crate) fn of_system(wish: Wish) -> Self {
        let files = getrlimit(Resource::Nofile)
            .current
            .map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
        Self::with_files(wish, files)
    }

    fn with_files(wish: Wish, files: usize) -> Self {
        let reserve = (RESERVE + FILES_OF_A_WORKER * wish.workers).min((files / 4).max(LEAST_RESERVE)).min(files / 2);
        let files = files.saturating_sub(reserve).max(4);
        let handshakes = wish.handshakes.min(files / SHARE_OF_HANDSHAKES).max(1);
        let connections = wish.connections.unwrap_or(usize::MAX).min(files - handshakes).max(2);
        // If all connections could wait, those who come to somebody who waits would find no room.
        let waiting = wish.waiting.unwrap_or(connections / 2).max(1);
        let lingering = (connections / SHARE_OF_LINGERING).max(1);
        Self { connections, handshakes, lingering, table: pair_table::Capacity { codes: wish.pairs, waiting } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: Wish = Wish { connections: None, waiting: None, pairs: 9, handshakes: 1024, workers: 1 };

    #[test]
    fn all_files_but_a_reserve_are_for_connections() {
        let Capacity { connections, handshakes, table, .. } = Capacity::with_files(NOTHING, 20_000);
        assert_eq!(
            (connections + handshakes + 98, handshakes, table.waiting, table.codes),
            (20_000, 1024, connections / 2, 9)
        );
        assert_eq!(Capacity::with_files(Wish { workers: 4, ..NOTHING }, 20_000).connections, connections - 3 * 34);
    }

    #[test]
    fn handshakes_take_a_quarter_of_few_files() {
        assert_eq!(Capacity::with_files(NOTHING, 98 + 400).handshakes, 100);
        assert_eq!(Capacity::with_files(NOTHING, 98 + 400).connections, 300);
    }

    #[test]
    fn what_is_asked_for_is_what_there_is_if_there_are_files_for_it() {
        let wish = Wish { connections: Some(7), waiting: Some(6), ..NOTHING };
        let capacity = Capacity::with_files(wish, 20_000);
        assert_eq!((capacity.connections, capacity.table.waiting), (7, 6));
        let wish = Wish { connections: Some(400), ..NOTHING };
        assert_eq!(Capacity::with_files(wish, 98 + 400).connections, 300);
    }

    #[test]
    fn few_files_are_not_all_for_connections() {
        let taken = |files| {
            let Capacity { connections, handshakes, .. } = Capacity::with_files(NOTHING, files);
            connections + handshakes
        };
        assert_eq!([40, 56, 96, 100].map(taken), [20, 32, 72, 75]);
    }

    #[test]
    fn a_pair_fits_whatever_the_limit_is() {
        for files in [0, 3, 60, 70, usize::MAX] {
            let Capacity { connections, handshakes, table, .. } = Capacity::with_files(NOTHING, files);
            assert!(connections >= 2 && handshakes >= 1 && table.waiting >= 1, "{files} files");
        }
    }
}
