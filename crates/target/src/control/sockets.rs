//! The sockets of controllers: made in the directory of `-S`, or handed over by whoever started us.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::message::RpcError;
use crate::app::listener::{Access, listen};
use crate::target::Socket;

#[derive(Debug, Default)]
pub struct Sockets {
    pub directory: PathBuf,
    pub access: Access,
    /// By controller. They stay open here, so that a controller can be deleted and made again.
    pub inherited: HashMap<String, OwnedFd>,
}

impl Sockets {
    pub fn controller(&self, name: &str) -> Result<Socket, RpcError> {
        let path = self.directory.join(name);
        let Some(inherited) = self.inherited.get(name) else {
            let listener = listen(&path, self.access)
                .map_err(|failure| RpcError::vhost(failure.errno).with(failure.message))?;
            return Ok(Socket { listener: UnixListener::from(listener), path, ours: true });
        };
        let refused = |error: std::io::Error| {
            RpcError::vhost(error.raw_os_error().unwrap_or(libc::EIO))
                .with(format!("the socket that was handed over for {name:?}: {error}"))
        };
        let listener = UnixListener::from(inherited.as_fd().try_clone_to_owned().map_err(refused)?);
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let path = address.as_pathname().map_or(path, ToOwned::to_owned);
        Ok(Socket { listener, path, ours: false })
    }
}
