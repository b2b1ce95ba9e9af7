//! The invariants of a world: after every step, whenever nothing can run, and at the end.

use std::cell::Ref;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::client::{Client, Ending, Handle, origin};
use super::line::Line;
use super::network::Cable;
use super::world::{PAIR_TTL, World};
use crate::buffers::pool::{LARGEST, SMALLEST};
use crate::runtime::clock::Clock;
use crate::server::config::Config;

/// How long the relay may keep the socket of a client that makes no progress after its close frame.
///
/// Five seconds are the relay's own timeout. Five more are for the client's pauses and the headers of its frames. See
/// [`longest_linger`].
const LINGER: Duration = Duration::from_secs(10);

/// The upper limit of that time, independent of the number of bytes.
const LONGEST_LINGER: Duration = Duration::from_secs(60 * 60);

/// The slowest delivery after a close frame that the relay has to allow for, in bytes per second.
const SLOWEST_DELIVERY: u32 = 4 * 1024;

/// The slowest proxy, in bytes per second, behind which a client must not be given up as silent.
///
/// This holds for the relay's own pings and for takeover probes, as long as the client answers.
const SLOWEST_LIVE: usize = 4 * 1024;

impl World {
    /// Checks memory, the number of pair codes, and new messages, after every step.
    pub(super) fn check_step(&mut self) {
        let open = self.stage.cables.iter().filter(|cable| !cable.is_closed_by_relay()).count();
        let memory = self.stage.relay.memory();
        // From each client, one buffer may be in flight and one may be filling. To each client, there may be the last
        // two of a peer that has left. The relay's own frames take two small buffers: one that is being written, and
        // one for the next.
        assert!(memory <= open * (3 * LARGEST + 2 * SMALLEST), "{memory} bytes for {open} connections");
        // When memory is short, all buffers are small.
        let shared = self.stage.config.max_buffer_memory;
        assert!(memory <= shared + open * 5 * SMALLEST, "{memory} bytes for {open} of {shared}");
        let pairs = self.stage.relay.seats.pairs();
        assert!(pairs <= self.stage.config.max_pairs, "{pairs} pair codes are in use");
        if pairs == self.stage.config.max_pairs {
            self.full_at = Some(self.stage.clock.now());
        }
        for (number, handle) in self.clients.iter().enumerate() {
            let unchecked = handle.state.borrow().checked..handle.state.borrow().received.len();
            if !unchecked.is_empty() {
                self.check_received(number, &handle.state.borrow(), unchecked.clone());
                handle.state.borrow_mut().checked = unchecked.end;
            }
        }
    }

    /// Checks that a client received, message by message, what exactly one other client of its pair sent.
    fn check_received(&self, number: usize, client: &Client, which: std::ops::Range<usize>) {
        for nth in which {
            let (from, sent_as) = origin(&client.received[nth]);
            assert_eq!(client.peer(), Some(from), "client {number} got messages of several clients");
            assert!(from != number, "client {number} got its own message");
            assert_eq!(sent_as, nth, "client {number} missed a message");
            let sender = self.clients[from].state.borrow();
            assert_eq!(sender.code, client.code, "client {number} got another pair's message");
            assert!(!is_same_side(&sender, client), "client {number} is paired with itself");
            assert!(sender.messages[nth] == client.received[nth], "client {number} got an altered message");
        }
    }

