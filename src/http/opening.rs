//! The opening handshake, refusals, and `/health`: everything that happens while a connection still speaks HTTP.
//!
//! HTTP itself is hyper's. What a request means is decided by [`request`](super::request), and a seat is claimed while the answer
//! is made, so that a third connection is refused before the upgrade; it is freed by itself if the handshake does not
//! come to its end. What is admitted leaves here as an [`Admitted`], for [`connection`](crate::connection) to go on
//! with.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::IpAddr;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::yield_now;
use futures_lite::{AsyncReadExt, FutureExt};
use http_body_util::Full;
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use serde_json::json;
use smol_hyper::rt::FuturesIo;

use super::client_address::Caller;
use super::context::HandshakeContext;
use super::deadline::{Deadline, Timed};
use super::heads::Heads;
use super::proxy_protocol::{self, Preamble};
use super::rejection::{Answer, Rejected};
use super::request::{Route, announces_body, asks_for_websocket, route};
use crate::http::network::is_trusted;
use crate::limits::client_limits::ClientGuard;
use crate::limits::slots::Slot;
use crate::pairing::seats::Claim;
use crate::runtime::clock::Clock;
use crate::runtime::stop::Stop;
use crate::runtime::transport::Transport;
use crate::telemetry::records::RejectionRecorder;
use crate::telemetry::rejection::Rejection;

/// How large the head of a request may be, in bytes. Browsers with many cookies send half of it.
const HEAD_SIZE: usize = 16 * 1024;

/// How many headers a request may have.
const HEAD_FIELDS: usize = 100;

/// How long after a refusal the client may go on sending. It is read and thrown away, because a socket closed with
/// unread bytes is reset, and the reset can overtake the refusal.
const LINGER: Duration = Duration::from_secs(1);

/// How often a relay that stops looks whether an answer that is under way has gone out.
const ANSWER_IS_LOOKED_AT: Duration = Duration::from_millis(20);

/// A connection that has become a WebSocket and has its seat.
pub(crate) struct Admitted<T> {
    pub(crate) socket: T,
    /// What the client sent behind its opening handshake.
    pub(crate) read_ahead: Bytes,
    pub(crate) claim: Claim,
    /// Counts it among its client's connections, if they are counted.
    pub(crate) client_guard: Option<Box<ClientGuard>>,
}

/// Speaks HTTP on a new connection from `peer` until it has become a WebSocket or has ended.
pub(crate) async fn receive<T: Transport>(
    stream: T,
    peer: IpAddr,
    door: &HandshakeContext,
    worker: usize,
    mut stop: Stop,
) -> Option<Admitted<T>> {
    let recorder = RejectionRecorder::new(&door.telemetry, door.log_addresses.then_some(peer));
    let slot = door.handshakes.take();
    let deadline = Deadline::new(&*door.clock, door.handshake_timeout);
    let known = (!door.proxy_protocol).then(|| Caller::new(door, peer));
    let begun = async {
        poll_fn(|cx| stream.poll_readable(cx)).await.ok()?;
        stream.mark_readable();
        Some(match known {
            Some(caller) => Ok((caller, Bytes::new())),
            None => introduce(stream.clone(), peer, door).await,
        })
    };
    let given_up = async {
        deadline.passed().or(slot.revoked()).or(stop.wait()).await;
        None
    };
    let Some(begun) = begun.or(given_up).await else {
        tell_given_up(&recorder, &deadline, &slot);
        return None;
    };
    let (caller, read_ahead) = begun
        .inspect_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                recorder.rejected(Rejection::ProxyHeader, None);
            }
        })
        .ok()?;
    recorder.learn(caller.peer());
    // Only now, and in a box: a connection that says nothing is to cost next to nothing.
    let handshake = Handshake { stream, read_ahead, caller, recorder: &recorder, slot, deadline };
    let mut admitted = Box::pin(speak(handshake, door, worker, stop)).await;
    if let Some(admitted) = &mut admitted {
        admitted.claim.record.address = recorder.address().map(Box::new);
    }
    admitted
}

