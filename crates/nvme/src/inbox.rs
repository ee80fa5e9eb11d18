//! What queue pairs and the control thread ask of the supervisor.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::NvmeError;
use crate::link::Link;

pub(crate) enum Message {
    /// A command of this queue was not answered in time.
    TimedOut { queue: u16, identifier: u16 },
    /// Neither was its abort.
    Stuck { queue: u16 },
    /// The device put something into a completion queue that no controller may.
    Garbage { queue: u16, what: String },
    /// The queue pair has seen 'down' and touches the device no more.
    LetGo { queue: u16, epoch: u32 },
    /// A new queue pair wants its queues.
    Open { link: Arc<Link>, reply: SyncSender<Result<(), NvmeError>> },
    /// A queue pair was dropped: its memory is kept until the device has forgotten it.
    Close { queue: u16, memory: Box<dyn Send> },
    /// Somebody wants a reset.
    Reset { reply: SyncSender<Result<(), NvmeError>> },
    /// The end: delete queues, notify the controller, let go.
    Detach,
}

/// The mailbox: a list under a lock, and an eventfd.
pub(crate) struct Inbox {
    messages: Mutex<Vec<Message>>,
    event: OwnedFd,
}

impl Inbox {
    pub fn new() -> Result<Self, NvmeError> {
        Ok(Self { messages: Mutex::new(Vec::new()), event: new_event()? })
    }

    pub fn send(&self, message: Message) {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner).push(message);
        signal(self.event.as_fd());
    }

    pub fn take(&self) -> Vec<Message> {
        drain(self.event.as_fd());
        std::mem::take(&mut self.messages.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// A non-blocking eventfd.
pub(crate) fn new_event() -> Result<OwnedFd, NvmeError> {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|error| NvmeError::system("no eventfd could be made", &error.into()))
}

pub(crate) fn signal(event: BorrowedFd<'_>) {
    // It fails only when the counter is full, and then it is readable anyway.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

/// True when it had been signalled.
pub(crate) fn drain(event: BorrowedFd<'_>) -> bool {
    rustix::io::read(event, &mut [0; 8]).is_ok()
}
