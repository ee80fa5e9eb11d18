//! Sessions: one for each front end that is connected.
//!
//! Everything here runs on the control thread and never waits. A message goes through three steps:
//!
//! 1. The queues that it touches are asked back from their reactors ([`state::State::touches`]), and nothing more is
//!    read from the socket until they are drained. So each message finds its queues at rest, and its reply is said when
//!    it is true: after GET_VRING_BASE nothing writes to the guest's memory any more.
//! 2. It is obeyed ([`state::State::apply`]).
//! 3. Every queue that is complete and not served is handed to a reactor again.
//!
//! A queue that does not drain in time (the device behind it hangs) ends the connection without a reply, and the record
//! of what is in flight stays as it is. Saying «stopped» instead would be a lie that costs a write: the front end would
//! resubmit or migrate while the request may still end.

mod config;
#[doc(hidden)]
pub mod fuzz;
mod inflight;
mod memory;
mod owner;
mod start;
mod state;
mod vring;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nvlane_vhost_user::{BackendMessage, Connection, Frame, Message, Received, Refusal, Reply, Request};

pub use owner::{CONFIG_SIZE, Owner, QueueParts};
use state::{Outcome, State};

/// How long queues may take to drain before the connection is ended: longer than a drive that is asked to abort and is
/// then reset takes.
pub const DRAIN: Duration = Duration::from_secs(60);

/// Messages of one session that are obeyed before another has its turn.
const QUANTUM: usize = 64;

/// A conversation with a front end.
pub struct Session {
    /// None: it has ended, and only drains.
    connection: Option<Connection>,
    state: State,
    waiting: Option<Waiting>,
    /// It is ours to end, since then: the socket is closed when the queues are back.
    parting: Option<Instant>,
}

/// A message that waits for queues.
struct Waiting {
    message: Message,
    need_reply: bool,
    since: Instant,
}

/// What the control thread shall wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    /// Replies wait for room in the socket.
    Write,
    /// Queues first: they come back by [`Session::detached`].
    Nothing,
}

impl Session {
    pub fn new(stream: UnixStream, queues: u16) -> io::Result<Session> {
        let connection = Some(Connection::new(stream)?);
        Ok(Session { connection, state: State::new(queues), waiting: None, parting: None })
    }

