//! Tells a service manager that the program is ready (sd_notify(3)).

use std::env;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The manager's socket, if there is a manager. It is looked up early, connected before files are out of reach.
pub struct Manager(UnixDatagram);

impl Manager {
    pub fn connect() -> Option<Manager> {
        let name = env::var_os("NOTIFY_SOCKET")?;
        let socket = UnixDatagram::unbound().ok()?;
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(hidden) => abstract_address(hidden),
            None => SocketAddr::from_pathname(&name),
        };
        match address.and_then(|address| socket.connect_addr(&address)) {
            Ok(()) => Some(Manager(socket)),
            Err(error) => {
                log::warn!("NOTIFY_SOCKET {}: {error}", name.to_string_lossy());
                None
            }
        }
    }

    pub fn say(&self, state: &str) {
        if let Err(error) = self.0.send(state.as_bytes()) {
            log::warn!("the service manager cannot be told {state}: {error}");
        }
    }
}

fn abstract_address(name: &[u8]) -> std::io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}
