//! Arbitrary bytes through the reframer.
//!
//! The first byte says how the stream is split and limited. The rest is the stream, with some zeros behind it, so that
//! a short input may begin a long frame. The output must not depend on the split, and tungstenite's client must be able
//! to read it. The same stream goes through a reframer that reads text.

#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;

const SPLITS: [&[usize]; 8] = [&[1], &[2, 1], &[3], &[7, 2], &[14, 1], &[60, 3], &[1000], &[5, 100_000]];

fuzz_target!(|bytes: &[u8]| {
    if let Some((&choice, stream)) = bytes.split_first() {
        let limit = (choice & 8 != 0).then_some(u64::from(choice));
        let zeros = if choice >> 3 == 0b11110 { 70_000 } else { 0 };
        model::stream::check_raw(&[stream, &vec![0; zeros]].concat(), SPLITS[usize::from(choice % 8)], limit);
    }
});
