//! An untrusted client that sends arbitrary bytes to the whole relay.

use std::time::Duration;

use super::actor::Actor;
use super::executor::Random;
use super::stage::Stage;
use crate::runtime::transport::Transport;
use crate::server::config::Config;

/// Sends bytes and the end of the stream to a relay in memory. Returns the relay's response.
///
/// The seed decides how the bytes are split. The response is everything that came before the end of the stream was
/// sent. Both seats of the pair `x` are taken, and takeover probes are off.
///
/// # Panics
///
/// If anything is left of the connection afterwards.
pub fn respond(bytes: &[u8], seed: u64) -> Vec<u8> {
    let config = Config { max_message: Some(10_000), probe_timeout: Duration::ZERO, ..Config::default() };
    let mut stage = Stage::new(Random::new(seed), config);
    let pair = [0, 1].map(|number| Actor::enter(&mut stage, number, 1_000_000));
    let (socket, cable) = stage.socket(2, 1_000_000);
    cable.hold_steady(); // the relay does not wait out a stall to deliver a rejection
    let mut stranger = Actor(socket);
    let mut rest = bytes;
    while !rest.is_empty() {
        let size = if stage.random.once_in(2) { rest.len() } else { 1 + stage.random.below(rest.len()) };
        let (piece, more) = rest.split_at(size);
        // There is room for every piece, unless the relay has closed already.
        if !stranger.try_send(piece) {
            break;
        }
        let pause = Duration::from_millis(stage.random.below(30) as u64);
        stage.pass(pause);
        rest = more;
    }
    // Shorter than any of the relay's timeouts.
    stage.pass(Duration::from_secs(5));
    let response = stranger.receive();
    let _ = stranger.0.shut_down();
    stage.pass(Duration::from_secs(5));
    drop((stranger, pair));
    stage.stop();
    stage.check_empty();
    response
}
