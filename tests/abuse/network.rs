//! Two hosts with a bad line between them, which loses, delays or stops packets (`line.py`).
//!
//! The relay and a near client are in one network namespace, a far client is in another. This needs root, iproute2,
//! Python 3 and a kernel with network namespaces and TUN. If one of them is missing, the tests say so and pass, unless
//! `ARC_RELAY_NETNS` is `required`, as in `.ci/run`.

mod slow;
mod takeover;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::aftermath::{A_PAIR, Bounds, round_trip, unharmed};
use crate::frames::Frames;
use crate::support::raw::{expect, frame, open};
use crate::support::{PATIENCE, Relay, arc_relay, pattern};

const LINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/abuse/line.py");

/// The addresses of the two hosts on the line.
const NEAR: &str = "10.77.0.1";
const FAR: &str = "10.77.0.2";

/// Two hosts and a line.
struct Network {
    line: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The names of their namespaces.
    near: String,
    far: String,
}

impl Network {
    fn new() -> io::Result<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("abuse{}n{}", std::process::id() % 100_000, COUNT.fetch_add(1, Relaxed));
        let (near, far) = (format!("{name}a"), format!("{name}b"));
        let mut line = Command::new("python3")
            .args([LINE, &near, &far, "1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (commands, answers) = (line.stdin.take().unwrap(), line.stdout.take().unwrap());
        let mut network = Self { line, commands, answers: BufReader::new(answers), near, far };
        network.await_answer("ready")?;
        for (host, address) in [(&network.near, NEAR), (&network.far, FAR)] {
            // Each device has the name of its namespace.
            ip(&["netns", "add", host])?;
            ip(&["link", "set", "dev", host, "netns", host])?;
            ip(&["-n", host, "address", "add", &format!("{address}/24"), "dev", host])?;
            ip(&["-n", host, "link", "set", "dev", host, "up"])?;
            ip(&["-n", host, "link", "set", "dev", "lo", "up"])?;
        }
        Ok(network)
    }

    fn await_answer(&mut self, expected: &str) -> io::Result<()> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        if answer.trim_end() == expected { Ok(()) } else { Err(io::Error::other("line.py fails (python3, TUN)")) }
    }

    /// Sends a command to the line, such as a new delay, and waits until it is obeyed.
    fn set(&mut self, command: &str) {
        self.commands.write_all(command.as_bytes()).unwrap();
        self.await_answer("done").unwrap();
    }

    /// Connects a far client.
    fn connect(&self, relay: &Relay, code: &str) -> TcpStream {
        let address: SocketAddr = format!("{NEAR}:{}", relay.address.port()).parse().unwrap();
        let mut socket = in_namespace(&self.far, || TcpStream::connect(address).unwrap());
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        open(&mut socket, &format!("/?pair={code}"), b"");
        socket
    }

    /// Connects a near and a far client as a pair.
    fn pair(&self, relay: &Relay, code: &str) -> (TcpStream, TcpStream) {
        let mut near = relay.socket();
        near.set_write_timeout(Some(PATIENCE)).unwrap();
        open(&mut near, &format!("/?pair={code}"), b"");
        (near, self.connect(relay, code))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.line.kill();
        let _ = self.line.wait();
        for host in [&self.near, &self.far] {
            let _ = ip(&["netns", "delete", host]);
        }
    }
}

