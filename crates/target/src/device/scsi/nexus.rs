//! One session of a SCSI controller, on the control thread: an initiator, its units and its queues.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use nvlane_bdev::Bdev;
use nvlane_scsi::Attention;

use super::control::ControlQueue;
use super::event::EventQueue;
use super::lun::Lun;
use super::request::{RequestQueue, Seat};
use super::wire::Event;
use super::{CONTROL_QUEUE, EVENT_QUEUE, FIRST_REQUEST_QUEUE, TARGETS, feature};
use crate::reactor::{QueueId, Reactors};

#[derive(Default)]
pub(super) struct Nexus {
    pub luns: [Option<Arc<Lun>>; TARGETS],
    /// By index.
    queues: BTreeMap<u16, QueueId>,
    features: u64,
    /// A driver has used it.
    began: bool,
    /// Something happened while there was no event queue.
    missed: bool,
}

impl Nexus {
    pub fn new(targets: &[Option<Arc<dyn Bdev>>; TARGETS]) -> Nexus {
        let luns =
            std::array::from_fn(|target| targets[target].as_ref().map(|bdev| Arc::new(Lun::new(&**bdev))));
        Nexus { luns, ..Nexus::default() }
    }

    /// The first request queue begins: at its beginning (`fresh`) after a reset of the device, else where it was. Then
    /// either the machine was paused, or the process before this one has served it, or one on another host; a guest
    /// shall notice nothing of that.
    pub fn begin(&mut self, fresh: bool) {
        for lun in self.luns.iter().flatten() {
            match fresh {
                true => lun.reset(Attention::PowerOn),
                false if !self.began => lun.resume(),
                false => {}
            }
        }
        self.began = true;
    }

    /// Things that happened before a driver of the guest has seen the bus are no news to it.
    pub fn event_queue(&mut self) -> EventQueue {
        EventQueue::new(std::mem::take(&mut self.missed))
    }

    pub fn attached(&mut self, index: u16, id: QueueId, features: u64, reactors: &Reactors) {
        self.queues.insert(index, id);
        self.features = features;
        self.tell_control(reactors);
    }

    /// False: the queue is another session's.
    pub fn detached(&mut self, id: QueueId, reactors: &Reactors) -> bool {
        let Some((&index, _)) = self.queues.iter().find(|(_, other)| **other == id) else { return false };
        self.queues.remove(&index);
        self.tell_control(reactors);
        true
    }

    /// The control queue asks the request queues about tasks.
    fn tell_control(&self, reactors: &Reactors) {
        let Some(&control) = self.queues.get(&CONTROL_QUEUE) else { return };
        let queues = self.queues.range(FIRST_REQUEST_QUEUE..).map(|(_, id)| *id).collect();
        visit(reactors, control, move |device: &mut ControlQueue| device.set_queues(queues));
    }

    /// The reactors that its request queues are on.
    pub fn reactors(&self) -> impl Iterator<Item = usize> {
        self.queues.range(FIRST_REQUEST_QUEUE..).map(|(_, id)| id.reactor())
    }

    /// A target has come, with a channel for each reactor in use, or gone.
    pub fn set_target(
        &mut self,
        target: u8,
        lun: Option<Arc<Lun>>,
        seat: impl Fn(usize, &Arc<Lun>) -> Option<Seat>,
        reactors: &Reactors,
    ) {
        let event = if lun.is_some() { Event::Rescan(target) } else { Event::Removed(target) };
        self.luns[usize::from(target)] = lun.clone();
        if let Some(&control) = self.queues.get(&CONTROL_QUEUE) {
            let lun = lun.clone();
            visit(reactors, control, move |device: &mut ControlQueue| device.set_target(target, lun));
        }
        for (_, &id) in self.queues.range(FIRST_REQUEST_QUEUE..) {
            let seat = lun.as_ref().and_then(|lun| seat(id.reactor(), lun));
            visit(reactors, id, move |device: &mut RequestQueue| device.set_target(target, seat));
        }
        self.tell(event, feature::HOTPLUG, reactors);
    }

    pub fn resized(&mut self, target: u8, blocks: u64, reactors: &Reactors) {
        if self.luns[usize::from(target)].as_ref().is_some_and(|lun| lun.resized(blocks)) {
            self.tell(Event::Resized(target), feature::CHANGE, reactors);
        }
    }

    /// The units that are left hear that there are others now (SPC-5 6.34: REPORTED LUNS DATA HAS CHANGED concerns the
    /// target, and each target here has one unit or none, so nothing is to be said to the others).
    fn tell(&mut self, event: Event, needs: u64, reactors: &Reactors) {
        if self.features & needs == 0 {
            return;
        }
        match self.queues.get(&EVENT_QUEUE) {
            Some(&queue) => visit(reactors, queue, move |device: &mut EventQueue| device.post(event)),
            None => self.missed = true,
        }
    }
}

/// Runs `what` on the reactor, if the queue is still there then.
fn visit<D: Any>(reactors: &Reactors, queue: QueueId, what: impl FnOnce(&mut D) + Send + 'static) {
    reactors.with_device(
        queue,
        Box::new(move |device, _| {
            if let Some(device) = device.downcast_mut::<D>() {
                what(device);
            }
        }),
    );
}
