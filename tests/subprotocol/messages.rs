//! Text messages of a client that speaks the subprotocol.

use async_tungstenite::tungstenite::Message;

use crate::client::{PAIRED, WAITING, connect, connect_with};
use crate::support::{Relay, run};

const PING: &str = r#"{"type":"ping"}"#;
const PONG: &str = r#"{"type":"pong"}"#;

#[test]
fn ping_gets_a_pong_with_its_id_and_the_peer_sees_nothing() {
    let relay = Relay::start(&[]);
    run(async {
        let (mut a, mut b) = (relay.connect("x").await, connect(&relay, "/?pair=x").await);
        assert_eq!(b.text().await, PAIRED);
        for (ping, pong) in [
            (PING, PONG),
            (r#"{"type":"ping","id":"7"}"#, r#"{"type":"pong","id":"7"}"#),
            (r#"{"id":"é\n\u0001\"","more":[{}],"type":"ping"}"#, "{\"type\":\"pong\",\"id\":\"é\\n\\u0001\\\"\"}"),
        ] {
            // What the relay does not know is ignored.
            b.send_message(Message::text(r#"{"type":"pings","id":7}"#)).await;
            b.send_message(Message::text(ping)).await;
            assert_eq!(b.text().await, pong);
        }
        b.send("binary").await;
        assert_eq!(a.receive().await, b"binary");
        a.send_message(Message::text("dropped, as A does not speak it")).await;
        a.send("answer").await;
        assert_eq!(b.receive().await, b"answer");
        assert_eq!(b.close(1000, "").await.0, 1000);
        assert_eq!(a.closed().await, (1000, "peer disconnected".into()));
    });
}

#[test]
fn other_text_ends_the_connection_with_1003_behind_everything_before_it() {
    let relay = Relay::start(&[]);
    let long = |length: usize| format!("{PING}{}", " ".repeat(length - PING.len()));
    let id = |length: usize| format!(r#"{{"type":"ping","id":"{}"}}"#, "x".repeat(length));
    for unsupported in ["hello", "", "[]", "{}", r#"{"type":1}"#, r#"{"type":"ping","id":1}"#, &long(513), &id(65)] {
        run(async {
            let (mut a, mut b) = (connect(&relay, "/?pair=x").await, relay.connect("x").await);
            assert_eq!([a.text().await, a.text().await], [WAITING, PAIRED]);
            for supported in [long(512), id(64)] {
                a.send_message(Message::text(supported)).await;
                assert!(a.text().await.starts_with(r#"{"type":"pong""#));
            }
            a.send("the last").await;
            a.send_message(Message::text(unsupported)).await;
            assert_eq!(a.closed().await, (1003, "unsupported text message".into()), "{unsupported}");
            assert_eq!(b.receive().await, b"the last");
            assert_eq!(b.closed().await, (1011, "peer connection lost".into()));
        });
    }
}

/// A client that does not choose it may say anything.
#[test]
fn text_of_other_clients_is_dropped_as_before() {
    let relay = Relay::start(&[]);
    run(async {
        for protocol in ["chat", "arc-relay.v2"] {
            let fields = [("sec-websocket-protocol", protocol)];
            let (mut a, mut b) = (connect_with(&relay, "/?pair=x", &fields).await.0, relay.connect("x").await);
            a.send_message(Message::text(PING)).await;
            a.send_message(Message::text("hello")).await;
            a.send("binary").await;
            assert_eq!(b.receive().await, b"binary");
            b.send("answer").await;
            assert_eq!(a.receive().await, b"answer", "no pong came before it");
            assert_eq!(a.close(1000, "").await.0, 1000);
            assert_eq!(b.closed().await.0, 1000);
        }
    });
}
