//! Who is on a connection that speaks HTTP, and whether it may ask for more.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::Arc;

use crate::client_limits::{ClientLimits, Presence};
use crate::clients::{Client, Excess};

/// Whoever is on a connection.
pub(super) struct Caller<'a> {
    limits: &'a Arc<ClientLimits>,
    client: Client,
    /// Its place among its client's connections, if they are counted, and it was not one too many when it came.
    presence: RefCell<Option<Presence>>,
}

impl<'a> Caller<'a> {
    /// A new connection. One too many is not turned away before it asks to join: it may have come for `/health`.
    pub(super) fn new(limits: &'a Arc<ClientLimits>, peer: IpAddr) -> Self {
        let client = Client::from(peer);
        Self { limits, client, presence: RefCell::new(limits.arrive(client).ok().flatten()) }
    }

    /// Lets a request to join pass, if its client has not too much already.
    pub(super) fn ask(&self) -> Result<(), Excess> {
        self.limits.ask(self.client)?;
        let mut presence = self.presence.borrow_mut();
        if presence.is_none() {
            // Others may have gone since.
            *presence = self.limits.arrive(self.client)?;
        }
        Ok(())
    }

    pub(super) fn into_presence(self) -> Option<Presence> {
        self.presence.into_inner()
    }
}
