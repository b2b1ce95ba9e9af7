//! A connection to a peer, which outlives the WebSockets that it consists of.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender, bounded};
use futures_lite::FutureExt;
use futures_lite::future::pending;
use smol::{Task, Timer};

use super::closing::{Attempts, is_asked_for};
use super::event::{Closed, Event, Events};
use super::line::{ASKED_FOR, BROKEN, Outgoing, Shared, UnderWay};
use super::noise::fill_random;
use super::options::{InvalidOptions, Options};
use super::wire::dial::Tls;

/// A connection to the peer with the same pair code or secret.
///
/// It reconnects until its program closes it, or until a further attempt is of no use. A message that is under way when a
/// WebSocket fails may or may not have arrived: docs/resuming.md tells how two programs resume.
///
/// It has a task on smol's executor, which runs on a thread of its own. Its futures run on any executor, such as tokio's.
/// Dropping a connection ends it at once: to the peer it looks lost. [`close`](Self::close) ends it behind what was sent.
///
/// # Examples
///
/// ```no_run
/// use arc_relay::client::{Connection, Event, Options, Secret};
///
/// # async fn echo(secret: Secret) -> Result<(), Box<dyn std::error::Error>> {
/// let peer = Connection::open(Options::encrypted("wss://relay.example.org", &secret)?)?;
/// while let Ok(event) = peer.next().await {
///     if let Event::Message(message) = event {
///         peer.send(message).await?;
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct Connection {
    outgoing: Sender<Outgoing>,
    closing: Receiver<()>,
    hurry: Sender<()>,
    events: Arc<Events>,
    closed: Arc<OnceLock<Closed>>,
    /// Closed when the task has ended.
    end: Receiver<()>,
    /// Cancelled when it is dropped.
    _task: Task<()>,
}

impl Connection {
    /// Begins a connection.
    ///
    /// It returns at once. [`next`](Self::next) tells how far the connection is.
    ///
    /// # Errors
    ///
    /// If TLS cannot be set up.
    pub fn open(options: Options) -> Result<Self, InvalidOptions> {
        let tls = match &options.tls {
            Some(tls) => Arc::clone(tls),
            None => Arc::new(Tls::new(None).map_err(InvalidOptions::new)?),
        };
        let events = Arc::new(Events::new(options.max_queue));
        let closed = Arc::new(OnceLock::new());
        let (outgoing, messages) = bounded(1);
        let (_nothing, closing) = bounded(1);
        let (hurry, asked) = bounded(1);
        // The task holds the sender, so the channel is closed by `close` alone.
        let (running, end) = bounded::<()>(1);
        let shared = Shared {
            options,
            tls,
            events: Arc::clone(&events),
            outgoing: messages,
            closing: closing.clone(),
            hurry: asked,
            begin: Instant::now(),
        };
        let result = Arc::clone(&closed);
        let task = smol::spawn(async move {
            let _held = (running, _nothing);
            let _ = result.set(run(&shared).await);
        });
        Ok(Self { outgoing, closing, hurry, events, closed, end, _task: task })
    }

    /// Waits until there is a peer, and until the message was handed to the system.
    ///
    /// Messages of one task arrive in the order of the calls. The message of a call that is dropped before it returns is not
    /// sent, unless it is on its way already.
    ///
    /// # Errors
    ///
    /// If the connection is closed before the message was handed over.
    pub async fn send(&self, message: impl Into<Vec<u8>>) -> Result<(), Closed> {
        let (sent, was_sent) = bounded(1);
        let outgoing = Outgoing { message: message.into(), sent };
        let handed_over = self.outgoing.send(outgoing).await.is_ok() && was_sent.recv().await.is_ok();
        if handed_over { Ok(()) } else { Err(self.ended().await) }
    }

    /// Waits for the next event.
    ///
    /// A program that takes none slows the peer: while a message waits for room, nothing behind it is read, and so not the
    /// peer's leave either. Other events need no room: of those between two messages, the last of each kind is kept.
    /// A call that is dropped before it returns takes no event.
    ///
    /// # Errors
    ///
    /// If the connection is closed, and all events before that are taken.
    pub async fn next(&self) -> Result<Event, Closed> {
        match self.events.take().await {
            Some(event) => Ok(event),
            None => Err(self.ended().await),
        }
    }

    /// Gives the WebSocket up, and comes again.
    ///
    /// That helps when the device has another network, or when the peer makes no sense.
    ///
    /// Without an open WebSocket, it ends the pause or the attempt, and tries at once: at most once in 10 s, so a program may
    /// call it as often as it likes. A pause that the relay asked for stays.
    pub fn reconnect(&self) {
        let _ = self.hurry.try_send(()); // full: it is asked already
    }

    /// Closes the connection for good, behind the messages whose `send` has returned.
    ///
    /// Without a peer, nothing is waited for. Messages that come meanwhile are dropped.
    pub async fn close(&self) {
        // The first says why the others are closed.
        self.closing.close();
        self.outgoing.close();
        self.events.close();
        self.ended().await;
    }

    /// Waits until the task has ended, and tells why it has.
    async fn ended(&self) -> Closed {
        let _ = self.end.recv().await; // nothing is sent, so it returns when the task has ended
        self.closed.get().cloned().unwrap_or_else(Closed::by_this_program)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connection").field("closed", &self.closed.get()).finish_non_exhaustive()
    }
}

/// Connects again and again.
async fn run(shared: &Shared) -> Closed {
    let (mut attempts, mut under_way) = (Attempts::default(), UnderWay::default());
    loop {
        let lost = shared.run(&mut attempts, &mut under_way).await;
        if lost.was_paired {
            shared.events.put(Event::Unpaired { orderly: lost.is_orderly }).await;
        }
        if shared.closing.is_closed() {
            return Closed::by_this_program();
        }
        if lost.is_hurried {
            let (code, reason) = (lost.code, lost.reason);
            shared.events.put(Event::Reconnecting { code, reason, pause: Duration::ZERO }).await;
            continue;
        }
        let Some(pause) = attempts.lose(lost.code, lost.after, shared.now(), random()) else {
            return Closed { code: lost.code, reason: lost.reason };
        };
        shared.events.put(Event::Reconnecting { code: lost.code, reason: lost.reason, pause }).await;
        let paused = async {
            Timer::after(pause).await;
        };
        let mut is_hurried = false;
        let hurried = async {
            if is_asked_for(lost.code) {
                return pending().await;
            }
            shared.hurried(&mut attempts).await;
            is_hurried = true;
        };
        paused.or(shared.closed()).or(hurried).await;
        if is_hurried {
            let (code, reason) = (BROKEN, String::from(ASKED_FOR));
            shared.events.put(Event::Reconnecting { code, reason, pause: Duration::ZERO }).await;
        }
    }
}

/// A number from 0 to 1.
fn random() -> f64 {
    let mut bytes = [0; 4];
    fill_random(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
