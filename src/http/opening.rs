//! The opening handshake: from an accepted socket to a WebSocket with a seat, or to a rejection.
//!
//! There is one request on a connection. It upgrades the connection, or its answer is the last: a rejection, or that to
//! a probe such as `/health`. The seat is claimed before the answer is written, so that a third client is rejected before the upgrade.
//! The claim frees the seat if the handshake does not come to its end. [`connection`](crate::connection) goes on with
//! an [`Admitted`].
//!
//! The client has two steps, each of which may take `--handshake-timeout`: to send the head, and to take the answer.

use std::future::pending;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use futures_lite::future::yield_now;
use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt};

use super::answer::{Answer, Form};
use super::client_address::HandshakeClient;
use super::context::HandshakeContext;
use super::head::{self, Head, Request, field_room};
use super::network::is_trusted;
use super::probe::Probe;
use super::proxy_protocol::{self, Preamble};
use super::rejection::Rejected;
use super::request::{Route, Upgrade, admit, asks_for_websocket, offers_v1, route};
use crate::access::policy::Permitted;
use crate::limits::clients::ClientGuard;
use crate::limits::slots::{Slot, Slots};
use crate::pairing::join::Join;
use crate::pairing::seats::Claim;
use crate::runtime::clock::Clock;
use crate::runtime::stop::StopFlag;
use crate::runtime::stream::Stream;
use crate::runtime::transport::Transport;
use crate::telemetry::counters::Telemetry;
use crate::telemetry::records::RejectionRecorder;
use crate::telemetry::rejection::Rejection;

/// How long the client may go on sending after the last answer.
///
/// Its bytes are read and thrown away: a socket closed with unread bytes is reset, and the reset can overtake the answer.
const LINGER: Duration = Duration::from_secs(1);

/// How long a client that is connected when the relay stops has for its request.
///
/// Most clients send it at once, and so get an answer.
const REQUEST_AT_A_STOP: Duration = Duration::from_millis(500);

/// A connection that has become a WebSocket and has its seat.
pub(crate) struct Admitted<T> {
    pub(crate) socket: T,
    /// The bytes that the client has sent behind its head.
    pub(crate) read_ahead: Vec<u8>,
    pub(crate) claim: Claim,
    /// Counts the connection among its client's, if these are counted.
    pub(crate) client_guard: Option<Box<ClientGuard>>,
}

/// What the client of a well-formed request asks for, and may.
enum Asked {
    /// A seat.
    Seat(Permitted, Upgrade),
    Probe(Probe),
    /// The demo's page.
    Demo(Answer),
}

/// A rejection of a request.
#[derive(Debug)]
struct Refused {
    rejected: Rejected,
    /// If the opening handshake was well-formed.
    upgrade: Option<Box<Upgrade>>,
}

impl From<Rejected> for Refused {
    fn from(rejected: Rejected) -> Self {
        Self { rejected, upgrade: None }
    }
}

impl Refused {
    /// The bytes of the answer in this form, if there is one.
    ///
    /// A client of `arc-relay.v1` gets a 101, and the rejection as frames behind it.
    fn encode(self, form: Form) -> Option<Vec<u8>> {
        match self.upgrade {
            Some(upgrade) if upgrade.speaks_v1 => Some([upgrade.answer.encode(form), self.rejected.frames()?].concat()),
            _ => Some(self.rejected.into_answer()?.encode(form)),
        }
    }
}

/// Carries out the opening handshake of a new connection from `peer`, on this worker.
///
/// `place` decides where the pair runs if its first client comes with it.
pub(crate) async fn receive<T: Transport>(
    stream: T,
    peer: IpAddr,
    context: &HandshakeContext,
    telemetry: &Telemetry,
    worker: usize,
    place: impl Fn() -> usize,
    stop: &StopFlag,
) -> Option<Admitted<T>> {
    let recorder = RejectionRecorder::new(telemetry, context.log_addresses.then_some(peer));
    let slot = context.slots.borrow(worker, context.clock.now());
    let handshake = Handshake { stream, context, recorder, slot };
    let opened = handshake.open(peer, stop).await;
    match opened {
        Ok((head, client)) => handshake.answer(head, client, place(), stop).await,
        Err(StepEnd::Rejected(rejected)) => {
            Box::pin(handshake.reject(rejected)).await;
            None
        }
        Err(StepEnd::Gone) => None,
    }
}