    /// Checks at rest that every waiting client has a reason to wait.
    ///
    /// At rest, nothing can run and nothing is in flight.
    pub(super) fn check_rest(&self) {
        let drain = self.stage.config.drain_delay + self.stage.config.drain_timeout;
        let is_after = |time: Duration| self.relay_stopped_at.is_some_and(|at| self.stage.clock.now() > at + time);
        if is_after(drain + Duration::from_secs(3)) {
            let are_closed = self.stage.cables.iter().all(Cable::is_closed_by_relay);
            assert!(are_closed, "the relay takes too long to stop");
        }
        let mut there: BTreeMap<usize, Vec<(usize, Ref<'_, Client>)>> = BTreeMap::new();
        for (number, handle) in self.clients.iter().enumerate() {
            let client = handle.state.borrow();
            // After its own stream has ended, a client keeps only its connection while its peer takes none of its
            // messages.
            let takes_none = |(peer, handle): (usize, &Handle)| {
                let peer_is = client.peer().is_none_or(|known| known == peer);
                let peer = handle.state.borrow();
                peer_is && peer.code == client.code && peer.ending == Ending::Vanish && peer.end.is_none()
            };
            let has_ended = matches!(client.ending, Ending::End | Ending::CutOff) && client.departed_at.is_some();
            let is_read = handle.line.is_read() && handle.line.end_is_read();
            let lingers = has_ended && !is_read && self.clients.iter().enumerate().any(takes_none);
            if client.is_there() && client.ending != Ending::Vanish && !lingers {
                let told = !is_after(drain) || client.pausing || handle.line.is_late();
                assert!(told, "the relay has stopped, but client {number} was not told");
                there.entry(client.code).or_default().push((number, client));
            }
        }
        for (&code, there) in &there {
            let same_code = || self.clients.iter().filter(|handle| handle.state.borrow().code == code);
            // A client that is pausing, or behind a line that stalls, may not have read the relay's last frames yet. One of
            // `arc-relay.v1` does not know that it is there before its first frame.
            let waits = same_code().any(|handle| handle.state.borrow().pausing);
            if waits || same_code().any(|handle| handle.line.is_late()) {
                continue;
            }
            match &there[..] {
                [(number, alone)] => {
                    if let Some(peer) = alone.peer() {
                        let peer = self.clients[peer].state.borrow();
                        let is_silent = peer.ending == Ending::Vanish && peer.end.is_none();
                        assert!(peer.is_there() || is_silent, "client {number} was not told that its peer has left");
                    }
                    // The relay does not notice at once that a client has vanished.
                    let has_silent_peer = same_code().any(|other| {
                        let other = other.state.borrow();
                        other.ending == Ending::Vanish && other.requested_at.is_some() && other.end.is_none()
                    });
                    let since = alone.joined_at.unwrap();
                    let expired = self.stage.clock.now() > since + PAIR_TTL + Duration::from_secs(1);
                    assert!(!expired || has_silent_peer, "client {number} has waited beyond the pair TTL");
                    // A stop that is asked for at the same time comes first.
                    let recalls = |at| since < at && self.relay_stopped_at != Some(at);
                    let recalled = self.recalled_at.is_some_and(recalls);
                    assert!(!recalled || has_silent_peer, "client {number} was not told to come again");
                    // While buffers are full, the relay does not read from a client. If the client's stream ends then,
                    // the relay ends its own direction, too.
                    let is_cut_off = alone.departed_at.is_some() && (has_silent_peer || self.is_short());
                    let unanswered = alone.pongs.last() != alone.pings.last() && !is_cut_off;
                    assert!(
                        !unanswered || !self.clients[*number].line.is_read(),
                        "client {number} got no pong to its last ping"
                    );
                    let untold = alone.v1.as_ref().is_some_and(|told| !told.is_complete());
                    let excused = is_cut_off || has_silent_peer || !self.clients[*number].line.is_read();
                    assert!(!untold || excused, "client {number} was not told where it stands");
                }
                [(a_number, a), (b_number, b)] => {
                    assert!(!is_same_side(a, b), "client {a_number} or {b_number} was not replaced");
                    for (number, from, to) in [(a_number, a, b), (b_number, b, a)] {
                        assert!(from.departed_at.is_none(), "client {number} has left, but its peer was not told");
                        assert_eq!(to.received.len(), from.sent, "messages of client {number} got stuck");
                        assert!(!from.sending, "the relay does not read from client {number}");
                        if let Some(told) = &from.v1 {
                            assert!(told.is_paired, "client {number} was not told of its peer");
                            assert!(told.is_complete(), "client {number} got no pong to its last text ping");
                            let knows = told.drain.is_some() || self.relay_stopped_at.is_none();
                            assert!(knows, "client {number} was not told of the stop");
                        }
                        // A client that did not read for long may have got a pong to its newest ping only.
                        assert_eq!(
                            from.pongs.last(),
                            from.pings.last(),
                            "client {number} got no pong to its last ping"
                        );
                    }
                }
                _ => panic!("a pair has more than two clients"),
            }
        }
    }

    /// Whether another client came with the code and the side of this one.
    fn has_come_again(&self, number: usize, client: &Client) -> bool {
        let mut others = self.clients.iter().enumerate().filter(|&(other, _)| other != number);
        others.any(|(_, other)| {
            let other = other.state.borrow();
            is_same_side(&other, client) && other.requested_at.is_some() && matches!(other.status, None | Some(101))
        })
    }

    /// When the relay admitted no client any more, if it was told to stop.
    fn door_closed_at(&self) -> Option<Instant> {
        self.relay_stopped_at.map(|at| at + self.stage.config.drain_delay)
    }

    /// Whether buffers may be small because memory is short.
    fn is_short(&self) -> bool {
        self.stage.config.max_buffer_memory < Config::default().max_buffer_memory
    }

    /// Checks at the end that each client saw what it had to see, and that nothing is left in the relay.
    pub(super) fn check_end(&self) {
        for (number, handle) in self.clients.iter().enumerate() {
            self.check_client(number, handle);
        }
        for (visitor, cable) in &self.visitors {
            let late = !cable.stalled_for().is_zero();
            let excused = self.relay_stopped_at.is_some() || late || cable.was_broken();
            visitor.borrow().check(excused, self.relay_stopped_at);
        }
        self.stage.check_empty();
    }

    fn check_client(&self, number: usize, handle: &Handle) {
        let client = &*handle.state.borrow();
        let (stalls, delays) = (handle.line.stalled_for(), handle.line.late_for());
        assert!(client.end.is_some(), "client {number} waits for ever");
        if client.status != Some(101) {
            return self.check_refused(number, client, &handle.line);
        }
        let mut pings = client.pings.iter();
        let are_answers = client.pongs.iter().all(|pong| pings.any(|ping| ping == pong));
        assert!(are_answers, "client {number} got a pong to no ping");
        // Both sides have closed, so the relay ends the connection at once, and not by a timeout.
        if let (Some(answered), Some(ended), Some(Ok(()))) = (client.answered_at, client.ended_at, client.end) {
            let in_time = ended < answered + Duration::from_secs(4) + delays;
            assert!(in_time, "client {number} waited too long for the end of its connection");
        }
        // The relay does not wait for ever for a client that never answers.
        if let (Some(closed), Some(ended)) = (client.closed_at, client.ended_at) {
            let in_time = ended < closed + longest_linger(client) + delays;
            assert!(
                in_time || client.ending == Ending::Vanish,
                "the connection of client {number} lingered for {:?}",
                ended - closed
            );
        }
        if let Some(told) = &client.v1 {
            let Config { drain_delay, drain_timeout, .. } = self.stage.config;
            assert!(
                told.waits.is_none_or(|seconds| seconds == PAIR_TTL.as_secs()),
                "client {number} waits for another time"
            );
            let most = (drain_delay + drain_timeout).as_secs();
            assert!(told.drain.is_none_or(|within| within <= most), "client {number} was told of a later stop");
            assert!(told.drain.is_none() || self.relay_stopped_at.is_some(), "client {number} was told of no stop");
            let stops = client.close.as_ref().is_some_and(|(_, reason)| reason == "relay stopping");
            let knows = told.drain.is_some() || told.is_within_message;
            assert!(!stops || knows, "client {number} was closed at a stop, and not told before");
        }
        match &client.close {
            Some(_) => self.check_close(number, client, delays),
            None => {
                let leaves_so = matches!(client.ending, Ending::Reset | Ending::End | Ending::CutOff | Ending::Vanish);
                // A client that is given up because of a slow proxy still gets its close frame.
                let is_silent = may_be_silent(client, &handle.line);
                let unfriendly = is_silent || client.departs && leaves_so || handle.line.was_broken();
                // The relay does not wait for a slow client that has departed, nor for any slow client when it stops.
                // Bytes in a proxy are an excuse only when the relay stops.
                let is_slow = client.slow || stalls > Duration::from_secs(1);
                let has_paused = client.paused_for > Duration::from_secs(1);
                let gave_up = match self.relay_stopped_at {
                    Some(_) => is_slow || has_paused || delays > Duration::from_secs(1),
                    None => is_slow && client.departed_at.is_some(),
                };
                assert!(unfriendly || gave_up, "client {number} got no close frame");
            }
        }
    }

    fn check_refused(&self, number: usize, client: &Client, line: &Line) {
        let is_gone = matches!(client.ending, Ending::Reset | Ending::Vanish) || line.was_broken();
        let is_late = !line.stalled_for().is_zero() || line.proxy_rate().is_some();
        if (is_late || is_gone) && !client.refusal.ends_with('\n') {
            return; // the relay gives a rejection one second to arrive
        }
        let asked = client.requested_at;
        match client.status {
            Some(409) => {
                assert_eq!(client.refusal, "pair is full\n");
                let seated = self.clients.iter().filter(|handle| {
                    let other = handle.state.borrow();
                    // A client that vanished or was reset before its response arrived may have had a seat.
                    let had_seat = other.code == client.code && matches!(other.status, None | Some(101));
                    // The relay finds a reset after the bytes before it. The peer has this long to take those.
                    let unnoticed = matches!(other.ending, Ending::Reset | Ending::Vanish) || handle.line.was_broken();
                    let ended = other.ended_at.map(|at| at + Duration::from_secs(if unnoticed { 70 } else { 0 }));
                    had_seat && other.requested_at <= client.joined_at && ended >= asked
                });
                let seated = seated.count();
                assert!(seated >= 2, "client {number} was refused, but only {seated} had its pair code");
            }
            Some(503) if client.refusal == "relay is full\n" => {
                assert!(self.full_at >= asked, "client {number} was refused despite free pair codes");
            }
            Some(503) => {
                assert_eq!(client.refusal, "relay stopping\n");
                assert!(self.door_closed_at() <= client.ended_at, "the relay was not closing");
            }
            None => {
                let took_too_long = client.ended_at >= Some(client.came_at + Duration::from_secs(10));
                let is_closing = self.door_closed_at().is_some_and(|at| Some(at) <= client.ended_at);
                assert!(is_closing || took_too_long, "client {number} got no response");
            }
            status => panic!("client {number} got {status:?}"),
        }
    }

    /// Checks that a close frame had a cause, and came after everything that had to precede it.
    fn check_close(&self, number: usize, client: &Client, delays: Duration) {
        let Some((code, reason)) = &client.close else { return };
        let (code, reason) = (*code, reason.as_str());
        let peer = client.peer();
        let others = || self.clients.iter().enumerate().filter(|&(other, _)| other != number);
        let same_code = || others().filter(|(_, other)| other.state.borrow().code == client.code);
        let caused = |causes: &dyn Fn(&Client, &Line) -> bool| {
            let mut peers = same_code().filter(|&(other, _)| peer.is_none_or(|peer| peer == other));
            peers.any(|(_, other)| causes(&other.state.borrow(), &other.line))
        };
        match (code, reason) {
            (Some(1000), "peer disconnected") => assert!(
                caused(&|peer, _| {
                    let left = peer.departs && matches!(peer.ending, Ending::Close(_) | Ending::End);
                    left && peer.sent == client.received.len()
                }),
                "client {number} got 1000, but its peer did not leave, or messages are missing"
            ),
            (Some(4001), "replaced") => {
                assert!(self.has_come_again(number, client), "client {number} was replaced by no other");
            }
            (Some(1011), "peer connection lost") => assert!(
                same_code()
                    .filter(|&(other, _)| peer.is_none_or(|peer| peer == other))
                    .any(|(other, handle)| self.has_come_again(other, &handle.state.borrow()))
                    || caused(&|peer, line| match peer.ending {
                        // The peer got no response, or the network broke its line.
                        _ if peer.status.is_none() || line.was_broken() => true,
                        // A third client took the peer's seat.
                        _ if same_code().count() > 1 && may_be_given_up(peer, line) => true,
                        // All messages that were complete before the failure have arrived.
                        Ending::CutOff | Ending::Violation(_) if peer.departs => peer.sent == client.received.len(),
                        Ending::Reset | Ending::Vanish if peer.departs => true,
                        _ if may_be_given_up(peer, line) => true,
                        // The peer's stream ended within a message, or with a reset because of unread bytes.
                        _ => peer.end.is_some_and(|end| end.is_err()) || peer.deaf || peer.sent < peer.messages.len(),
                    }),
                "client {number} got 1011, but its peer is not lost, or messages are missing"
            ),
            (Some(1011), "ping timeout") => {
                assert!(may_be_given_up(client, &self.clients[number].line), "client {number} was not silent");
            }
            (Some(1001), "pair expired") => {
                assert_eq!(peer, None, "client {number} had a peer and expired");
                let waited = client.closed_at.unwrap() - client.requested_at.unwrap();
                assert!(waited >= PAIR_TTL, "client {number} expired after {waited:?}");
                // Unless it is slow, a client makes four short pauses at most.
                let last = client.joined_at.unwrap() + PAIR_TTL + Duration::from_secs(5) + delays;
                let late = client.closed_at > Some(last);
                assert!(!late || client.slow, "client {number} expired after {waited:?}");
            }
            (Some(1012), "service restart") => {
                assert_eq!(peer, None, "client {number} had a peer and was told to come again");
                let told =
                    self.recalled_at.is_some_and(|at| client.requested_at <= Some(at) && Some(at) <= client.closed_at);
                assert!(told, "client {number} was told to come again without a reason");
            }
            (Some(1001), "relay stopping") => {
                // A client without a peer is told when the door is closed, and a pair may go on for some time.
                let timeout = self.stage.config.drain_timeout;
                let grace = if peer.is_some() { timeout - timeout / 10 } else { Duration::ZERO };
                let told = self.door_closed_at().is_some_and(|at| Some(at + grace) <= client.closed_at);
                assert!(told, "the relay told client {number} too early that it stops");
            }
            (Some(code @ (1002 | 1003 | 1007 | 1009)), _) => assert_eq!(client.ending, Ending::Violation(code)),
            (Some(code), "") => {
                assert_eq!(client.ending, Ending::Close(code));
                // The relay reads the close frame after the peer has taken everything before it, and answers behind
                // everything that the peer has sent. Unless it is slow, each client makes four short pauses at most. A
                // client without a peer may wait for long.
                let both = || same_code().map(|(_, other)| other).chain([&self.clients[number]]);
                let delays: Duration = both().map(|each| each.line.late_for()).sum();
                let peer_came = peer.and_then(|peer| self.clients[peer].state.borrow().joined_at);
                let since = client.departed_at.max(peer_came).unwrap();
                let in_time = client.closed_at.unwrap() < since + Duration::from_secs(9) + delays;
                let waits = |each: &Client| each.slow || each.ending == Ending::Vanish;
                let excused = peer.is_none() || both().any(|each| waits(&each.state.borrow()));
                assert!(in_time || excused, "client {number} waited too long for the answer to its close frame");
            }
            other => panic!("client {number} got {other:?}"),
        }
    }
}

/// Whether two clients are one for the relay.
fn is_same_side(one: &Client, other: &Client) -> bool {
    one.side.is_some() && (one.code, one.side) == (other.code, other.side)
}

/// Whether the relay may give up a client as silent: for its own silence, or for a slow proxy.
fn may_be_given_up(client: &Client, line: &Line) -> bool {
    may_be_silent(client, line) || line.proxy_rate().is_some_and(|rate| rate < SLOWEST_LIVE)
}

/// Whether a client may take longer to answer a ping than the relay waits for the pong.
fn may_be_silent(client: &Client, line: &Line) -> bool {
    client.slow || client.ending == Ending::Vanish || line.stalled_for() > Duration::from_millis(100)
}

/// How long the relay may keep the socket of a client that does not answer its close frame.
///
/// As far as the relay knows, every byte for the client may still be in flight.
fn longest_linger(client: &Client) -> Duration {
    (LINGER + Duration::from_secs(client.bytes as u64) / SLOWEST_DELIVERY).min(LONGEST_LINGER)
}
