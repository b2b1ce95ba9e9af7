//! The pair table and its links against the model of the property tests.
//!
//! Every two bytes are an operation.

#![no_main]

#[path = "../../tests/model/mod.rs"]
mod model;

use libfuzzer_sys::fuzz_target;
use model::table::{Operation, run};

fuzz_target!(|bytes: &[u8]| {
    run(bytes.chunks_exact(2).map(|pair| Operation::from_bytes([pair[0], pair[1]])));
});
