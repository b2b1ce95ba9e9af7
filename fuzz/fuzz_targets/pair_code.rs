//! Arbitrary request targets: the pair code must be what the URL Standard's own parser finds.
//!
//! The exception is bytes that are not UTF-8. The standard's parser replaces them, and the relay must refuse them.

#![no_main]

use arc_relay::internals::pair_code::{MAX_CHARACTERS, PairCode};
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

fuzz_target!(|target: &str| {
    let query = target.split_once('?').map(|(_, query)| query.split('#').next().unwrap_or_default());
    let expected = query.and_then(|query| {
        form_urlencoded::parse(query.as_bytes()).find_map(|(name, value)| (name == "pair").then_some(value))
    });
    let found = PairCode::from_target(target);
    match expected {
        None => assert!(found.is_err()),
        Some(value) => {
            let canonical = format!("/?pair={}", utf8_percent_encode(&value, NON_ALPHANUMERIC));
            match found {
                Ok(code) => assert_eq!(Ok(code), PairCode::from_target(&canonical)),
                Err(_) => {
                    let length = value.chars().count();
                    assert!(length == 0 || length > MAX_CHARACTERS || value.contains('\u{FFFD}'));
                }
            }
        }
    }
});
