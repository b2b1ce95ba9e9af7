//! What all checks need: where to connect, as which client, and where to report.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use arc_relay::internals::client::dial::{self, Tls};
use arc_relay::internals::client::failure::Failure;
use arc_relay::internals::client::target::Target;
use arc_relay::internals::client::websocket::{self, Opening};
use rustls::crypto::ring::default_provider;
use smol::LocalExecutor;

use super::report::Report;
use super::side::Side;

/// How long one opening handshake may take, DNS and TLS included.
pub(super) const OPENING: Duration = Duration::from_secs(10);

/// The longest message that is accepted, in bytes: twice the longest that is sent.
const MAX_MESSAGE: usize = 16 << 20;

/// The context of a run.
pub(super) struct Context<'a> {
    pub(super) target: &'a Target,
    pub(super) tls: &'a Tls,
    pub(super) token: Option<&'a str>,
    /// The relay's own address, to be asked if the proxy does not reach it.
    pub(super) relay: Option<&'a Target>,
    pub(super) silence: Option<Duration>,
    pub(super) report: Report,
    pub(super) executor: Rc<LocalExecutor<'static>>,
    /// How long the connection to the proxy took.
    pub(super) connect_time: Cell<Duration>,
}

impl Context<'_> {
    /// Joins with a code, which is encoded already, and offers subprotocols. Returns the chosen one, too.
    pub(super) async fn join(&self, code: &str, subprotocols: &str) -> Result<(Side, Option<String>), Failure> {
        let opened = dial::within(OPENING, async {
            let stream = dial::open(self.target, self.tls).await?;
            let query = &*format!("pair={code}");
            let (target, token) = (self.target, self.token);
            websocket::open(stream, Opening { target, query, token, subprotocols, max_message: MAX_MESSAGE }).await
        });
        let (socket, subprotocol) = opened.await?;
        Ok((Side::new(socket, &self.executor), subprotocol))
    }

    /// Joins two clients with a code of their own.
    pub(super) async fn pair(&self) -> Result<(Side, Side), Failure> {
        let code = code();
        let (one, _) = self.join(&code, "").await?;
        Ok((one, self.join(&code, "").await?.0))
    }
}

/// A code of 128 random bits, in hexadecimal digits.
pub(super) fn code() -> String {
    let mut bytes = [0; 16];
    default_provider().secure_random.fill(&mut bytes).expect("the system has random numbers");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that depend on their position, so that losses, repetitions and exchanges show.
pub(super) fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        // Xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}
