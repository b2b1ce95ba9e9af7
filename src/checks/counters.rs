//! Counters of several workers, and a reader beside them.

use std::sync::Arc;

use shuttle::thread;

use super::check;
use crate::telemetry::counters::{Counts, RelayTelemetry};
use crate::telemetry::events::Outcome;

#[test]
fn no_end_is_seen_without_its_beginning() {
    check(|| {
        let relay = Arc::new(RelayTelemetry::default());
        let workers = [(); 2].map(|()| {
            let telemetry = relay.add_worker();
            telemetry.opened();
            thread::spawn(move || {
                for _ in 0..3 {
                    telemetry.opened();
                    telemetry.closed(Outcome::Left);
                }
            })
        });
        let connections = || relay.counters(Counts::default()).connections;
        for _ in 0..2 {
            assert!(connections() >= 2, "each worker has one connection that stays");
        }
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        assert_eq!(connections(), 2);
    });
}
