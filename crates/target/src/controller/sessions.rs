//! All sessions of one controller: a socket may be connected to more than once, and each connection is a session.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nvlane_vhost_user::features::protocol;

use super::{Backing, Kind};
use crate::events::Readiness;
use crate::reactor::QueueId;
use crate::session::{Interest, Owner, QueueParts, Session};
use crate::sys::Epoll;

/// Connections to one socket. Each costs descriptors and, with memory, addresses; one more is closed at once.
const MAX_SESSIONS: usize = 64;

struct Entry {
    number: u32,
    session: Session,
    /// What is with reactors, by number of the queue.
    queues: HashMap<u16, QueueId>,
    /// What the epoll instance waits for.
    interest: Interest,
}

/// The sessions of one controller, and an epoll instance for all their sockets: its descriptor is readable when
/// [`Sessions::handle`] has something to do.
pub(crate) struct Sessions {
    epoll: Epoll,
    /// None: no more connections are taken.
    listener: Option<UnixListener>,
    entries: Vec<Entry>,
    next: u32,
    /// The listener is not waited for until the next check: without a descriptor to accept with it would be ready for
    /// ever.
    deaf: bool,
}

const LISTENER: u64 = 0;

impl Sessions {
    /// Takes connections from a socket that listens already.
    pub fn new(listener: UnixListener) -> io::Result<Sessions> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        epoll.add(listener.as_fd(), LISTENER, Readiness::Read.flags())?;
        Ok(Sessions { epoll, listener: Some(listener), entries: Vec::new(), next: 1, deaf: false })
    }

    /// The front ends that are connected: the number of each, and how many of its queues are served.
    pub fn connected(&self) -> Vec<(u32, usize)> {
        let connected = self.entries.iter().filter(|entry| entry.session.descriptor().is_some());
        connected.map(|entry| (entry.number, entry.queues.len())).collect()
    }

    /// Does what is to be done now; never waits.
    pub fn handle(&mut self, backing: &mut Backing) {
        let mut ready = Vec::new();
        if let Err(error) = self.epoll.wait(&mut ready, Some(Duration::ZERO)) {
            log::error!("the front ends of a controller cannot be heard: {error}");
        }
        for data in ready {
            if data == LISTENER {
                self.accept(backing);
            } else {
                self.with(backing, |entry| u64::from(entry.number) == data, Session::ready);
            }
        }
        self.settle(backing);
    }

    /// A queue is drained. False: it is none of these sessions'.
    pub fn detached(&mut self, queue: QueueId, base: u32, backing: &mut Backing) -> bool {
        let found = self.entries.iter_mut().find_map(|entry| {
            let number = entry.queues.iter().find(|(_, id)| **id == queue).map(|(number, _)| *number)?;
            entry.queues.remove(&number);
            Some((entry.number, number))
        });
        let Some((session, number)) = found else { return false };
        self.with(
            backing,
            |entry| entry.number == session,
            |session, owner| session.detached(number, base, owner),
        );
        self.settle(backing);
        true
    }

    /// To be called about once a second: memory that has vanished, queues that do not drain.
    pub fn check(&mut self, backing: &mut Backing) {
        if let (true, Some(listener)) = (self.deaf, &self.listener) {
            self.deaf = self.epoll.add(listener.as_fd(), LISTENER, Readiness::Read.flags()).is_err();
        }
        self.with(backing, |_| true, Session::check);
        self.settle(backing);
    }

    /// The configuration space has changed.
    pub fn config_changed(&mut self) {
        self.entries.iter_mut().for_each(|entry| entry.session.config_changed());
    }

    /// The controller goes away: no more connections, all sessions end.
    pub fn close(&mut self, backing: &mut Backing) {
        if let Some(listener) = self.listener.take() {
            let _ = self.epoll.remove(listener.as_fd());
        }
        self.with(backing, |_| true, Session::part);
        self.settle(backing);
    }

    /// Nothing of any session is left, with a reactor or elsewhere.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn accept(&mut self, backing: &Backing) {
        while let Some(listener) = &self.listener {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    log::error!("a front end cannot be connected: {error}");
                    self.deaf = self.epoll.remove(listener.as_fd()).is_ok();
                    return;
                }
            };
            if self.entries.len() >= MAX_SESSIONS {
                log::error!("a front end is turned away: {MAX_SESSIONS} are connected to this controller");
                continue;
            }
            let number = self.next;
            self.next = self.next.checked_add(1).unwrap_or(1);
            let added = Session::new(stream, backing.queues()).and_then(|session| {
                if let Some(socket) = session.descriptor() {
                    self.epoll.add(socket, u64::from(number), Readiness::Read.flags())?;
                }
                Ok(session)
            });
            match added {
                Ok(session) => {
                    let (queues, interest) = (HashMap::new(), Interest::Read);
                    self.entries.push(Entry { number, session, queues, interest });
                }
                Err(error) => log::error!("a front end cannot be connected: {error}"),
            }
        }
    }

    /// Calls `what` for the sessions that `which` names.
    fn with(
        &mut self,
        backing: &mut Backing,
        which: impl Fn(&Entry) -> bool,
        mut what: impl FnMut(&mut Session, &mut dyn Owner),
    ) {
        for index in 0..self.entries.len() {
            if !which(&self.entries[index]) {
                continue;
            }
            let quiet = self.is_quiet();
            let Entry { number, session, queues, .. } = &mut self.entries[index];
            what(session, &mut Desk { backing: &mut *backing, session: *number, queues, quiet });
        }
    }

    fn is_quiet(&self) -> bool {
        !self.entries.iter().any(|entry| entry.session.is_draining())
    }

    /// Drops what is finished, lets those go on that waited for it, and waits for what each session now needs.
    fn settle(&mut self, backing: &mut Backing) {
        loop {
            let before = self.entries.len();
            self.entries.retain(|entry| {
                let finished = entry.session.is_finished();
                if finished {
                    backing.front_end_mut().session_over(entry.number);
                }
                !finished
            });
            if self.entries.len() == before || !self.is_quiet() {
                break;
            }
            self.with(backing, |_| true, Session::go_on);
        }
        for entry in &mut self.entries {
            let interest = entry.session.interest();
            // A socket that was closed has left the epoll instance by itself.
            let Some(socket) = entry.session.descriptor() else { continue };
            if interest == entry.interest {
                continue;
            }
            let data = u64::from(entry.number);
            let result = match (entry.interest, wanted(interest)) {
                // Not merely without events: a hang-up is reported all the same, again and again.
                (_, None) => self.epoll.remove(socket),
                (Interest::Nothing, Some(flags)) => self.epoll.add(socket, data, flags),
                (_, Some(flags)) => self.epoll.modify(socket, data, flags),
            };
            if let Err(error) = result {
                log::error!("a front end can no longer be heard: {error}");
            }
            entry.interest = interest;
        }
    }
}

