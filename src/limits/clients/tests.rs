//! The table of clients against a naive model, and the limits by examples.

use std::cmp::Reverse;

use super::*;
use crate::runtime::clock::SystemClock;
use proptest::prelude::*;

/// A remembered client, with no arithmetic on anything but milliseconds and whole requests.
#[derive(Debug)]
struct Remembered {
    client: Client,
    connections: usize,
    /// The requests that it may make at once, in sixty-thousandths.
    ///
    /// So a millisecond is a whole number of them.
    credit: u64,
}

/// The naive model of the table: a list that is searched from the front.
struct Model {
    limits: Limits,
    capacity: usize,
    remembered: Vec<Remembered>,
    now: Instant,
}

const REQUEST: u64 = 60_000;

impl Model {
    fn full(&self) -> u64 {
        u64::from(self.limits.joins_per_minute) * REQUEST
    }

    fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
        let full = self.full();
        for remembered in &mut self.remembered {
            let more = milliseconds * u64::from(self.limits.joins_per_minute);
            remembered.credit = (remembered.credit + more).min(full);
        }
    }

    /// The entry of this client, after all that have expired are gone. None if there is no room for it.
    fn see(&mut self, client: Client) -> Option<&mut Remembered> {
        self.sweep();
        if let Some(nth) = self.remembered.iter().position(|other| other.client == client) {
            return self.remembered.get_mut(nth);
        }
        if self.remembered.len() == self.capacity {
            let idle = self.remembered.iter().enumerate().filter(|(_, other)| other.connections == 0);
            let (owes_least, _) = idle.max_by_key(|(_, other)| (other.credit, Reverse(other.client)))?;
            self.remembered.remove(owes_least);
        }
        self.remembered.push(Remembered { client, connections: 0, credit: self.full() });
        self.remembered.last_mut()
    }

    fn sweep(&mut self) {
        let full = self.full();
        self.remembered.retain(|other| other.connections > 0 || other.credit < full);
    }

    fn ask(&mut self, client: Client) -> Result<(), Excess> {
        if self.limits.joins_per_minute == 0 {
            return Ok(());
        }
        let credit = self.remembered.iter().find(|other| other.client == client).map_or(self.full(), |it| it.credit);
        if credit < REQUEST {
            let rate = u64::from(self.limits.joins_per_minute);
            return Err(Excess::Joins { wait: Duration::from_millis(REQUEST - credit) / u32::try_from(rate).unwrap() });
        }
        if let Some(remembered) = self.see(client) {
            remembered.credit -= REQUEST;
        }
        Ok(())
    }

    fn arrive(&mut self, client: Client) -> Result<bool, Excess> {
        let limit = self.limits.connections;
        if limit == 0 {
            return Ok(false);
        }
        if self.remembered.iter().any(|other| other.client == client && other.connections >= limit) {
            return Err(Excess::Connections);
        }
        Ok(self.see(client).is_some_and(|remembered| {
            remembered.connections += 1;
            true
        }))
    }

    fn leave(&mut self, client: Client) {
        self.see(client).expect("it is there").connections -= 1;
        self.sweep();
    }
}

fn check(clients: &Clients, model: &Model) {
    assert!(clients.entries.len() <= clients.capacity);
    let mut remembered: Vec<_> = model.remembered.iter().map(|it| (it.client, it.connections)).collect();
    let mut entries: Vec<_> = clients.entries.iter().map(|(client, entry)| (*client, entry.connections)).collect();
    remembered.sort();
    entries.sort();
    assert!(entries == remembered, "they differ");
    // A client without connections can be forgotten, and no other.
    let is_idle = |(client, entry): (&Client, &Entry)| clients.idle.contains(&(entry.joins, *client));
    assert!(clients.entries.iter().all(|it| (it.1.connections == 0) == is_idle(it)));
    assert_eq!(clients.idle.len(), entries.iter().filter(|(_, connections)| *connections == 0).count());
}

fn client(number: u32) -> Client {
    Client::V4(number)
}

#[derive(Clone, Debug)]
enum Step {
    Ask(u32),
    Arrive(u32),
    /// One of the counted connections ends.
    Leave(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_u32).prop_map(Step::Ask),
        3 => (0..6_u32).prop_map(Step::Arrive),
        3 => any::<usize>().prop_map(Step::Leave),
        2 => (0..90_000_u64).prop_map(Step::Pass),
        1 => (0..5_u64).prop_map(|minutes| Step::Pass(minutes * 30_000)),
    ]
}

proptest! {
    #[test]
    fn agrees_with_the_model(
        connections in 0..4_usize,
        // These divide a minute without a remainder in milliseconds.
        joins_per_minute in prop::sample::select(&[0, 1, 2, 3, 5, 60][..]),
        capacity in 1..5_usize,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let limits = Limits { connections, joins_per_minute };
        let now = Instant::now();
        let mut clients = Clients::new(limits, capacity);
        let mut model = Model { limits, capacity, remembered: vec![], now };
        let mut there = Vec::new();
        for step in steps {
            match step {
                Step::Ask(number) => {
                    prop_assert_eq!(clients.ask(client(number), model.now), model.ask(client(number)));
                }
                Step::Arrive(number) => {
                    let counted = clients.arrive(client(number), model.now);
                    prop_assert_eq!(counted, model.arrive(client(number)));
                    if counted == Ok(true) {
                        there.push(client(number));
                    }
                }
                Step::Leave(_) if there.is_empty() => {}
                Step::Leave(nth) => {
                    let left = there.swap_remove(nth % there.len());
                    clients.leave(left, model.now);
                    model.leave(left);
                }
                Step::Pass(milliseconds) => model.pass(milliseconds),
            }
            check(&clients, &model);
        }
        // A minute after all have left, no client is remembered.
        for left in there {
            clients.leave(left, model.now);
        }
        clients.sweep(model.now + MINUTE);
        prop_assert!(clients.entries.is_empty() && clients.idle.is_empty());
    }
}

