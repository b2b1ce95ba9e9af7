//! Errors of the system: which operation failed, and what follows from the error.
//!
//! [`io::ErrorKind`] has no names for some of them, and their numbers differ from system to system.

use std::fmt::Display;
use std::io;

use system::{NO_BUFFERS, NO_FAMILY, NO_FILES, OF_CONNECTION};

/// Puts what failed in front of an error of the system. Its kind stays.
pub(crate) fn context(what: impl Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Whether a send failed because the kernel is short of memory.
///
/// It may succeed later, and no event tells when.
pub(crate) fn is_out_of_memory(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::OutOfMemory || is(error, &[NO_BUFFERS])
}

/// Whether the process or the system has no file descriptors left.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    is(error, NO_FILES)
}

/// Whether an error of accept concerns one connection only (see accept(2)).
///
/// The connection is gone, or has an error of the network pending.
pub(crate) fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) || is(error, OF_CONNECTION)
}

/// Whether this system does not have an address that was to be bound, or its family.
pub(super) fn is_absent_address(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || is(error, &[NO_FAMILY])
}

fn is(error: &io::Error, codes: &[i32]) -> bool {
    error.raw_os_error().is_some_and(|code| codes.contains(&code))
}

#[cfg(unix)]
mod system {
    use rustix::io::Errno;

    pub(super) const NO_BUFFERS: i32 = Errno::NOBUFS.raw_os_error();
    pub(super) const NO_FAMILY: i32 = Errno::AFNOSUPPORT.raw_os_error();
    pub(super) const NO_FILES: &[i32] = &[Errno::MFILE.raw_os_error(), Errno::NFILE.raw_os_error()];

    /// Linux passes errors of the network on that are pending on a new connection.
    #[cfg(target_os = "linux")]
    pub(super) const OF_CONNECTION: &[i32] = &[
        Errno::PROTO.raw_os_error(),
        Errno::NETDOWN.raw_os_error(),
        Errno::NOPROTOOPT.raw_os_error(),
        Errno::HOSTDOWN.raw_os_error(),
        Errno::NONET.raw_os_error(),
        Errno::HOSTUNREACH.raw_os_error(),
        Errno::OPNOTSUPP.raw_os_error(),
        Errno::NETUNREACH.raw_os_error(),
    ];
    #[cfg(not(target_os = "linux"))]
    pub(super) const OF_CONNECTION: &[i32] = &[];
}

/// The codes of Windows Sockets.
#[cfg(windows)]
mod system {
    /// `WSAENOBUFS`
    pub(super) const NO_BUFFERS: i32 = 10055;
    /// `WSAEAFNOSUPPORT`
    pub(super) const NO_FAMILY: i32 = 10047;
    /// `WSAEMFILE`
    pub(super) const NO_FILES: &[i32] = &[10024];
    pub(super) const OF_CONNECTION: &[i32] = &[];
}
