//! The reasons for which a client is not let in. `http/rejection.rs` turns them into answers.

use crate::telemetry::words::words;

words! {
    /// Why a client was not let in.
    Rejection {
        /// By the PROXY protocol: it is not a proxy that is trusted, or what it sent first is no header.
        ProxyHeader = "proxy_header",
        /// Its request line is too long.
        TargetTooLong = "target_too_long",
        /// It sent no `Host`, or several.
        Host = "host",
        /// It asked for neither a WebSocket nor `/health`.
        NotFound = "not_found",
        /// It used another method than GET.
        Method = "method",
        /// It speaks another version of WebSocket.
        Version = "version",
        /// Its opening handshake is not as in RFC 6455.
        Handshake = "handshake",
        /// It comes from a site that is not allowed.
        Origin = "origin",
        /// It has no access token.
        Token = "token",
        /// It named no pair code, or none that is accepted.
        PairCode = "pair_code",
        /// It has as many connections as it may.
        Connections = "connections",
        /// It asked to join more often than it may.
        Requests = "requests",
        /// Two are joined with its code already.
        PairFull = "pair_full",
        /// As many codes are in use as the relay may hold.
        RelayFull = "relay_full",
        /// The relay stops.
        Stopping = "stopping",
        /// What it sent is not HTTP, or too much of it.
        Malformed = "malformed",
        /// It took too long for its request, or for taking the answer.
        Timeout = "timeout",
        /// It was the oldest at the front door when there was no room for more.
        Crowded = "crowded",
    }
}
