//! A TCP proxy that cuts, stalls, and is slow.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The line. Its threads end with the connections.
pub(crate) struct Line {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<SocketAddr>,
    is_stalled: AtomicBool,
    /// Bytes per second and direction. 0: as fast as it goes.
    rate: AtomicU64,
    /// After how many bytes to the relay each next connection is cut.
    cuts: Mutex<Vec<u64>>,
    cut: AtomicUsize,
}

impl Line {
    pub(crate) fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            is_stalled: AtomicBool::new(false),
            rate: AtomicU64::new(0),
            cuts: Mutex::default(),
            cut: AtomicUsize::new(0),
        });
        let line = Arc::downgrade(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                let Some(shared) = line.upgrade() else { break };
                shared.carry(client.unwrap());
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap() = target;
    }

    /// From now on nothing passes.
    pub(crate) fn stall(&self) {
        self.shared.is_stalled.store(true, SeqCst);
    }

    pub(crate) fn flow(&self) {
        self.shared.is_stalled.store(false, SeqCst);
    }

    pub(crate) fn limit(&self, rate: u64) {
        self.shared.rate.store(rate, SeqCst);
    }

    pub(crate) fn cut_after(&self, bytes: &[u64]) {
        *self.shared.cuts.lock().unwrap() = bytes.to_vec();
    }

    /// The number of connections that were cut so far.
    pub(crate) fn cuts(&self) -> usize {
        self.shared.cut.load(SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // The listener's thread finds that the line is gone.
        self.shared.is_stalled.store(false, SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn carry(self: &Arc<Self>, client: TcpStream) {
        let Ok(relay) = TcpStream::connect(*self.target.lock().unwrap()) else { return };
        let budget = self.cuts.lock().unwrap().pop();
        for (from, to, budget) in [(&client, &relay, budget), (&relay, &client, None)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            let shared = Arc::clone(self);
            thread::spawn(move || shared.copy(from, to, budget));
        }
    }

    fn copy(&self, mut from: TcpStream, mut to: TcpStream, mut budget: Option<u64>) {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            while self.is_stalled.load(SeqCst) {
                thread::sleep(Duration::from_millis(10));
            }
            if let Some(left) = &mut budget {
                if *left < count as u64 {
                    self.cut.fetch_add(1, SeqCst);
                    break;
                }
                *left -= count as u64;
            }
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
            if let rate @ 1.. = self.rate.load(SeqCst) {
                thread::sleep(Duration::from_secs(1) * count as u32 / rate as u32);
            }
        }
        for socket in [&from, &to] {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
