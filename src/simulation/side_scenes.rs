//! Scenes of clients that come again with their side identity, from a half-open connection.

use std::time::Duration;

use super::actor::{Actor, message};
use super::executor::Random;
use super::stage::Stage;
use crate::server::config::Config;

/// A relay that can find out by nothing but the side identity that a client has come again.
fn stage(seed: u64) -> Stage {
    let config = Config { ping_interval: None, probe_timeout: Duration::ZERO, ..Config::default() };
    Stage::new(Random::new(seed), config)
}

/// The phone's line is cut within a message. The daemon reads nothing until the phone has come again.
#[test]
fn peer_of_a_replaced_client_gets_all_that_was_received() {
    const MESSAGES: usize = 10;
    for seed in 0..30 {
        let mut stage = stage(seed);
        let mut phone = Actor::enter_as_side(&mut stage, 0, "phone", 100_000);
        let mut daemon = Actor::enter_as_side(&mut stage, 1, "daemon", 20_000);
        let messages: Vec<_> = (0..MESSAGES).map(|nth| vec![nth as u8; 5000]).collect();
        messages.iter().for_each(|payload| phone.send(&message(payload)));
        phone.send(&message(&[7; 100])[..50]);
        stage.pass(Duration::from_secs(15)); // the network may stall
        phone.0.cut();
        let mut again = Actor::enter_as_side(&mut stage, 2, "phone", 10_000);
        let (received, code) = daemon.receive_close(&mut stage);
        let expected: Vec<_> =
            messages.iter().flat_map(|payload| [&[0x82, 126, 0x13, 0x88][..], payload].concat()).collect();
        assert!(received.starts_with(&expected), "seed {seed}: messages are missing");
        assert_eq!(code, 1011, "seed {seed}");

        let mut daemon = Actor::enter_as_side(&mut stage, 3, "daemon", 10_000);
        daemon.send(&message(b"hello"));
        stage.pass(Duration::from_secs(15));
        assert_eq!(again.receive(), [&[0x82, 5][..], b"hello"].concat(), "seed {seed}");
        phone.0.time_out();
        drop((phone, daemon, again));
        stage.stop();
        stage.check_empty();
    }
}

/// Each connection is half-open, so no closing handshake of the chain ends by itself.
#[test]
fn client_that_comes_again_and_again_waits_once() {
    for seed in 0..30 {
        let mut stage = stage(seed);
        let mut phones = Vec::new();
        for number in 0..5 {
            let phone = Actor::enter_as_side(&mut stage, number, "phone", 10_000);
            assert_eq!((stage.relay.seats.pairs(), stage.relay.seats.counts().waiting), (1, 1), "seed {seed}");
            phone.0.cut();
            phones.push(phone);
        }
        let mut live = Actor::enter_as_side(&mut stage, 5, "phone", 10_000);
        let mut daemon = Actor::enter_as_side(&mut stage, 6, "daemon", 10_000);
        live.send(&message(b"hello"));
        stage.pass(Duration::from_secs(15));
        assert_eq!(daemon.receive(), [&[0x82, 5][..], b"hello"].concat(), "seed {seed}");
        phones.iter().for_each(|phone| phone.0.time_out());
        drop((phones, live, daemon));
        stage.stop();
        stage.check_empty();
    }
}
