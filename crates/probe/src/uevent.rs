//! The kernel's announcements of devices (netlink, NETLINK_KOBJECT_UEVENT): what to wait on instead of sleeping.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with};

/// The kernel's own multicast group; group 2 is udev's, whose messages have another form.
const KERNEL: u32 = 1;

pub struct Uevents {
    socket: OwnedFd,
}

/// One announcement: what the probe needs of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub action: String,
    pub modalias: Option<String>,
}

impl Uevents {
    /// Listen from now on. Look at sysfs *after* this, so that nothing falls between.
    pub fn listen() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::KOBJECT_UEVENT))?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, KERNEL))?;
        Ok(Self { socket })
    }

    /// The next announcement; `None` when the deadline passes first. Announcements that were lost (ENOBUFS) are
    /// reported as an event without content, so that the caller looks at sysfs again.
    pub fn next(&self, deadline: Option<Instant>) -> io::Result<Option<Event>> {
        let mut buffer = [0_u8; 8192];
        loop {
            match recv(&self.socket, &mut buffer[..], RecvFlags::empty()) {
                Ok((length, _)) => return Ok(Some(parse(&buffer[..length]))),
                Err(Errno::NOBUFS) => return Ok(Some(Event::default())),
                Err(Errno::AGAIN) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            if !self.wait(deadline)? {
                return Ok(None);
            }
        }
    }

    fn wait(&self, deadline: Option<Instant>) -> io::Result<bool> {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(false);
        }
        let timeout =
            left.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }
}

/// `add@/devices/…`, then `KEY=value` fields, each ended by a zero byte (Documentation/core-api/kobject.rst).
fn parse(message: &[u8]) -> Event {
    let mut event = Event::default();
    for field in message.split(|byte| *byte == 0) {
        let field = String::from_utf8_lossy(field);
        match field.split_once('=') {
            Some(("ACTION", action)) => event.action = action.to_owned(),
            Some(("MODALIAS", alias)) => event.modalias = Some(alias.to_owned()),
            _ => {}
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_parsed() {
        let event =
            parse(b"add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0MODALIAS=virtio:d2v1\0SEQNUM=1\0");
        assert_eq!(event, Event { action: "add".into(), modalias: Some("virtio:d2v1".into()) });
        assert_eq!(parse(b"\xff\xfe"), Event::default());
        for message in crate::pattern::rubbish(b"ACTIONMDLS=\0\xff@/") {
            parse(&message);
        }
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let events = Uevents::listen().expect("a netlink socket");
        let deadline = Instant::now() + Duration::from_millis(20);
        while events.next(Some(deadline)).expect("no error").is_some() {}
        assert!(Instant::now() >= deadline);
    }
}
