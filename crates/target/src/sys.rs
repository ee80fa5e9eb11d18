//! What the engine asks of the kernel: event descriptors, epoll, pinning.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nvlane_bdev::Channel;
use rustix::event::{EventfdFlags, epoll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::thread::CpuSet;

/// A counter whose descriptor becomes readable when it is raised (eventfd(2)); never blocks.
pub fn event() -> io::Result<OwnedFd> {
    Ok(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Raises an event. A full counter (EAGAIN) is a raised one, so there is no error that matters: a peer that closed its
/// end or handed over something strange loses its own events only.
pub fn raise(event: BorrowedFd<'_>) {
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

/// Lowers an event of ours.
pub fn lower(event: BorrowedFd<'_>) {
    let mut count = [0_u8; 8];
    let _ = rustix::io::read(event, &mut count);
}

/// The descriptor that tells that a channel's operations have ended.
pub fn wait_descriptor(channel: &Channel) -> Option<BorrowedFd<'_>> {
    // SAFETY: a channel keeps its descriptor open and the same for its whole life (Channel::wait_descriptor), and the
    // borrow ends no later.
    channel.wait_descriptor().map(|descriptor| unsafe { BorrowedFd::borrow_raw(descriptor) })
}

/// Makes a descriptor that a peer handed over safe to write to from a reactor: a write that would block fails instead.
pub fn never_block(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let flags = fcntl_getfl(descriptor)?;
    if !flags.contains(OFlags::NONBLOCK) {
        fcntl_setfl(descriptor, flags | OFlags::NONBLOCK)?;
    }
    Ok(())
}

/// A listening socket that whoever started this program left open for it, by its number on the command line.
///
/// # Errors
/// EBADF, ENOTSOCK, or EINVAL for a socket that does not listen.
pub fn inherited_listener(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is only borrowed for fcntl(2) and getsockopt(2), which answer EBADF if nothing is open there.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, rustix::io::FdFlags::CLOEXEC)?;
    if !rustix::net::sockopt::socket_acceptconn(borrowed)? {
        return Err(rustix::io::Errno::INVAL.into());
    }
    never_block(borrowed)?;
    // SAFETY: it is open, as was just seen, and the command line says that it is this program's: the caller takes each
    // number once and before it has opened anything of its own.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// An epoll instance.
pub struct Epoll(OwnedFd);

/// Level-triggered readiness to read.
pub const READABLE: epoll::EventFlags = epoll::EventFlags::IN;
/// Level-triggered room to write.
pub const WRITABLE: epoll::EventFlags = epoll::EventFlags::OUT;
/// One report for each time the descriptor is raised, so that nobody has to read an eventfd to silence it.
pub const RAISED: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

impl Epoll {
    pub fn new() -> io::Result<Epoll> {
        Ok(Epoll(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    pub fn add(&self, descriptor: BorrowedFd<'_>, data: u64, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.0, descriptor, epoll::EventData::new_u64(data), flags)?)
    }

    pub fn modify(&self, descriptor: BorrowedFd<'_>, data: u64, flags: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.0, descriptor, epoll::EventData::new_u64(data), flags)?)
    }

    pub fn remove(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.0, descriptor)?)
    }

    /// Waits; an interrupted wait is an empty one. Returns the data of what is ready in `ready`.
    pub fn wait(&self, ready: &mut Vec<u64>, timeout: Option<Duration>) -> io::Result<()> {
        ready.clear();
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 64];
        let timeout = timeout.map(|t| rustix::event::Timespec {
            tv_sec: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(t.subsec_nanos()),
        });
        match epoll::wait(&self.0, &mut events[..], timeout.as_ref()) {
            Ok(count) => ready.extend(events[..count].iter().map(|event| { event.data }.u64())),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Binds the calling thread to one processor.
pub fn pin(cpu: usize) -> io::Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "processor {cpu} is beyond {}, the last that sched_setaffinity(2) is asked about",
                CpuSet::MAX_CPU - 1
            ),
        ));
    }
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// The number of the calling thread, as in /proc/self/task.
pub fn thread_number() -> i32 {
    rustix::thread::gettid().as_raw_nonzero().get()
}
