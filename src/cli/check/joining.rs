//! Joining: the upgrade, two clients with a code, a third one, and codes that need an encoding.

use std::time::{Duration, Instant};

use arc_relay::internals::client::dial;
use arc_relay::internals::client::failure::Failure;
use arc_relay::internals::client::http;
use arc_relay::internals::client::target::Target;
use async_tungstenite::tungstenite::Message;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::cause;
use super::context::{Context, code};
use super::diagnosis::fault_of;
use super::report::{Fault, Found, shown};
use super::side::{Incoming, Lost, Outgoing, Side, within};

/// How long a small message may take.
pub(super) const SMALL: Duration = Duration::from_secs(3);

/// What fills the buffers on the way: messages of this size, in bytes, and as many.
const FILLER: (usize, usize) = (64 << 10, 8);

/// The subprotocols that are offered. The relay chooses the first.
const SUBPROTOCOLS: &str = "arc-relay-check-1, arc-relay-check-2";

/// The fault of a failed opening handshake.
///
/// If the proxy does not reach the relay, the relay itself is asked.
pub(super) async fn fault(context: &Context<'_>, failure: &Failure) -> Fault {
    let fault = fault_of(failure, context.tls.certificates().as_ref());
    // HAProxy waits, where others answer 502, if its peer does not speak HTTP/2.
    let is_unreached = [&cause::GATEWAY, &cause::NO_ANSWER].contains(&fault.cause);
    let Some(relay) = context.relay.filter(|_| is_unreached) else { return fault };
    let relay = Target { path: String::from("/livez"), query: String::new(), ..relay.clone() };
    let asked = dial::within(SMALL, async {
        let mut stream = dial::open(&relay, context.tls).await?;
        http::get(&mut *stream, &relay, "").await
    });
    let detail = fault.detail;
    match asked.await {
        Ok(answer) if answer.status.is_success() => Fault::new(
            &cause::UPSTREAM,
            format!(
                "{detail}: the relay runs at {}, and the proxy gets no HTTP/1.1 from where it forwards to",
                relay.authority()
            ),
        ),
        Ok(answer) => Fault::new(&cause::RELAY_DOWN, format!("{detail}: {} answers {answer}", relay.authority())),
        Err(failure) => Fault::new(&cause::RELAY_DOWN, format!("{detail}: {failure}")),
    }
}

/// Joins two clients, who are then a pair that has exchanged a message.
///
/// None: the report has the reason.
pub(super) async fn join(context: &Context<'_>, code: &str) -> Option<(Side, Side)> {
    let report = &context.report;
    report.doing(|| String::from("opening a WebSocket"));
    let begin = Instant::now();
    let (mut one, _) = match context.join(code, "").await {
        Ok(joined) => joined,
        Err(failure) => {
            report.add("upgrade", Err(fault(context, &failure).await));
            return None;
        }
    };
    let took = begin.elapsed();
    let values = json!({ "seconds": took.as_secs_f64() });
    report.add("upgrade", Ok(Found { detail: format!("101 in {}", shown(took)), values }));

    report.doing(|| String::from("joining two clients"));
    let (mut other, subprotocol) = match context.join(code, SUBPROTOCOLS).await {
        Ok(joined) => joined,
        Err(failure) => {
            report.add("pair", Err(fault(context, &failure).await));
            return None;
        }
    };
    if !report.add("pair", meet(&mut one, &mut other).await) {
        return None;
    }
    let first = SUBPROTOCOLS.split(',').next();
    report.add(
        "subprotocol",
        match subprotocol {
            Some(chosen) if Some(&*chosen) == first => Ok(Found::new("the first one that was offered came back")),
            Some(chosen) => Err(Fault::new(&cause::SUBPROTOCOL_LOST, format!("another one came back: {chosen:?}"))),
            None => Err(Fault::new(&cause::SUBPROTOCOL_LOST, "two were offered, and none came back")),
        },
    );
    Some((one, other))
}

