//! How connections end: not by silence, and with the codes that the relay sends.

use std::time::{Duration, Instant};

use arc_relay::internals::client::websocket::Ending;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::protocol::CloseFrame;
use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use futures_lite::FutureExt;
use serde_json::json;

use super::cause;
use super::context::Context;
use super::joining::{SMALL, fault};
use super::report::{Fault, Found, shown};
use super::side::{Lost, Side, within};

/// The code that a client closes with. The relay answers it with the same.
const CODE: u16 = 4000;

/// A client that closes gets its own code back, and its peer 1000.
pub(super) async fn close(context: &Context<'_>, mut one: Side, other: Side) {
    context.report.doing(|| String::from("closing"));
    let frame = CloseFrame { code: CloseCode::from(CODE), reason: "check".into() };
    let closed = async {
        one.outgoing.close(frame).await?;
        Ok::<_, Lost>((one.incoming.end(2 * SMALL).await?, other.incoming.end(2 * SMALL).await?))
    };
    let lost = |what: String| Err(Fault::new(&cause::CLOSE_LOST, what));
    let checked = match closed.await {
        Ok((Ending::Closed { code: CODE, .. }, Ending::Closed { code: 1000, reason }))
            if reason == "peer disconnected" =>
        {
            Ok(Found::new("4000 came back, and the peer got 1000 peer disconnected"))
        }
        Ok((Ending::Closed { code: CODE, .. }, other)) => lost(format!("the peer of a client that closed: {other}")),
        Ok((own, _)) => lost(format!("a client that closed with 4000: {own}")),
        Err(error) => lost(error.text()),
    };
    context.report.add("close", checked);
}

/// A pair that says nothing for a while has to be there after it.
pub(super) async fn silence(context: &Context<'_>) {
    let Some(silence) = context.silence else {
        context.report.skip("silence", "left out, as asked for");
        return;
    };
    let checked = match context.pair().await {
        Ok((one, other)) => be_silent(context, silence, one, other).await,
        Err(failure) => Err(fault(context, &failure).await),
    };
    context.report.add("silence", checked);
}

async fn be_silent(context: &Context<'_>, silence: Duration, mut one: Side, mut other: Side) -> Result<Found, Fault> {
    let begin = Instant::now();
    let cut = |how: String| {
        let detail = format!("cut after {} of silence: {how}", shown(begin.elapsed()));
        Fault::new(&cause::SILENCE_CUT, detail)
    };
    let tick = Duration::from_secs(1);
    while begin.elapsed() < silence {
        let left = silence.saturating_sub(begin.elapsed());
        context.report.doing(|| format!("silence, {} s to go", left.as_secs()));
        // Neither message is expected: each is the end.
        match within(left.min(tick), one.incoming.next().or(other.incoming.next())).await {
            Err(Lost::Timeout) => {}
            Err(lost) => return Err(cut(lost.text())),
            Ok(_) => {}
        }
    }
    for (from, to) in [(&mut one.outgoing, &other.incoming), (&mut other.outgoing, &one.incoming)] {
        let carried = async {
            from.send(Message::binary("hello")).await?;
            to.binary(2 * SMALL).await
        };
        carried.await.map_err(|lost| cut(lost.text()))?;
    }
    let pings = one.pings.get();
    let detail =
        format!("a pair is there after {}, in which the relay pinged each client {pings} times", shown(silence));
    Ok(Found { detail, values: json!({ "seconds": silence.as_secs_f64(), "pings": pings }) })
}
