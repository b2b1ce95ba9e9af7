//! The effective limits of a relay: the requested ones, as far as open files and memory allow.
//!
//! If no number of connections is requested, they get what three quarters of the memory hold at worst. The rest is the system's,
//! with its buffers for sockets. The worst case (`docs/limits.md`, "Memory"; MEMORY is the buffers' and may be exceeded by a quarter):
//!
//! > 20 MiB + workers × 2 MiB + handshakes × 32 KiB + the lesser of
//! > connections × 624 KiB and MEMORY × 5/4 + connections × 64 KiB
//!
//! 24 KiB of each connection are the system's, for its socket. Buffers get a quarter of the memory at most, handshakes a
//! sixteenth. An explicit number of connections is bounded by open files only: idle ones take 1 KiB.

use crate::limits::resources::Resources;

/// Files that are no connection.
///
/// They are the standard streams, listeners, the token file, and files of the program around the library. With the files of the
/// workers, they get a quarter of all at most.
const RESERVE: usize = 64;

/// The least reserve, unless that is more than half of all files.
const LEAST_RESERVE: usize = 24;

/// The maximum number of connections on their way to a worker. A turn of its executor takes them.
pub(crate) const INBOX: usize = 16;

/// Files of a worker: epoll, notifier, the connections in its inbox, and as many that just left it.
const FILES_OF_A_WORKER: usize = 2 + 2 * INBOX;

/// The part of the open files for handshakes: one in so many.
const SHARE_OF_HANDSHAKES: usize = 4;

/// How many of the connections may linger in their closing handshake: one in so many.
///
/// Strangers can make them take their time.
const SHARE_OF_LINGERING: usize = 4;

/// The part of the memory for the relay, in percent.
const PERCENT_OF_MEMORY: usize = 75;

/// The part of the memory for buffers: one in so many.
const SHARE_OF_BUFFERS: usize = 4;

/// The part of the memory for handshakes: one in so many.
const SHARE_OF_HANDSHAKE_MEMORY: usize = 16;

/// The program and the table of limited clients, in bytes.
const BASE: usize = 20 << 20;

/// Free buffers of a worker, and one beyond the limit, in bytes.
const WORKER: usize = 2 << 20;

/// A handshake with an unfinished head, in bytes.
const HANDSHAKE: usize = 32 << 10;

/// A connection with small buffers, and one with as large ones as there are, in bytes.
///
/// Both with 24 KiB for the system.
const LEAST_CONNECTION: usize = 64 << 10;
const MOST_CONNECTION: usize = 624 << 10;

/// The limits that are asked for. The resources decide the others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestedLimits {
    pub(crate) connections: Option<usize>,
    pub(crate) waiting: Option<usize>,
    pub(crate) pairs: usize,
    pub(crate) handshakes: usize,
    /// Memory of the buffers, in bytes.
    pub(crate) buffer_memory: usize,
    pub(crate) workers: usize,
}

/// The effective limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EffectiveLimits {
    /// WebSockets.
    pub(crate) connections: usize,
    /// Opening handshakes.
    pub(crate) handshakes: usize,
    /// WebSockets in a long closing handshake: a part of all.
    pub(crate) lingering: usize,
    /// Memory of the buffers, in bytes.
    pub(crate) buffer_memory: usize,
    /// Pair codes in use.
    pub(crate) codes: usize,
    /// Pair codes with one side waiting.
    pub(crate) waiting: usize,
}

impl EffectiveLimits {
    #[cfg(test)]
    pub(crate) const ROOMY: Self =
        Self { connections: 100, handshakes: 100, lingering: 100, buffer_memory: 256 << 20, codes: 100, waiting: 100 };

    /// What is possible with these resources.
    pub(crate) fn new(requested: RequestedLimits, Resources { files, memory, .. }: Resources) -> Self {
        let reserve =
            (RESERVE + FILES_OF_A_WORKER * requested.workers).min((files / 4).max(LEAST_RESERVE)).min(files / 2);
        let files = files.saturating_sub(reserve).max(4);
        let handshakes = requested
            .handshakes
            .min(files / SHARE_OF_HANDSHAKES)
            .min(memory / SHARE_OF_HANDSHAKE_MEMORY / HANDSHAKE)
            .max(1);
        let buffer_memory = requested.buffer_memory.min(memory / SHARE_OF_BUFFERS);
        let room = (memory / 100 * PERCENT_OF_MEMORY)
            .saturating_sub(BASE)
            .saturating_sub(handshakes * HANDSHAKE)
            .saturating_sub(requested.workers.saturating_mul(WORKER));
        let connections =
            requested.connections.unwrap_or_else(|| connections_in(room, buffer_memory)).min(files - handshakes).max(2);
        // If all connections could wait, second sides would find no room.
        let waiting = requested.waiting.unwrap_or(connections / 2).min(connections).max(1);
        let lingering = (connections / SHARE_OF_LINGERING).max(1);
        Self { connections, handshakes, lingering, buffer_memory, codes: requested.pairs, waiting }
    }
}

