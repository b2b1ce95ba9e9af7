//! A client's line to the relay: one cable, or two with a proxy in between.

use std::rc::Rc;
use std::time::Duration;

use super::network::Cable;
use super::proxy::{Load, Pace};

/// A client's line to the relay, as the checks see it.
pub(super) struct Line {
    /// The cable that ends at the relay.
    cable: Cable,
    hop: Option<Hop>,
}

/// The proxy, and the cable between the client and the proxy.
struct Hop {
    /// The cable that ends at the client.
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

    /// A cable to a proxy with this pace towards the client, and one from the proxy to the relay.
    pub(super) fn proxied(to_proxy: Cable, to_relay: Cable, [up, down]: [Rc<Load>; 2], pace: Pace) -> Self {
        Self { cable: to_relay, hop: Some(Hop { cable: to_proxy, up, down, pace }) }
    }

    fn cables(&self) -> impl Iterator<Item = &Cable> {
        [&self.cable].into_iter().chain(self.hop.as_ref().map(|hop| &hop.cable))
    }

    fn loads(&self) -> impl Iterator<Item = &Load> {
        self.hop.iter().flat_map(|hop| [&*hop.up, &*hop.down])
    }

    /// The proxy's rate towards the client in bytes per second, if there is a proxy.
    pub(super) fn proxy_rate(&self) -> Option<usize> {
        self.hop.as_ref().map(|hop| hop.pace.rate())
    }

    /// The bytes for the client that the proxy holds.
    pub(super) fn held_for_client(&self) -> usize {
        self.hop.as_ref().map_or(0, |hop| hop.down.held())
    }

    /// Disables all further stalls.
    pub(super) fn hold_steady(&self) {
        self.cables().for_each(Cable::hold_steady);
    }

    /// Whether the network has reset a part of the line.
    pub(super) fn was_broken(&self) -> bool {
        self.cables().any(Cable::was_broken)
    }

    /// Whether the relay has read everything that the client sent.
    pub(super) fn is_read(&self) -> bool {
        self.cables().all(Cable::is_read) && self.hop.as_ref().is_none_or(|hop| hop.up.is_empty())
    }

    /// Whether the relay has read the end of the client's stream.
    pub(super) fn end_is_read(&self) -> bool {
        self.cables().all(Cable::end_is_read)
    }

    /// Whether sent bytes are held up by a stall of the network or a pause of the proxy.
    pub(super) fn is_late(&self) -> bool {
        self.cables().any(Cable::is_stalled) || self.loads().any(Load::is_pausing)
    }

    /// The total time for which the network has stalled.
    ///
    /// The proxy's pauses do not count, because the relay has to allow for them.
    pub(super) fn stalled_for(&self) -> Duration {
        self.cables().map(Cable::stalled_for).sum()
    }

    /// The total delay that stalls of the network and pauses of the proxy may have caused.
    pub(super) fn late_for(&self) -> Duration {
        self.stalled_for() + self.loads().map(Load::paused_for).sum::<Duration>()
    }
}
