//! The effective limits of a relay: what was requested, as far as the limit of open files allows it.

use rustix::process::{Resource, getrlimit};

/// Files that belong to no connection.
///
/// They are the standard streams, the listener, a token file that is read, and what the program around the library has
/// open. Where few files are allowed, these and the workers' files together are at most a quarter of all.
const RESERVE: usize = 64;

/// The smallest reserve: an idle relay and a connection that is being accepted need so many files.
const LEAST_RESERVE: usize = 24;

/// The most connections that are on their way to a worker. A worker takes all of them in one turn of its executor.
pub(crate) const INBOX: usize = 16;

/// Files of a worker: an epoll instance and its notifier, its inbox, and as many connections that have just left that.
const FILES_OF_A_WORKER: usize = 2 + 2 * INBOX;

/// The share of open files that handshakes may take: one in so many, and never more than requested.
const SHARE_OF_HANDSHAKES: usize = 4;

/// The share of connections that may linger in their closing handshake: one in so many.
///
/// Strangers can make a closing handshake last.
const SHARE_OF_LINGERING: usize = 4;

/// The limits that were requested. The limit of open files decides those that are absent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestedLimits {
    pub(crate) connections: Option<usize>,
    pub(crate) waiting: Option<usize>,
    pub(crate) pairs: usize,
    pub(crate) handshakes: usize,
    pub(crate) workers: usize,
}

/// The limits that a relay keeps, each of which counts what exists at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EffectiveLimits {
    /// WebSocket connections.
    pub(crate) connections: usize,
    /// Opening handshakes.
    pub(crate) handshakes: usize,
    /// WebSocket connections whose closing handshake takes long: a part of all.
    pub(crate) lingering: usize,
    /// Pair codes in use.
    pub(crate) codes: usize,
    /// Pair codes with one side waiting.
    pub(crate) waiting: usize,
}

impl EffectiveLimits {
    #[cfg(test)]
    pub(crate) const ROOMY: Self = Self { connections: 100, handshakes: 100, lingering: 100, codes: 100, waiting: 100 };

    /// What is possible with the limit of open files that this process has now.
    pub(crate) fn of_system(requested: RequestedLimits) -> Self {
        let files = getrlimit(Resource::Nofile)
            .current
            .map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
        Self::with_files(requested, files)
    }

    fn with_files(requested: RequestedLimits, files: usize) -> Self {
        let reserve =
            (RESERVE + FILES_OF_A_WORKER * requested.workers).min((files / 4).max(LEAST_RESERVE)).min(files / 2);
        let files = files.saturating_sub(reserve).max(4);
        let handshakes = requested.handshakes.min(files / SHARE_OF_HANDSHAKES).max(1);
        let connections = requested.connections.unwrap_or(usize::MAX).min(files - handshakes).max(2);
        // If all connections could wait, a second side would find no room.
        let waiting = requested.waiting.unwrap_or(connections / 2).max(1);
        let lingering = (connections / SHARE_OF_LINGERING).max(1);
        Self { connections, handshakes, lingering, codes: requested.pairs, waiting }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: RequestedLimits =
        RequestedLimits { connections: None, waiting: None, pairs: 9, handshakes: 1024, workers: 1 };

    #[test]
    fn all_files_but_a_reserve_are_for_connections() {
        let EffectiveLimits { connections, handshakes, waiting, codes, .. } =
            EffectiveLimits::with_files(NOTHING, 20_000);
        assert_eq!((connections + handshakes + 98, handshakes), (20_000, 1024));
        assert_eq!((waiting, codes), (connections / 2, 9));
        let of_four_workers = EffectiveLimits::with_files(RequestedLimits { workers: 4, ..NOTHING }, 20_000);
        assert_eq!(of_four_workers.connections, connections - 3 * 34);
    }

    #[test]
    fn handshakes_take_a_quarter_of_few_files() {
        let limits = EffectiveLimits::with_files(NOTHING, 98 + 400);
        assert_eq!((limits.handshakes, limits.connections), (100, 300));
    }

    #[test]
    fn requested_limits_are_kept_as_far_as_there_are_files() {
        let requested = RequestedLimits { connections: Some(7), waiting: Some(6), ..NOTHING };
        let limits = EffectiveLimits::with_files(requested, 20_000);
        assert_eq!((limits.connections, limits.waiting), (7, 6));
        let requested = RequestedLimits { connections: Some(400), ..NOTHING };
        assert_eq!(EffectiveLimits::with_files(requested, 98 + 400).connections, 300);
    }

    #[test]
    fn a_reserve_is_kept_of_few_files() {
        let taken = |files| {
            let EffectiveLimits { connections, handshakes, .. } = EffectiveLimits::with_files(NOTHING, files);
            connections + handshakes
        };
        assert_eq!([40, 56, 96, 100].map(taken), [20, 32, 72, 75]);
    }

    #[test]
    fn one_pair_fits_under_any_limit_of_open_files() {
        for files in [0, 3, 60, 70, usize::MAX] {
            let EffectiveLimits { connections, handshakes, waiting, .. } = EffectiveLimits::with_files(NOTHING, files);
            assert!(connections >= 2 && handshakes >= 1 && waiting >= 1, "{files} files");
        }
    }
}