fn ip(arguments: &[&str]) -> io::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Runs a closure on a thread in this namespace, where its sockets and processes stay.
fn in_namespace<T: Send>(host: &str, act: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{host}")).expect("the namespace was created");
    let in_there = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root may");
        act()
    };
    thread::scope(|scope| scope.spawn(in_there).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Two hosts and a line, or none if this system cannot have them.
fn network() -> Option<Network> {
    match Network::new() {
        Ok(network) => Some(network),
        Err(error) => {
            let required = std::env::var("ARC_RELAY_NETNS").is_ok_and(|value| value == "required");
            assert!(!required, "two hosts cannot be made: {error}");
            println!("skipped: two hosts cannot be made: {error}");
            None
        }
    }
}

/// The command of a relay that other hosts can reach.
fn relay() -> Command {
    let mut command = arc_relay();
    command.args(["start", "--host", "0.0.0.0", "--port", "0"]);
    command
}

/// Runs a case with a relay on the near host.
fn between_hosts(bounds: Bounds, case: impl FnOnce(&Relay, &mut Network) + Send) {
    let Some(mut network) = network() else { return };
    let host = network.near.clone();
    in_namespace(&host, || {
        let relay = Relay::spawn(relay());
        unharmed(&relay, bounds, |relay| case(relay, &mut network));
    });
}

/// The number of TCP segments that this thread's host has retransmitted.
fn retransmissions() -> usize {
    let statistics = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut tcp = statistics.lines().filter_map(|line| line.strip_prefix("Tcp: ")).map(str::split_whitespace);
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    names.zip(values).find(|(name, _)| *name == "RetransSegs").unwrap().1.parse().unwrap()
}

/// Messages of many sizes.
fn messages(seed: u64) -> impl Iterator<Item = Vec<u8>> {
    (0..60).map(move |nth| pattern([0, 1, 125, 5000, 20_000, 70_000][nth as usize % 6], seed << 32 | nth))
}

/// Streams both ways, and compares every byte.
fn stream(near: &TcpStream, far: &TcpStream) {
    thread::scope(|scope| {
        for (mut from, to, seed) in [(near, far, 1), (far, near, 2)] {
            scope.spawn(move || messages(seed).for_each(|message| from.write_all(&frame(0x82, &message)).unwrap()));
            scope.spawn(move || {
                let mut frames = Frames::of(to);
                for message in messages(seed) {
                    assert!(frames.message() == (2, message));
                }
            });
        }
    });
}

#[test]
fn line_that_loses_packets_loses_no_message() {
    between_hosts(A_PAIR, |relay, network| {
        network.set("loss 0.1\n");
        let (near, mut far) = network.pair(relay, "x");
        stream(&near, &far);
        far.write_all(&[frame(0x82, b"the last"), frame(0x88, &4000_u16.to_be_bytes())].concat()).unwrap();
        let mut frames = Frames::of(&near);
        assert_eq!(frames.next_but_pings(), (0x82, b"the last".to_vec()));
        assert_eq!(frames.closed(), (1000, String::from("peer disconnected")));
        assert_eq!(Frames::of(&far).closed(), (4000, String::new()));
        // The same in the other direction, by the end of the stream.
        let (near, far) = network.pair(relay, "y");
        round_trip(&mut near.try_clone().unwrap(), &mut far.try_clone().unwrap());
        drop(near);
        assert_eq!(Frames::of(&far).closed(), (1000, String::from("peer disconnected")));
        network.set("loss 0\n");
        assert!(retransmissions() > 20, "the line loses no packets");
    });
}

#[test]
fn line_with_a_long_delay_is_only_slow() {
    const ROUND_TRIP: Duration = Duration::from_millis(200);
    between_hosts(A_PAIR, |relay, network| {
        network.set("delay 0.1\n");
        let (mut near, mut far) = network.pair(relay, "x");
        let start = Instant::now();
        for _ in 0..5 {
            round_trip(&mut near, &mut far);
        }
        assert!(start.elapsed() >= 5 * ROUND_TRIP, "the line has no delay");
        stream(&near, &far);
        // A close frame is answered, and closes the peer, from either end of the line.
        far.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
        assert_eq!(Frames::of(&near).closed(), (1000, String::from("peer disconnected")));
        assert_eq!(Frames::of(&far).closed(), (1000, String::new()));
        let (mut near, far) = network.pair(relay, "y");
        near.write_all(&frame(0x88, b"")).unwrap();
        expect(&mut near, &[0x88, 0]);
        assert_eq!(Frames::of(&far).closed(), (1000, String::from("peer disconnected")));
        network.set("delay 0\n");
    });
}

/// The longest time until a live client learns that its peer is lost.
const NOTICED: Duration = Duration::from_secs(60);

#[test]
#[ignore = "takes a minute"]
fn cut_line_is_noticed() {
    between_hosts(Bounds { cpu: Duration::from_secs(20), ..A_PAIR }, |relay, network| {
        let [quiet, to_far, to_near] = ["quiet", "to far", "to near"].map(|name| (name, name.replace(' ', "")));
        let pairs = [quiet, to_far, to_near].map(|(name, code)| (name, network.pair(relay, &code)));
        for (_, (near, far)) in &pairs {
            round_trip(&mut near.try_clone().unwrap(), &mut far.try_clone().unwrap());
        }
        thread::scope(|scope| {
            for (name, (near, far)) in &pairs {
                let mut sender = match *name {
                    "to far" => near,
                    "to near" => far,
                    _ => continue,
                };
                // The sender goes on until the relay closes its connection or a write times out.
                sender.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
                let message = frame(0x82, &pattern(10_000, 1));
                scope.spawn(move || while sender.write_all(&message).is_ok() {});
            }
            // Cut the line in the middle of both streams.
            Frames::of(&pairs[1].1.1).message();
            Frames::of(&pairs[2].1.0).message();
            network.set("cut\n");
            let start = Instant::now();
            for (name, (near, _)) in &pairs {
                scope.spawn(move || {
                    near.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    let mut bytes = Vec::new();
                    let close = b"\x88\x16\x03\xF3peer connection lost";
                    while !bytes.ends_with(close) {
                        let mut some = [0; 65536];
                        match io::Read::read(&mut &*near, &mut some) {
                            Ok(0) => panic!("{name}: the connection ended without a close frame"),
                            Ok(count) => bytes.extend(&some[..count]),
                            // The near client shows that it is live.
                            Err(_) if start.elapsed() < NOTICED + PATIENCE => {
                                if *name != "to far" {
                                    (&mut &*near).write_all(&frame(0x8A, b"")).unwrap();
                                }
                            }
                            Err(error) => panic!("{name}: {error}"),
                        }
                    }
                    let time = start.elapsed();
                    println!("{name}: noticed after {time:?}");
                    let _ = (&mut &*near).write_all(&frame(0x88, b""));
                    assert!(time < NOTICED, "{name}: it took {time:?}");
                });
            }
        });
    });
}
