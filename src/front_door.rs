//! The opening handshake, refusals, and `/health`: everything that happens while a connection still speaks HTTP.
//!
//! HTTP itself is hyper's. This file decides what a request means ([`route`]) and what it is answered; a seat is
//! claimed while the answer is made, so that a third connection is refused before the upgrade, and it is freed by
//! itself if the handshake does not come to its end. What is admitted leaves here as an [`Admitted`], for
//! [`connection`](crate::connection) to go on with.

mod caller;
mod deadline;
mod proxy_header;

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_tungstenite::tungstenite::error::{Error, ProtocolError};
use async_tungstenite::tungstenite::handshake::server::create_response_with_body;
use futures_lite::future::yield_now;
use futures_lite::{AsyncReadExt, FutureExt};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use serde_json::json;
use smol_hyper::rt::FuturesIo;

use crate::client_limits::{ClientLimits, Presence};
use crate::clients::Excess;
use crate::clock::Clock;
use crate::events::{Rejection, Witness};
use crate::handshakes::{Handshakes, Place};
use crate::network::{Network, is_trusted};
use crate::pair_code::PairCode;
use crate::policy::{Denial, Policy};
use crate::seats::{Claim, NoSeat, Seats};
use crate::stats::Stats;
use crate::stop::Stop;
use crate::transport::Transport;
use caller::Caller;
use deadline::{Deadline, Timed};
use proxy_header::Preamble;

/// How large the head of a request may be, in bytes. Browsers with many cookies send half of it.
const HEAD_SIZE: usize = 16 * 1024;

/// How long a request line may be, in bytes: what RFC 9112, section 3, recommends, and twenty times the longest code.
const REQUEST_LINE: usize = 8 * 1024;

/// How many headers a request may have.
const HEAD_FIELDS: usize = 100;

/// How long after a refusal the client may go on sending. It is read and thrown away, because a socket closed with
/// unread bytes is reset, and the reset can overtake the refusal.
const LINGER: Duration = Duration::from_secs(1);

type Answer = Response<Full<Bytes>>;

/// A connection that has become a WebSocket and has its seat.
pub(crate) struct Admitted<T> {
    pub(crate) socket: T,
    /// What the client sent behind its opening handshake.
    pub(crate) read_ahead: Bytes,
    pub(crate) claim: Claim,
    /// Counts it among its client's connections, if they are counted.
    pub(crate) presence: Option<Box<Presence>>,
}

/// What the front door goes by. All workers share it.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) handshakes: Arc<Handshakes>,
    /// How long a client may take for the head of a request, and then for its answer.
    pub(crate) handshake_timeout: Duration,
    pub(crate) policy: Policy,
    pub(crate) client_limits: Arc<ClientLimits>,
    /// Whose word counts for whom they ask.
    pub(crate) trusted_proxies: Vec<Network>,
    /// Whether every connection has to begin with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    pub(crate) stats: Arc<Stats>,
    /// Whether clients' addresses are told.
    pub(crate) log_addresses: bool,
}

impl Door {
    /// What may be told of whoever comes by this socket.
    fn witness(&self, stream: &impl Transport) -> Witness<'_> {
        let address = if self.log_addresses { stream.peer_address() } else { None };
        Witness { stats: &self.stats, address }
    }
}

/// Speaks HTTP on a new connection from `peer` until it has become a WebSocket or has ended.
pub(crate) async fn receive<T: Transport>(
    stream: T,
    peer: IpAddr,
    door: &Door,
    seats: &Arc<Seats>,
    worker: usize,
    mut stop: Stop,
    clock: &Arc<dyn Clock>,
) -> Option<Admitted<T>> {
    let witness = door.witness(&stream);
    let mut place = door.handshakes.enter();
    let deadline = Deadline::new(&**clock, door.handshake_timeout);
    let known = (!door.proxy_protocol).then(|| Caller::new(door, peer));
    let begun = async {
        poll_fn(|cx| stream.poll_readable(cx)).await.ok()?;
        stream.leave_unread();
        match known {
            Some(caller) => Some((caller, Bytes::new())),
            None => introduce(stream.clone(), peer, door).await,
        }
    };
    let given_up = async {
        witness.rejected(until_given_up(&deadline, place.given_up.wait()).await, None);
        None
    };
    let stopped = async {
        stop.wait().await;
        None
    };
    let (caller, read_ahead) = begun.or(given_up).or(stopped).await?;
    // Only now, and in a box: a connection that says nothing is to cost next to nothing.
    let visit = Visit { stream, read_ahead, caller, witness: &witness, place, deadline };
    let mut admitted = Box::pin(speak(visit, door, seats, worker, stop, clock)).await;
    if let Some(admitted) = &mut admitted {
        admitted.claim.visit.address = witness.address.map(Box::new);
    }
    admitted
}