/// A client was given up without an answer, if one of these is why.
fn tell_given_up(recorder: &RejectionRecorder<'_>, deadline: &Deadline<'_>, slot: &Slot) {
    if deadline.is_over() {
        recorder.rejected(Rejection::Timeout, None);
    } else if slot.is_revoked() {
        recorder.rejected(Rejection::Crowded, None);
    }
}

/// A client that has begun to speak.
struct Handshake<'a, T> {
    stream: T,
    /// What was read of it already.
    read_ahead: Bytes,
    caller: Caller<'a>,
    recorder: &'a RejectionRecorder<'a>,
    slot: Slot,
    deadline: Deadline<'a>,
}

/// Speaks HTTP with a client that has begun to.
async fn speak<T: Transport>(
    handshake: Handshake<'_, T>,
    door: &HandshakeContext,
    worker: usize,
    mut stop: Stop,
) -> Option<Admitted<T>> {
    let Handshake { stream, read_ahead, caller, recorder, slot, deadline } = handshake;
    let (claimed, heads, door_closed) = (RefCell::new(None), Heads::default(), stop.clone());
    let (claimed_by, heads_of, deadline_of, caller_is, door_closed) =
        (&claimed, &heads, &deadline, &caller, &door_closed);
    let respond = |request: Request<Incoming>| async move {
        // To answer can take a while, if a pair is asked whether it is there, and whoever has asked is not cut off for that.
        deadline_of.pause(door.seats.longest_join());
        recorder.learn(caller_is.client(request.headers()));
        let stopping = async {
            door_closed.clone().wait().await;
            Err(Rejection::Stopping.into())
        };
        // Who is waiting for the answers of a pair need not wait for them any more.
        let answer = answer(&request, caller_is, door, worker).or(stopping).await.map(|(answer, claim)| {
            *claimed_by.borrow_mut() = claim;
            answer
        });
        let answer = answer.unwrap_or_else(|Rejected { reason, answer }| {
            let mut answer = answer.unwrap_or_default();
            recorder.rejected(reason, Some(answer.status().as_u16()));
            // Otherwise hyper adds `keep-alive` to it for a client of HTTP/1.0 that asks for it.
            *answer.version_mut() = request.version();
            answer
        });
        // Every other answer is the last in HTTP: behind it come frames, a body, or nothing that is read.
        if !answer.headers().contains_key(header::CONNECTION) {
            heads_of.another();
        }
        deadline_of.answer();
        Ok::<_, Infallible>(answer)
    };
    // In a box: hyper is polled by reference below, for which it wants a future that may be moved.
    let service = service_fn(|request| Box::pin(respond(request)));
    let timed = Timed { read_ahead, stream: stream.clone(), deadline: &deadline, heads: &heads };
    let mut http = http1::Builder::new()
        .max_buf_size(HEAD_SIZE)
        .max_headers(HEAD_FIELDS)
        // A client that ends its stream behind its request still wants the answer. (And without this, hyper would read while
        // an answer is made, which `heads` does not reckon with.)
        .half_close(true)
        .serve_connection(FuturesIo::new(timed), service);
    // hyper says that it is done with a body it does not want, also if some of the answer is still to be written.
    let http = async {
        poll_fn(|cx| match http.poll_without_shutdown(cx) {
            Poll::Ready(Ok(())) if deadline.is_answering() => Poll::Pending,
            done => done,
        })
        .await?;
        Ok::<_, hyper::Error>(http.into_parts())
    };
    // Who has said all it had to say is about to be refused, or to become a WebSocket, and can be told. (So many pairs are
    // asked at a time, and no more.)
    let unless_decided = async || {
        if deadline.is_paused() || claimed.borrow().is_some() {
            pending::<()>().await;
        }
    };
    let ended = async {
        let parts = http.await.inspect_err(|error| {
            if error.is_parse() {
                recorder.learn(caller.peer()); // nobody knows for whom
                recorder.rejected(Rejection::Malformed, None);
            }
        });
        Some(parts.ok())
    };
    let stopped = async {
        stop.wait().await;
        // A client that is being answered gets its answer to the end. The deadline bounds this.
        while deadline.is_answering() {
            door.clock.sleep_until(door.clock.now() + ANSWER_IS_LOOKED_AT).await;
        }
        unless_decided().await;
        Some(None)
    };
    let makes_room = async {
        slot.revoked().await;
        unless_decided().await;
    };
    let given_up = async {
        deadline.passed().or(makes_room).await;
        None
    };
    // Who is given up has had its time, and gets no moment more.
    let Some(parts) = ended.or(stopped).or(given_up).await else {
        if !deadline.is_answering() {
            recorder.learn(caller.peer()); // for whom it would have asked next is not known
        }
        tell_given_up(recorder, &deadline, &slot);
        return None;
    };
    let (Some(parts), Some(claim)) = (parts, claimed.take()) else {
        linger(stream, &*door.clock).or(slot.revoked()).await;
        return None;
    };
    // hyper has read no further than the head; but that is its affair.
    let Timed { read_ahead, .. } = parts.io.into_inner();
    let read_ahead = if parts.read_buf.is_empty() { read_ahead } else { [parts.read_buf, read_ahead].concat().into() };
    Some(Admitted { socket: stream, read_ahead, claim, client_guard: caller.into_client_guard() })
}

