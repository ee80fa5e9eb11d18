//! A virtio-blk controller on the control thread: one bdev, or none after it was removed.

use std::collections::BTreeMap;
use std::sync::Arc;

use nvlane_bdev::Bdev;

use super::{FrontEnd, MAX_QUEUES, NewQueue};
use crate::device::blk::{Blk, Shape, config};
use crate::reactor::{ChannelId, Reactors, Served};

pub struct BlkFrontEnd {
    bdev: Option<Arc<dyn Bdev>>,
    /// What the queues look at.
    shape: Arc<Shape>,
    read_only: bool,
    /// Offered at the start and never taken back: a driver may have agreed to them.
    features: u64,
    /// By reactor.
    channels: BTreeMap<usize, ChannelId>,
}

impl BlkFrontEnd {
    pub fn new(bdev: Arc<dyn Bdev>, read_only: bool) -> Self {
        let shape = Arc::new(Shape::new(&*bdev, read_only));
        let features = config::features(Some(&*bdev), read_only);
        Self { bdev: Some(bdev), shape, read_only, features, channels: BTreeMap::new() }
    }

    pub fn bdev(&self) -> Option<&Arc<dyn Bdev>> {
        self.bdev.as_ref()
    }

    pub fn read_only(&self) -> bool {
        self.read_only
    }

    fn uses(&self, bdev: &Arc<dyn Bdev>) -> bool {
        self.bdev.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, bdev))
    }

    fn channel(&mut self, reactor: usize, reactors: &Reactors) -> Result<ChannelId, String> {
        if let Some(&channel) = self.channels.get(&reactor) {
            return Ok(channel);
        }
        // A queue of a controller without a bdev fails every request: its guest may be using it already.
        let Some(bdev) = &self.bdev else { return Ok(ChannelId::nowhere(reactor)) };
        let channel = reactors.open_channel(reactor, bdev).map_err(|error| error.to_string())?;
        self.channels.insert(reactor, channel);
        Ok(channel)
    }
}

impl FrontEnd for BlkFrontEnd {
    fn features(&self) -> u64 {
        self.features
    }

    fn config(&self) -> Vec<u8> {
        config::space(self.bdev.as_deref(), MAX_QUEUES).to_vec()
    }

    fn device(&mut self, queue: NewQueue, reactors: &Reactors) -> Result<Box<dyn Served>, String> {
        let channel = self.channel(queue.reactor, reactors)?;
        Ok(Box::new(Blk::new(channel, self.shape.clone(), queue.size)))
    }

    fn resized(&mut self, bdev: &Arc<dyn Bdev>, _reactors: &Reactors) -> bool {
        if self.uses(bdev) {
            self.shape.resize(bdev.bytes());
        }
        self.uses(bdev)
    }

    fn removed(&mut self, bdev: &Arc<dyn Bdev>, reactors: &Reactors) -> bool {
        let ours = self.uses(bdev);
        if ours {
            // First, so that no request begins while the channels close.
            self.shape.remove();
            self.close(reactors);
        }
        ours
    }

    fn close(&mut self, reactors: &Reactors) {
        self.bdev = None;
        for (_, channel) in std::mem::take(&mut self.channels) {
            reactors.close_channel(channel);
        }
    }
}
