//! The controller on the control thread: its targets, its sessions, and the channels that their queues use.

use std::collections::BTreeMap;
use std::sync::Arc;

use nvlane_bdev::Bdev;

use super::control::ControlQueue;
use super::lun::Lun;
use super::nexus::Nexus;
use super::request::{RequestQueue, Seat};
use super::{CONTROL_QUEUE, EVENT_QUEUE, FIRST_REQUEST_QUEUE, TARGETS, config_space, feature};
use crate::controller::{FrontEnd, NewQueue};
use crate::reactor::{ChannelId, QueueId, Reactors, Served};
use crate::target::TargetError;

/// A target as `vhost_get_controllers` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetView {
    pub number: u8,
    pub bdev: String,
}

pub struct ScsiFrontEnd {
    targets: [Option<Arc<dyn Bdev>>; TARGETS],
    /// By session.
    nexuses: BTreeMap<u32, Nexus>,
    /// By reactor and target.
    channels: BTreeMap<(usize, u8), ChannelId>,
    /// To tell the queues of what changes; known since the first queue.
    reactors: Option<Reactors>,
}

impl ScsiFrontEnd {
    /// `reactors`: those that its queues may be on; channels are opened when one of them gets a queue.
    pub fn new(_reactors: &[usize]) -> Self {
        Self {
            targets: [const { None }; TARGETS],
            nexuses: BTreeMap::new(),
            channels: BTreeMap::new(),
            reactors: None,
        }
    }

    /// Puts a bdev behind a target, while requests to the others run.
    ///
    /// # Errors
    /// EINVAL: no such number; EEXIST: it is taken; ENOSPC: all are; or why a reactor cannot use the bdev.
    pub fn add_target(
        &mut self,
        number: Option<u8>,
        bdev: Arc<dyn Bdev>,
        reactors: &Reactors,
    ) -> Result<u8, TargetError> {
        let number =
            match number {
                Some(number) => usize::from(number),
                None => self.targets.iter().position(Option::is_none).ok_or_else(|| {
                    TargetError::new(libc::ENOSPC, format!("all {TARGETS} targets are taken"))
                })?,
            };
        let free = self.targets.get(number).ok_or_else(|| {
            TargetError::new(libc::EINVAL, format!("there is no target {number}: 0 to {}", TARGETS - 1))
        })?;
        if free.is_some() {
            return Err(TargetError::new(libc::EEXIST, format!("target {number} is taken")));
        }
        let target = number as u8;
        let used: Vec<usize> = self.nexuses.values().flat_map(Nexus::reactors).collect();
        for reactor in used {
            if let Err(error) = self.channel(reactor, target, &bdev, reactors) {
                self.close_channels(target, reactors);
                return Err(error);
            }
        }
        self.targets[number] = Some(bdev.clone());
        for nexus in self.nexuses.values_mut() {
            let channels = &self.channels;
            let seat = |reactor, lun: &Arc<Lun>| {
                let channel = *channels.get(&(reactor, target))?;
                Some(Seat { lun: lun.clone(), channel })
            };
            nexus.set_target(target, Some(Arc::new(Lun::new(&*bdev))), seat, reactors);
        }
        Ok(target)
    }

    /// # Errors
    /// ENODEV: there is none.
    pub fn remove_target(&mut self, number: u8, reactors: &Reactors) -> Result<(), TargetError> {
        let target = self.targets.get_mut(usize::from(number)).and_then(Option::take);
        if target.is_none() {
            return Err(TargetError::new(libc::ENODEV, format!("there is no target {number}")));
        }
        // First the tables, then the channels: letters to a reactor are read in order.
        for nexus in self.nexuses.values_mut() {
            nexus.set_target(number, None, |_, _| None, reactors);
        }
        self.close_channels(number, reactors);
        Ok(())
    }

    pub fn targets(&self) -> Vec<TargetView> {
        let numbered = self.targets.iter().zip(0..);
        numbered
            .filter_map(|(target, number)| {
                Some(TargetView { number, bdev: target.as_ref()?.info().name.clone() })
            })
            .collect()
    }

