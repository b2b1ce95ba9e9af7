//! Holds the test vectors of docs/rendezvous to docs/scaling.md, with an implementation of its own.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use serde_json::Value;
use sha2::{Digest, Sha256};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../docs/rendezvous/vectors.json")).unwrap()
}

fn score(relay: &str, code: &str) -> [u8; 32] {
    Sha256::digest([relay.as_bytes(), b"\0", code.as_bytes()].concat()).into()
}

/// The relays by descending score.
fn order(relays: &[String], code: &str) -> Vec<String> {
    let scored: BTreeMap<_, _> = relays.iter().map(|relay| (score(relay, code), relay.clone())).collect();
    scored.into_values().rev().collect()
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn vectors_are_as_specified() {
    let vectors = vectors();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    for digest in vectors["digests"].as_array().unwrap() {
        assert_eq!(HEXLOWER.encode(&score(&text(digest, "relay"), &text(digest, "code"))), text(digest, "sha256"));
    }
    let cases = vectors["cases"].as_array().unwrap();
    assert!(cases.len() > 20);
    for case in cases {
        assert_eq!(order(&list(&case["relays"]), &text(case, "code")), list(&case["order"]), "{case}");
    }
}

#[test]
fn a_fourth_relay_takes_codes_and_moves_no_others() {
    let relays: Vec<_> = (1..=4).map(|nth| format!("wss://relay{nth}.example.org")).collect();
    let mut of_relay = BTreeMap::<_, u32>::new();
    for nth in 0..4000 {
        let code = nth.to_string();
        let (before, after) = (order(&relays[..3], &code).remove(0), order(&relays, &code).remove(0));
        assert!(after == before || after == relays[3], "{code}");
        *of_relay.entry(after).or_default() += 1;
    }
    // The standard deviation of a share is 27.
    assert!(of_relay.values().all(|count| (850..=1150).contains(count)), "{of_relay:?}");
}
