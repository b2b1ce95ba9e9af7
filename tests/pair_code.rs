//! Pair codes: every encoding of a text gives the same code, and different bytes never do.

use arc_relay::internals::pair_code::{MAX_CHARACTERS, PairCode};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

/// The number of cases, and the file that keeps failing ones to be tried first.
fn config(cases: u32) -> ProptestConfig {
    let kept = FileFailurePersistence::Direct("tests/regressions/pair_code.txt");
    ProptestConfig { failure_persistence: Some(Box::new(kept)), ..ProptestConfig::with_cases(cases) }
}

/// Form-encodes each byte in one of its several encodings, as chosen by `style`.
fn form_encode(bytes: &[u8], style: &[u8]) -> String {
    let mut styles = style.iter().cycle();
    bytes
        .iter()
        .map(|&byte| match (byte, styles.next().copied().unwrap_or(0) % 3) {
            (b' ', 0 | 1) => String::from("+"),
            (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.', 0 | 1) => char::from(byte).to_string(),
            (byte, 2) => format!("%{byte:02x}"),
            (byte, _) => format!("%{byte:02X}"),
        })
        .collect()
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn text_is_one_code_in_any_encoding(text in ".{1,256}", styles in any::<[[u8; 7]; 2]>(), noise in "[a-o=+]{0,9}") {
        let [one, other] = styles.map(|style| form_encode(text.as_bytes(), &style));
        let code = PairCode::from_target(&format!("/?pair={one}"));
        prop_assert!(code.is_ok());
        prop_assert_eq!(&code, &PairCode::from_target(&format!("/{noise}?{noise}&p%61ir={other}&pair={noise}")));
    }

    #[test]
    fn different_bytes_are_never_the_same_code(one in any::<Vec<u8>>(), other in any::<Vec<u8>>()) {
        let [a, b] = [&one, &other].map(|bytes| PairCode::from_target(&format!("/?pair={}", form_encode(bytes, &[1]))));
        for (bytes, code) in [(&one, &a), (&other, &b)] {
            let characters = std::str::from_utf8(bytes).map(|text| text.chars().count());
            prop_assert_eq!(code.is_ok(), matches!(characters, Ok(1..=MAX_CHARACTERS)));
        }
        if let (Ok(a), Ok(b)) = (a, b) {
            prop_assert_eq!(a == b, one == other);
        }
    }

    #[test]
    fn no_target_panics(target in any::<String>()) {
        let _ = PairCode::from_target(&target);
    }
}
