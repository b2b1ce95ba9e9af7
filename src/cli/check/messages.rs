//! Messages: text is dropped, and binary ones of all sizes arrive byte for byte.

use std::time::Duration;

use arc_relay::internals::client::websocket::Ending;
use async_tungstenite::tungstenite::Message;
use bytesize::ByteSize;
use futures_lite::future::zip;
use serde_json::json;

use super::cause;
use super::context::{Context, pattern};
use super::joining::SMALL;
use super::report::{Fault, Found};
use super::side::{Incoming, Lost, Outgoing, Side, within};

/// The sizes of messages: those at which the form of a frame changes, and long ones.
const SIZES: [usize; 9] = [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 4 << 20, 8 << 20];

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Text is dropped, and what comes behind it is not.
pub(super) async fn text(context: &Context<'_>, one: &mut Side, other: &Side) -> bool {
    context.report.doing(|| String::from("sending text"));
    let checked = async {
        one.outgoing.send(Message::text("text")).await?;
        one.outgoing.send(Message::binary("binary")).await?;
        other.incoming.binary(SMALL).await
    };
    let checked = match checked.await {
        Ok(_) => Ok(Found::new("dropped, as it has to be")),
        Err(Lost::Text) => Err(Fault::new(&cause::TEXT_FORWARDED, "it was forwarded")),
        Err(lost) => Err(Fault::new(&cause::LOST, lost.text())),
    };
    context.report.add("text", checked)
}

/// Messages of all sizes, both ways at once.
pub(super) async fn sizes(context: &Context<'_>, one: &mut Side, other: &mut Side) -> bool {
    let checked = cross(context, one, other).await;
    context.report.add("messages", checked)
}

async fn cross(context: &Context<'_>, one: &mut Side, other: &mut Side) -> Result<Found, Fault> {
    let mut passed = None;
    for size in SIZES {
        context.report.doing(|| format!("messages of {}", ByteSize(size as u64)));
        let there = carry(&mut one.outgoing, &other.incoming, pattern(size, 1));
        let back = carry(&mut other.outgoing, &one.incoming, pattern(size, 2));
        match zip(there, back).await {
            (Ok(true), Ok(true)) => passed = Some(size),
            (Ok(false), _) | (_, Ok(false)) => {
                let detail = format!("a message of {} was changed on the way", ByteSize(size as u64));
                return Err(Fault::new(&cause::MESSAGE_CHANGED, detail));
            }
            (there, back) => return Err(stopped(size, passed, &[there.err(), back.err()])),
        }
    }
    let detail = format!("0 to {} both ways, byte for byte", ByteSize(SIZES[SIZES.len() - 1] as u64));
    Ok(Found { detail, values: json!({ "longest": passed }) })
}

/// Sends a message, and tells whether it arrives as it was.
async fn carry(from: &mut Outgoing, to: &Incoming, bytes: Vec<u8>) -> Result<bool, Lost> {
    let sent = within(PATIENCE, from.send(Message::binary(bytes.clone())));
    let (sent, received) = zip(sent, to.binary(PATIENCE)).await;
    // The receiving side has the close frame, if there is one.
    let received = received?;
    sent?;
    Ok(received == bytes)
}

/// Why a message of this size did not arrive.
fn stopped(size: usize, passed: Option<usize>, lost: &[Option<Lost>]) -> Fault {
    let endings: Vec<_> = lost.iter().flatten().collect();
    let closed = endings.iter().find_map(|lost| match lost {
        Lost::Ended(Ending::Closed { code: 1009, reason }) => Some(&**reason),
        _ => None,
    });
    let how = match closed {
        Some(reason) => format!("closed with 1009 {reason}").trim_end().to_owned(),
        None => endings.first().map(|lost| lost.text()).unwrap_or_default(),
    };
    let passed = passed.map_or(String::from("none has passed"), |size| format!("{} has passed", ByteSize(size as u64)));
    let cause = if closed == Some("message too big") { &cause::RELAY_LIMIT } else { &cause::MESSAGE_LIMIT };
    Fault::new(cause, format!("a message of {} did not arrive, and {passed}: {how}", ByteSize(size as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_of_the_relay_is_told_from_others() {
        let closed = |code, reason: &str| Some(Lost::Ended(Ending::Closed { code, reason: reason.into() }));
        let lost = closed(1011, "peer connection lost");
        for (lost, expected) in [
            ([lost, closed(1009, "message too big")], "relay_limit"),
            ([closed(1009, "Too big"), None], "message_limit"),
            ([Some(Lost::Ended(Ending::Cut)), Some(Lost::Timeout)], "message_limit"),
        ] {
            assert_eq!(stopped(1 << 20, Some(65_536), &lost).cause.name, expected);
        }
        let fault = stopped(1 << 20, Some(65_536), &[Some(Lost::Ended(Ending::Cut)), None]);
        assert!(
            fault.detail.starts_with("a message of 1.0 MiB did not arrive, and 64.0 KiB has passed: "),
            "{fault:?}"
        );
    }
}
