//! What a client is told of its peer.

use std::io::Write;

use async_tungstenite::tungstenite::Message;
use rustix::process::Signal;

use crate::client::{PAIRED, WAITING, connect};
use crate::support::raw::{expect, frame, open, server_frame};
use crate::support::{Relay, run};

#[test]
fn first_client_waits_and_is_told_of_its_peer_before_the_first_byte() {
    let relay = Relay::start(&[]);
    run(async {
        let mut a = connect(&relay, "/?pair=x").await;
        assert_eq!(a.text().await, WAITING);
        a.send("early").await;
        // B speaks nothing, and sends at once.
        let mut b = relay.socket();
        open(&mut b, "/?pair=x", &frame(0x82, b"first"));
        assert_eq!(a.text().await, PAIRED);
        assert_eq!(a.receive().await, b"first");
        expect(&mut b, &server_frame(0x82, b"early"));
        b.write_all(&frame(0x88, b"")).unwrap();
        assert_eq!(a.closed().await, (1000, "peer disconnected".into()));
        expect(&mut b, &[0x88, 0]);
    });
}

#[test]
fn second_client_is_told_at_once_and_before_what_was_sent_earlier() {
    let relay = Relay::start(&[]);
    run(async {
        let mut a = relay.connect("x").await;
        a.send("early").await;
        let mut b = connect(&relay, "/?pair=x").await;
        assert_eq!(b.text().await, PAIRED);
        assert_eq!(b.receive().await, b"early");
        b.send("answer").await;
        assert_eq!(a.receive().await, b"answer", "A is told nothing");
        assert_eq!(a.close(1000, "").await.0, 1000);
        assert_eq!(b.closed().await.0, 1000);
    });
}

/// The next client with the code is a first one again.
#[test]
fn both_clients_are_told_and_so_are_those_that_come_later() {
    let relay = Relay::start(&[]);
    run(async {
        for _ in 0..3 {
            let mut a = connect(&relay, "/?pair=x").await;
            assert_eq!(a.text().await, WAITING);
            let mut b = connect(&relay, "/?pair=x").await;
            assert_eq!((a.text().await.as_str(), b.text().await.as_str()), (PAIRED, PAIRED));
            assert_eq!(b.close(4000, "").await.0, 4000);
            assert_eq!(a.closed().await.0, 1000);
        }
    });
}

#[test]
fn client_without_a_peer_is_never_told_of_one() {
    let relay = Relay::start(&["--pair-ttl", "2s"]);
    run(async {
        let mut alone = connect(&relay, "/?pair=x").await;
        assert_eq!(alone.text().await, r#"{"type":"waiting","expires_in":2}"#);
        assert_eq!(alone.closed().await, (1001, "pair expired".into()));
    });
    let relay = Relay::start(&[]);
    run(async {
        let mut recalled = connect(&relay, "/?pair=x").await;
        assert_eq!(recalled.text().await, WAITING);
        relay.signal(Signal::USR1);
        assert_eq!(recalled.closed().await, (1012, "service restart".into()));
    });
}

/// It waits again, and hears of the peer that comes.
#[test]
fn client_that_takes_its_own_place_is_told_where_it_stands() {
    let relay = Relay::start(&[]);
    run(async {
        let mut earlier = connect(&relay, "/?pair=x&side=phone").await;
        assert_eq!(earlier.text().await, WAITING);
        let mut phone = connect(&relay, "/?pair=x&side=phone").await;
        assert_eq!(earlier.closed().await, (4001, "replaced".into()));
        assert_eq!(phone.text().await, WAITING);
        let mut daemon = connect(&relay, "/?pair=x&side=daemon").await;
        assert_eq!((phone.text().await.as_str(), daemon.text().await.as_str()), (PAIRED, PAIRED));
        daemon.send("binary").await;
        assert_eq!(phone.receive().await, b"binary");
        assert_eq!(phone.close(1000, "").await.0, 1000);
        assert_eq!(daemon.closed().await.0, 1000);
    });
}

#[test]
fn pong_waits_for_the_end_of_a_message_that_arrives_in_fragments() {
    let relay = Relay::start(&[]);
    run(async {
        let mut a = relay.socket();
        open(&mut a, "/?pair=x", &frame(0x02, b"one "));
        let mut b = connect(&relay, "/?pair=x").await;
        assert_eq!(b.text().await, PAIRED);
        // This library takes the fragments together, so nothing tells that the first has come: A's next one does.
        a.write_all(&[frame(0x89, b"A"), frame(0x00, b"two ")].concat()).unwrap();
        expect(&mut a, &server_frame(0x8A, b"A"));
        b.send_message(Message::text(r#"{"type":"ping","id":"1"}"#)).await;
        b.send_message(Message::Ping("B".into())).await;
        assert_eq!(b.next().await, Message::Pong("B".into()), "a control frame need not wait");
        b.send_message(Message::text(r#"{"type":"ping","id":"2"}"#)).await;
        b.send_message(Message::Ping("C".into())).await;
        assert_eq!(b.next().await, Message::Pong("C".into()));
        a.write_all(&frame(0x80, b"three")).unwrap();
        assert_eq!(b.receive().await, b"one two three");
        assert_eq!(b.text().await, r#"{"type":"pong","id":"2"}"#, "the newest ping is answered");
        b.hang_up();
    });
}
