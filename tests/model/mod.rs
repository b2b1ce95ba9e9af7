//! What proptest and cargo-fuzz share: operations on the cores, decoded from bytes so that every input is a legal
//! sequence and shrinks, and naive models that say what must come out.

#![allow(dead_code, unreachable_pub, reason = "each test and fuzz target uses a part of it")]

pub mod oracle;
pub mod stream;
pub mod table;
