//! The fast path of the reframer: binary messages of a single frame that is all there.

use std::ops::Range;

use super::header::{BINARY, FIN, MASKED};
use super::rewrite::move_frame;
use crate::buffers::buffer::Buffer;

const FIN_BINARY: u8 = FIN | BINARY;
const MASKED_125: u8 = MASKED | 125;
const MASKED_16_BITS: u8 = MASKED | 126;

/// Messages that the fast path has forwarded.
pub(super) struct Forwarded {
    pub(super) messages: u64,
    /// Their payload, in bytes.
    pub(super) bytes: u64,
}

/// Forwards messages at the front of the input that are one whole binary frame.
///
/// Their lengths have 7 or 16 bits. It forwards at most `most` messages of at most `limit` bytes each. No message may
/// be incomplete.
///
/// The rest of the reframer would do the same with them. This loop keeps its state in registers, which makes a message
/// cost a third beside its bytes.
#[inline(always)] // there is one caller
pub(super) fn forward(buffer: &mut Buffer, limit: u64, most: u64) -> Forwarded {
    let Buffer { bytes, output, input, .. } = buffer;
    let bytes = &mut bytes[..input.end];
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // Without earlier output, the first frame stays in its place, and only its header moves, over its masking key.
    let begin = if Range::is_empty(output) { input.start + 4 } else { output.start };
    let (mut from, mut to, mut messages) = (input.start, begin.max(output.end), 0);
    // The payload of all messages follows from the bytes that they take up, and from how many have the longer header.
    let (before, mut longer) = (to, 0);
    while messages < most {
        let (is_moved, size) = match bytes[from..] {
            [FIN_BINARY, second @ MASKED..=MASKED_125, k0, k1, k2, k3, ..] => {
                let (header, length) = ([FIN_BINARY, second ^ MASKED], usize::from(second ^ MASKED));
                let fits = length <= limit;
                (fits && move_frame(bytes, to, header, from + 6, length, [k0, k1, k2, k3]), 2 + length)
            }
            [FIN_BINARY, MASKED_16_BITS, high, low, k0, k1, k2, k3, ..] if high > 0 || low > 125 => {
                let (header, length) = ([FIN_BINARY, 126, high, low], usize::from(u16::from_be_bytes([high, low])));
                let is_moved = length <= limit && move_frame(bytes, to, header, from + 8, length, [k0, k1, k2, k3]);
                longer += u64::from(is_moved);
                (is_moved, 4 + length)
            }
            _ => break,
        };
        if !is_moved {
            break;
        }
        from += size + 4;
        to += size;
        messages += 1;
    }
    if messages > 0 {
        *output = begin..to;
        input.start = from;
    }
    Forwarded { messages, bytes: (to - before) as u64 - 2 * (messages + longer) }
}