/// The number of connections that this much memory holds at worst.
///
/// Few have large buffers all at once; with more of them, the limit of the buffers is what bounds them.
fn connections_in(room: usize, buffer_memory: usize) -> usize {
    let behind_buffers = room.saturating_sub(buffer_memory / 4 * 5);
    (room / MOST_CONNECTION).max(behind_buffers / LEAST_CONNECTION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    const NOTHING: RequestedLimits = RequestedLimits {
        connections: None,
        waiting: None,
        pairs: 9,
        handshakes: 1024,
        buffer_memory: 256 * MIB,
        workers: 1,
    };

    fn with_files(requested: RequestedLimits, files: usize) -> EffectiveLimits {
        EffectiveLimits::new(requested, Resources { files, ..Resources::AMPLE })
    }

    fn with_memory(requested: RequestedLimits, memory: usize) -> EffectiveLimits {
        EffectiveLimits::new(requested, Resources { memory, ..Resources::AMPLE })
    }

    /// The memory that a relay takes at worst, in bytes.
    fn worst(limits: &EffectiveLimits, workers: usize) -> usize {
        let large = limits.connections * (600 + 24) * 1024;
        let small = limits.connections * (40 + 24) * 1024 + limits.buffer_memory * 5 / 4;
        20 * MIB + workers * 2 * MIB + limits.handshakes * 32 * 1024 + large.min(small)
    }

    #[test]
    fn hosts_of_common_sizes_hold_so_many_connections() {
        let connections = |mib: usize| with_memory(NOTHING, mib * MIB).connections;
        assert_eq!([64, 256, 512, 1024, 4096].map(connections), [36, 1183, 2719, 6303, 43_167]);
    }

    #[test]
    fn explicit_connections_are_bounded_by_files_alone() {
        let requested = RequestedLimits { connections: Some(50_000), ..NOTHING };
        assert_eq!(with_memory(requested, 512 * MIB).connections, 50_000);
    }

    proptest! {
        #[test]
        fn worst_case_fits_into_three_quarters_of_the_memory(
            memory in 64 * MIB..1 << 40,
            files in 100_usize..1 << 30,
            handshakes in 1_usize..1 << 20,
            buffer_memory in 0_usize..1 << 40,
            workers in 1_usize..8,
        ) {
            let requested = RequestedLimits { handshakes, buffer_memory, workers, ..NOTHING };
            let limits = EffectiveLimits::new(requested, Resources { files, memory, ..Resources::AMPLE });
            let is_least = limits.connections == 2;
            prop_assert!(worst(&limits, workers) <= memory / 4 * 3 || is_least, "{limits:?}");
            prop_assert!(limits.connections + limits.handshakes < files);
            prop_assert!(limits.handshakes <= handshakes && limits.buffer_memory <= buffer_memory);
            let more = EffectiveLimits::new(requested, Resources { files, memory: memory * 2, ..Resources::AMPLE });
            prop_assert!(more.connections >= limits.connections || more.handshakes > limits.handshakes);
            // One more does not fit, unless files are what is short.
            let one_more = EffectiveLimits { connections: limits.connections + 1, ..limits };
            let by_files = EffectiveLimits::new(RequestedLimits { connections: Some(usize::MAX), ..requested }, Resources { files, memory, ..Resources::AMPLE });
            prop_assert!(
                worst(&one_more, workers) > memory / 100 * 75 || by_files.connections == limits.connections,
                "{limits:?}"
            );
        }
    }

    #[test]
    fn all_files_but_a_reserve_are_for_connections() {
        let EffectiveLimits { connections, handshakes, codes, waiting, .. } = with_files(NOTHING, 20_000);
        assert_eq!((connections + handshakes + 98, handshakes, waiting, codes), (20_000, 1024, connections / 2, 9));
        assert_eq!(with_files(RequestedLimits { workers: 4, ..NOTHING }, 20_000).connections, connections - 3 * 34);
    }

    #[test]
    fn handshakes_take_a_quarter_of_few_files() {
        assert_eq!(with_files(NOTHING, 98 + 400).handshakes, 100);
        assert_eq!(with_files(NOTHING, 98 + 400).connections, 300);
    }

    #[test]
    fn what_is_asked_for_is_what_there_is_if_there_are_files_for_it() {
        let requested = RequestedLimits { connections: Some(7), waiting: Some(6), ..NOTHING };
        let limits = with_files(requested, 20_000);
        assert_eq!((limits.connections, limits.waiting), (7, 6));
        let requested = RequestedLimits { connections: Some(400), ..NOTHING };
        assert_eq!(with_files(requested, 98 + 400).connections, 300);
    }

    #[test]
    fn few_files_are_not_all_for_connections() {
        let taken = |files| {
            let EffectiveLimits { connections, handshakes, .. } = with_files(NOTHING, files);
            connections + handshakes
        };
        assert_eq!([40, 56, 96, 100].map(taken), [20, 32, 72, 75]);
    }

    #[test]
    fn a_pair_fits_whatever_the_limit_is() {
        for (files, memory) in [0, 3, 60, 70, usize::MAX].into_iter().zip([0, 1, MIB, 32 * MIB, usize::MAX]) {
            let EffectiveLimits { connections, handshakes, waiting, .. } =
                EffectiveLimits::new(NOTHING, Resources { files, memory, ..Resources::AMPLE });
            assert!(connections >= 2 && handshakes >= 1 && waiting >= 1, "{files} files, {memory} bytes");
        }
    }
}
