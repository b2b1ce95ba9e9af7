//! The cost of the two cores by themselves: reframing by frame size, and the pair table by pair codes.
//!
//! `cargo bench --bench cores` measures time, which is comparable only within a run. `benches/cores/check` counts
//! instructions instead, which hardly differ between runs. It compares them with the figures in
//! `benches/cores/instructions.txt`.

#[path = "../support/frame.rs"]
mod frame;

use std::hint::black_box;
use std::time::{Duration, Instant};

use arc_relay::internals::buffer::Buffer;
use arc_relay::internals::pair_code::PairCode;
use arc_relay::internals::pair_table::{Admission, ConnId, Departure, HasSide, PairTable};
use arc_relay::internals::reframer::{Event, Reframer};
use arc_relay::internals::side_id::SideId;
use frame::{MASK, frame};

/// Payload sizes of the frames, in bytes.
const FRAMES: [usize; 7] = [16, 64, 125, 1 << 10, 16 << 10, 64 << 10, 1 << 20];

/// Numbers of pair codes in the table.
const CODES: [usize; 5] = [100, 1000, 10_000, 100_000, 1_000_000];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        // For callgrind: one core, this many times.
        [what, number, times] => {
            let (number, times) = (number.parse().expect("a number"), times.parse().expect("a number"));
            match what.as_str() {
                "reframe" => {
                    let mut stream = Stream::new(number);
                    (0..times).for_each(|_| _ = stream.rewrite());
                }
                "pair_table" => churn(&mut table(number), times),
                _ => panic!("unknown core {what}: use reframe or pair_table"),
            }
        }
        _ => measure(),
    }
}

fn measure() {
    println!("| frames of | ns per frame | GB/s |\n|---|---|---|");
    for size in FRAMES {
        let mut stream = Stream::new(size);
        let per_read = median(|| stream.rewrite());
        let per_frame = per_read * stream.frame as f64 / stream.bytes.len() as f64;
        println!("| {size} B | {per_frame:.1} | {:.1} |", stream.bytes.len() as f64 / per_read);
    }
    println!("\n| pair codes in use | million operations per second |\n|---|---|");
    for codes in CODES {
        let mut table = table(codes);
        let times = 20_000;
        let time = median(|| {
            let begin = Instant::now();
            churn(&mut table, times);
            begin.elapsed()
        });
        println!("| {codes} | {:.2} |", 4.0 * times as f64 / time * 1000.0);
    }
}

/// The median time in nanoseconds of an operation that is repeated for half a second.
fn median(mut measured: impl FnMut() -> Duration) -> f64 {
    let begin = Instant::now();
    let mut times = Vec::new();
    while begin.elapsed() < Duration::from_millis(500) || times.len() < 5 {
        times.push(measured());
    }
    times.sort();
    times[times.len() / 2].as_nanos() as f64
}

/// The result of a read when a client sends frames of one size: as many as fill the largest buffer.
struct Stream {
    bytes: Vec<u8>,
    /// The length of a frame, header included.
    frame: usize,
    buffer: Buffer,
}

impl Stream {
    fn new(size: usize) -> Self {
        let payload: Vec<_> = (0..size).map(|i| i as u8).collect();
        let frame = frame(&payload, Some(MASK));
        let bytes = frame.repeat(((256 << 10) / frame.len()).max(1));
        let buffer = Buffer::new(bytes.len() + 64);
        Self { bytes, frame: frame.len(), buffer }
    }

    /// Fills the buffer, outside of the measured time.
    fn read(&mut self) {
        let written = self.buffer.output().len();
        self.buffer.consume_output(written);
        self.buffer.spare_mut()[..self.bytes.len()].copy_from_slice(&self.bytes);
        self.buffer.fill(self.bytes.len());
    }

    /// Rewrites the frames, and returns the elapsed time.
    fn rewrite(&mut self) -> Duration {
        self.read();
        let begin = Instant::now();
        rewrite(&mut self.buffer);
        begin.elapsed()
    }
}

/// `check` counts this function and [`churn`] by their names.
#[inline(never)]
fn rewrite(buffer: &mut Buffer) {
    let mut reframer = Reframer::new(None);
    let buffer = black_box(buffer);
    while reframer.advance(buffer) == Ok(Event::Yield) {}
    assert_eq!(reframer.advance(buffer), Ok(Event::Starved { frame: 0 }));
}

/// An occupant without a side identity.
struct Nameless;

impl HasSide for Nameless {
    fn side(&self) -> Option<&SideId> {
        None
    }
}

/// A table with this many pair codes, each with one waiting client.
fn table(codes: usize) -> Table {
    let mut table = PairTable::new(Duration::from_secs(300));
    let now = Instant::now();
    for nth in 0..codes {
        let _waiting = table.connect(&code(nth), Nameless, |_| Some(()), now).expect("there is room");
    }
    Table { table, now, next: codes }
}

struct Table {
    table: PairTable<(), Nameless>,
    now: Instant,
    next: usize,
}

fn code(nth: usize) -> PairCode {
    PairCode::from_target(&format!("/?pair={nth}")).expect("it is one")
}

/// This many pairs meet and part, with four operations each.
#[inline(never)]
fn churn(Table { table, now, next }: &mut Table, times: usize) {
    let id = |admission| -> ConnId {
        match admission {
            Admission::Waiting { id } | Admission::Paired { id, .. } | Admission::Replacing { id, .. } => id,
        }
    };
    for _ in 0..times {
        let code = code(*next);
        *next += 1;
        let first = id(table.connect(&code, Nameless, |_| Some(()), *now).expect("there is room"));
        let second = id(table.connect(&code, Nameless, |_| Some(()), *now).expect("there is a seat"));
        assert!(matches!(table.disconnect(&code, first), Departure::Paired { .. }));
        assert!(matches!(table.disconnect(&code, second), Departure::Absent));
    }
}
