//! Listening UNIX sockets: made so that there is no moment at which the wrong one may connect.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

const BACKLOG: i32 = 128;

/// Who may connect besides the owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    pub owner: Option<u32>,
    /// The group may, too: the mode is 0660 instead of 0600.
    pub group: Option<u32>,
}

fn failed(path: &Path, errno: i32, why: impl std::fmt::Display) -> Failure {
    Failure { errno, message: format!("{}: {why}", path.display()) }
}

/// Why a socket could not be made.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    pub errno: i32,
    pub message: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Listens on `path`. A socket file that nobody listens on any longer is replaced; anything else that is there stays.
/// The process's umask has to keep others out (see `start`): a socket file has no mode until it exists.
pub fn listen(path: &Path, access: Access) -> Result<OwnedFd, Failure> {
    let address = SocketAddrUnix::new(path).map_err(|_| {
        failed(
            path,
            libc::ENAMETOOLONG,
            "a socket's path has 107 bytes at most (sun_path): choose a shorter directory",
        )
    })?;
    clear(path, &address)?;
    let make = || {
        let socket = rustix::net::socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        rustix::net::bind(&socket, &address)?;
        let owner = access.owner.map(Uid::from_raw);
        let group = access.group.map(Gid::from_raw);
        if owner.is_some() || group.is_some() {
            rustix::fs::chownat(CWD, path, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let mode = if access.group.is_some() { 0o660 } else { 0o600 };
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty())?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    };
    make().map_err(|errno: rustix::io::Errno| failed(path, errno.raw_os_error(), errno))
}

/// Makes the way free, if that is safe.
fn clear(path: &Path, address: &SocketAddrUnix) -> Result<(), Failure> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(path, error.raw_os_error().unwrap_or(libc::EIO), error)),
    };
    if !found.file_type().is_socket() {
        return Err(failed(
            path,
            libc::EEXIST,
            "something that is no socket is in the way; remove it or choose another path",
        ));
    }
    let probe = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, address)
    };
    match probe() {
        Err(rustix::io::Errno::CONNREFUSED) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            let why = format!("a socket of user {} is in the way", found.uid());
            return Err(failed(path, libc::EADDRINUSE, why));
        }
        // EAGAIN: it listens, and its backlog is full.
        Ok(()) | Err(rustix::io::Errno::AGAIN) => {
            let why = "another process listens there; stop it or choose another path";
            return Err(failed(path, libc::EADDRINUSE, why));
        }
        Err(errno) => return Err(failed(path, errno.raw_os_error(), errno)),
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(
            path,
            error.raw_os_error().unwrap_or(libc::EIO),
            format!("a stale socket cannot be removed: {error}"),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.sock");
        let first = listen(&path, Access::default()).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        assert_eq!(listen(&path, Access::default()).unwrap_err().errno, libc::EADDRINUSE);
        drop(first);
        let group = Access { owner: None, group: Some(rustix::process::getgid().as_raw()) };
        let _second = listen(&path, group).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        std::fs::write(&path, "precious").unwrap();
        assert_eq!(listen(&path, Access::default()).unwrap_err().errno, libc::EEXIST);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let long = directory.path().join("x".repeat(120));
        assert_eq!(listen(&long, Access::default()).unwrap_err().errno, libc::ENAMETOOLONG);
    }
}
