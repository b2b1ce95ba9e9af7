//! Rewrites client frames to server frames in place.
//!
//! A server frame has another header, and its payload has no mask.

use super::mask::unmask;
use crate::buffers::buffer::Buffer;

/// Appends a server frame to the output: a header, and the unmasked payload.
///
/// The payload has `length` bytes at `start`.
pub(super) fn forward(buffer: &mut Buffer, start: usize, length: usize, first: u8, key: [u8; 4]) {
    match length {
        0..=125 => forward_with([first, length as u8], buffer, start, length, key),
        126..=0xFFFF => {
            let [high, low] = (length as u16).to_be_bytes();
            forward_with([first, 126, high, low], buffer, start, length, key);
        }
        _ => {
            let [a, b, c, d, e, f, g, h] = (length as u64).to_be_bytes();
            forward_with([first, 127, a, b, c, d, e, f, g, h], buffer, start, length, key);
        }
    }
}

/// Does so for a header of a fixed size: copying two bytes is cheap, but not calling `memcpy` for them.
fn forward_with<const SIZE: usize>(header: [u8; SIZE], buffer: &mut Buffer, start: usize, length: usize, key: [u8; 4]) {
    // Without earlier output, the frame stays in its place and only its header moves.
    if buffer.output.is_empty() {
        buffer.output = start - SIZE..start - SIZE;
    }
    let to = buffer.output.end;
    debug_assert!(to + SIZE <= start, "the header must not run over the payload");
    let is_moved = move_frame(&mut buffer.bytes, to, header, start, length, key);
    debug_assert!(is_moved, "the payload is within the buffer");
    buffer.output.end = to + SIZE + length;
}

/// Writes a header at `to`, and behind it the payload that begins at `start`, without its mask.
///
/// Returns false and changes nothing if `bytes` end before the payload does.
#[inline(always)] // so that short frames are moved in registers
pub(super) fn move_frame<const SIZE: usize>(
    bytes: &mut [u8],
    to: usize,
    header: [u8; SIZE],
    start: usize,
    length: usize,
    key: [u8; 4],
) -> bool {
    let Some((place, rest)) = bytes.get_mut(to..start + length).and_then(<[u8]>::split_first_chunk_mut) else {
        return false;
    };
    *place = header;
    unmask(rest, start - to - SIZE, key);
    true
}
