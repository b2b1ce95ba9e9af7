//! The relay as users run it, the binary in a process of its own, and clients for it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod raw;
pub mod runner;
pub mod tickets;

use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use async_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use async_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use async_tungstenite::tungstenite::{self, Message};
use async_tungstenite::{WebSocketStream, client_async_with_config};
use futures_lite::{FutureExt, StreamExt};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};
use smol::{Async, Timer};

/// The bound of every wait: enough for the slowest machine, and short enough to be noticed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Flags for clients that answer no pings, as a test on a slow machine may outlast the ping interval.
pub const NO_PINGS: &[&str] = &["--ping-interval", "0"];

/// The number of workers that the tests are run with, by the variable that the relay reads, too.
pub fn workers() -> Option<NonZeroUsize> {
    let given = std::env::var("ARC_RELAY_WORKERS").ok();
    NonZeroUsize::new(given.map_or(1, |number| number.parse().expect("a number of workers")))
}

/// The path of a scratch file that no other test run uses.
pub fn scratch(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()))
}

/// Runs a test's future, and panics if it hangs.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let timeout = async {
        Timer::after(2 * PATIENCE).await;
        panic!("the test hangs");
    };
    smol::block_on(test.or(timeout))
}

/// Polls a condition until it holds: for conditions without an event to wait for.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "still not true: {what}");
        // A busy loop would take the processor from the relay.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A command that runs the binary, without arguments yet.
pub fn arc_relay() -> Command {
    runner::command(env!("CARGO_BIN_EXE_arc-relay"))
}

/// A running `arc-relay` process.
///
/// Dropping it asserts that no pair is left, that no more files are open than at its start, and that SIGTERM stops it
/// gracefully.
pub struct Relay {
    child: Child,
    pub address: SocketAddr,
    /// The address of the operations listener, if there is one.
    pub operations: Option<SocketAddr>,
    /// The bytes to send first on each connection, such as a header of the PROXY protocol.
    preamble: &'static str,
    /// The rest of the query, to be appended to each pair code.
    pub query: &'static str,
    files_at_start: usize,
    stopped: bool,
}

impl Relay {
    pub fn start(flags: &[&str]) -> Self {
        let mut command = arc_relay();
        command.args(["start", "--host", "127.0.0.1", "--port", "0"]).args(flags);
        Self::spawn(command)
    }

    pub fn spawn(command: Command) -> Self {
        Self::spawn_behind(command, "")
    }

