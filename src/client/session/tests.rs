//! What a line can do to records: reorder, repeat, change, truncate, lose. Each ends the meeting.

use proptest::prelude::*;

use super::*;
use crate::client::noise::greeting_of_low_order;

const LONGEST_MESSAGE: usize = 200_000;

fn meeting() -> (Session, Session) {
    meeting_of(&Secret::from_bytes([7; 32]), &Secret::from_bytes([7; 32])).unwrap()
}

/// A meeting of two sides with these secrets, after its handshake.
fn meeting_of(first: &Secret, second: &Secret) -> Result<(Session, Session), Broken> {
    let (mut first, nothing) = Session::encrypted(first, true, LONGEST_MESSAGE);
    let (mut second, opening) = Session::encrypted(second, false, LONGEST_MESSAGE);
    assert_eq!(nothing, None);
    let Received::Ready(Some(answer)) = first.receive(opening.unwrap())? else { panic!("no answer") };
    assert_eq!(second.receive(answer)?, Received::Ready(None));
    assert!(first.is_ready() && second.is_ready());
    Ok((first, second))
}

fn sealed(session: &mut Session, message: &[u8]) -> Vec<Vec<u8>> {
    let parts: Vec<_> = if message.is_empty() { vec![message] } else { message.chunks(PART).collect() };
    let last = parts.len() - 1;
    parts.iter().enumerate().map(|(nth, part)| session.seal(part, nth == last)).collect()
}

