//! Latency and throughput.

use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::Message;
use bytesize::ByteSize;
use futures_lite::future::zip;
use serde_json::json;

use super::cause;
use super::context::Context;
use super::joining::SMALL;
use super::report::{Fault, Found, shown};
use super::side::{Incoming, Lost, Outgoing, Side, within};

/// How many pings, and how many messages, are timed.
const SAMPLES: usize = 30;

/// How long all samples of a kind may take. A slow line has fewer.
const LONGEST: Duration = Duration::from_secs(5);

/// The longest time of a message that no buffering explains, beside four times that of connecting.
const SUSPICIOUS: Duration = Duration::from_millis(300);

/// How long a stream takes, the most bytes in it, and the bytes of a message.
const STREAM: (Duration, usize, usize) = (Duration::from_secs(2), 64 << 20, 64 << 10);

/// How long pings and small messages take.
pub(super) async fn latency(context: &Context<'_>, one: &mut Side, other: &Side) -> bool {
    context.report.doing(|| String::from("pings"));
    let checked = time(context, one, other).await;
    context.report.add("latency", checked)
}

async fn time(context: &Context<'_>, one: &mut Side, other: &Side) -> Result<Found, Fault> {
    let lost = |lost: Lost| Fault::new(&cause::LOST, format!("a ping or a message was lost: {}", lost.text()));
    let pings = samples(async |nth| ping(one, nth).await).await.map_err(lost)?;
    let messages = samples(async |_| {
        one.outgoing.send(Message::binary("message")).await?;
        other.incoming.binary(SMALL).await.map(drop)
    });
    let messages = messages.await.map_err(lost)?;
    let [p50, p99] = [50, 99].map(|percent| percentile(&pings, percent));
    let message = percentile(&messages, 50);
    let detail = format!("pings p50 {}, p99 {}; messages p50 {}", shown(p50), shown(p99), shown(message));
    if message > SUSPICIOUS + 4 * context.connect_time.get() {
        let detail = format!("{detail}, while connecting takes {}", shown(context.connect_time.get()));
        return Err(Fault::new(&cause::BUFFERED, detail));
    }
    let seconds = |duration: Duration| duration.as_secs_f64();
    let values = json!({
        "ping_p50_seconds": seconds(p50), "ping_p99_seconds": seconds(p99), "message_p50_seconds": seconds(message),
    });
    Ok(Found { detail, values })
}

/// Times something again and again.
async fn samples(mut sample: impl AsyncFnMut(usize) -> Result<(), Lost>) -> Result<Vec<Duration>, Lost> {
    let (begin, mut times) = (Instant::now(), Vec::new());
    while times.len() < SAMPLES && (times.is_empty() || begin.elapsed() < LONGEST) {
        let begin = Instant::now();
        sample(times.len()).await?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// Sends a ping, and waits for its pong.
async fn ping(side: &mut Side, nth: usize) -> Result<(), Lost> {
    let payload = nth.to_be_bytes().to_vec();
    side.outgoing.send(Message::Ping(payload.clone().into())).await?;
    within(SMALL, async {
        loop {
            match side.incoming.next().await? {
                Message::Pong(pong) if pong == payload => break Ok(()),
                _ => {}
            }
        }
    })
    .await
}

/// A percentile of times in order.
fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent).div_ceil(100).max(1) - 1]
}

/// How fast a stream is, first one way, then the other.
pub(super) async fn throughput(context: &Context<'_>, one: &mut Side, other: &mut Side) -> bool {
    let mut rates = Vec::new();
    let mut failed = None;
    for (from, to) in [(&mut one.outgoing, &other.incoming), (&mut other.outgoing, &one.incoming)] {
        context.report.doing(|| String::from("a stream of messages"));
        match stream(from, to).await {
            Ok(rate) => rates.push(rate),
            Err(lost) => failed = failed.or(Some(lost)),
        }
    }
    let checked = match (&*rates, failed) {
        (&[there, back], None) => {
            let [shown_there, shown_back] = [there, back].map(|rate| ByteSize(rate).to_string());
            let values = json!({ "bytes_per_second": [there, back] });
            Ok(Found { detail: format!("{shown_there}/s one way, {shown_back}/s the other"), values })
        }
        (_, lost) => {
            let how = lost.map(|lost| lost.text()).unwrap_or_default();
            Err(Fault::new(&cause::LOST, format!("a stream of messages was lost: {how}")))
        }
    };
    context.report.add("throughput", checked)
}

/// Sends messages for some seconds, and returns how many bytes arrive in a second.
async fn stream(from: &mut Outgoing, to: &Incoming) -> Result<u64, Lost> {
    let (longest, most, size) = STREAM;
    let begin = Instant::now();
    let sending = async {
        let mut sent = 0;
        while sent < most && begin.elapsed() < longest {
            from.send(Message::binary(vec![0x55; size])).await?;
            sent += size;
        }
        from.send(Message::binary("end")).await
    };
    let receiving = async {
        let mut received = 0;
        loop {
            // Behind a slow line, megabytes wait in the proxy.
            let message = to.binary(10 * SMALL).await?;
            received += message.len() as u64;
            if message == b"end" {
                break Ok((received, begin.elapsed()));
            }
        }
    };
    let (sent, received) = zip(sending, receiving).await;
    let (bytes, took) = received?;
    sent?;
    Ok((bytes as f64 / took.as_secs_f64()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let times: Vec<_> = (1..=100).map(Duration::from_secs).collect();
        assert_eq!([1, 50, 99, 100].map(|percent| percentile(&times, percent).as_secs()), [1, 50, 99, 100]);
        assert_eq!(percentile(&times[..1], 99).as_secs(), 1);
        assert_eq!(percentile(&times[..3], 50).as_secs(), 2);
    }
}
