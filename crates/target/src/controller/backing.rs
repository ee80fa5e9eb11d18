//! What all sessions of a controller share: its front end and its reactors.

use std::os::fd::{AsFd, OwnedFd};

use nvlane_ring::{Layout, Queue, Ring, VringBase};

use super::{BlkFrontEnd, FrontEnd, MAX_QUEUES, NewQueue};
use crate::device::scsi::ScsiFrontEnd;
use crate::reactor::{Coalescing, QueueId, QueueWork, Reactors};
use crate::session::QueueParts;
use crate::sys;

/// VIRTIO_F_RING_PACKED
const RING_PACKED: u64 = 1 << 34;

pub(crate) enum Kind {
    Blk(BlkFrontEnd),
    Scsi(ScsiFrontEnd),
}

pub(crate) struct Backing {
    pub kind: Kind,
    pub packed: bool,
    /// The reactors that its queues may be on.
    pub allowed: Vec<usize>,
    pub coalescing: Coalescing,
    pub reactors: Reactors,
    /// What is attached, so that changes reach it.
    pub queues: Vec<QueueId>,
}

impl Backing {
    pub fn front_end(&self) -> &dyn FrontEnd {
        match &self.kind {
            Kind::Blk(blk) => blk,
            Kind::Scsi(scsi) => scsi,
        }
    }

    pub fn front_end_mut(&mut self) -> &mut dyn FrontEnd {
        match &mut self.kind {
            Kind::Blk(blk) => blk,
            Kind::Scsi(scsi) => scsi,
        }
    }

    pub fn set_coalescing(&mut self, coalescing: Coalescing) {
        self.coalescing = coalescing;
        for &queue in &self.queues {
            self.reactors.set_coalescing(queue, coalescing);
        }
    }

    pub fn detached(&mut self, queue: QueueId) {
        self.queues.retain(|&other| other != queue);
        self.front_end_mut().detached(queue);
    }

    /// The reactor with the fewest queues; of equals the first.
    fn reactor(&self) -> Option<usize> {
        self.allowed.iter().copied().min_by_key(|&reactor| self.reactors.load(reactor))
    }

    pub fn features(&self) -> u64 {
        self.front_end().features() | if self.packed { RING_PACKED } else { 0 }
    }

    pub fn queues(&self) -> u16 {
        MAX_QUEUES
    }

    pub fn attach(&mut self, session: u32, index: u16, parts: QueueParts) -> Result<QueueId, String> {
        let QueueParts { ring, features, kick, call, err, log } = parts;
        let reactor = self.reactor().ok_or("the controller has no reactor to run on")?;
        for descriptor in [&call, &err].into_iter().flatten() {
            sys::never_block(descriptor.as_fd()).map_err(|error| {
                format!("a notifier of queue {index} cannot be made non-blocking: {error}")
            })?;
        }
        let layout = if matches!(ring, Queue::Packed(_)) { Layout::Packed } else { Layout::Split };
        let fresh = ring.base() == VringBase::start(layout) && ring.recovered() == 0;
        let queue = NewQueue { session, index, size: ring.size(), reactor, fresh, features };
        let reactors = self.reactors.clone();
        let device = self.front_end_mut().device(queue, &reactors)?;
        let coalescing = self.coalescing;
        let id = reactors.attach(reactor, QueueWork { ring, device, kick, call, err, coalescing, log });
        self.queues.push(id);
        self.front_end_mut().attached(queue, id);
        Ok(id)
    }

    pub fn set_call(&mut self, queue: QueueId, call: Option<OwnedFd>) {
        self.reactors.set_call(queue, call.filter(|call| sys::never_block(call.as_fd()).is_ok()));
    }

    pub fn set_err(&mut self, queue: QueueId, err: Option<OwnedFd>) {
        self.reactors.set_err(queue, err.filter(|err| sys::never_block(err.as_fd()).is_ok()));
    }
}
