//! Text that is read: the messages of `arc-relay.v1`, beside a naive model that knows what it has made.

use arc_relay::internals::reframer::{Reframer, Violation};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::model::stream::{End, Frame, feed_to, messages};
use crate::{Sent, config, encode, reads};

/// The longest text message.
const LONGEST: usize = 512;

/// What the relay has to make of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meaning {
    Ping(Option<String>),
    Nothing,
    Unsupported,
}

/// A JSON string, with some characters written as escapes.
fn quoted(text: &str, escapes: bool) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\0'..='\x1F' => quoted += &format!("\\u{:04x}", u32::from(character)),
            _ if escapes && u32::from(character) < 0x10000 => quoted += &format!("\\u{:04X}", u32::from(character)),
            _ => quoted.push(character),
        }
    }
    quoted + "\""
}

fn texts() -> impl Strategy<Value = (String, Meaning)> {
    let string = prop_oneof!["[a-z\"]{0,8}", "(?s).{0,20}"];
    let value = prop_oneof!["[1-9][0-9]{0,8}", "true|false|null", "\\[\\]|\\{\\}|\\[\"ping\"\\]"];
    let id = prop_oneof![
        3 => Just(None),
        4 => string.clone().prop_map(Some),
        // The edge of what is allowed.
        1 => (62..67_usize).prop_map(|length| Some("é".repeat(length))),
    ];
    let ping = (id, any::<bool>(), value.clone()).prop_map(|(id, escapes, other)| {
        let field = id.iter().map(|id| format!(",\"id\":{}", quoted(id, escapes))).collect::<String>();
        let is_long = id.as_ref().is_some_and(|id| id.chars().count() > 64);
        let meaning = if is_long { Meaning::Unsupported } else { Meaning::Ping(id) };
        (format!("{{\"other\":{other}{field},\"type\":{}}}", quoted("ping", escapes)), meaning)
    });
    let unknown = (string, value.clone()).prop_map(|(kind, id)| {
        let meaning = if kind == "ping" { Meaning::Unsupported } else { Meaning::Nothing };
        (format!("{{\"type\":{},\"id\":{id}}}", quoted(&kind, false)), meaning)
    });
    let bad = prop_oneof![
        value.clone(),
        value.clone().prop_map(|kind| format!("{{\"type\":{kind}}}")),
        value.prop_map(|id| format!("{{\"type\":\"ping\",\"id\":{id}}}")),
        Just(String::from("{\"type\":\"ping\"")),
        Just(String::from("{\"type\":\"ping\"}}")),
        "[a-z{ ]{0,9}",
    ];
    let short = prop_oneof![6 => ping, 3 => unknown, 1 => bad.prop_map(|text| (text, Meaning::Unsupported))];
    // White space makes some of them as long as they may be, or longer.
    (short, prop_oneof![5 => 0..3_usize, 1 => LONGEST - 2..LONGEST + 3]).prop_map(|((text, meaning), length)| {
        let text = format!("{text}{}", " ".repeat(length.saturating_sub(text.len())));
        let meaning = if text.len() > LONGEST { Meaning::Unsupported } else { meaning };
        (text, meaning)
    })
}

/// A message: binary, or text with its meaning.
fn sent() -> impl Strategy<Value = (Sent, Meaning)> {
    let binary = prop::collection::vec(any::<u8>(), 0..400).prop_map(|payload| (false, payload, Meaning::Nothing));
    let text = texts().prop_map(|(text, meaning)| (true, text.into_bytes(), meaning));
    let cuts = prop::collection::vec(any::<Index>(), 0..4);
    let controls = prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..=125)), 0..3);
    let content = prop_oneof![1 => binary, 2 => text];
    (content, cuts, controls, any::<[u8; 4]>()).prop_map(|((text, payload, meaning), cuts, controls, mask)| {
        (Sent { text, payload, cuts, controls, mask }, meaning)
    })
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn text_is_read_as_what_it_was_made_from(sent in prop::collection::vec(sent(), 0..6), reads in reads()) {
        let frames: Vec<_> = sent.iter().flat_map(|(sent, _)| sent.frames()).collect();
        let outcome = feed_to(Reframer::new(None).reading_text(), &encode(&frames), &reads, |nth| nth % 3 > 0);

        let (mut pings, mut text_pings, mut binary) = (vec![], vec![], vec![]);
        let mut end = End::Open { mid_message: false };
        'sent: for (sent, meaning) in &sent {
            let mut length = 0;
            for Frame { opcode, payload, .. } in sent.frames() {
                match opcode {
                    9 => pings.push(payload),
                    10 => {}
                    _ => length += payload.len(),
                }
                // The header of a frame is judged before its payload.
                if sent.text && length > LONGEST {
                    end = End::Violated(Violation::UnsupportedText);
                    break 'sent;
                }
            }
            match meaning {
                Meaning::Ping(id) => text_pings.push(id.clone()),
                Meaning::Nothing if sent.text => {}
                Meaning::Nothing => binary.push(sent.payload.clone()),
                Meaning::Unsupported => {
                    end = End::Violated(Violation::UnsupportedText);
                    break;
                }
            }
        }
        prop_assert_eq!((&outcome.pings, &outcome.text_pings, &outcome.end), (&pings, &text_pings, &end));
        prop_assert_eq!(messages(&outcome.output), (binary, None));
        prop_assert_eq!(outcome.tally.dropped, 0);
    }
}

/// Text that is not UTF-8 has the close code of that, in whatever way it is unsupported besides.
#[test]
fn invalid_utf_8_comes_before_unsupported_text() {
    for (text, code) in [(&b"\xFF"[..], 1007), (b"{\"type\":\"\xC3", 1007), (b"{}", 1003), (&[0xFF; LONGEST + 1], 1003)]
    {
        let frame = Frame { opcode: 1, fin: true, mask: [1, 2, 3, 4], payload: text.to_vec() };
        for reads in [&[][..], &[1], &[7]] {
            let outcome =
                feed_to(Reframer::new(None).reading_text(), &encode(std::slice::from_ref(&frame)), reads, |_| true);
            let End::Violated(violation) = outcome.end else { panic!("{:?}", outcome.end) };
            assert_eq!(violation.code(), code, "{text:?}");
        }
    }
    assert_eq!(Violation::UnsupportedText.reason(), "unsupported text message");
}
