//! The vectors of docs/protocol/vectors.json, which every client and the relay have in common.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use data_encoding::HEXLOWER;
use serde_json::Value;

pub(super) fn vectors() -> Value {
    serde_json::from_str(include_str!("../../docs/protocol/vectors.json")).unwrap()
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).unwrap()
}