fn limited(connections: usize, joins_per_minute: u32) -> Clients {
    Clients::new(Limits { connections, joins_per_minute }, 2)
}

#[test]
fn minute_of_requests_may_come_at_once_and_then_one_at_a_time() {
    for rate in [1, 2, 7, 59, 60, 1000, MOST_JOINS] {
        let (mut clients, now) = (limited(0, rate), Instant::now());
        assert!((0..rate).all(|_| clients.ask(client(1), now).is_ok()), "{rate}");
        let Err(Excess::Joins { wait }) = clients.ask(client(1), now) else { panic!("{rate}") };
        assert!(wait <= MINUTE / rate);
        assert!(clients.ask(client(1), now + wait - Duration::from_nanos(1)).is_err());
        assert_eq!(clients.ask(client(1), now + wait), Ok(()));
        assert!(clients.ask(client(1), now + wait).is_err());
        assert_eq!(clients.ask(client(2), now), Ok(()), "other clients have limits of their own");
    }
}

#[test]
fn refused_request_does_not_delay_the_next() {
    let (mut clients, now) = (limited(0, 1), Instant::now());
    assert_eq!(clients.ask(client(1), now), Ok(()));
    for _ in 0..100 {
        assert_eq!(clients.ask(client(1), now), Err(Excess::Joins { wait: MINUTE }));
    }
    assert_eq!(clients.ask(client(1), now + MINUTE), Ok(()));
}

#[test]
fn connections_are_counted_until_they_leave() {
    let (mut clients, now) = (limited(2, 0), Instant::now());
    assert_eq!([(); 3].map(|()| clients.arrive(client(1), now)), [Ok(true), Ok(true), Err(Excess::Connections)]);
    clients.leave(client(1), now);
    assert_eq!(clients.arrive(client(1), now), Ok(true));
}

#[test]
fn client_with_connections_is_not_forgotten_and_a_new_one_without_room_is_not_counted() {
    let (mut clients, now) = (limited(1, 1), Instant::now());
    assert_eq!([1, 2, 3].map(|number| clients.arrive(client(number), now)), [Ok(true), Ok(true), Ok(false)]);
    assert_eq!(clients.arrive(client(1), now + 10 * MINUTE), Err(Excess::Connections));
    assert_eq!([(); 2].map(|()| clients.ask(client(3), now)), [Ok(()), Ok(())]);
}

#[test]
fn full_table_forgets_the_client_that_owes_least() {
    let (mut clients, now) = (limited(0, 2), Instant::now());
    for number in [1, 1, 2, 3] {
        assert_eq!(clients.ask(client(number), now), Ok(()));
    }
    assert!(clients.ask(client(1), now).is_err(), "it owes most, though it was seen first");
    assert_eq!([(); 2].map(|()| clients.ask(client(2), now)), [Ok(()), Ok(())], "it is forgotten");
}

#[test]
fn full_table_sweeps_expired_clients_first() {
    let (mut clients, now) = (limited(0, 60), Instant::now());
    let second = Duration::from_secs(1);
    assert_eq!([1, 2, 2].map(|number| clients.ask(client(number), now)), [Ok(()); 3]);
    // The first client owes nothing any more, and the second does.
    assert_eq!(clients.ask(client(3), now + second), Ok(()));
    assert!(clients.entries.contains_key(&client(2)) && !clients.entries.contains_key(&client(1)));
    assert_eq!(clients.ask(client(3), now + 3 * second), Ok(()));
    assert_eq!(clients.entries.len(), 1, "an expired client is swept even if there is room");
}

#[test]
fn client_is_an_ipv4_address_or_an_ipv6_network_of_64_bits() {
    let client = |text: &str| Client::from(text.parse::<IpAddr>().unwrap());
    assert_ne!(client("1.2.3.4"), client("1.2.3.5"));
    assert_eq!(client("1.2.3.4"), client("::ffff:1.2.3.4"));
    assert_eq!(client("2001:db8:0:1::1"), client("2001:db8:0:1:ffff:ffff:ffff:ffff"));
    assert_ne!(client("2001:db8:0:1::1"), client("2001:db8:0:2::1"));
    assert_ne!(client("::1"), client("0.0.0.0"));
}

#[test]
fn addresses_are_not_printed() {
    let (mut clients, now) = (limited(1, 1), Instant::now());
    let _ = (clients.arrive(client(0x7A7A_7A7A), now), clients.ask(Client::V6Network(0x7A7A), now));
    let printed = format!("{clients:?}");
    assert!(!printed.contains("2054847098") && !printed.contains("31354"), "{printed}");
}

/// The table would be the one thing that handshakes on all workers write to.
#[test]
fn limits_that_are_off_take_no_lock() {
    let limits = Arc::new(ClientLimits::new(Limits::default(), Arc::new(SystemClock)));
    let held = lock(&limits.clients);
    let other = Arc::clone(&limits);
    let (done, is_done) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let outcome = (other.ask(client(1)), other.arrive(client(1)).map(|guard| guard.is_some()));
        done.send(outcome).unwrap();
    });
    assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok((Ok(()), Ok(false))));
    drop(held);
}