/// Waits until a client is given up, because it takes too long or is the oldest of too many, and says which.
async fn until_given_up(deadline: &Deadline<'_>, crowded: impl Future<Output = ()>) -> Rejection {
    let slow = async {
        deadline.passed().await;
        Rejection::Timeout
    };
    let crowded = async {
        crowded.await;
        Rejection::Crowded
    };
    slow.or(crowded).await
}

/// A client that has begun to speak.
struct Visit<'a, T> {
    stream: T,
    /// What was read of it already.
    read_ahead: Bytes,
    caller: Caller<'a>,
    witness: &'a Witness<'a>,
    place: Place,
    deadline: Deadline<'a>,
}

/// Speaks HTTP with a client that has begun to.
async fn speak<T: Transport>(
    visit: Visit<'_, T>,
    door: &Door,
    seats: &Arc<Seats>,
    worker: usize,
    mut stop: Stop,
    clock: &Arc<dyn Clock>,
) -> Option<Admitted<T>> {
    let Visit { stream, read_ahead, caller, witness, mut place, deadline } = visit;
    let claimed = RefCell::new(None);
    let (claimed_by, deadline_of, caller_is) = (&claimed, &deadline, &caller);
    let service = service_fn(|request| async move {
        // To answer can take a while, and whoever was slow to ask is not cut off for that.
        deadline_of.restart();
        let answer = answer(&request, caller_is, door, seats, worker).await.map(|(answer, claim)| {
            *claimed_by.borrow_mut() = claim;
            answer
        });
        let answer = answer.unwrap_or_else(|refusal| {
            let mut answer = refusal.into_answer();
            witness.rejected(refusal.reason(), Some(answer.status().as_u16()));
            // Otherwise hyper adds `keep-alive` to it for a client of HTTP/1.0 that asks for it.
            *answer.version_mut() = request.version();
            answer
        });
        deadline_of.answer();
        Ok::<_, Infallible>(answer)
    });
    let http = http1::Builder::new()
        .max_buf_size(HEAD_SIZE)
        .max_headers(HEAD_FIELDS)
        // Who ends its stream behind its request still wants the answer.
        .half_close(true)
        .serve_connection(FuturesIo::new(Timed { read_ahead, stream: stream.clone(), deadline: &deadline }), service)
        .without_shutdown();
    let unless_claimed = async |signal: &mut Stop| {
        signal.wait().await;
        if claimed.borrow().is_some() {
            // It is about to become a WebSocket, and can be told by a close frame.
            pending::<()>().await;
        }
    };
    let ended = async {
        let parts = http.await.inspect_err(|error| {
            if error.is_parse() {
                witness.rejected(Rejection::Malformed, None);
            }
        });
        Some(parts.ok())
    };
    let stopped = async {
        unless_claimed(&mut stop).await;
        Some(None)
    };
    let given_up = async {
        witness.rejected(until_given_up(&deadline, unless_claimed(&mut place.given_up)).await, None);
        None
    };
    // Who is given up has had its time, and gets no moment more.
    let parts = ended.or(stopped).or(given_up).await?;
    let (Some(parts), Some(claim)) = (parts, claimed.take()) else {
        linger(stream, &**clock).or(place.given_up.wait()).await;
        return None;
    };
    // hyper has read all there was at once; but that is its affair.
    let Timed { read_ahead, .. } = parts.io.into_inner();
    let read_ahead = if read_ahead.is_empty() { parts.read_buf } else { [parts.read_buf, read_ahead].concat().into() };
    Some(Admitted { socket: stream, read_ahead, claim, presence: caller.into_presence() })
}

