//! Who is on a connection that speaks HTTP, and whether it may ask for more.

use std::cell::RefCell;
use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header::HeaderName;

use super::context::HandshakeContext;
use super::network::{behind_proxies, is_trusted};
use crate::limits::client_limits::ClientGuard;
use crate::limits::clients::{Client, Excess};

/// To which proxies add the address that asks them, each behind those that were there before.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whoever is on a connection.
pub(super) struct Caller<'a> {
    door: &'a HandshakeContext,
    /// What is connected: a client, or a proxy.
    peer: IpAddr,
    /// Its place among its client's connections, if they are counted, and it was not one too many when it came.
    client_guard: RefCell<Option<Box<ClientGuard>>>,
}

impl<'a> Caller<'a> {
    /// A new connection. One too many is not turned away before it asks to join: it may have come for `/health`.
    pub(super) fn new(door: &'a HandshakeContext, peer: IpAddr) -> Self {
        // Whom a proxy asks for is not known before the first request, and may be another one in the next.
        let is_client = !is_trusted(peer, &door.trusted_proxies);
        let client_guard = if is_client { door.client_limits.arrive(Client::from(peer)).ok().flatten() } else { None };
        Self { door, peer, client_guard: RefCell::new(client_guard) }
    }

    /// What is connected: a client, or a proxy.
    pub(super) fn peer(&self) -> IpAddr {
        self.peer
    }

    /// Whose request has these headers.
    pub(super) fn client(&self, headers: &HeaderMap) -> IpAddr {
        let forwarded = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.as_bytes());
        behind_proxies(self.peer, forwarded, &self.door.trusted_proxies)
    }

    /// Lets a request to join with these headers pass, if its client has not too much already.
    pub(super) fn ask(&self, headers: &HeaderMap) -> Result<(), Excess> {
        let client = Client::from(self.client(headers));
        self.door.client_limits.ask(client)?;
        let mut client_guard = self.client_guard.borrow_mut();
        if client_guard.is_none() {
            // Others may have gone since.
            *client_guard = self.door.client_limits.arrive(client)?;
        }
        Ok(())
    }

    pub(super) fn into_client_guard(self) -> Option<Box<ClientGuard>> {
        self.client_guard.into_inner()
    }
}