impl AsFd for Sessions {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

fn wanted(interest: Interest) -> Option<rustix::event::epoll::EventFlags> {
    match interest {
        Interest::Read => Some(Readiness::Read.flags()),
        Interest::Write => Some(Readiness::Write.flags()),
        Interest::Nothing => None,
    }
}

/// One session's view of the controller.
struct Desk<'a> {
    backing: &'a mut Backing,
    session: u32,
    queues: &'a mut HashMap<u16, QueueId>,
    /// No session of the controller that has ended still drains.
    quiet: bool,
}

impl Owner for Desk<'_> {
    fn features(&self) -> u64 {
        self.backing.features()
    }

    fn protocol_features(&self) -> u64 {
        match self.backing.kind {
            Kind::Blk(_) => protocol::STORAGE,
            // QEMU keeps the configuration space of vhost-user-scsi itself and warns of a back end that offers one.
            Kind::Scsi(_) => protocol::STORAGE & !protocol::CONFIG,
        }
    }

    fn queues(&self) -> u16 {
        self.backing.queues()
    }

    fn config(&self) -> Vec<u8> {
        self.backing.front_end().config()
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8], _migration: bool) -> bool {
        self.backing.front_end_mut().set_config(offset, bytes)
    }

    fn attach(&mut self, queue: u16, parts: QueueParts) -> Result<(), String> {
        let id = self.backing.attach(self.session, queue, parts)?;
        self.queues.insert(queue, id);
        Ok(())
    }

    fn detach(&mut self, queue: u16) {
        if let Some(&id) = self.queues.get(&queue) {
            self.backing.reactors.detach(id);
        }
    }

    fn set_call(&mut self, queue: u16, call: Option<OwnedFd>) {
        if let Some(&id) = self.queues.get(&queue) {
            self.backing.set_call(id, call);
        }
    }

    fn set_err(&mut self, queue: u16, err: Option<OwnedFd>) {
        if let Some(&id) = self.queues.get(&queue) {
            self.backing.set_err(id, err);
        }
    }

    fn is_quiet(&self) -> bool {
        self.quiet
    }
}
