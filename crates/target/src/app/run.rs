//! The loop of the control thread.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use crate::control::core::Core;
use crate::control::server::{Server, TOKENS};

const SIGNALS: u64 = TOKENS.end;

/// SIGTERM, SIGINT, SIGHUP and SIGQUIT as something to read.
pub struct Signals(UnixStream);

impl Signals {
    pub fn start(poll: &OwnedFd) -> io::Result<Signals> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
            signal_hook::low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        epoll::add(poll, &reader, epoll::EventData::new_u64(SIGNALS), epoll::EventFlags::IN)?;
        Ok(Signals(reader))
    }

    fn came(&mut self) -> bool {
        matches!(self.0.read(&mut [0u8; 64]), Ok(count) if count > 0)
    }
}

/// Runs until somebody asks for the end.
pub fn control(
    poll: &OwnedFd,
    signals: &mut Signals,
    server: &mut Server,
    core: &mut Core,
) -> io::Result<()> {
    let mut events =
        [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 64];
    while !core.ending {
        let now = Instant::now();
        let deadline = server.deadline(now);
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(now)));
        let count = match epoll::wait(poll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for event in &events[..count] {
            match { event.data }.u64() {
                SIGNALS => core.ending |= signals.came(),
                token if TOKENS.contains(&token) => server.ready(token, core),
                token => log::error!("a descriptor that nobody knows is ready: {token:#x}"),
            }
        }
        server.tick(core);
    }
    Ok(())
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