/// Whose connection it is, as a proxy says, and what was read behind that. Otherwise it is closed without a word.
async fn introduce(stream: impl Transport, peer: IpAddr, door: &HandshakeContext) -> io::Result<(Caller<'_>, Bytes)> {
    if !door.trusted_proxies.is_empty() && !is_trusted(peer, &door.trusted_proxies) {
        // Who has only looked whether there is anybody has asked for nothing.
        let mut stream = stream;
        stream.read_exact(&mut [0]).await?;
        return Err(io::ErrorKind::InvalidData.into());
    }
    let Preamble { source, read_ahead } = proxy_protocol::read(stream).await?;
    Ok((Caller::new(door, source.unwrap_or(peer)), read_ahead))
}

/// Ends our side, and gives the client's a moment to end too.
async fn linger(mut stream: impl Transport, clock: &dyn Clock) {
    if stream.shut_down().is_err() {
        return;
    }
    let drained = async {
        let mut scrap = [0; 1024];
        while !matches!(stream.read(&mut scrap).await, Ok(0) | Err(_)) {
            // Who sends faster than this reads would otherwise keep the worker, and the time, to itself.
            yield_now().await;
        }
    };
    drained.or(clock.sleep_until(clock.now() + LINGER)).await;
}

/// Makes the answer to a request, and takes the seat that goes with it.
async fn answer(
    request: &Request<impl Sized>,
    caller: &Caller<'_>,
    door: &HandshakeContext,
    worker: usize,
) -> Result<(Answer, Option<Claim>), Rejected> {
    if asks_for_websocket(request.headers()) {
        // Before anything else: whoever tries codes or tokens is refused most of the time.
        caller.ask(request.headers())?;
    }
    match route(request, &door.policy)? {
        Route::Join(code, answer) => {
            let claim = door.seats.join(code, worker).await?;
            Ok((answer, Some(claim)))
        }
        Route::Health => {
            let health = json!({ "ok": true, "pairs": door.seats.pairs() });
            let mut answer = Answer::new(Full::from(health.to_string()));
            let mut set = |name, value| answer.headers_mut().insert(name, HeaderValue::from_static(value));
            set(header::CONTENT_TYPE, "application/json");
            set(header::CACHE_CONTROL, "no-store");
            if announces_body(request.headers()) {
                // Where the next head would begin is known to hyper only, if it reads the body at all.
                set(header::CONNECTION, "close");
                // As for a refusal: no `keep-alive` is to be added.
                *answer.version_mut() = request.version();
            }
            Ok((answer, None))
        }
    }
}

#[cfg(test)]
mod tests {
    //! What cannot be brought about from outside; the rest is in `tests/http.rs`.

