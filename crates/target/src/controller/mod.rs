//! Controllers: a socket, what is behind it, and the front ends that are connected.

mod backing;
mod blk;
mod sessions;

use std::path::PathBuf;
use std::sync::Arc;

use nvlane_bdev::Bdev;

pub(crate) use backing::{Backing, Kind};
pub use blk::BlkFrontEnd;
pub(crate) use sessions::Sessions;

use crate::reactor::{QueueId, Reactors, Served};
use crate::target::Socket;

/// What a controller is to its guest, on the control thread; the reactors' half of it is a
/// [`Device`](crate::device::Device) a queue.
pub trait FrontEnd {
    /// Features of the device, without those of rings.
    fn features(&self) -> u64;

    /// The configuration space as it is now.
    fn config(&self) -> Vec<u8>;

    /// The guest writes to it. False: nothing there can be written.
    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> bool {
        let _ = (offset, bytes);
        false
    }

    /// Makes what serves queue `index` on `reactor`, and opens the channels that it needs there.
    ///
    /// # Errors
    /// A sentence that says why not.
    fn device(&mut self, queue: NewQueue, reactors: &Reactors) -> Result<Box<dyn Served>, String>;

    /// The queue that `device` was made for is attached.
    fn attached(&mut self, queue: NewQueue, id: QueueId) {
        let _ = (queue, id);
    }

    /// It has left its reactor.
    fn detached(&mut self, id: QueueId) {
        let _ = id;
    }

    /// A session has ended and all its queues are back.
    fn session_over(&mut self, session: u32) {
        let _ = session;
    }

    /// A bdev that it may use has another size. True: the configuration space has changed with it.
    fn resized(&mut self, bdev: &Arc<dyn Bdev>, reactors: &Reactors) -> bool;

    /// A bdev that it may use is gone. True: the configuration space has changed with it.
    fn removed(&mut self, bdev: &Arc<dyn Bdev>, reactors: &Reactors) -> bool;

    /// The controller is being deleted: gives back its channels.
    fn close(&mut self, reactors: &Reactors);
}

/// A queue that a session wants to have served.
#[derive(Clone, Copy, Debug)]
pub struct NewQueue {
    pub session: u32,
    pub index: u16,
    pub size: u16,
    pub reactor: usize,
    /// It begins where a queue begins after a reset of the device.
    pub fresh: bool,
    /// What was agreed on.
    pub features: u64,
}

/// Queues that a front end may use: virtio-blk and virtio-scsi drivers make one a processor.
pub const MAX_QUEUES: u16 = 128;

pub(crate) struct Controller {
    /// Tells it apart from one of the same name before or after it.
    pub number: u32,
    pub name: String,
    pub socket: PathBuf,
    /// The socket file, if we made it: it goes with the controller.
    pub path: Option<PathBuf>,
    pub backing: Backing,
    /// None: not started yet.
    pub sessions: Option<Sessions>,
    /// The socket of one that is not started.
    pub waiting: Option<Socket>,
    /// It is being deleted, and goes when its last session has drained.
    pub deleted: bool,
}

impl Controller {
    /// The configuration space has changed: whoever is connected is told.
    pub fn config_changed(&mut self) {
        if let Some(sessions) = &mut self.sessions {
            sessions.config_changed();
        }
    }
}
