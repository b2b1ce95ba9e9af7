//! What the seeds have found, played step by step, so that it stays found when the seeds mean something else.

use std::time::Duration;

use super::actor::{Actor, message};
use super::executor::Random;
use super::stage::Stage;
use crate::relay::Config;

/// A reset that was found by a write, while the client could not be read from, was told as an orderly departure.
#[test]
fn a_reset_that_a_write_has_found_is_told_as_a_loss() {
    for seed in 0..20 {
        let mut stage = Stage::new(Random::new(seed), Config::default());
        let mut reader = Actor::enter(&mut stage, 0, 100_000);
        let mut sender = Actor::enter(&mut stage, 1, 1_000_000);
        // More than the relay takes in while the reader does not read, but no more than its system does.
        for _ in 0..10 {
            sender.send(&message(&[7; 70_000]));
        }
        stage.pass(Duration::from_secs(20));
        sender.0.reset();
        reader.send(&message(b"to somebody who is gone"));
        stage.pass(Duration::from_secs(5));
        let (_, code) = reader.receive_close(&mut stage);
        assert_eq!(code, 1011, "seed {seed}");
        drop(reader);
        stage.stop();
        drop(sender);
        stage.check_empty();
    }
}
