//! Memory and notifiers that a front end shares with its back end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;

use crate::message::MemoryRegion;
use crate::payload::Region;

/// A file of memory that stands for a piece of guest memory.
#[derive(Debug)]
pub struct SharedMemory {
    file: OwnedFd,
    size: u64,
}

impl SharedMemory {
    /// An unnamed file of `size` bytes, all zero, that may be shrunk later: a guest's memory seldom is sealed.
    pub fn new(size: u64) -> io::Result<SharedMemory> {
        let file = memfd_create("nvlane-guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, size)?;
        Ok(SharedMemory { file, size })
    }

    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    /// Changes the length of the file under everyone who has mapped it.
    pub fn truncate(&self, size: u64) -> io::Result<()> {
        Ok(ftruncate(&self.file, size)?)
    }

    /// The whole file as a region of the guest.
    pub fn region(&self, guest_address: u64, user_address: u64) -> io::Result<MemoryRegion> {
        let region = Region { guest_address, size: self.size, user_address, mmap_offset: 0 };
        Ok(MemoryRegion { region, file: self.file.try_clone()? })
    }
}

/// A notifier: kick, call or error.
pub fn notifier() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Rings a notifier. One that is full already has rung.
pub fn notify(notifier: impl AsFd) -> io::Result<()> {
    match rustix::io::write(notifier, &1u64.to_ne_bytes()) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a notifier has rung, and clears it. False: it did not, in that time.
pub fn wait_notified(notifier: impl AsFd, deadline: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(deadline).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut entries = [PollFd::new(&notifier, PollFlags::IN)];
    loop {
        match poll(&mut entries, Some(&timeout)) {
            Err(Errno::INTR) => continue,
            result => match result? {
                0 => return Ok(false),
                _ => break,
            },
        }
    }
    let mut count = [0; 8];
    match rustix::io::read(&notifier, &mut count) {
        Ok(_) => Ok(true),
        Err(Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
