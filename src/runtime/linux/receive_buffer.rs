//! The bound on how much the kernel receives ahead.
//!
//! Linux sizes a socket's receive buffer by the pace at which the program reads, and it may grow to `tcp_rmem` (6 MiB and
//! more) within milliseconds. `SO_RCVBUF` sets it, and so it no longer grows. `SO_BUF_LOCK` lets it grow again (Linux 5.14). But
//! by then the window is bounded by a clamp, which the kernel raises only for a program that reads more in a round trip than
//! ever before. `TCP_WINDOW_CLAMP` raises it.
//!
//! The sender's system queues bytes by the most that it ever had under way in a round trip: with BBR as congestion control,
//! that is 14 times as much, and it never becomes less. So a bound has to hold from the first byte. A listener with a small
//! buffer that may grow gives one to each connection. Set on the listener, `SO_RCVBUF` alone would bound the window for ever,
//! as the handshake of TCP negotiates its scale.

use std::net::TcpStream;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{getsockopt, setsockopt};

/// The least bound, in bytes. Linux doubles it, for what it needs itself.
const LEAST: usize = 16 << 10;

/// The greatest bound.
const MOST: usize = 48 << 10;

/// The bytes in a second for which a bound leaves room.
///
/// Otherwise the bound would make a fast peer look slow. The window calls a peer fast that takes so many.
const RATE: u64 = 512 << 10;

/// The first size of a buffer that grows again: Linux's own one (`tcp_rmem`) is twice as much.
const FIRST: usize = 64 << 10;

/// The place of `tcpi_rtt` in `struct tcp_info`: microseconds.
const RTT: usize = 17;

/// The place of `tcpi_advmss` in `struct tcp_info`: the most bytes of a received segment.
const ADVMSS: usize = 21;

/// The options that only [`nix`]'s macros can set without unsafe code of our own.
mod options {
    use nix::{getsockopt_impl, setsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// `TCP_INFO`: the beginning of `struct tcp_info`, which is the same on all versions.
        Info, GetOnly, libc::IPPROTO_TCP, libc::TCP_INFO, [u32; super::ADVMSS + 1]
    );

    sockopt_impl!(
        /// `TCP_WINDOW_CLAMP`: the most bytes of a window.
        WindowClamp, SetOnly, libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP, usize
    );

    sockopt_impl!(
        /// `SO_BUF_LOCK`: which of the two buffers keep the size that the program has set.
        BufferLock, SetOnly, libc::SOL_SOCKET, libc::SO_BUF_LOCK, usize
    );
}

/// Lets the buffer of each connection of a listener begin at the bound, and grow.
pub(super) fn begin_at_bound(listener: &impl AsFd) -> nix::Result<()> {
    // An old kernel could not let it grow.
    setsockopt(listener, options::BufferLock, &0)?;
    setsockopt(listener, RcvBuf, &LEAST)?;
    setsockopt(listener, options::BufferLock, &0)
}

/// Bounds the buffer, if that is [possible](bound_for).
pub(super) fn bound(socket: &TcpStream) -> nix::Result<()> {
    let bound = bound_for(socket)?;
    setsockopt(socket, RcvBuf, &bound)?;
    setsockopt(socket, options::WindowClamp, &(2 * bound))
}

/// Lets the buffer grow again.
pub(super) fn unbound(socket: &TcpStream) -> nix::Result<()> {
    bound_for(socket)?;
    setsockopt(socket, RcvBuf, &FIRST)?;
    setsockopt(socket, options::WindowClamp, &(2 * FIRST))?;
    setsockopt(socket, options::BufferLock, &0)
}

/// The bound for this connection.
///
/// Fails if the kernel could not lift a bound again, or if few segments fill the buffer. On the loopback interface a segment
/// has 64 KiB. The sender would wait for each window, and its system queues megabytes anyway.
fn bound_for(socket: &TcpStream) -> nix::Result<usize> {
    setsockopt(socket, options::BufferLock, &0)?;
    let info = getsockopt(socket, options::Info)?;
    if info[ADVMSS] as usize > LEAST / 2 {
        return Err(Errno::EMSGSIZE);
    }
    let in_a_round_trip = RATE * u64::from(info[RTT]) / 1_000_000;
    Ok(usize::try_from(in_a_round_trip).unwrap_or(MOST).clamp(LEAST, MOST))
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
        if begin_at_bound(&listener).is_err() {
            return; // older than Linux 5.14
        }
        let streams = |(mut client, socket): (TcpStream, TcpStream)| {
            thread::spawn(move || while client.write_all(&[0; 64 << 10]).is_ok() {});
            socket
        };
        let mut unbounded = streams(accepted());
        assert_eq!(bound(&unbounded), Err(Errno::EMSGSIZE));
        // Linux tells the size with what it needs itself.
        assert_eq!(size_after(&mut unbounded, 0), 2 * LEAST);
        assert!(size_after(&mut unbounded, 256 << 20) > 8 * LEAST);
        SockRef::from(&listener).set_tcp_mss(1440).unwrap();
        let mut socket = streams(accepted());
        let info = getsockopt(&socket, options::Info).unwrap();
        assert!(info[ADVMSS] <= 1440 && (1..1_000_000).contains(&info[RTT]), "{info:?}");
        bound(&socket).unwrap();
        assert_eq!(size_after(&mut socket, 16 << 20), 2 * LEAST);
        unbound(&socket).unwrap();
        assert!(size_after(&mut socket, 256 << 20) > 2 * FIRST);
        bound(&socket).unwrap();
        assert_eq!(size_after(&mut socket, 16 << 20), 2 * LEAST, "it can be bounded again");
    }
}
