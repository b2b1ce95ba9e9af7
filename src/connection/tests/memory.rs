//! Connections while the memory for buffers is used up.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::*;
use crate::buffers::pool::SMALLEST;
use crate::websocket::reframer::SMALL_FRAME;

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/regressions/connection.txt"))),
        ..ProptestConfig::default()
    })]

    /// All messages arrive, and no short one is split.
    #[test]
    fn without_memory_the_smallest_buffers_suffice(
        messages in prop::collection::vec(prop_oneof![0..200usize, 0..3000usize, 0..70_000usize, 0..400_000usize], 1..10),
        steps in prop::collection::vec((prop_oneof![1..20usize, 1..5000usize, 1..200_000usize], any::<bool>(), 0..4usize), 1..100),
    ) {
        let mut side = Side::with_memory(1 << 30);
        let (mut part, mut was_there) = (Some(side.memory.take(1 << 30)), false);
        let stream = Frames(messages.clone()).bytes();
        let (mut rest, mut received, mut owes_credit) = (&stream[..], vec![], false);
        let patient = steps.into_iter().chain(std::iter::repeat((usize::MAX, true, 1)));
        for (count, credit, memory) in patient {
            if memory == 0 {
                // Memory comes back, or is used up again.
                part = if part.take().is_some() { None } else { Some(side.memory.take(1 << 30)) };
                was_there = true;
            }
            let (arrives, later) = rest.split_at(count.min(rest.len()));
            side.arrive(arrives);
            rest = later;
            let reads = side.read();
            if let Some(batch) = side.take_bytes() {
                received.extend(batch);
                owes_credit = true;
            }
            if !was_there {
                prop_assert!(reads.iter().all(|&room| room <= SMALLEST), "{:?}", reads);
                prop_assert!(side.in_use() <= SMALLEST, "{} bytes", side.in_use());
                prop_assert_eq!(side.memory.taken(), 1 << 30);
            }
            if credit && std::mem::take(&mut owes_credit) {
                side.peer.incoming.give_credit(Pace::Fast);
            }
            if rest.is_empty() && side.socket.0.borrow().arrived.is_empty() && side.in_use() == 0 {
                break;
            }
        }
        let (received, shortest) = received_lengths(&received);
        prop_assert_eq!(received, messages);
        prop_assert!(shortest.is_none_or(|shortest| shortest > SMALL_FRAME), "a message of {:?} was split", shortest);
    }
}

/// Beside it, an idle connection has a registration, a seat and half a link.
#[test]
#[cfg(target_pointer_width = "64")]
fn a_connection_has_at_most_384_bytes() {
    let size = size_of::<Connection<crate::runtime::tcp::Tcp>>();
    assert!(size <= 384, "{size}");
}

#[test]
fn a_buffer_of_a_connection_that_ends_goes_to_the_pool() {
    let mut side = Side::with_memory(0);
    // The beginning of a message stays in the connection's own buffer.
    side.arrive(&Frames(vec![1000]).bytes()[..100]);
    side.read();
    assert_eq!((side.in_use(), side.context.pool.held()), (SMALLEST, 0));
    drop(side.inbound);
    assert_eq!(side.context.pool.held(), SMALLEST);
}

#[test]
fn reads_made_small_by_a_lack_of_memory_are_counted() {
    let squeezed = |memory| {
        let mut side = Side::with_memory(memory);
        side.arrive(&small_messages(1 << 20));
        let mut counts = vec![];
        for _ in 0..3 {
            side.read();
            assert!(side.take().is_some());
            side.peer.incoming.give_credit(Pace::Fast);
            counts.push(side.context.telemetry.counters().squeezed);
        }
        counts
    };
    // The first read of a stream is small anyway, and so is a read behind output.
    assert_eq!(squeezed(0), [0, 1, 2]);
    assert_eq!(squeezed(usize::MAX), [0, 0, 0]);
    let mut side = Side::with_memory(usize::MAX);
    side.arrive(&small_messages(1 << 20));
    (0..3).for_each(|_| drop(side.read()));
    assert_eq!(side.context.telemetry.counters().squeezed, 0);
}

#[test]
fn pings_behind_a_full_small_buffer_are_answered() {
    let message = |length| Frames(vec![length]).bytes();
    let mut side = Side::with_memory(0);
    side.let_write(LARGEST);
    // One message is in flight, the next one waits behind it.
    for (length, behind) in [(1500, 0), (3000, 0), (200, 3)] {
        side.arrive(&message(length));
        side.arrive(&[0x89, 0x80, 0, 0, 0, 0].repeat(behind));
        side.read();
    }
    assert_eq!(side.write(), [[0x8A, 0, 0x8A, 0, 0x8A, 0]]);
    // An existing larger buffer is filled before the client is held.
    let mut side = Side::with_memory(1 << 30);
    side.let_write(LARGEST);
    (0..2).for_each(|_| {
        side.arrive(&message(10_000).repeat(2));
        side.read();
        side.read();
    });
    let _part = side.memory.take(1 << 30);
    side.arrive(&[0x89, 0x80, 0, 0, 0, 0]);
    side.read();
    assert_eq!(side.write(), [[0x8A, 0]]);
}

/// The lengths of the messages in server frames, and of the shortest message that was split.
fn received_lengths(mut frames: &[u8]) -> (Vec<usize>, Option<usize>) {
    let (mut lengths, mut length, mut parts, mut shortest) = (vec![], 0, 0, None);
    while let [first, short, rest @ ..] = frames {
        let (payload, header) = match short {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), 4),
            127 => (u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize, 10),
            _ => (usize::from(*short), 2),
        };
        length += payload;
        parts += 1;
        frames = &frames[header + payload..];
        if first & 0x80 != 0 {
            if parts > 1 {
                shortest = Some(shortest.map_or(length, |shortest: usize| shortest.min(length)));
            }
            lengths.push(std::mem::take(&mut length));
            parts = 0;
        }
    }
    (lengths, shortest)
}