/// What a line does to one of the records.
#[derive(Clone, Debug)]
enum Harm {
    Repeat(usize),
    Swap(usize),
    Lose(usize),
    Flip(usize, usize, u8),
    Truncate(usize, usize),
    Lengthen(usize, u8),
    /// A record of the receiver's own comes back.
    Reflect(usize),
    /// A record of an earlier meeting comes again.
    Replay(usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let nth = any::<usize>();
    prop_oneof![
        nth.prop_map(Harm::Repeat),
        nth.prop_map(Harm::Swap),
        nth.prop_map(Harm::Lose),
        (nth, any::<usize>(), 1..=u8::MAX).prop_map(|(nth, at, bits)| Harm::Flip(nth, at, bits)),
        (nth, any::<usize>()).prop_map(|(nth, length)| Harm::Truncate(nth, length)),
        (nth, any::<u8>()).prop_map(|(nth, byte)| Harm::Lengthen(nth, byte)),
        nth.prop_map(Harm::Reflect),
        nth.prop_map(Harm::Replay),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn messages_arrive_whole_and_in_order(
        lengths in prop::collection::vec(prop_oneof![0..50usize, PART - 2..PART + 3, Just(3 * PART + 1)], 0..6),
        from_first: bool,
    ) {
        let (first, second) = meeting();
        let (mut from, mut to) = if from_first { (first, second) } else { (second, first) };
        for (nth, length) in lengths.into_iter().enumerate() {
            let message: Vec<u8> = (0..length).map(|at| (at * 31 + nth) as u8).collect();
            let mut records = sealed(&mut from, &message);
            prop_assert!(records.iter().all(|record| record.len() <= LONGEST));
            let last = records.pop().unwrap();
            for record in records {
                prop_assert_eq!(to.receive(record), Ok(Received::Nothing));
            }
            prop_assert_eq!(to.receive(last), Ok(Received::Message(message)));
        }
        let farewell = from.farewell().unwrap();
        prop_assert_eq!(to.receive(farewell), Ok(Received::Farewell { is_orderly: true }));
        let behind = from.seal(b"late", true);
        prop_assert_eq!(to.receive(behind), Err(Broken::BehindFarewell));
    }

    #[test]
    fn harmed_record_ends_the_meeting(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 2..6), harm in harm()) {
        let (mut from, mut to) = meeting();
        let (mut earlier, _) = meeting();
        let mut records: Vec<_> = messages.iter().map(|message| from.seal(message, true)).collect();
        let count = records.len();
        // The place of the first record that is not the next one.
        let harmed = match harm {
            Harm::Repeat(nth) => {
                records.insert(nth % count + 1, records[nth % count].clone());
                nth % count + 1
            }
            Harm::Swap(nth) => {
                let nth = nth % (count - 1);
                records.swap(nth, nth + 1);
                nth
            }
            Harm::Lose(nth) => {
                // The loss of the last one shows only in a farewell that does not come.
                let nth = nth % (count - 1);
                records.remove(nth);
                nth
            }
            Harm::Flip(nth, at, bits) => {
                let record = &mut records[nth % count];
                let at = at % record.len();
                record[at] ^= bits;
                nth % count
            }
            Harm::Truncate(nth, length) => {
                let record = &mut records[nth % count];
                record.truncate(length % record.len());
                nth % count
            }
            Harm::Lengthen(nth, byte) => {
                records[nth % count].push(byte);
                nth % count
            }
            Harm::Reflect(nth) => {
                records[nth % count] = to.seal(b"mine", true);
                nth % count
            }
            Harm::Replay(nth) => {
                records[nth % count] = earlier.seal(&messages[nth % count], true);
                nth % count
            }
        };
        for (nth, record) in records.into_iter().enumerate() {
            let received = to.receive(record);
            if nth < harmed {
                prop_assert_eq!(received, Ok(Received::Message(messages[nth].clone())));
            } else {
                prop_assert_eq!(received, Err(Broken::Forged), "the meeting does not go on");
                prop_assert!(!to.is_ready());
            }
        }
    }

    #[test]
    fn anything_else_than_a_handshake_is_refused(message in prop::collection::vec(any::<u8>(), 0..100), is_first: bool) {
        let (mut session, _) = Session::encrypted(&Secret::from_bytes([7; 32]), is_first, LONGEST_MESSAGE);
        prop_assert_eq!(session.receive(message), Err(Broken::Forged));
    }
}

#[test]
fn sides_with_different_secrets_do_not_meet() {
    let sides = meeting_of(&Secret::from_bytes([7; 32]), &Secret::from_bytes([8; 32]));
    assert_eq!(sides.unwrap_err(), Broken::Forged);
}

#[test]
fn peer_with_a_public_key_of_low_order_is_refused() {
    let secret = Secret::from_bytes([7; 32]);
    let (mut session, _) = Session::encrypted(&secret, true, LONGEST_MESSAGE);
    assert_eq!(session.receive(greeting_of_low_order(&secret.key())), Err(Broken::Forged));
}

#[test]
fn kinds_of_a_later_version_end_the_meeting() {
    let (mut from, mut to) = meeting();
    let record = from.record(3, b"?");
    assert_eq!(to.receive(record), Err(Broken::UnknownKind));
}

#[test]
fn messages_beyond_the_bound_end_the_meeting() {
    let (mut from, mut to) = meeting();
    let results: Vec<_> =
        sealed(&mut from, &vec![0; LONGEST_MESSAGE + 1]).into_iter().map(|record| to.receive(record)).collect();
    assert_eq!(results.last(), Some(&Err(Broken::TooLong)));
    let (mut from, mut to) = meeting();
    let last = sealed(&mut from, &vec![0; LONGEST_MESSAGE]).into_iter().map(|record| to.receive(record)).last();
    assert!(matches!(last, Some(Ok(Received::Message(message))) if message.len() == LONGEST_MESSAGE));
}

#[test]
fn farewell_within_a_message_is_not_orderly() {
    let (mut from, mut to) = meeting();
    assert_eq!(to.receive(from.seal(b"begun", false)), Ok(Received::Nothing));
    assert_eq!(to.receive(from.farewell().unwrap()), Ok(Received::Farewell { is_orderly: false }));
}

#[test]
fn debug_output_is_without_keys() {
    let (first, _) = Session::encrypted(&Secret::from_bytes([7; 32]), true, 1);
    assert_eq!(format!("{first:?} {:?}", meeting().0), "Session(greeting) Session(keyed)");
}
