//! What the control thread waits for: one epoll instance, one [`Source`] a descriptor.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::sys::{self, Epoll};

/// Who an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Reactors have given something back.
    Reactors,
    /// Somebody has something to say to a controller, by its number.
    Controller(u32),
    /// The program's own: RPC, signals, timers. At most 56 bits.
    Program(u64),
}

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Read,
    Write,
    Both,
}

impl Source {
    fn pack(self) -> u64 {
        match self {
            Source::Reactors => 0,
            Source::Controller(number) => 1 << 56 | u64::from(number),
            Source::Program(number) => 2 << 56 | number & ((1 << 56) - 1),
        }
    }

    fn unpack(packed: u64) -> Self {
        match packed >> 56 {
            0 => Source::Reactors,
            1 => Source::Controller(packed as u32),
            _ => Source::Program(packed & ((1 << 56) - 1)),
        }
    }
}

pub struct Events {
    epoll: Epoll,
}

impl Events {
    pub fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new()? })
    }

    pub fn add(&self, descriptor: BorrowedFd<'_>, source: Source, readiness: Readiness) -> io::Result<()> {
        self.epoll.add(descriptor, source.pack(), readiness.flags())
    }

    pub fn change(&self, descriptor: BorrowedFd<'_>, source: Source, readiness: Readiness) -> io::Result<()> {
        self.epoll.modify(descriptor, source.pack(), readiness.flags())
    }

    /// To be called before the descriptor is closed: a duplicate elsewhere would keep it waited for.
    pub fn remove(&self, descriptor: BorrowedFd<'_>) {
        let _ = self.epoll.remove(descriptor);
    }

    /// Waits for no longer than `timeout`; an interrupted wait is an empty one.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Source>> {
        let mut ready = Vec::new();
        self.epoll.wait(&mut ready, timeout)?;
        Ok(ready.into_iter().map(Source::unpack).collect())
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl Readiness {
    pub(crate) fn flags(self) -> rustix::event::epoll::EventFlags {
        match self {
            Readiness::Read => sys::READABLE,
            Readiness::Write => sys::WRITABLE,
            Readiness::Both => sys::READABLE | sys::WRITABLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_epoll() {
        for source in [Source::Reactors, Source::Controller(u32::MAX), Source::Program((1 << 56) - 1)] {
            assert_eq!(Source::unpack(source.pack()), source);
        }
    }

    #[test]
    fn what_is_ready_is_reported_until_it_is_removed() {
        let events = Events::new().unwrap();
        let event = sys::event().unwrap();
        events.add(event.as_fd(), Source::Program(5), Readiness::Read).unwrap();
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), []);
        sys::raise(event.as_fd());
        assert_eq!(events.wait(None).unwrap(), [Source::Program(5)]);
        sys::lower(event.as_fd());
        events.change(event.as_fd(), Source::Program(6), Readiness::Both).unwrap();
        assert_eq!(events.wait(None).unwrap(), [Source::Program(6)]);
        events.remove(event.as_fd());
        assert_eq!(events.wait(Some(Duration::ZERO)).unwrap(), []);
    }
}