    fn channel(
        &mut self,
        reactor: usize,
        target: u8,
        bdev: &Arc<dyn Bdev>,
        reactors: &Reactors,
    ) -> Result<ChannelId, TargetError> {
        if let Some(&channel) = self.channels.get(&(reactor, target)) {
            return Ok(channel);
        }
        let channel = reactors.open_channel(reactor, bdev)?;
        self.channels.insert((reactor, target), channel);
        Ok(channel)
    }

    fn close_channels(&mut self, target: u8, reactors: &Reactors) {
        self.channels.retain(|(_, other), channel| {
            let ours = *other == target;
            if ours {
                reactors.close_channel(*channel);
            }
            !ours
        });
    }

    /// The targets that use a bdev.
    fn users(&self, bdev: &Arc<dyn Bdev>) -> Vec<u8> {
        let uses =
            |target: &Option<Arc<dyn Bdev>>| target.as_ref().is_some_and(|ours| Arc::ptr_eq(ours, bdev));
        (0..).zip(&self.targets).filter(|(_, target)| uses(target)).map(|(number, _)| number).collect()
    }

    fn request_queue(&mut self, queue: NewQueue, reactors: &Reactors) -> Result<RequestQueue, String> {
        let mut seats = [const { None }; TARGETS];
        for (target, seat) in (0..).zip(&mut seats) {
            let Some(bdev) = self.targets[usize::from(target)].clone() else { continue };
            let channel = self.channel(queue.reactor, target, &bdev, reactors);
            let channel = channel.map_err(|error| error.to_string())?;
            let nexus = &self.nexuses[&queue.session];
            *seat = nexus.luns[usize::from(target)].clone().map(|lun| Seat { lun, channel });
        }
        Ok(RequestQueue::new(seats, queue.size))
    }
}

impl FrontEnd for ScsiFrontEnd {
    fn features(&self) -> u64 {
        feature::HOTPLUG | feature::CHANGE
    }

    fn config(&self) -> Vec<u8> {
        config_space().to_vec()
    }

    fn device(&mut self, queue: NewQueue, reactors: &Reactors) -> Result<Box<dyn Served>, String> {
        self.reactors = Some(reactors.clone());
        let nexus = self.nexuses.entry(queue.session).or_insert_with(|| Nexus::new(&self.targets));
        match queue.index {
            CONTROL_QUEUE => Ok(Box::new(ControlQueue::new(nexus.luns.clone(), reactors.downgrade()))),
            EVENT_QUEUE => Ok(Box::new(nexus.event_queue())),
            index => {
                if index == FIRST_REQUEST_QUEUE {
                    nexus.begin(queue.fresh);
                }
                Ok(Box::new(self.request_queue(queue, reactors)?))
            }
        }
    }

    fn attached(&mut self, queue: NewQueue, id: QueueId) {
        if let (Some(nexus), Some(reactors)) = (self.nexuses.get_mut(&queue.session), &self.reactors) {
            nexus.attached(queue.index, id, queue.features, reactors);
        }
    }

    fn detached(&mut self, id: QueueId) {
        if let Some(reactors) = &self.reactors {
            self.nexuses.values_mut().any(|nexus| nexus.detached(id, reactors));
        }
    }

    fn session_over(&mut self, session: u32) {
        self.nexuses.remove(&session);
    }

    /// The configuration space says nothing of targets: their initiators are told in the language of SCSI.
    fn resized(&mut self, bdev: &Arc<dyn Bdev>, reactors: &Reactors) -> bool {
        for target in self.users(bdev) {
            for nexus in self.nexuses.values_mut() {
                nexus.resized(target, bdev.blocks(), reactors);
            }
        }
        false
    }

    fn removed(&mut self, bdev: &Arc<dyn Bdev>, reactors: &Reactors) -> bool {
        for target in self.users(bdev) {
            let _ = self.remove_target(target, reactors); // it is there: `users` has just found it
        }
        false
    }

    fn close(&mut self, reactors: &Reactors) {
        self.targets = [const { None }; TARGETS];
        for (_, channel) in std::mem::take(&mut self.channels) {
            reactors.close_channel(channel);
        }
        self.reactors = None;
    }
}