/// Whose connection it is, as a proxy says, and what was read behind that. None if it is to be closed without a word.
async fn introduce(stream: impl Transport, peer: IpAddr, door: &Door) -> Option<(Caller<'_>, Bytes)> {
    if !door.trusted_proxies.is_empty() && !is_trusted(peer, &door.trusted_proxies) {
        return None;
    }
    let Preamble { source, read_ahead } = proxy_header::read(stream).await?;
    Some((Caller::new(door, source.unwrap_or(peer)), read_ahead))
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

/// What a request asks for.
#[derive(Debug)]
enum Route {
    /// To be joined; the answer is the 101 that completes the opening handshake.
    Join(PairCode, Answer),
    Health,
}

/// Why a request is refused before it becomes a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    TargetTooLong,
    Host,
    NotFound,
    Method { allow: &'static str },
    Version,
    Handshake(&'static str),
    Excess(Excess),
    Denied(Denial),
    NoSeat(NoSeat),
}

impl Refusal {
    /// What it is called in logs and counters.
    fn reason(self) -> Rejection {
        match self {
            Self::TargetTooLong => Rejection::TargetTooLong,
            Self::Host => Rejection::Host,
            Self::NotFound => Rejection::NotFound,
            Self::Method { .. } => Rejection::Method,
            Self::Version => Rejection::Version,
            Self::Handshake(_) => Rejection::Handshake,
            Self::Denied(Denial::Origin) => Rejection::Origin,
            Self::Denied(Denial::Token) => Rejection::Token,
            Self::Denied(Denial::PairCode) => Rejection::PairCode,
            Self::Excess(Excess::Connections) => Rejection::Connections,
            Self::Excess(Excess::Joins { .. }) => Rejection::Requests,
            Self::NoSeat(NoSeat::Occupied(_)) => Rejection::PairFull,
            Self::NoSeat(NoSeat::Full) => Rejection::RelayFull,
            Self::NoSeat(NoSeat::Stopping) => Rejection::Stopping,
        }
    }

    /// The refusal as a response with a body of one line.
    fn into_answer(self) -> Answer {
        let (status, body) = match self {
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, "request target too long"),
            Self::Host => (StatusCode::BAD_REQUEST, "exactly one Host header required"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not found: connect to /?pair=CODE with a WebSocket"),
            Self::Method { .. } => (StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
            Self::Version => (StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 required"),
            Self::Handshake(reason) => (StatusCode::BAD_REQUEST, reason),
            Self::Excess(Excess::Connections) => (StatusCode::TOO_MANY_REQUESTS, "too many connections"),
            Self::Excess(Excess::Joins { .. }) => (StatusCode::TOO_MANY_REQUESTS, "too many requests"),
            Self::Denied(Denial::Origin) => (StatusCode::FORBIDDEN, "origin not allowed"),
            Self::Denied(Denial::Token) => (StatusCode::UNAUTHORIZED, "access token required"),
            Self::Denied(Denial::PairCode) => (StatusCode::BAD_REQUEST, "missing or invalid pair code"),
            Self::NoSeat(NoSeat::Occupied(_)) => (StatusCode::CONFLICT, "pair is full"),
            Self::NoSeat(NoSeat::Full) => (StatusCode::SERVICE_UNAVAILABLE, "relay is full"),
            Self::NoSeat(NoSeat::Stopping) => (StatusCode::SERVICE_UNAVAILABLE, "relay stopping"),
        };
        let mut answer = plain(status, "text/plain; charset=utf-8", format!("{body}\n"));
        let mut put = |name: HeaderName, value| answer.headers_mut().insert(name, value);
        let mut set = |name, value| put(name, HeaderValue::from_static(value));
        set(header::CONNECTION, "close");
        match self {
            Self::Method { allow } => set(header::ALLOW, allow),
            Self::Denied(Denial::Token) => set(header::WWW_AUTHENTICATE, "Bearer"),
            Self::Version => set(header::SEC_WEBSOCKET_VERSION, "13"),
            Self::NoSeat(NoSeat::Full | NoSeat::Stopping) | Self::Excess(Excess::Connections) => {
                set(header::RETRY_AFTER, "5")
            }
            Self::Excess(Excess::Joins { wait }) => put(header::RETRY_AFTER, whole_seconds(wait).into()),
            _ => None,
        };
        answer
    }
}

/// Rounded up, so that who comes back then is not too early.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

/// Decides what a request means. It looks at nothing but the request and the operator's policy.
fn route(request: &Request<impl Sized>, policy: &Policy) -> Result<Route, Refusal> {
    check_head(request)?;
    let method = request.method();
    if !asks_for_websocket(request.headers()) {
        let health = matches!(request.uri().path(), "/health" | "/health/");
        return match *method {
            Method::GET | Method::HEAD if health => Ok(Route::Health),
            Method::GET | Method::HEAD => Err(Refusal::NotFound),
            _ if health => Err(Refusal::Method { allow: "GET, HEAD" }),
            _ => Err(Refusal::Method { allow: "GET" }),
        };
    }
    let mut answer = create_response_with_body(&plainly(request), Full::default).map_err(|error| match error {
        Error::Protocol(ProtocolError::WrongHttpMethod) => Refusal::Method { allow: "GET" },
        Error::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => Refusal::Version,
        Error::Protocol(ProtocolError::WrongHttpVersion) => Refusal::Handshake("HTTP/1.1 required"),
        Error::Protocol(ProtocolError::MissingConnectionUpgradeHeader) => {
            Refusal::Handshake("Connection: Upgrade required (a proxy has to pass it on)")
        }
        _ => Refusal::Handshake("missing or invalid Sec-WebSocket-Key"),
    })?;
    if announces_body(request.headers()) {
        return Err(Refusal::Handshake("a body is not allowed on an upgrade"));
    }
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let code = policy.admit(target, request.headers()).map_err(Refusal::Denied)?;
    // Browsers fail the connection if they offered subprotocols and none is chosen. The endpoints know which they
    // speak; the relay takes the first.
    if let Some(protocol) = first_protocol(request.headers()) {
        answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    Ok(Route::Join(code, answer))
}

/// What every request has to keep to, whatever it asks for. The rest of it is hyper's.
fn check_head(request: &Request<impl Sized>) -> Result<(), Refusal> {
    // The method, the target without its fragment, `HTTP/1.1`, and two spaces.
    if request.method().as_str().len() + target_length(request.uri()) + 10 > REQUEST_LINE {
        return Err(Refusal::TargetTooLong);
    }
    // RFC 9112, section 3.2. HTTP/1.0 need not have one, but two are as contradictory there.
    match request.headers().get_all(header::HOST).iter().count() {
        1 => Ok(()),
        0 if request.version() < Version::HTTP_11 => Ok(()),
        _ => Err(Refusal::Host),
    }
}

fn target_length(uri: &Uri) -> usize {
    let scheme = uri.scheme_str().map_or(0, |scheme| scheme.len() + "://".len());
    let authority = uri.authority().map_or(0, |authority| authority.as_str().len());
    scheme + authority + uri.path_and_query().map_or(0, |target| target.as_str().len())
}

/// Whether a body is to come. Behind an upgrade it would be taken for frames by one reader, and for a body by another.
fn announces_body(headers: &HeaderMap) -> bool {
    let is_zero = |length: &HeaderValue| length.to_str().is_ok_and(|length| length.trim() == "0");
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get_all(header::CONTENT_LENGTH).iter().any(|length| !is_zero(length))
}

/// Whether the client wants to leave HTTP for WebSocket (RFC 6455, section 4.2.1, item 3).
fn asks_for_websocket(headers: &HeaderMap) -> bool {
    elements(headers, header::UPGRADE).any(|protocol| protocol.eq_ignore_ascii_case("websocket"))
}

fn first_protocol(headers: &HeaderMap) -> Option<HeaderValue> {
    HeaderValue::from_str(elements(headers, header::SEC_WEBSOCKET_PROTOCOL).next()?).ok()
}

/// The elements of a field that is a list, from all of its lines (RFC 9110, sections 5.3 and 5.6.1).
fn elements(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

/// What of a request tungstenite looks at, with `Upgrade` and `Connection` as it looks for them: it sees a single line
/// only, and no list in the first. Of the others there must not be two (RFC 6455, section 11.3): two are as good as none.
fn plainly(request: &Request<impl Sized>) -> Request<()> {
    let mut plain = Request::new(());
    *plain.method_mut() = request.method().clone();
    *plain.version_mut() = request.version();
    for name in [header::SEC_WEBSOCKET_VERSION, header::SEC_WEBSOCKET_KEY] {
        let mut values = request.headers().get_all(&name).iter();
        if let (Some(value), None) = (values.next(), values.next()) {
            plain.headers_mut().insert(name, value.clone());
        }
    }
    plain.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let connection =
        elements(request.headers(), header::CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"));
    plain
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static(if connection { "Upgrade" } else { "close" }));
    plain
}

/// Makes the answer to a request, and takes the seat that goes with it.
async fn answer(
    request: &Request<impl Sized>,
    caller: &Caller<'_>,
    door: &Door,
    seats: &Arc<Seats>,
    worker: usize,
) -> Result<(Answer, Option<Claim>), Refusal> {
    if asks_for_websocket(request.headers()) {
        // Before anything else: whoever tries codes or tokens is refused most of the time.
        caller.ask(request.headers()).map_err(Refusal::Excess)?;
    }
    match route(request, &door.policy)? {
        Route::Join(code, answer) => {
            let claim = seats.join(code, worker).await.map_err(Refusal::NoSeat)?;
            Ok((answer, Some(claim)))
        }
        Route::Health => {
            let mut answer =
                plain(StatusCode::OK, "application/json", json!({ "ok": true, "pairs": seats.pairs() }).to_string());
            answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok((answer, None))
        }
    }
}

fn plain(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
mod tests {
    //! What cannot be brought about from outside; the rest is in `tests/http.rs`.

    use super::*;
    use crate::clients::Limits;
    use crate::clock::SystemClock;
    use futures_lite::future::block_on;
    use futures_lite::{AsyncRead, AsyncWrite};
    use std::io;
    use std::net::Ipv4Addr;
    use std::pin::Pin;
    use std::task::{Context, Poll};

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

    fn door() -> Door {
        let handshakes = Arc::new(Handshakes::new(1));
        let client_limits = Arc::new(ClientLimits::new(Limits::default(), Arc::new(SystemClock)));
        Door {
            handshakes,
            handshake_timeout: Duration::from_secs(1),
            policy: Policy::default(),
            client_limits,
            trusted_proxies: vec![],
            proxy_protocol: false,
            stats: Arc::default(),
            log_addresses: false,
        }
    }

    fn status(seats: &Arc<Seats>, target: &str) -> (u16, bool) {
        match ask(seats, target) {
            Ok((answer, claim)) => (answer.status().as_u16(), claim.is_some()),
            Err(refusal) => (refusal.into_answer().status().as_u16(), false),
        }
    }

    fn ask(seats: &Arc<Seats>, target: &str) -> Result<(Answer, Option<Claim>), Refusal> {
        let door = door();
        let caller = Caller::new(&door, Ipv4Addr::LOCALHOST.into());
        block_on(answer(&upgrade(target), &caller, &door, seats, 0))
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
        fn leave_unread(&self) {}
        fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
            Ok(buffer.len())
        }
        fn send(&self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn report_when_sent(&self) {}
        fn shut_down(&self) -> io::Result<()> {
            Ok(())
        }
        fn poll_ended(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Pending
        }
        fn leave_thread(self) -> Self {
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
            crate::reactor::Reactor::new().unwrap().block_on(futures_lite::future::zip(lingering, others));
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
    fn who_comes_back_when_told_to_is_not_too_early() {
        for (wait, seconds) in [(1, 1), (999_999_999, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
            assert_eq!(whole_seconds(Duration::from_nanos(wait)), seconds);
        }
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
        seats.close();
        let refusal = ask(&seats, "/?pair=x").unwrap_err();
        assert_eq!(refusal, Refusal::NoSeat(NoSeat::Stopping));
        let answer = refusal.into_answer();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key(header::RETRY_AFTER));
    }
}
