//! A buffer that a read fills, the reframer rewrites in place, and a write empties.
//!
//! ```text
//!   0        output.start  output.end        input.start   input.end       capacity
//!   | headroom |############|  gap (at least    |@@@@@@@@@@@@|   spare        |
//!   |          server frames   a header's size)  client bytes   the next read
//!   |          to be written                     to be reframed  goes here
//! ```
//!
//! The reframer moves bytes from input to output. [`reframer`](crate::websocket::reframer) tells why the output always
//! fits in the place of the input. A worker's pool recycles buffers.

use std::fmt;
use std::ops::Range;

use super::memory::Part;

/// Room before the input, in bytes, for the header of a frame that an earlier buffer began.
///
/// The largest header of an unmasked frame has 10 bytes (RFC 6455, section 5.2); 16 keeps payloads aligned.
pub const HEADROOM: usize = 16;

/// Server frames that are ready, and client bytes that are not reframed yet.
pub struct Buffer {
    pub(crate) bytes: Box<[u8]>,
    pub(crate) output: Range<usize>,
    pub(crate) input: Range<usize>,
    /// Messages that end in the output.
    pub(crate) messages: u32,
    /// Whether the output ends within a message.
    pub(crate) ends_within_message: bool,
    /// Its part of the memory budget, if it is counted.
    _part: Option<Part>,
}

impl Buffer {
    /// An empty buffer of `capacity` bytes, [`HEADROOM`] included.
    ///
    /// # Panics
    ///
    /// If `capacity` is less than [`HEADROOM`].
    pub fn new(capacity: usize) -> Self {
        Self::counted(capacity, None)
    }

    /// An empty buffer that holds a part of the memory budget.
    pub(crate) fn counted(capacity: usize, part: Option<Part>) -> Self {
        assert!(capacity >= HEADROOM, "a buffer needs room for a header");
        let bytes = vec![0; capacity].into_boxed_slice();
        #[cfg(any(test, fuzzing))]
        ALLOCATED.set(ALLOCATED.get().wrapping_add(capacity));
        let (output, input) = (HEADROOM..HEADROOM, HEADROOM..HEADROOM);
        Self { bytes, output, input, messages: 0, ends_within_message: false, _part: part }
    }

    /// The free end of the buffer, for the next read. It may be empty.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        if self.output.is_empty() {
            self.output = HEADROOM..HEADROOM;
            if self.input.start > HEADROOM {
                self.bytes.copy_within(self.input.clone(), HEADROOM);
                self.input = HEADROOM..HEADROOM + self.input.len();
            }
        } else if self.input.is_empty() {
            let start = (self.output.end + HEADROOM).min(self.bytes.len());
            self.input = start..start;
        }
        &mut self.bytes[self.input.end..]
    }

    /// Makes the first `count` bytes of the spare end input.
    ///
    /// # Panics
    ///
    /// If the spare end is shorter than `count`.
    pub fn fill(&mut self, count: usize) {
        assert!(count <= self.bytes.len() - self.input.end, "more bytes than the spare end has");
        self.input.end += count;
    }

    /// Server frames ready to be written.
    pub fn output(&self) -> &[u8] {
        &self.bytes[self.output.clone()]
    }

    /// Drops the first `count` bytes of the output, which are written.
    ///
    /// # Panics
    ///
    /// If the output is shorter than `count`.
    pub fn consume_output(&mut self, count: usize) {
        assert!(count <= self.output.len(), "more bytes than the output has");
        self.output.start += count;
    }

    /// Client bytes that are not reframed yet.
    pub fn input(&self) -> &[u8] {
        &self.bytes[self.input.clone()]
    }

    /// The size of the whole buffer, in bytes.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn clear_output(&mut self) {
        self.output.end = self.output.start;
    }

    pub(crate) fn clear_input(&mut self) {
        self.input.start = self.input.end;
    }

    /// Appends client bytes, which were read elsewhere, to the input.
    pub(crate) fn append_input(&mut self, bytes: &[u8]) {
        self.spare_mut()[..bytes.len()].copy_from_slice(bytes);
        self.fill(bytes.len());
    }

    /// Appends server frames, which were made elsewhere, to the output. There must be no input.
    pub(crate) fn append_output(&mut self, frames: &[u8]) {
        debug_assert!(self.input().is_empty(), "input is behind output");
        let end = self.output.end + frames.len();
        self.bytes[self.output.end..end].copy_from_slice(frames);
        self.output.end = end;
        self.input = end..end;
    }

    /// Moves output and input into an empty buffer that is large enough for them.
    pub(crate) fn move_into(&mut self, other: &mut Self) {
        let length = self.output.len();
        other.bytes[HEADROOM..HEADROOM + length].copy_from_slice(self.output());
        other.output = HEADROOM..HEADROOM + length;
        other.input = other.output.end..other.output.end;
        self.clear_output();
        self.move_input_into(other);
    }

    /// Moves the input behind the bytes of `other`, so that `self` is ready to be written.
    pub(crate) fn move_input_into(&mut self, other: &mut Self) {
        other.append_input(self.input());
        self.clear_input();
    }

    /// Drops output and input, for another use of the buffer.
    pub(crate) fn clear(&mut self) {
        self.output = HEADROOM..HEADROOM;
        self.input = HEADROOM..HEADROOM;
    }
}