/// The end of a step of the client that is not its completion.
enum StepEnd {
    Rejected(Rejected),
    /// The client has left, or the relay stops.
    Gone,
}

impl From<Rejected> for StepEnd {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}

impl From<io::Error> for StepEnd {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// A connection in the opening handshake.
struct Handshake<'a, T> {
    stream: T,
    context: &'a HandshakeContext,
    recorder: RejectionRecorder<'a>,
    slot: Slot<&'a Slots>,
}

impl<'a, T: Transport> Handshake<'a, T> {
    /// The first step: waits for a request.
    async fn open(&self, peer: IpAddr, stop: &StopFlag) -> Result<(Head, HandshakeClient<'a>), StepEnd> {
        // Without the PROXY protocol, a connection counts from its beginning.
        let client = (!self.context.proxy_protocol).then(|| HandshakeClient::new(self.context, peer));
        let read = async {
            let mut stream = Stream(self.stream.clone());
            let (client, read_ahead) = match client {
                Some(client) => (client, Vec::new()),
                None => {
                    let mut first = Vec::new();
                    head::read_piece(&mut stream, &mut first).await?;
                    // In a box, only now: a silent connection is to cost next to nothing.
                    Box::pin(read_proxy_header(&mut stream, &first, peer, self.context)).await?
                }
            };
            self.recorder.learn(client.peer);
            let head = head::read(&mut stream, read_ahead).await??;
            Ok((head, client))
        };
        let stopped = async {
            stop.wait().await;
            let clock = &self.context.clock;
            clock.sleep_until(clock.now() + REQUEST_AT_A_STOP).await;
            Err(StepEnd::Gone)
        };
        self.in_time(read.or(stopped), true).await
    }

    /// Decides on a request, and writes the answer, which is the second step.
    ///
    /// It returns a box. An `async fn` would have room for its arguments twice.
    fn answer(
        self,
        head: Head,
        mut client: HandshakeClient<'a>,
        worker: usize,
        stop: &StopFlag,
    ) -> Pin<Box<impl Future<Output = Option<Admitted<T>>>>> {
        Box::pin(async move {
            let (form, asked) = self.understand(&head, &mut client);
            // The time that this takes is not the client's, and its slot is not revoked meanwhile.
            let (rest, answer, claim) = match decide(asked, self.context, worker, stop).await {
                Ok((answer, claim)) => (answer.rest(form), answer.encode(form), claim),
                Err(refused) => (&[][..], self.refuse(refused, form)?, None),
            };
            let is_written = self.write(&answer, rest, claim.is_none()).await;
            match (is_written, claim) {
                (true, Some(mut claim)) => {
                    claim.record.details = self.recorder.details();
                    let Head { read_ahead, .. } = head;
                    Some(Admitted { socket: self.stream, read_ahead, claim, client_guard: client.guard })
                }
                (true, None) => {
                    self.linger().await;
                    None
                }
                (false, _) => None,
            }
        })
    }

    /// What the client asks for, and the form of the answer.
    fn understand(&self, head: &Head, client: &mut HandshakeClient<'_>) -> (Form, Result<Asked, Refused>) {
        let mut room = field_room();
        let request = match head.parse(&mut room) {
            Ok(request) => request,
            Err(rejected) => return (Form::UNKNOWN, Err(rejected.into())),
        };
        self.recorder.learn(client.address(request.fields));
        let form = Form { version: request.version, is_bare: request.method == "HEAD" };
        let asked = judge(&request, client, self.context);
        if let (Some(hasher), Ok(Asked::Seat(permitted, _))) = (&self.context.code_hasher, &asked) {
            self.recorder.learn_code(hasher.hash(permitted.join.code.as_bytes()));
        }
        (form, asked)
    }

