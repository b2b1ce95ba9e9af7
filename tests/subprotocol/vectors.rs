//! The relay's part of docs/protocol/vectors.json. The clients in clients/ hold the rest.

use async_tungstenite::tungstenite::Message;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::client::{PAIRED, WAITING, connect, connect_with};
use crate::support::{Relay, run, scratch};

fn vectors(section: &str) -> Vec<Value> {
    let vectors: Value = serde_json::from_str(include_str!("../../docs/protocol/vectors.json")).unwrap();
    vectors[section].as_array().unwrap().clone()
}

fn encode(text: &Value) -> String {
    utf8_percent_encode(text.as_str().unwrap(), NON_ALPHANUMERIC).to_string()
}

#[test]
fn requests_are_decoded_as_specified() {
    let relay = Relay::start(&[]);
    run(async {
        for request in vectors("requests") {
            let target = request["target"].as_str().unwrap();
            if let Some(reason) = request["refused"].as_str() {
                assert_eq!(relay.rejection(target).await, (400, format!("{reason}\n")), "{target}");
                continue;
            }
            let code = encode(&request["pair"]);
            let mut first = connect(&relay, target).await;
            assert_eq!(first.text().await, WAITING, "{target}");
            if !request["side"].is_null() {
                // The same side by another spelling has its place.
                let again = connect(&relay, &format!("/?pair={code}&side={}", encode(&request["side"]))).await;
                assert_eq!(first.closed().await, (4001, "replaced".into()), "{target}");
                first = again;
                assert_eq!(first.text().await, WAITING, "{target}");
            }
            let mut peer = connect(&relay, &format!("/?pair={code}")).await;
            assert_eq!([first.text().await, peer.text().await], [PAIRED; 2], "{target}");
            assert_eq!(peer.close(1000, "").await.0, 1000);
            assert_eq!(first.closed().await.0, 1000);
        }
    });
}

#[test]
fn tokens_are_taken_from_subprotocols_as_specified() {
    let file = scratch("vector-tokens");
    let vectors = vectors("token_subprotocols");
    let tokens: Vec<_> = vectors.iter().map(|vector| vector["token"].as_str().unwrap()).collect();
    std::fs::write(&file, tokens.join("\n")).unwrap();
    let relay = Relay::start(&["--access-token-file", file.to_str().unwrap()]);
    run(async {
        for vector in &vectors {
            let offer = format!("{}, own", vector["subprotocol"].as_str().unwrap());
            let (client, response) = connect_with(&relay, "/?pair=x", &[("sec-websocket-protocol", &offer)]).await;
            assert_eq!(response.headers()["sec-websocket-protocol"], "own");
            assert_eq!(client.close(1000, "").await.0, 1000);
        }
    });
}

#[test]
fn messages_of_clients_are_answered_as_specified() {
    let relay = Relay::start(&[]);
    run(async {
        for vector in vectors("client_messages") {
            let mut client = connect(&relay, "/?pair=x").await;
            assert_eq!(client.text().await, WAITING);
            client.send_message(Message::text(vector["text"].as_str().unwrap())).await;
            if let Some(code) = vector["close"].as_u64() {
                assert_eq!(u64::from(client.closed().await.0), code, "{vector}");
                continue;
            }
            client.send_message(Message::text(r#"{"type":"ping","id":"behind it"}"#)).await;
            let mut answers = Vec::new();
            while answers.last().is_none_or(|answer: &Value| answer["id"] != "behind it") {
                answers.push(serde_json::from_str(&client.text().await).unwrap());
            }
            // Only the newest ping is sure to be answered.
            let expected = &vector["answer"];
            assert!(answers.len() == 1 || (answers.len() == 2 && answers[0] == *expected), "{vector}: {answers:?}");
            assert_eq!(client.close(1000, "").await.0, 1000);
        }
    });
}

/// Codes with a reason that the relay gives. The other ones are of the network.
#[test]
fn close_codes_are_those_of_the_document() {
    let document = include_str!("../../docs/protocol.md");
    for vector in vectors("close_codes") {
        let (code, reason) = (&vector["code"], vector["reason"].as_str().unwrap());
        if !reason.is_empty() {
            let named = |line: &str| line.contains(&code.to_string()) && line.contains(&format!("`{reason}`"));
            assert!(document.lines().any(named), "{vector}");
        }
    }
}
