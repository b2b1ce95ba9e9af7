//! The reasons for which a client is not let in. `http/rejection.rs` turns them into answers.

use crate::telemetry::words::words;

words! {
    /// The reason for which a client was not let in.
    Rejection {
        /// The PROXY header is missing or malformed, or the peer is no trusted proxy.
        ProxyHeader = "proxy_header",
        /// The request line is too long.
        TargetTooLong = "target_too_long",
        /// The request has no `Host`, or several.
        Host = "host",
        /// The request asks for neither a WebSocket nor a probe, such as `/health`.
        NotFound = "not_found",
        /// The method is not GET.
        Method = "method",
        /// The version of WebSocket is not 13.
        Version = "version",
        /// The opening handshake is not as in RFC 6455.
        Handshake = "handshake",
        /// The origin is not allowed.
        Origin = "origin",
        /// The request has no access token.
        Token = "token",
        /// The ticket of the request is not valid.
        Ticket = "ticket",
        /// The pair code is missing, invalid or too short.
        PairCode = "pair_code",
        /// The side identity is empty, too long, or not UTF-8.
        Side = "side",
        /// The client has its maximum of connections.
        Connections = "connections",
        /// The client has asked to join too often.
        Requests = "requests",
        /// Both seats of the pair are taken.
        PairFull = "pair_full",
        /// There are as many connections, waiting sides or pair codes as the relay may hold.
        RelayFull = "relay_full",
        /// The relay is stopping.
        Stopping = "stopping",
        /// The bytes are not HTTP, or the head is too large.
        Malformed = "malformed",
        /// The client took too long to send the head, or to take the answer.
        Timeout = "timeout",
        /// The handshake was the oldest when there was no room for a new one.
        Crowded = "crowded",
    }
}
