//! The straightforward relay on smol and async-tungstenite: it assembles each message and sends it on.
//!
//! A bounded channel joins the two connections of a pair. The relay has one thread, which is the fastest choice for one
//! core. It runs until it is killed.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;

use async_channel::{Receiver, Sender};
use async_net::{TcpListener, TcpStream};
use async_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use async_tungstenite::tungstenite::{Error, Message};
use async_tungstenite::{WebSocketReceiver, WebSocketSender, accept_hdr_async};
use futures_lite::{StreamExt, future};
use smol::LocalExecutor;

/// The capacity of a channel, in messages. The reader waits while the channel is full.
///
/// A smaller capacity makes small messages cost more, a larger one makes large messages cost more.
const LINK: usize = 8;

/// One client's ends of the two channels of a pair.
type Ends = (Sender<Message>, Receiver<Message>);

/// Ends for the second client of each pair, by pair code, with the number of the first client.
type Waiting = Rc<RefCell<HashMap<String, (u64, Ends)>>>;

pub(crate) fn run() -> io::Result<()> {
    let executor = LocalExecutor::new();
    smol::block_on(executor.run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("ws://{} ", listener.local_addr()?);
        let waiting = Waiting::default();
        let mut number = 0;
        loop {
            let (socket, _) = listener.accept().await?;
            let waiting = waiting.clone();
            number += 1;
            // After an error, the dropped ends of the channels tell the peer.
            executor.spawn(async move { _ = serve(socket, number, waiting).await }).detach();
        }
    }))
}

async fn serve(socket: TcpStream, number: u64, waiting: Waiting) -> Result<(), Error> {
    socket.set_nodelay(true)?;
    let mut code = String::new();
    #[expect(clippy::result_large_err, reason = "it is tungstenite's")]
    let read_code = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let query = request.uri().query().unwrap_or_default();
        code = query.split('&').find_map(|field| field.strip_prefix("pair=")).unwrap_or_default().to_owned();
        Ok(response)
    };
    let (sender, receiver) = accept_hdr_async(socket, read_code).await?.split();
    let second = waiting.borrow_mut().remove(&code);
    let (to_peer, from_peer) = second.map(|(_, ends)| ends).unwrap_or_else(|| {
        let (to_peer, from_this) = async_channel::bounded(LINK);
        let (to_this, from_peer) = async_channel::bounded(LINK);
        waiting.borrow_mut().insert(code.clone(), (number, (to_this, from_this)));
        (to_peer, from_peer)
    });
    let result = future::or(receive(receiver, to_peer), send(sender, from_peer)).await;
    let mut waiting = waiting.borrow_mut();
    if waiting.get(&code).is_some_and(|(first, _)| *first == number) {
        waiting.remove(&code);
    }
    result
}

/// Forwards binary messages until there are no more.
async fn receive(mut from: WebSocketReceiver<TcpStream>, to_peer: Sender<Message>) -> Result<(), Error> {
    while let Some(message) = from.next().await {
        let message = message?;
        if message.is_binary() {
            // An error means that the peer has left. The message is lost, and the writer closes the connection.
            _ = to_peer.send(message).await;
        }
    }
    Ok(())
}

/// Sends the peer's messages, and a close frame after the peer has left.
///
/// Then it waits: the reader sees the end of the connection.
async fn send(mut to: WebSocketSender<TcpStream>, from_peer: Receiver<Message>) -> Result<(), Error> {
    while let Ok(message) = from_peer.recv().await {
        to.send(message).await?;
    }
    to.close(None).await?;
    future::pending().await
}
