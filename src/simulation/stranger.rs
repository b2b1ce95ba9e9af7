//! A stranger's bytes, whatever they are, sent to the whole relay.

use std::time::Duration;

use super::actor::Actor;
use super::executor::Random;
use super::stage::Stage;
use crate::runtime::transport::Transport;
use crate::server::relay::Config;

/// Sends bytes to a relay in memory, in pieces that follow from the seed, and then the end of the stream. Returns all
/// that came back before that. Both seats of the code `x` are taken, by clients
/// that are not asked whether they are there.
///
/// # Panics
///
/// If anything is left of it afterwards.
pub fn respond(bytes: &[u8], seed: u64) -> Vec<u8> {
    let config = Config { max_message: Some(10_000), probe_timeout: Duration::ZERO, ..Config::default() };
    let mut stage = Stage::new(Random::new(seed), config);
    let pair = [0, 1].map(|number| Actor::enter(&mut stage, number, 1_000_000));
    let (socket, cable) = stage.socket(2, 1_000_000);
    cable.hold_steady(); // a refusal is not waited for until the end of a stall
    let mut stranger = Actor(socket);
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = if stage.random.once_in(2) { rest.len() } else { 1 + stage.random.below(rest.len()) };
        let (piece, more) = rest.split_at(size);
        // There is room for all of it, unless the relay has closed already.
        if !stranger.try_send(piece) {
            break;
        }
        let pause = Duration::from_millis(stage.random.below(30) as u64);
        stage.pass(pause);
        rest = more;
    }
    // Too short for the relay to lose its patience.
    stage.pass(Duration::from_secs(5));
    let response = stranger.receive();
    let _ = stranger.0.shut_down();
    stage.pass(Duration::from_secs(5));
    drop((stranger, pair));
    stage.stop();
    stage.check_empty();
    response
}