#[cfg(any(test, fuzzing))]
thread_local! {
    static ALLOCATED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// The size of all buffers that this thread has allocated and not dropped, in bytes.
#[cfg(any(test, fuzzing))]
pub(crate) fn allocated() -> usize {
    ALLOCATED.get()
}

#[cfg(any(test, fuzzing))]
impl Drop for Buffer {
    fn drop(&mut self) {
        let _ = ALLOCATED.try_with(|allocated| allocated.set(allocated.get().wrapping_sub(self.capacity())));
    }
}

impl fmt::Debug for Buffer {
    /// Without the bytes: payloads do not belong into logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("capacity", &self.capacity())
            .field("output", &self.output)
            .field("input", &self.input)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_moves_to_the_front_if_there_is_no_output() {
        let mut buffer = Buffer::new(64);
        buffer.append_input(b"skipped, kept");
        buffer.input.start += 9;
        assert_eq!(buffer.spare_mut().len(), 64 - HEADROOM - 4);
        assert_eq!(buffer.input(), b"kept");
    }

    #[test]
    fn a_read_behind_output_leaves_room_for_a_header() {
        let mut buffer = Buffer::new(64);
        buffer.append_input(b"0123456789");
        buffer.output = buffer.input.clone();
        buffer.clear_input();
        buffer.append_input(b"next");
        assert!(buffer.input.start >= buffer.output.end + HEADROOM);
        assert_eq!((buffer.output(), buffer.input()), (&b"0123456789"[..], &b"next"[..]));
    }

    #[test]
    fn written_bytes_leave_the_output() {
        let mut buffer = Buffer::new(64);
        buffer.append_input(b"frames");
        buffer.output = buffer.input.clone();
        buffer.consume_output(2);
        assert_eq!(buffer.output(), b"ames");
        buffer.consume_output(4);
        assert_eq!(buffer.output(), b"");
    }

    #[test]
    fn frames_are_appended_to_output() {
        let mut buffer = Buffer::new(64);
        buffer.append_output(b"one");
        buffer.consume_output(1);
        buffer.append_output(b", two");
        assert_eq!((buffer.output(), buffer.input()), (&b"ne, two"[..], &b""[..]));
    }

    #[test]
    fn a_move_keeps_output_and_input() {
        let mut small = Buffer::new(48);
        small.append_input(b"out");
        small.output = small.input.clone();
        small.clear_input();
        small.append_input(b"in");
        let mut large = Buffer::new(96);
        small.move_into(&mut large);
        assert_eq!((large.output(), large.input()), (&b"out"[..], &b"in"[..]));
        assert!(small.output().is_empty() && small.input().is_empty());
    }

    #[test]
    fn debug_shows_no_payloads() {
        let mut buffer = Buffer::new(64);
        buffer.append_input(&[115, 115]);
        assert_eq!(format!("{buffer:?}"), "Buffer { capacity: 64, output: 16..16, input: 16..18, .. }");
    }
}