    /// Records a rejection, and returns the bytes of its answer, if it has one.
    fn refuse(&self, refused: Refused, form: Form) -> Option<Vec<u8>> {
        let Rejected { reason, status, .. } = refused.rejected;
        self.recorder.rejected(reason, status.map(|status| status.as_u16()));
        refused.encode(form)
    }

    /// Records the rejection of a head, and writes its answer, if it has one.
    async fn reject(&self, rejected: Rejected) {
        if let Some(answer) = self.refuse(rejected.into(), Form::UNKNOWN)
            && self.write(&answer, &[], true).await
        {
            self.linger().await;
        }
    }

    /// Writes an answer and the rest of its body. Says whether all of it was written.
    async fn write(&self, answer: &[u8], rest: &'static [u8], is_revocable: bool) -> bool {
        let mut stream = Stream(self.stream.clone());
        let written = async {
            stream.write_all(answer).await?;
            Ok(stream.write_all(rest).await?)
        };
        match self.in_time(written, is_revocable).await {
            Ok(()) => true,
            Err(StepEnd::Rejected(rejected)) => {
                self.recorder.rejected(rejected.reason, None);
                false
            }
            Err(StepEnd::Gone) => false,
        }
    }

    /// Runs a step of the client until its time is over, or until its slot is revoked, if it is revocable.
    ///
    /// Not an `async fn`, which would have room for the step twice: as its argument, and where it runs.
    fn in_time<R>(
        &self,
        step: impl Future<Output = Result<R, StepEnd>>,
        is_revocable: bool,
    ) -> impl Future<Output = Result<R, StepEnd>> {
        let HandshakeContext { clock, handshake_timeout, .. } = self.context;
        let timeout = async {
            clock.sleep_until(clock.now() + *handshake_timeout).await;
            Err(Rejected::from(Rejection::Timeout).into())
        };
        let crowded = async move {
            if !is_revocable {
                pending::<()>().await;
            }
            self.slot.revoked().await;
            Err(Rejected::from(Rejection::Crowded).into())
        };
        step.or(timeout).or(crowded)
    }

    /// Ends the relay's side of the stream, and gives the client's a moment to end too.
    async fn linger(&self) {
        linger(self.stream.clone(), &*self.context.clock).or(self.slot.revoked()).await;
    }
}

/// Reads the header of the PROXY protocol, which begins with the `first` bytes.
///
/// Returns the client that it names, and the bytes that were read behind it.
async fn read_proxy_header<'a>(
    stream: &mut Stream<impl Transport>,
    first: &[u8],
    peer: IpAddr,
    context: &'a HandshakeContext,
) -> Result<(HandshakeClient<'a>, Vec<u8>), StepEnd> {
    if !context.trusted_proxies.is_empty() && !is_trusted(peer, &context.trusted_proxies) {
        return Err(Rejected::from(Rejection::ProxyHeader).into());
    }
    let mut bytes = first.chain(stream);
    match proxy_protocol::read(&mut bytes).await {
        Ok(Preamble { source, mut read_ahead }) => {
            read_ahead.extend_from_slice(bytes.get_ref().0); // what the header's reader has left of the first bytes
            Ok((HandshakeClient::new(context, source.unwrap_or(peer)), read_ahead))
        }
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Rejected::from(Rejection::ProxyHeader).into()),
        Err(error) => Err(error.into()),
    }
}

/// Finds what a request asks for, if its client may ask.
fn judge(
    request: &Request<'_>,
    client: &mut HandshakeClient<'_>,
    context: &HandshakeContext,
) -> Result<Asked, Refused> {
    let fields = request.fields;
    // Before anything else: a client that tries codes or tokens is rejected most of the time.
    let asks = asks_for_websocket(fields);
    let limited = if asks { client.ask(fields) } else { Ok(()) };
    if let Err(excess) = limited
        && !offers_v1(fields)
    {
        return Err(Rejected::from(excess).into());
    }
    let upgrade = match route(request, asks, context.demo.as_ref()) {
        Ok(Route::Upgrade(upgrade)) => upgrade,
        Ok(Route::Probe(probe)) => return Ok(Asked::Probe(probe)),
        Ok(Route::Demo(answer)) => return Ok(Asked::Demo(answer)),
        Err(rejected) => return Err(limited.err().map_or(rejected, Rejected::from).into()),
    };
    let admitted = match limited {
        Ok(()) => admit(request, context).map_err(Rejected::from),
        Err(excess) => Err(excess.into()),
    };
    match admitted {
        Ok(permitted) => Ok(Asked::Seat(permitted, upgrade)),
        Err(rejected) => Err(Refused { rejected, upgrade: Some(Box::new(upgrade)) }),
    }
}

