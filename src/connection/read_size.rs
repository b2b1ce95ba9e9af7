//! How much room a read gets. Pure: no I/O, no clock.
//!
//! The size of reads adapts to the traffic, in the steps of [`SIZES`]: a read that fills its room makes
//! the next one a step larger, and a sparse one makes it a step smaller. A read also has room for the whole frame that
//! is incomplete, and for a least number of bytes.

use crate::buffers::buffer::HEADROOM;
use crate::buffers::pool::{LARGEST, SIZES, SMALLEST};

/// The least room of a read, in bytes: less is not worth its system call.
pub(super) const LEAST_READ: usize = 2048;

/// The least room of a read when memory is short, in bytes.
pub(super) const LEAST_SHORT_READ: usize = 256;

/// A read that fills less than this fraction of its buffer makes the next one smaller.
pub(super) const SPARSE: usize = 16;

/// The adaptive size of the next read: an index in [`SIZES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReadSize(u8);

impl ReadSize {
    /// The size in bytes, headroom included.
    pub(super) fn bytes(self) -> usize {
        SIZES[usize::from(self.0)]
    }

    /// Adapts to a read of `count` bytes.
    ///
    /// `was_full` says that it filled its room, which no rate has limited.
    pub(super) fn adapt(&mut self, count: usize, was_full: bool) {
        if was_full && self.bytes() < LARGEST {
            self.0 += 1;
        } else if count < self.bytes() / SPARSE && self.0 > 0 {
            self.0 -= 1;
        }
    }
}

/// A buffer with bytes of the client, as far as it matters for the next read. All sizes are in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) capacity: usize,
    pub(super) output: usize,
    pub(super) input: usize,
}

/// The capacity that a buffer needs for the next read, or `None` if it has to be handed over first.
///
/// `frame` is the length of the incomplete frame at the front of the input that must go out whole, or 0. When memory
/// `is_short`, only an existing buffer may be larger than the smallest, unless the frame needs more.
pub(super) fn capacity(size: ReadSize, frame: usize, held: Option<Held>, is_short: bool) -> Option<usize> {
    let most = if is_short { SMALLEST.max(held.map_or(0, |held| held.capacity)) } else { LARGEST };
    let alone = size.bytes().min(most).max(HEADROOM + frame);
    let Some(held) = held else { return Some(alone) };
    let rest = held.input + least_read(is_short);
    if held.output == 0 {
        return Some(alone.max(HEADROOM + rest));
    }
    let needed = HEADROOM + held.output + HEADROOM + frame.max(rest);
    (needed <= most).then_some(needed)
}

/// The least room for a read behind so many bytes of input.
pub(super) fn least_room(frame: usize, input: usize, is_short: bool) -> usize {
    frame.saturating_sub(input).max(least_read(is_short))
}

fn least_read(is_short: bool) -> usize {
    if is_short { LEAST_SHORT_READ } else { LEAST_READ }
}

/// The room of a read. It is never empty: a read into nothing would look like the end of the stream.
#[derive(Debug)]
pub(super) struct Room<'b>(&'b mut [u8]);

impl<'b> Room<'b> {
    /// At most `most` bytes of the spare end of a buffer, unless that leaves none.
    pub(super) fn new(spare: &'b mut [u8], most: usize) -> Option<Self> {
        let length = spare.len().min(most);
        (length > 0).then(|| Self(&mut spare[..length]))
    }

    /// The bytes to read into: at least one.
    pub(super) fn into_bytes(self) -> &'b mut [u8] {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::websocket::reframer::WHOLE_FRAME;
    use proptest::prelude::*;

    #[test]
    fn a_room_is_never_empty() {
        assert!(Room::new(&mut [], usize::MAX).is_none());
        assert!(Room::new(&mut [0; 4], 0).is_none());
        for (most, length) in [(1, 1), (4, 4), (5, 4), (usize::MAX, 4)] {
            assert_eq!(Room::new(&mut [0; 4], most).map(|room| room.into_bytes().len()), Some(length));
        }
    }

    /// The length of an incomplete frame, or 0.
    fn frame() -> impl Strategy<Value = usize> {
        prop_oneof![Just(0), 1..=14 + WHOLE_FRAME]
    }

    /// A buffer beside an incomplete frame of this length.
    ///
    /// Its input is shorter than the frame, or than a header.
    fn held(frame: usize) -> impl Strategy<Value = Option<Held>> {
        let held = (0..SIZES.len(), 0..LARGEST, 0..=14 + WHOLE_FRAME).prop_map(move |(size, output, input)| {
            let capacity = SIZES[size];
            let input = input % frame.max(14).min(capacity - HEADROOM);
            let output = output % (capacity - HEADROOM - input);
            Held { capacity, output, input }
        });
        prop::option::of(held)
    }

    proptest! {
        #[test]
        fn the_capacity_has_room_for_the_frame_and_a_worthwhile_read_and_for_no_more(
            size in (0..SIZES.len() as u8).prop_map(ReadSize),
            (frame, held) in frame().prop_flat_map(|frame| (Just(frame), held(frame))),
            is_short: bool,
        ) {
            let (output, input) = held.map_or((0, 0), |held| (held.output, held.input));
            let before = HEADROOM + if output > 0 { output + HEADROOM } else { 0 };
            let least = if is_short { LEAST_SHORT_READ } else { LEAST_READ };
            let needed = before + frame.max(input + least);
            let most = if is_short { SMALLEST.max(held.map_or(0, |held| held.capacity)) } else { LARGEST };
            match capacity(size, frame, held, is_short) {
                Some(capacity) => {
                    prop_assert!((needed..=LARGEST).contains(&capacity));
                    prop_assert!(capacity <= needed.max(size.bytes().min(most)));
                    prop_assert!(capacity - before - input >= least_room(frame, input, is_short));
                    prop_assert!(output == 0 || capacity <= most);
                }
                None => prop_assert!(output > 0 && needed > most),
            }
        }

        #[test]
        fn the_size_grows_with_full_reads_and_shrinks_with_sparse_ones(
            reads in prop::collection::vec((0..=LARGEST, any::<bool>()), 0..100),
        ) {
            let mut size = ReadSize::default();
            for (count, was_full) in reads {
                let before = size;
                size.adapt(count, was_full);
                let expected = match (was_full, count < before.bytes() / SPARSE) {
                    (true, _) if before.bytes() < LARGEST => before.0 + 1,
                    (_, true) => before.0.saturating_sub(1),
                    _ => before.0,
                };
                prop_assert_eq!(size.0, expected);
            }
        }
    }
}
