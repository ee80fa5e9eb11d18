//! A file served by the thread pool, where io_uring is forbidden (a container, `kernel.io_uring_disabled`, `--no-uring`).

use std::os::fd::RawFd;
use std::sync::Arc;

use super::open::Opened;
use super::pool::{Mailbox, Queue, Task};
use super::slots::{DEPTH, Slot};
use crate::{BdevError, Completion, Request, Status, Submitted};

pub struct ThreadChannel {
    opened: Arc<Opened>,
    queue: Arc<Queue>,
    mailbox: Arc<Mailbox>,
    idle: Vec<Slot>,
    ended: Vec<(Slot, Status)>,
    /// The mailbox may signal, or may have.
    armed: bool,
}

impl ThreadChannel {
    pub(super) fn new(opened: Arc<Opened>, queue: Arc<Queue>) -> Result<Self, BdevError> {
        let idle = (0..DEPTH).map(|_| Slot::new()).collect();
        let ended = Vec::with_capacity(DEPTH);
        Ok(Self { opened, queue, mailbox: Mailbox::new()?, idle, ended, armed: false })
    }

    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Submitted {
        let Some(mut slot) = self.idle.pop() else { return Submitted::Busy };
        if let Err(status) = slot.start(request, &self.opened) {
            self.idle.push(slot);
            return Submitted::Done(status);
        }
        self.queue.push(Task { slot, opened: self.opened.clone(), mailbox: self.mailbox.clone() });
        Submitted::Pending
    }

    pub(crate) fn poll(&mut self, completions: &mut Vec<Completion>) {
        if self.armed {
            self.settle();
        }
        self.mailbox.take(&mut self.ended);
        for (mut slot, status) in self.ended.drain(..) {
            slot.finish(status);
            completions.push(Completion { token: slot.job.token, status });
            self.idle.push(slot);
        }
    }

    pub(crate) fn arm(&mut self) -> bool {
        self.armed = true;
        self.mailbox.arm()
    }

    pub(crate) fn settle(&mut self) {
        self.armed = false;
        self.mailbox.disarm();
    }

    pub(crate) fn wait_descriptor(&self) -> RawFd {
        self.mailbox.descriptor()
    }
}

impl Drop for ThreadChannel {
    /// As for the ring: no thread may touch memory that is gone, and a drive that never answers holds nobody for ever.
    fn drop(&mut self) {
        let (mut ended, start) = (Vec::new(), std::time::Instant::now());
        while self.idle.len() != DEPTH && start.elapsed() < std::time::Duration::from_secs(5) {
            self.poll(&mut ended);
            std::thread::yield_now();
        }
    }
}
