//! The way between a client and the relay: one cable, or two with a proxy between them.

use std::rc::Rc;
use std::time::Duration;

use super::network::Cable;
use super::proxy::{Load, Pace};

/// The way between a client and the relay, for the checks.
pub(super) struct Line {
    /// Ends at the relay.
    cable: Cable,
    hop: Option<Hop>,
}

/// What is between a client and the cable to the relay.
struct Hop {
    /// Ends at the client.
    cable: Cable,
    up: Rc<Load>,
    down: Rc<Load>,
    pace: Pace,
}

impl Line {
    /// A cable from the client to the relay.
    pub(super) fn direct(cable: Cable) -> Self {
        Self { cable, hop: None }
    }

    /// A cable from the client to a proxy, which has this pace towards the client, and one from there to the relay.
    pub(super) fn proxied(to_proxy: Cable, to_relay: Cable, [up, down]: [Rc<Load>; 2], pace: Pace) -> Self {
        Self { cable: to_relay, hop: Some(Hop { cable: to_proxy, up, down, pace }) }
    }

    fn cables(&self) -> impl Iterator<Item = &Cable> {
        [&self.cable].into_iter().chain(self.hop.as_ref().map(|hop| &hop.cable))
    }

    fn loads(&self) -> impl Iterator<Item = &Load> {
        self.hop.iter().flat_map(|hop| [&*hop.up, &*hop.down])
    }

    /// Bytes a second that a proxy delivers to the client, if there is one.
    pub(super) fn proxy_rate(&self) -> Option<usize> {
        self.hop.as_ref().map(|hop| hop.pace.rate())
    }

    /// Never stalls from now on.
    pub(super) fn hold_steady(&self) {
        self.cables().for_each(Cable::hold_steady);
    }

    /// Whether the network has reset a part of it.
    pub(super) fn was_broken(&self) -> bool {
        self.cables().any(Cable::was_broken)
    }

    /// Whether everything that the client has sent was taken by the relay.
    pub(super) fn is_read(&self) -> bool {
        self.cables().all(Cable::is_read) && self.hop.as_ref().is_none_or(|hop| hop.up.is_empty())
    }

    /// Whether something that was sent does not arrive for a while: the network stalls, or the proxy makes a pause.
    pub(super) fn is_late(&self) -> bool {
        self.cables().any(Cable::is_stalled) || self.loads().any(Load::is_pausing)
    }

    /// For how long the network has stalled. The proxy's pauses are not counted, as the relay has to allow for them.
    pub(super) fn stalled_for(&self) -> Duration {
        self.cables().map(Cable::stalled_for).sum()
    }

    /// How much later than it could have something may have come: for stalls and for the proxy's pauses.
    pub(super) fn late_for(&self) -> Duration {
        self.stalled_for() + self.loads().map(Load::paused_for).sum::<Duration>()
    }
}