    use super::*;
    use crate::access::policy::Policy;
    use crate::limits::client_limits::ClientLimits;
    use crate::limits::clients::Limits;
    use crate::limits::slots::Slots;
    use crate::pairing::seats::Seats;
    use crate::runtime::clock::SystemClock;
    use futures_lite::future::block_on;
    use futures_lite::{AsyncRead, AsyncWrite};
    use hyper::StatusCode;
    use std::net::Ipv4Addr;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::task::Context;

    fn upgrade(target: &str) -> Request<()> {
        Request::get(target)
            .header("Host", "x")
            .header("Connection", "keep-alive, Upgrade")
            .header("Upgrade", "WebSocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
            .body(())
            .unwrap()
    }

    fn door(seats: &Arc<Seats>) -> HandshakeContext {
        let handshakes = Arc::new(Slots::new(1));
        let client_limits = Arc::new(ClientLimits::new(Limits::default(), Arc::new(SystemClock)));
        HandshakeContext {
            handshakes,
            handshake_timeout: Duration::from_secs(1),
            policy: Policy::default(),
            client_limits,
            trusted_proxies: vec![],
            proxy_protocol: false,
            seats: Arc::clone(seats),
            telemetry: Arc::default(),
            log_addresses: false,
            clock: Arc::new(SystemClock),
        }
    }

    fn status(seats: &Arc<Seats>, target: &str) -> (u16, bool) {
        match ask(seats, target) {
            Ok((answer, claim)) => (answer.status().as_u16(), claim.is_some()),
            Err(rejected) => (rejected.answer.unwrap().status().as_u16(), false),
        }
    }

    fn ask(seats: &Arc<Seats>, target: &str) -> Result<(Answer, Option<Claim>), Rejected> {
        let door = door(seats);
        let caller = Caller::new(&door, Ipv4Addr::LOCALHOST.into());
        block_on(answer(&upgrade(target), &caller, &door, 0))
    }

    /// A client that sends faster than anybody can read.
    #[derive(Clone, Debug)]
    struct Flood;

    impl Transport for Flood {
        fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn mark_readable(&self) {}
        fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }
        fn send(&self, bytes: &[u8], _: bool) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn report_when_sent(&self) {}
        fn report_room(&self) {}
        fn set_ack_timeout(&self, _: Duration) {}
        fn shut_down(&self) -> io::Result<()> {
            Ok(())
        }
        fn poll_ended(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
        fn deregister(self) -> Self {
            self
        }
    }

    impl AsyncRead for Flood {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buffer.len()))
        }
    }

    impl AsyncWrite for Flood {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(bytes.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_refused_client_that_never_stops_sending_holds_up_nobody() {
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut others_ran = false;
            let others = async {
                others_ran = true;
            };
            let lingering = linger(Flood, &SystemClock);
            crate::runtime::reactor::Reactor::new().unwrap().block_on(futures_lite::future::zip(lingering, others));
            let _ = ended.send(others_ran);
        });
        // It lingers for a second; the rest is for slow machines.
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true));
    }

    #[test]
    fn a_seat_that_was_claimed_is_free_when_the_claim_is_dropped() {
        let seats = Seats::roomy(Arc::new(SystemClock));
        assert_eq!(status(&seats, "/?pair=x"), (101, true));
        assert_eq!(seats.pairs(), 0);
    }

    #[test]
    fn a_refused_request_claims_nothing() {
        let seats = Seats::roomy(Arc::new(SystemClock));
        assert_eq!(status(&seats, "/"), (400, false));
        assert_eq!(seats.pairs(), 0);
    }

    #[test]
    fn a_relay_that_stops_refuses_and_says_when_to_come_back() {
        let seats = Seats::roomy(Arc::new(SystemClock));
        block_on(seats.close());
        let Rejected { reason, answer } = ask(&seats, "/?pair=x").unwrap_err();
        let answer = answer.unwrap();
        assert_eq!((reason, answer.status()), (Rejection::Stopping, StatusCode::SERVICE_UNAVAILABLE));
        assert!(answer.headers().contains_key(header::RETRY_AFTER));
    }
}
