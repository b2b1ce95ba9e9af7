//! Clients that offer the subprotocol, of an independent library.

use std::net::TcpStream;

use async_tungstenite::client_async;
use async_tungstenite::tungstenite::Message;
use async_tungstenite::tungstenite::client::IntoClientRequest;
use async_tungstenite::tungstenite::handshake::client::Response;
use smol::Async;

use crate::support::{Client, Relay};

/// The line of a head that offers the subprotocol behind another one.
pub(crate) const OFFER: &str = "Sec-WebSocket-Protocol: chat, arc-relay.v1\r\n";

/// What a first client is told, with the default time to live of a pair.
pub(crate) const WAITING: &str = r#"{"type":"waiting","expires_in":300}"#;
/// What a client with a peer is told.
pub(crate) const PAIRED: &str = r#"{"type":"paired"}"#;

/// Connects with additional header fields. The relay has to answer 101.
pub(crate) async fn connect_with(relay: &Relay, target: &str, fields: &[(&'static str, &str)]) -> (Client, Response) {
    let socket = Async::<TcpStream>::connect(relay.address).await.unwrap();
    socket.get_ref().set_nodelay(true).unwrap();
    let mut request = relay.url(target).into_client_request().unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let (socket, response) = client_async(request, socket).await.unwrap();
    (Client { socket }, response)
}

/// Connects a client that offers the subprotocol.
pub(crate) async fn connect(relay: &Relay, target: &str) -> Client {
    let (client, response) = connect_with(relay, target, &[("sec-websocket-protocol", "arc-relay.v1")]).await;
    assert_eq!(response.headers()["sec-websocket-protocol"], "arc-relay.v1");
    client
}

impl Client {
    /// The next message apart from pings. It must be text.
    pub(crate) async fn text(&mut self) -> String {
        loop {
            match self.next().await {
                Message::Ping(_) => {}
                Message::Text(text) => break text.to_string(),
                other => panic!("expected text: {other:?}"),
            }
        }
    }
}