    /// The socket to wait on, as long as there is one.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    pub fn interest(&self) -> Interest {
        match &self.connection {
            None => Interest::Nothing,
            Some(_) if self.parting.is_some() => Interest::Nothing,
            Some(connection) if connection.is_blocked() => Interest::Write,
            Some(_) if self.waiting.is_some() => Interest::Nothing,
            Some(_) => Interest::Read,
        }
    }

    /// It is over and nothing of it is left with a reactor: drop it, which unmaps the memory.
    pub fn is_finished(&self) -> bool {
        self.connection.is_none() && self.state.is_drained()
    }

    /// It is over and still drains.
    pub fn is_draining(&self) -> bool {
        (self.connection.is_none() || self.parting.is_some()) && !self.state.is_drained()
    }

    /// The queues that are served.
    pub fn active_queues(&self) -> usize {
        self.state.active()
    }

    /// The socket is ready.
    pub fn ready(&mut self, owner: &mut dyn Owner) {
        self.state.drain_channel();
        let Some(connection) = &mut self.connection else { return };
        if connection.is_blocked() {
            match connection.flush() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return self.end(owner, Some(&format!("a reply could not be sent: {error}"))),
            }
        }
        for _ in 0..QUANTUM {
            if self.interest() != Interest::Read {
                return;
            }
            let Some(connection) = &mut self.connection else { return };
            match connection.receive() {
                Ok(Received::Frame(frame)) => self.take(frame, owner),
                Ok(Received::Later) => return,
                Ok(Received::Closed { partial: false }) => return self.end(owner, None),
                Ok(Received::Closed { partial: true }) => {
                    return self.end(owner, Some("the front end left in the middle of a message"));
                }
                Err(error) => return self.end(owner, Some(&error.to_string())),
            }
        }
    }

    /// A frame has come.
    fn take(&mut self, frame: Frame, owner: &mut dyn Owner) {
        let (number, need_reply) = (frame.header.number, frame.header.need_reply);
        let message = match Message::parse(frame) {
            Ok(message) => message,
            Err(refusal) => return self.refuse(&refusal, number, need_reply, owner),
        };
        let touched = self.state.touches(&message, owner);
        for queue in touched {
            self.state.recall(queue, owner);
        }
        self.waiting = Some(Waiting { message, need_reply, since: Instant::now() });
        self.go_on(owner);
    }

    /// A queue is drained and ours again; `base`: where it stands.
    pub fn detached(&mut self, queue: u16, base: u32, owner: &mut dyn Owner) {
        self.state.returned(queue, base);
        self.hang_up_if_drained();
        self.go_on(owner);
    }

    /// Obeys the message that waits, if nothing is left to wait for. To be called also when the device may have become
    /// quiet.
    pub fn go_on(&mut self, owner: &mut dyn Owner) {
        let Some(waiting) = &self.waiting else { return };
        if !self.state.is_at_rest() || (State::needs_quiet(&waiting.message) && !owner.is_quiet()) {
            return;
        }
        let Some(Waiting { message, need_reply, .. }) = self.waiting.take() else { return };
        let request = message.request();
        let mut outcome = self.state.apply(message, owner);
        if let Err(why) = self.state.start(owner) {
            // The ring is the front end's to mend; a message that only described it is not at fault.
            log::warn!("{why}");
            if matches!(outcome, Outcome::Done) && need_reply {
                outcome = Outcome::Failed(why);
            }
        }
        self.answer(request, need_reply, outcome, owner);
    }

    fn answer(&mut self, request: Request, need_reply: bool, outcome: Outcome, owner: &mut dyn Owner) {
        match outcome {
            Outcome::Reply(reply) => self.send(request as u32, &reply, owner),
            Outcome::Done if need_reply => self.send(request as u32, &Reply::SUCCESS, owner),
            Outcome::Done => {}
            // Whoever asked for an acknowledgement hears it; another would go on as if it had been done.
            Outcome::Failed(why) if need_reply && request != Request::SetLogBase => {
                log::warn!("{request:?} refused: {why}");
                self.send(request as u32, &Reply::FAILURE, owner);
            }
            Outcome::Failed(why) => self.end(owner, Some(&format!("{request:?}: {why}"))),
        }
    }

    fn refuse(&mut self, refusal: &Refusal, number: u32, need_reply: bool, owner: &mut dyn Owner) {
        log::warn!("refused: {refusal}");
        match refusal.request() {
            Some(Request::GetConfig) => self.send(number, &Reply::Empty, owner),
            Some(request) if need_reply || request.expects_reply() => {
                self.send(number, &Reply::FAILURE, owner)
            }
            // A later protocol's message may be optional; one of today's that is broken is not.
            Some(_) if !matches!(refusal, Refusal::Unsupported { .. }) => {
                self.end(owner, Some(&refusal.to_string()));
            }
            _ if need_reply => self.send(number, &Reply::FAILURE, owner),
            _ => {}
        }
    }

    fn send(&mut self, number: u32, reply: &Reply, owner: &mut dyn Owner) {
        let Some(connection) = &mut self.connection else { return };
        if let Err(error) = connection.send(&reply.bytes(number), &reply.descriptors()) {
            self.end(owner, Some(&format!("a reply could not be sent: {error}")));
        }
    }

    /// Ends the conversation at once: the socket is closed, all queues are asked back. What is in flight ends by itself;
    /// what then is still recorded as in flight is the next connection's.
    pub fn end(&mut self, owner: &mut dyn Owner, why: Option<&str>) {
        if self.connection.take().is_none() {
            return;
        }
        if let Some(why) = why {
            log::warn!("a front end is disconnected: {why}");
        }
        self.waiting = None;
        self.state.leave(owner);
    }

    /// Ends the conversation from our side: all queues are asked back first, and the socket is closed when they are
    /// drained, or after [`DRAIN`].
    ///
    /// In this order, since a front end that loses its connection goes on from the used index that it finds then (QEMU,
    /// hw/virtio/vhost.c, vhost_virtqueue_stop): what ended after that moment would be done again.
    pub fn part(&mut self, owner: &mut dyn Owner) {
        if self.connection.is_none() || self.parting.is_some() {
            return;
        }
        self.waiting = None;
        self.parting = Some(Instant::now());
        self.state.leave(owner);
        self.hang_up_if_drained();
    }

    fn hang_up_if_drained(&mut self) {
        if self.parting.is_some() && self.state.is_drained() {
            self.connection = None;
        }
    }

    /// The configuration space has changed: a front end that wants to know is told.
    pub fn config_changed(&mut self) {
        self.state.tell(BackendMessage::ConfigChange);
    }

    /// What has to be looked at from time to time: memory that has vanished, queues that do not drain.
    pub fn check(&mut self, owner: &mut dyn Owner) {
        if self.connection.is_some() && self.state.is_poisoned() {
            self.end(owner, Some("its memory has vanished (the file behind it was shortened)"));
        }
        let since = self.parting.or(self.waiting.as_ref().map(|waiting| waiting.since));
        if since.is_some_and(|since| since.elapsed() > DRAIN) && !self.state.is_at_rest() {
            let why = format!("its queues did not drain within {} s", DRAIN.as_secs());
            self.end(owner, Some(&why));
        }
    }
}