/// Makes the answer, and takes the seat that goes with it.
async fn decide(
    asked: Result<Asked, Refused>,
    context: &HandshakeContext,
    worker: usize,
    stop: &StopFlag,
) -> Result<(Answer, Option<Claim>), Refused> {
    match asked {
        Ok(Asked::Seat(Permitted { join, rate }, upgrade)) => {
            // At a stop, a takeover probe is not waited for any more.
            let stopping = async {
                stop.wait().await;
                Err(Rejection::Stopping)
            };
            let join = Join { speaks_v1: upgrade.speaks_v1, ..join };
            match context.seats.join(join, worker).or(stopping).await {
                Ok(mut claim) => {
                    if let Some(rate) = rate {
                        claim.allowance.limit_own(rate, context.clock.now());
                    }
                    Ok((upgrade.answer, Some(claim)))
                }
                Err(rejection) => Err(Refused { rejected: rejection.into(), upgrade: Some(Box::new(upgrade)) }),
            }
        }
        Ok(Asked::Probe(probe)) => Ok((probe.answer(context), None)),
        Ok(Asked::Demo(answer)) => Ok((answer, None)),
        Err(refused) => Err(refused),
    }
}

/// Ends the relay's side of a stream, and reads until the client's has ended, for a moment.
pub(crate) async fn linger(socket: impl Transport, clock: &dyn Clock) {
    if socket.shut_down().is_err() {
        return;
    }
    let mut stream = Stream(socket);
    let drained = async {
        // On the heap: each handshake's future would have room for it, and few handshakes linger.
        let mut scrap = vec![0; 1024];
        while !matches!(stream.read(&mut scrap).await, Ok(0) | Err(_)) {
            // A client that sends faster than this reads would otherwise keep the worker to itself.
            yield_now().await;
        }
    };
    drained.or(clock.sleep_until(clock.now() + LINGER)).await;
}

#[cfg(test)]
mod tests {
    //! Cases that cannot be brought about from outside. The others are in `tests/http.rs`.

    use super::super::demo::Demo;
    use super::*;
    use crate::pairing::seats::Seats;
    use crate::runtime::clock::SystemClock;
    use crate::telemetry::counters::Counts;
    use futures_lite::future::block_on;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::task::{Context, Poll};

    fn upgrade(target: &str) -> String {
        format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    }

    fn status(seats: &Arc<Seats>, target: &str) -> (u16, bool) {
        match ask(seats, target) {
            Ok((answer, claim)) => (status_of(answer), claim.is_some()),
            Err(refused) => (refused.rejected.status.unwrap().as_u16(), false),
        }
    }

    fn ask(seats: &Arc<Seats>, target: &str) -> Result<(Answer, Option<Claim>), Refused> {
        let context = HandshakeContext::of(Arc::clone(seats));
        let mut client = HandshakeClient::new(&context, Ipv4Addr::LOCALHOST.into());
        let head = block_on(head::read(&mut upgrade(target).as_bytes(), Vec::new())).unwrap().unwrap();
        let mut room = field_room();
        let asked = judge(&head.parse(&mut room).unwrap(), &mut client, &context);
        block_on(decide(asked, &context, 0, &StopFlag::default()))
    }

    fn text(answer: Answer) -> String {
        String::from_utf8(answer.encode(Form::UNKNOWN)).unwrap()
    }