    /// Starts a relay that expects `preamble` first on each connection.
    pub fn spawn_behind(mut command: Command, preamble: &'static str) -> Self {
        // Tests provoke warnings on purpose, so only errors are logged unless a test sets a level.
        if command.get_envs().all(|(variable, _)| variable != "ARC_RELAY_LOG_LEVEL") {
            command.env("ARC_RELAY_LOG_LEVEL", "error");
        }
        let mut child = command.stdout(Stdio::piped()).spawn().expect("arc-relay starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        stdout.read_line(&mut line).expect("it prints its address");
        let address = line
            .strip_prefix("arc-relay listening on ws://")
            .and_then(|rest| rest.strip_suffix(" (health at /health)\n"))
            .unwrap_or_else(|| panic!("unexpected first line: {line:?}"));
        let address = address.parse().expect("a socket address");
        let operations = command.get_args().any(|argument| argument == "--ops-address").then(|| {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("it prints the second address, too");
            let address = line.strip_prefix("arc-relay operations on http://");
            let address = address.and_then(|rest| rest.strip_suffix("/ (metrics at /metrics)\n"));
            address.unwrap_or_else(|| panic!("unexpected second line: {line:?}")).parse().expect("a socket address")
        });
        let mut relay = Self { child, address, operations, preamble, query: "", files_at_start: 0, stopped: false };
        assert_eq!(relay.pairs(), 0);
        relay.files_at_start = relay.settled_files();
        relay
    }

    pub fn url(&self, target: &str) -> String {
        format!("ws://{}{target}", self.address)
    }

    pub async fn connect(&self, code: &str) -> Client {
        self.try_connect(&format!("/?pair={code}")).await.expect("the relay admits the client")
    }

    /// Connects the two clients of a pair, in the order in which they are returned.
    pub async fn pair(&self, code: &str) -> (Client, Client) {
        let first = self.connect(code).await;
        (first, self.connect(code).await)
    }

    pub async fn try_connect(&self, target: &str) -> Result<Client, tungstenite::Error> {
        let socket = Async::<TcpStream>::connect(self.address).await.expect("the relay accepts");
        socket.get_ref().set_nodelay(true).expect("a socket takes options");
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let (socket, _) = client_async_with_config(self.url(target), socket, Some(config)).await?;
        Ok(Client { socket })
    }

    /// The status and the body of the rejection.
    pub async fn rejection(&self, target: &str) -> (u16, String) {
        match self.try_connect(target).await {
            Err(tungstenite::Error::Http(response)) => {
                let body = response.body().clone().unwrap_or_default();
                (response.status().as_u16(), String::from_utf8(body).expect("a line of text"))
            }
            Err(error) => panic!("rejected without a response: {error}"),
            Ok(_) => panic!("admitted"),
        }
    }

    /// Sends a request verbatim, and returns the whole response.
    pub fn http(&self, request: &str) -> String {
        let mut socket = self.socket();
        socket.write_all(request.as_bytes()).expect("the relay reads");
        let mut response = Vec::new();
        socket.read_to_end(&mut response).expect("the relay answers and ends the connection");
        String::from_utf8(response).expect("a response is text")
    }

    /// A connection to the operations listener.
    pub fn ops_socket(&self) -> TcpStream {
        let socket =
            TcpStream::connect(self.operations.expect("it has such a listener")).expect("the listener accepts");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes options");
        socket
    }

    /// Sends a request to the operations listener verbatim, and returns the whole response.
    pub fn ops_http(&self, request: &str) -> String {
        let mut socket = self.ops_socket();
        socket.write_all(request.as_bytes()).expect("the listener reads");
        let mut response = Vec::new();
        socket.read_to_end(&mut response).expect("the listener answers and ends the connection");
        String::from_utf8(response).expect("a response is text")
    }

    /// Gets a resource of the operations listener: status and body.
    pub fn ops_get(&self, path: &str) -> (u16, String) {
        let response = self.ops_http(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        (head.split(' ').nth(1).expect("a status").parse().expect("a number"), body.to_owned())
    }

    pub fn socket(&self) -> TcpStream {
        let mut socket = TcpStream::connect(self.address).expect("the relay accepts");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket takes options");
        socket.set_nodelay(true).expect("a socket takes options");
        socket.write_all(self.preamble.as_bytes()).expect("the relay reads");
        socket
    }

    /// The number of pairs that `/health` reports.
    pub fn pairs(&self) -> usize {
        let response = self.http("GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        let number = response.split_once("{\"ok\":true,\"pairs\":").and_then(|(_, rest)| rest.strip_suffix('}'));
        number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("unexpected: {response}"))
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// The number of open files once the connection of the last health request is closed.
    fn settled_files(&self) -> usize {
        let mut least = self.files();
        let mut same = 0;
        eventually("the number of open files is stable", || {
            let now = self.files();
            same = if now < least { 0 } else { same + 1 };
            least = least.min(now);
            same > 50
        });
        least
    }

    /// The value of a line of `/proc/PID/status`, in KiB.
    pub fn memory(&self, line: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let value = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':')).expect("there is such a line");
        value.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Lowers the process's limit of open files (`RLIMIT_NOFILE`).
    pub fn limit_files(&self, files: u64) {
        let limit = Rlimit { current: Some(files), maximum: Some(files) };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("a limit can be lowered");
    }

    /// User and system time of the process so far.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<_> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        Duration::from_millis(ticks * 10)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it runs");
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.stopped = true;
        let mut status = None;
        eventually("the relay has exited", || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("the loop above has set it")
    }

    /// Waits until no pair is left, and no more files are open than at the start.
    pub fn assert_empty(&self) {
        eventually("no pairs are left", || self.pairs() == 0);
        eventually("no more files are open than at the start", || self.files() <= self.files_at_start);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if std::thread::panicking() || self.stopped {
            let _ = self.child.kill();
            let _ = self.child.wait();
            return;
        }
        self.assert_empty();
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0), "SIGTERM is a graceful stop");
    }
}

/// A WebSocket client of an independent library, async-tungstenite.
pub struct Client {
    pub socket: WebSocketStream<Async<TcpStream>>,
}

impl Client {
    pub async fn send(&mut self, message: impl Into<Vec<u8>>) {
        self.socket.send(Message::binary(message.into())).await.expect("the relay reads");
    }

    pub async fn send_message(&mut self, message: Message) {
        self.socket.send(message).await.expect("the relay reads");
    }

    /// The next message of any kind.
    pub async fn next(&mut self) -> Message {
        self.socket.next().await.expect("there is a message").expect("the relay speaks RFC 6455")
    }

    /// The next message apart from pings, which the library answers. It must be binary.
    pub async fn receive(&mut self) -> Vec<u8> {
        loop {
            match self.next().await {
                Message::Ping(_) => {}
                Message::Binary(message) => break message.into(),
                other => panic!("expected a binary message: {other:?}"),
            }
        }
    }

    /// Reads the close frame and then the end of the connection, and returns code and reason.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Message::Ping(_) => {}
                Message::Close(Some(CloseFrame { code, reason })) => {
                    while self.socket.next().await.is_some_and(|end| end.is_ok()) {}
                    break (code.into(), reason.to_string());
                }
                other => panic!("expected a close frame: {other:?}"),
            }
        }
    }

    /// Sends a close frame, and returns the code and reason of the relay's answer.
    pub async fn close(mut self, code: u16, reason: &str) -> (u16, String) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
        self.socket.close(Some(frame)).await.expect("the relay reads");
        self.closed().await
    }

    /// Ends the stream without a close frame.
    pub fn hang_up(self) {
        drop(self.socket);
    }

    /// Ends the connection with a TCP reset, as a crash or a broken network does.
    pub fn reset(self) {
        raw::reset(self.socket.get_ref().get_ref());
    }
}

/// Raises the soft limit of open files to the hard limit, and returns it.
pub fn raise_file_limit() -> u64 {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the maximum is allowed");
    limit.maximum.unwrap_or(u64::MAX)
}

/// Bytes that depend on their position, so that losses, repetitions and exchanges show.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
