//! Operations on the pure cores, and naive models of these, for property tests and fuzz targets.
//!
//! Operations are decoded from bytes, so that every input is a legal sequence and shrinks.

#![allow(dead_code, unreachable_pub, reason = "each test and fuzz target uses a part")]

pub mod oracle;
pub mod stream;
pub mod table;
