//! Reads from a client's socket into one buffer, and keeps the bytes that are not handed over yet.
//!
//! A connection has at most one such buffer, and none while it is idle. [`inbound`](super::inbound) decides when to
//! read, and [`read_size`] how much.

use std::io;

use super::context::WorkerContext;
use super::read_size::{self, Held, ReadSize, Room};
use crate::buffers::buffer::{Buffer, HEADROOM};
use crate::buffers::pool::{LARGEST, Pool, size_for};
use crate::runtime::transport::Transport;
use crate::websocket::reframer::Reframer;

/// A batch of more bytes than this is part of a stream that has filled the kernel's queue.
pub(super) const LARGE_BATCH: usize = LARGEST / 2;

/// The buffer of an inbound direction, and the state of its reads.
pub(super) struct Reader {
    /// Bytes that are read and not handed over yet, if there are any.
    pub(super) buffer: Option<Box<Buffer>>,
    /// The length of the incomplete frame at the front of the input that must go out whole, or 0.
    /// Such a frame fits in a buffer.
    pub(super) frame: u32,
    /// Messages that were handed over, modulo 2^32.
    handed_over: u32,
    /// The executor's turn at the last read.
    pub(super) turn: u32,
    /// The adaptive size of the next read.
    size: ReadSize,
    /// Whether the last read emptied the socket. Then the next one waits until the socket is readable.
    pub(super) is_drained: bool,
    /// Whether the last batch was a [large](LARGE_BATCH) one.
    /// Then the bytes behind it are not read before it is written.
    pub(super) streams: bool,
    /// Whether something was read since the last call of [`take_received`](Self::take_received).
    received: bool,
}

impl Reader {
    /// A reader that holds bytes that were read ahead. They are reframed before the first read.
    pub(super) fn new(read_ahead: &[u8], pool: &Pool) -> Self {
        let buffer = (!read_ahead.is_empty()).then(|| {
            let mut buffer = pool.take(HEADROOM + read_ahead.len());
            buffer.append_input(read_ahead);
            buffer
        });
        Self {
            buffer,
            frame: 0,
            handed_over: 0,
            turn: 0,
            size: ReadSize::default(),
            is_drained: true,
            streams: false,
            received: false,
        }
    }

    /// Whether something was read since the last call.
    pub(super) fn take_received(&mut self) -> bool {
        std::mem::take(&mut self.received)
    }

    /// Whether a batch waits to be handed over.
    pub(super) fn has_output(&self) -> bool {
        self.output_length() > 0
    }

    /// The bytes that wait to be handed over.
    pub(super) fn output_length(&self) -> usize {
        self.buffer.as_ref().map_or(0, |buffer| buffer.output().len())
    }

    /// Whether there is a part of a frame.
    pub(super) fn has_input(&self) -> bool {
        self.buffer.as_ref().is_some_and(|buffer| !buffer.input().is_empty())
    }

    /// The capacity for the next read, or `None` if the output has to be handed over first.
    pub(super) fn capacity(&self, pool: &Pool) -> Option<usize> {
        let held = self.buffer.as_ref().map(|buffer| Held {
            capacity: buffer.capacity(),
            output: buffer.output().len(),
            input: buffer.input().len(),
        });
        read_size::capacity(self.size, self.frame as usize, held, pool.is_short())
    }

    /// Reads once, `most` bytes at most, into a buffer of this [capacity](Self::capacity) or a larger one.
    ///
    /// `None`: there is no room. A read of 0 bytes is the end of the stream.
    pub(super) fn read(
        &mut self,
        capacity: usize,
        most: usize,
        socket: &impl Transport,
        context: &WorkerContext,
    ) -> Option<io::Result<usize>> {
        let (expected, is_short) = (self.size.bytes(), context.pool.is_short());
        let buffer = self.buffer_with(capacity, is_short, &context.pool);
        let is_squeezed = is_short && buffer.capacity() < expected;
        let room = Room::new(buffer.spare_mut(), most)?.into_bytes();
        let result = socket.receive(room);
        let (room, count) = (room.len(), result.as_ref().copied().unwrap_or(0));
        buffer.fill(count);
        if result.is_ok() {
            if is_squeezed {
                context.telemetry.squeezed();
            }
            self.received = true;
            self.is_drained = count < room;
            // A read that a rate has limited says nothing about the socket.
            self.size.adapt(count, !self.is_drained && room < most);
        }
        Some(result)
    }

    /// The buffer, with room for the next read: a new one, a larger one or the existing one.
    fn buffer_with(&mut self, capacity: usize, is_short: bool, pool: &Pool) -> &mut Buffer {
        let capacity = capacity.min(LARGEST);
        let buffer = match self.buffer.take() {
            None => pool.take(capacity),
            Some(mut buffer) => {
                let least = read_size::least_room(self.frame as usize, buffer.input().len(), is_short);
                if buffer.capacity() < capacity || buffer.spare_mut().len() < least {
                    let mut large = pool.take(capacity);
                    buffer.move_into(&mut large);
                    pool.put(std::mem::replace(&mut buffer, large));
                }
                buffer
            }
        };
        self.buffer.insert(buffer)
    }

    /// Takes the buffer with its output, if there is any, and keeps the input in another buffer.
    ///
    /// The output is what the `reframer` has made.
    pub(super) fn split_output(&mut self, reframer: &Reframer, pool: &Pool) -> Option<Box<Buffer>> {
        if !self.has_output() {
            return None;
        }
        let mut batch = self.buffer.take()?;
        if !batch.input().is_empty() {
            // As small as possible: the next read takes a buffer that is still in the cache, and copies the rest to its
            // front.
            let mut rest = pool.take(HEADROOM + batch.input().len());
            batch.move_input_into(&mut rest);
            self.buffer = Some(rest);
        }
        batch.ends_within_message = reframer.output_ends_within_message();
        let messages = reframer.tally().forwarded as u32;
        batch.messages = messages.wrapping_sub(std::mem::replace(&mut self.handed_over, messages));
        Some(batch)
    }

    /// Drops the output, which no peer will get.
    pub(super) fn clear_output(&mut self) {
        if let Some(buffer) = &mut self.buffer {
            buffer.clear_output();
        }
    }

    /// Gives the buffer back if it is empty, and moves its bytes into a smaller one if they fit.
    pub(super) fn shrink(&mut self, pool: &Pool) {
        let Some(mut large) = self.buffer.take() else { return };
        let held = large.output().len() + large.input().len();
        if held > 0 {
            let needed = 2 * HEADROOM + held;
            if size_for(needed) >= size_for(large.capacity()) {
                self.buffer = Some(large);
                return;
            }
            let mut small = pool.take(needed);
            large.move_into(&mut small);
            self.buffer = Some(small);
        }
        pool.put(large);
    }
}
