//! The address of a client, and what its connections and requests count for.

use std::net::IpAddr;

use super::context::HandshakeContext;
use super::fields::Fields;
use super::network::{behind_proxies, is_trusted};
use crate::limits::clients::ClientGuard;
use crate::limits::clients::{Client, Excess};

/// Each proxy appends the address that its request came from.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The client of a connection in the opening handshake.
#[derive(Debug)]
pub(super) struct HandshakeClient<'a> {
    context: &'a HandshakeContext,
    /// The address that is connected: the client's, or a proxy's.
    pub(super) peer: IpAddr,
    /// Counts the connection.
    ///
    /// None: connections are not counted, the address is a proxy's, or the client has too many.
    pub(super) guard: Option<Box<ClientGuard>>,
}

impl<'a> HandshakeClient<'a> {
    /// The client of a new connection.
    ///
    /// If it has too many, it is rejected when it asks to join: it may have come for `/health`.
    pub(super) fn new(context: &'a HandshakeContext, peer: IpAddr) -> Self {
        // The client behind a proxy is known from the head.
        let is_client = !is_trusted(peer, &context.trusted_proxies);
        let guard = if is_client { context.client_limits.arrive(Client::from(peer)).ok().flatten() } else { None };
        Self { context, peer, guard }
    }

    /// The address of the client that has sent these fields.
    pub(super) fn address(&self, fields: Fields<'_>) -> IpAddr {
        behind_proxies(self.peer, fields.all(X_FORWARDED_FOR), &self.context.trusted_proxies)
    }

    /// Counts a request to join with these fields, and its connection.
    pub(super) fn ask(&mut self, fields: Fields<'_>) -> Result<(), Excess> {
        let client = Client::from(self.address(fields));
        self.context.client_limits.ask(client)?;
        if self.guard.is_none() {
            // It was a proxy's, or others may have gone since.
            self.guard = self.context.client_limits.arrive(client)?;
        }
        Ok(())
    }
}
