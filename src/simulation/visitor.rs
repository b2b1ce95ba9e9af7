//! An HTTP client: it wants no WebSocket, or sends an upgrade that the relay must refuse.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::{AsyncReadExt, AsyncWriteExt};

use super::executor::Random;
use super::network::Socket;
use super::time::sleep;
use crate::runtime::clock::Clock;
use crate::runtime::transport::Transport;

/// Requests and their responses: a status and the start of the body, or `None` for no response.
const REQUESTS: [(&str, Option<(u16, &str)>); 11] = [
    ("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Some((200, "{\"ok\":true,\"pairs\":"))),
    ("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n", Some((200, "alive"))),
    ("GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", Some(READY)),
    ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", Some((404, "not found"))),
    ("POST /?pair=0 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n", Some((405, "method not allowed"))),
    (
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        Some((400, "missing or invalid pair code")),
    ),
    (
        "GET /?pair=0 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        Some((426, "WebSocket version 13 required")),
    ),
    (
        "GET /?pair=0 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         \r\n",
        Some((400, "missing or invalid Sec-WebSocket-Key")),
    ),
    ("\u{16}\u{3}\u{1}\u{0}hello\r\n\r\n", Some((400, ""))),
    // These requests never end, so the relay has to end the connection.
    ("GET /?pair=0 HTTP/1.1\r\nHost: x\r\nConnection: Upg", None),
    ("", None),
];

/// The response of a relay that was not told to stop, and that of one that was.
const READY: (u16, &str) = (200, "ready");
const STOPPING: (u16, &str) = (503, "stopping");

/// The state of a visitor, for the checks.
#[derive(Debug, Default)]
pub(super) struct Visitor {
    /// The times of its request and of the end of the response.
    times: Option<[Instant; 2]>,
    pub(super) expected: Option<(u16, &'static str)>,
    /// Everything that has arrived.
    pub(super) response: Vec<u8>,
    /// Whether the relay has ended the connection.
    pub(super) ended: bool,
}

impl Visitor {
    /// Checks the response.
    ///
    /// It may be missing if the visitor is `excused`: the relay stops, or the line stalls or breaks.
    pub(super) fn check(&self, excused: bool, stopped_at: Option<Instant>) {
        assert!(self.ended, "a visitor waits for ever");
        let response = String::from_utf8_lossy(&self.response);
        let Some((head, body)) = response.split_once("\r\n\r\n") else {
            assert!(self.expected.is_none() || excused, "{response:?} for {:?}", self.expected);
            return;
        };
        let Some((status, text)) = self.expected else {
            // The relay may answer an unfinished request with a timeout.
            assert!(head.starts_with("HTTP/1.1 408"), "{head}");
            return;
        };
        let (status, text) = match (self.times, stopped_at) {
            (Some([_, answered]), Some(at)) if text == READY.1 && head.starts_with("HTTP/1.1 503") => {
                assert!(at <= answered, "the relay was not told to stop");
                STOPPING
            }
            (Some([asked, _]), Some(at)) => {
                assert!(text != READY.1 || asked <= at, "the relay is ready though it was told to stop");
                (status, text)
            }
            _ => (status, text),
        };
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{status}, not {head}");
        assert!(body.starts_with(text) || excused, "{text:?}, not {body:?}");
    }
}

/// Creates a visitor and its task.
pub(super) fn visitor(
    mut socket: Socket,
    mut random: Random,
    clock: Arc<dyn Clock>,
) -> (Rc<RefCell<Visitor>>, impl Future<Output = ()> + 'static) {
    let (request, expected) = REQUESTS[random.below(REQUESTS.len())];
    let visitor = Rc::new(RefCell::new(Visitor { expected, ..Visitor::default() }));
    let state = Rc::clone(&visitor);
    let task = async move {
        let asked = clock.now();
        for part in request.as_bytes().chunks(1 + random.below(200)) {
            if random.once_in(10) {
                sleep(&clock, Duration::from_millis(random.below(300) as u64)).await;
            }
            if socket.write_all(part).await.is_err() {
                break;
            }
        }
        if expected.is_some() && random.once_in(2) {
            let _ = socket.shut_down();
        }
        let mut bytes = [0; 512];
        while let Ok(count @ 1..) = socket.read(&mut bytes).await {
            state.borrow_mut().response.extend(&bytes[..count]);
        }
        state.borrow_mut().times = Some([asked, clock.now()]);
        state.borrow_mut().ended = true;
    };
    (visitor, task)
}
