//! The bound on how much the kernel receives ahead.
//!
//! Linux sizes a socket's receive buffer by the pace at which the program reads, and it may grow to `tcp_rmem` (6 MiB and
//! more) within milliseconds. `SO_RCVBUF` sets it, and so it no longer grows. `SO_BUF_LOCK` lets it grow again (Linux 5.14). But
//! by then the window is bounded by a clamp, which the kernel raises only for a program that reads more in a round trip than
//! ever before. `TCP_WINDOW_CLAMP` raises it.

use std::net::TcpStream;

use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, TcpMaxSeg};
use nix::sys::socket::{getsockopt, setsockopt};

/// The bound, in bytes. Linux doubles it, for what it needs itself.
const BOUND: usize = 32 << 10;

/// The first size of a buffer that grows again: Linux's own one (`tcp_rmem`) is twice as much.
const FIRST: usize = 64 << 10;

/// The options that only [`nix`]'s macros can set without unsafe code of our own.
mod options {
    use nix::{setsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// `TCP_WINDOW_CLAMP`: the most bytes of a window.
        WindowClamp, SetOnly, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, usize
    );

    sockopt_impl!(
        /// `SO_BUF_LOCK`: which of the two buffers keep the size that the program has set.
        BufferLock, SetOnly, libc::SOL_SOCKET, libc::SO_BUF_LOCK, usize
    );
}

/// Bounds the buffer, if that is [possible](check).
pub(super) fn bound(socket: &TcpStream) -> nix::Result<()> {
    check(socket)?;
    setsockopt(socket, RcvBuf, &BOUND)
}

/// Lets the buffer grow again.
pub(super) fn unbound(socket: &TcpStream) -> nix::Result<()> {
    check(socket)?;
    setsockopt(socket, RcvBuf, &FIRST)?;
    setsockopt(socket, options::WindowClamp, &(2 * FIRST))?;
    setsockopt(socket, options::BufferLock, &0)
}

/// Fails if the kernel could not lift a bound again, or if few segments fill the buffer.
///
/// On the loopback interface a segment has 64 KiB. The sender would wait for each window, and its system queues megabytes
/// anyway.
fn check(socket: &TcpStream) -> nix::Result<()> {
    if getsockopt(socket, TcpMaxSeg)? as usize > BOUND / 2 {
        return Err(Errno::EMSGSIZE);
    }
    setsockopt(socket, options::BufferLock, &0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    /// Reads so many bytes at once, and returns the size of the buffer after that.
    fn size_after(socket: &mut TcpStream, bytes: usize) -> usize {
        let (mut read, mut buffer) = (0, vec![0; 256 << 10]);
        while read < bytes {
            read += socket.read(&mut buffer).unwrap();
        }
        SockRef::from(&*socket).recv_buffer_size().unwrap()
    }

    #[test]
    fn buffer_grows_with_a_stream_unless_it_is_bounded() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accepted = || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (client, listener.accept().unwrap().0)
        };
        assert_eq!(bound(&accepted().1), Err(Errno::EMSGSIZE));
        SockRef::from(&listener).set_tcp_mss(1440).unwrap();
        let (mut client, mut socket) = accepted();
        if bound(&socket).is_err() {
            return; // older than Linux 5.14
        }
        thread::spawn(move || while client.write_all(&[0; 64 << 10]).is_ok() {});
        // Linux tells the size with what it needs itself.
        assert_eq!(size_after(&mut socket, 16 << 20), 2 * BOUND);
        unbound(&socket).unwrap();
        assert!(size_after(&mut socket, 256 << 20) > 2 * FIRST);
        bound(&socket).unwrap();
        assert_eq!(size_after(&mut socket, 16 << 20), 2 * BOUND, "it can be bounded again");
    }
}