/// Exchanges a message in both directions.
async fn meet(one: &mut Side, other: &mut Side) -> Result<Found, Fault> {
    let lost = |lost: &Lost| Fault::new(&cause::LOST, format!("the first message was lost: {}", lost.text()));
    for (from, to) in [(&mut one.outgoing, &other.incoming), (&mut other.outgoing, &one.incoming)] {
        from.send(Message::binary("hello")).await.map_err(|error| lost(&error))?;
        match to.binary(SMALL).await {
            Ok(_) => {}
            Err(Lost::Timeout) => return Err(held(from, to).await),
            Err(error) => return Err(lost(&error)),
        }
    }
    Ok(Found::new("two clients with one code reach each other"))
}

/// Why a message did not arrive.
///
/// Something holds it until more comes, or the clients are with two relays.
async fn held(from: &mut Outgoing, to: &Incoming) -> Fault {
    let (size, count) = FILLER;
    let sent = within(SMALL, async {
        for _ in 0..count {
            from.send(Message::binary(vec![0; size])).await?;
        }
        Ok(())
    });
    let received = to.binary(SMALL);
    match futures_lite::future::zip(sent, received).await {
        (_, Ok(_)) => Fault::new(&cause::BUFFERED, "a small message arrives only when more is sent behind it"),
        _ => Fault::new(
            &cause::NOT_MET,
            "both clients are let in, and do not reach each other: there are several relays",
        ),
    }
}

/// A third client has to be refused, while the two are there.
pub(super) async fn third(context: &Context<'_>, code: &str) {
    context.report.doing(|| String::from("joining a third client"));
    let checked = match context.join(code, "").await {
        Err(Failure::Refused(answer)) if answer.status.as_u16() == 409 => {
            Ok(Found::new("refused with 409 pair is full"))
        }
        Err(failure) => Err(fault(context, &failure).await),
        Ok(_) => Err(Fault::new(&cause::THIRD_ADMITTED, "it was let in: there are several relays")),
    };
    context.report.add("third", checked);
}

/// A code that needs an encoding has to arrive as it is.
pub(super) async fn encoded(context: &Context<'_>) {
    context.report.doing(|| String::from("joining with codes that need an encoding"));
    let checked = encodings(context).await;
    context.report.add("code", checked);
}

/// Joins with three forms of two codes.
///
/// The first and the third are one code. The second is another one, and becomes the same if something decodes the first.
async fn encodings(context: &Context<'_>) -> Result<Found, Fault> {
    let base = code();
    let first = utf8_percent_encode(&format!("{base}+%é"), NON_ALPHANUMERIC).to_string();
    let second = format!("{base}+%25%C3%A9");
    let (initial, rest) = base.split_at(1);
    let third = format!("%{:02x}{rest}%2b%25%c3%a9", initial.as_bytes()[0]);
    let decoded = |what: &str| Fault::new(&cause::CODE_DECODED, format!("two different codes became one: {what}"));

    let mut sides = Vec::new();
    for form in [&first, &second] {
        match context.join(form, "").await {
            Ok((side, _)) => sides.push(side),
            Err(Failure::Refused(answer)) if answer.status.as_u16() == 400 => return Err(decoded(&answer.to_string())),
            Err(failure) => return Err(fault(context, &failure).await),
        }
    }
    let mut last = match context.join(&third, "").await {
        Ok((side, _)) => side,
        Err(Failure::Refused(answer)) if answer.status.as_u16() == 409 => return Err(decoded("%2B and +")),
        Err(failure) => return Err(fault(context, &failure).await),
    };
    let lost = |lost: &Lost| Fault::new(&cause::LOST, lost.text());
    last.outgoing.send(Message::binary("hello")).await.map_err(|error| lost(&error))?;
    match sides[0].incoming.binary(SMALL).await {
        Ok(_) => return Ok(Found::new("codes arrive as they are, in each encoding")),
        Err(Lost::Timeout) => {}
        Err(error) => return Err(lost(&error)),
    }
    // They are alone, or the first two have become a pair.
    sides[1].outgoing.send(Message::binary("hello")).await.map_err(|error| lost(&error))?;
    match sides[0].incoming.binary(SMALL).await {
        Ok(_) => Err(decoded("%2B and +")),
        Err(_) => {
            Err(Fault::warning(&cause::CODE_ENCODING, "one code in two encodings (%2B and %2b) is two codes here"))
        }
    }
}
