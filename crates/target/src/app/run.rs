//! The loop of the control thread, and its end.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll};

use crate::control::core::Core;
use crate::control::metrics::{self, Metrics};
use crate::control::server::{Server, TOKENS};

const SIGNALS: u64 = TOKENS.end;
const TARGET: u64 = TOKENS.end + 1;
const DRIVES: u64 = TOKENS.end + 2;
/// How often the target looks for what nobody reports: memory that has vanished, queues that do not drain.
const CHECK: Duration = Duration::from_secs(1);
/// How long the end waits for requests that are under way.
const DRAIN: Duration = Duration::from_secs(5);

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

/// What the control thread serves besides the target itself.
pub struct Parts {
    pub signals: Signals,
    pub server: Server,
    pub metrics: Option<Metrics>,
}

/// Runs until somebody asks for the end.
pub fn control(poll: &OwnedFd, parts: &mut Parts, core: &mut Core) -> io::Result<()> {
    let Parts { signals, server, metrics } = parts;
    let mut events =
        [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 64];
    epoll::add(poll, core.target.events(), epoll::EventData::new_u64(TARGET), epoll::EventFlags::IN)?;
    epoll::add(poll, &core.drives, epoll::EventData::new_u64(DRIVES), epoll::EventFlags::IN)?;
    let mut check = Instant::now() + CHECK;
    while !core.ending {
        let now = Instant::now();
        // Without a controller there is nothing to look for, and an idle target sleeps through.
        let check_at = (!core.target.controllers().is_empty()).then_some(check);
        let page_at = metrics.as_ref().and_then(Metrics::deadline);
        let deadline = [server.deadline(now), check_at, page_at].into_iter().flatten().min();
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(now)));
        let count = match epoll::wait(poll, &mut events[..], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for event in &events[..count] {
            match { event.data }.u64() {
                SIGNALS => core.ending |= signals.came(),
                TARGET => core.target.turn()?,
                DRIVES => core.hear_drives(),
                token if TOKENS.contains(&token) => server.ready(token, core),
                token if metrics::TOKENS.contains(&token) => {
                    if let Some(metrics) = metrics {
                        metrics.ready(token, core);
                    }
                }
                token => log::error!("a descriptor that nobody knows is ready: {token:#x}"),
            }
        }
        server.tick(core);
        if let Some(metrics) = metrics {
            metrics.tick(core);
        }
        if check <= Instant::now() {
            core.target.check();
            check = Instant::now() + CHECK;
        }
    }
    Ok(())
}

/// Takes everything down: guests lose their connection, requests under way end, drives are shut down.
pub fn wind_up(core: &mut Core) {
    for controller in core.target.controllers() {
        if let Err(error) = core.target.delete_controller(&controller.name) {
            log::warn!("{error}");
        }
    }
    let deadline = Instant::now() + DRAIN;
    wait(core, deadline, |core| core.target.reactors().stats().iter().all(|reactor| reactor.queues == 0));
    core.delays.clear();
    core.errors.clear();
    // What stands on others goes first; channels close on their reactors, so the others may have to wait.
    wait(core, deadline, |core| {
        for bdev in core.bdevs().iter().rev() {
            // EBUSY: it is tried again. The name was listed a moment ago, so nothing else can go wrong.
            let _ = core.target.remove_bdev(&bdev.info().name);
        }
        core.target.bdevs().is_empty()
    });
    // Shuts the drives down, and waits for them.
    drop(core.drives.clear());
}

/// Lets the target go on until something has come to pass, or the deadline has.
fn wait(core: &mut Core, deadline: Instant, mut done: impl FnMut(&mut Core) -> bool) {
    while !done(core) {
        if Instant::now() >= deadline {
            log::warn!("not everything that was under way has ended in time");
            return;
        }
        let moment = timespec(Duration::from_millis(2));
        let mut events = [PollFd::new(core.target.events(), PollFlags::IN)];
        let polled = rustix::event::poll(&mut events, Some(&moment));
        if polled.is_err() || core.target.turn().is_err() {
            return;
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