    fn status_of(answer: Answer) -> u16 {
        text(answer).split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// A client that sends what its source has, and takes so many bytes of what it is sent.
    #[derive(Clone)]
    struct FakeClient {
        source: Arc<Mutex<Box<dyn io::Read + Send>>>,
        room: Arc<AtomicUsize>,
    }

    impl FakeClient {
        fn new(source: impl io::Read + Send + 'static, room: usize) -> Self {
            Self { source: Arc::new(Mutex::new(Box::new(source))), room: Arc::new(AtomicUsize::new(room)) }
        }
    }

    impl std::fmt::Debug for FakeClient {
        fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            out.write_str("FakeClient")
        }
    }

    impl Transport for FakeClient {
        fn poll_readable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_writable(&self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if self.room.load(Ordering::SeqCst) > 0 { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
        fn mark_readable(&self) {}
        fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
            self.source.lock().unwrap().read(buffer)
        }
        fn send(&self, bytes: &[u8], _: bool) -> io::Result<usize> {
            match bytes.len().min(self.room.load(Ordering::SeqCst)) {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                taken => {
                    self.room.fetch_sub(taken, Ordering::SeqCst);
                    Ok(taken)
                }
            }
        }
        fn report_when_sent(&self) {}
        fn report_room(&self) {}
        fn set_ack_timeout(&self, _: Duration) {}
        fn bound_receive_buffer(&self, _: bool) {}
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

    #[test]
    fn a_reader_that_stops_within_the_demo_has_its_deadline_and_no_copy_of_the_page() {
        let room = 20_000;
        let reader = FakeClient::new(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], room);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut context = HandshakeContext::of(Seats::roomy(Arc::clone(&clock)));
        let demo = Demo::new();
        let answer = demo.answer();
        assert!(answer.rest(Form::UNKNOWN).len() > room && answer.encode(Form::UNKNOWN).len() < 1024);
        context.demo = Some(demo);
        let telemetry = context.telemetry.add_worker();
        let left = Arc::clone(&reader.room);
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let stop = StopFlag::default();
            let peer = Ipv4Addr::LOCALHOST.into();
            let received = receive(reader, peer, &context, &telemetry, 0, || 0, &stop);
            let admitted = crate::runtime::reactor::Reactor::new().unwrap().block_on(received);
            let counted = context.telemetry.counters(Counts::default()).rejected.contains(&(Rejection::Timeout, 1));
            let _ = ended.send((admitted.is_some(), counted));
        });
        // The deadline of this context is a second; the rest is for slow machines.
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok((false, true)));
        assert_eq!(left.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_rejected_client_that_never_stops_sending_does_not_hold_up_others() {
        let (ended, end) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut others_ran = false;
            let others = async {
                others_ran = true;
            };
            // It sends faster than the relay can read.
            let lingering = linger(FakeClient::new(io::repeat(0), usize::MAX), &SystemClock);
            crate::runtime::reactor::Reactor::new().unwrap().block_on(futures_lite::future::zip(lingering, others));
            let _ = ended.send(others_ran);
        });
        // It lingers for a second; the rest is for slow machines.
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(true));
    }

    #[test]
    fn a_claimed_seat_is_free_when_the_claim_is_dropped() {
        let seats = Seats::roomy(Arc::new(SystemClock));
        assert_eq!(status(&seats, "/?pair=x"), (101, true));
        assert_eq!(seats.pairs(), 0);
    }

    #[test]
    fn a_rejected_request_claims_no_seat() {
        let seats = Seats::roomy(Arc::new(SystemClock));
        assert_eq!(status(&seats, "/"), (400, false));
        assert_eq!(seats.pairs(), 0);
    }

    #[test]
    fn a_stopping_relay_rejects_with_503_and_retry_after() {
        let seats = Seats::roomy(Arc::new(SystemClock));
        block_on(seats.close());
        let Refused { rejected, .. } = ask(&seats, "/?pair=x").unwrap_err();
        assert_eq!(rejected.reason, Rejection::Stopping);
        let answer = text(rejected.into_answer().unwrap());
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nretry-after: "));
    }
}
