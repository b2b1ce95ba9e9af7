//! Sends back what the peer sends, end to end encrypted, until the peer leaves:
//!
//! ```sh
//! (umask 077; arc-relay secret > pair.secret)
//! cargo run --example echo -- ws://localhost:8765 pair.secret
//! ```
//!
//! The peer is a program with any of the clients. (`arc-relay pipe` would wait for the end of this program's stream, which has none.)

use std::error::Error;
use std::{env, fs};

use arc_relay::client::{Connection, Event, Options, Secret};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [url, path] = &*arguments else { return Err("a URL and a file with a secret are needed".into()) };
    let secret: Secret = fs::read_to_string(path)?.trim().parse()?;
    smol::block_on(echo(url, &secret))
}

async fn echo(url: &str, secret: &Secret) -> Result<(), Box<dyn Error>> {
    let peer = Connection::open(Options::encrypted(url, secret)?)?;
    loop {
        match peer.next().await? {
            Event::Message(message) => peer.send(message).await?,
            // The peer has taken leave, so nothing it sent is missing.
            Event::Unpaired { orderly: true } => break,
            // Otherwise the connection comes again by itself.
            event => eprintln!("{event:?}"),
        }
    }
    peer.close().await;
    Ok(())
}
