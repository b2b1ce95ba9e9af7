//! What a service manager such as systemd passes to a service, and what the service tells it.
//!
//! Sockets come by the protocol of `sd_listen_fds(3)`, and the state goes by that of `sd_notify(3)`. Without a service manager, nothing of
//! this has an effect.

use std::net::TcpListener;

/// The sockets that the relay is to accept connections from. Without any, it listens by itself.
///
/// To be called before there are threads: it removes the variables from the environment.
///
/// # Errors
///
/// If one of them is not a TCP socket.
#[cfg(unix)]
pub(super) fn inherited_sockets() -> Result<Vec<TcpListener>, String> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        let socket = passed.take_tcp_listener(index);
        let socket = socket.map_err(|error| format!("cannot accept connections from the socket passed: {error}"))?;
        sockets.extend(socket);
    }
    Ok(sockets)
}

/// Windows has no such service manager.
#[cfg(not(unix))]
pub(super) fn inherited_sockets() -> Result<Vec<TcpListener>, String> {
    Ok(Vec::new())
}

/// Tells that connections are accepted.
pub(super) fn tell_ready() {
    notify::tell(notify::State::Ready);
}

/// Tells that the stop has begun.
pub(super) fn tell_stopping() {
    notify::tell(notify::State::Stopping);
}

#[cfg(target_os = "linux")]
mod notify {
    pub(super) use sd_notify::NotifyState as State;

    /// Sends the state, if there is a service manager that waits for it.
    pub(super) fn tell(state: State<'_>) {
        if let Err(error) = sd_notify::notify(&[state]) {
            log::warn!(error:%; "service_manager_not_told");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod notify {
    pub(super) enum State {
        Ready,
        Stopping,
    }

    /// Only Linux has such a service manager.
    pub(super) fn tell(_: State) {}
}
