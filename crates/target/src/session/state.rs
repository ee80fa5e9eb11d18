//! What a front end has said so far, and what each further message changes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nvlane_memory::{DirtyLog, GuestMemory, MAX_REGIONS};
use nvlane_ring::{Layout, VringBase};
use nvlane_vhost_user::features::{self, protocol};
use nvlane_vhost_user::{
    BackendChannel, BackendMessage, Inflight, LogArea, Message, Reply, VringAddress, VringState,
};

use super::config::{get_config, set_config};
use super::inflight;
use super::memory;
use super::owner::Owner;
use super::vring::{Kick, Place, Vring};
use crate::sys;

/// The largest ring (virtio 1.3, 2.7 and 2.8).
pub const MAX_RING: u32 = 32768;

/// Features of rings and of the protocol that every device has.
const TRANSPORT: u64 = features::VERSION_1
    | features::INDIRECT_DESC
    | features::EVENT_IDX
    | features::LOG_ALL
    | features::PROTOCOL_FEATURES;

/// What became of a message.
#[derive(Debug)]
pub enum Outcome {
    Reply(Reply),
    Done,
    Failed(String),
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Outcome {
        match result {
            Ok(()) => Outcome::Done,
            Err(why) => Outcome::Failed(why),
        }
    }
}

#[derive(Debug)]
pub struct State {
    pub(super) features: u64,
    protocol_features: u64,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) vrings: Vec<Vring>,
    pub(super) log: Option<Arc<DirtyLog>>,
    pub(super) inflight: Option<nvlane_ring::Inflight>,
    channel: Option<BackendChannel>,
    status: u64,
}

impl State {
    pub fn new(queues: u16) -> State {
        State {
            features: 0,
            protocol_features: 0,
            memory: Arc::default(),
            vrings: (0..queues).map(|_| Vring::default()).collect(),
            log: None,
            inflight: None,
            channel: None,
            status: 0,
        }
    }

    fn served(&self) -> Vec<u16> {
        (0..self.vrings.len() as u16)
            .filter(|&q| self.vrings[usize::from(q)].place == Place::Reactor)
            .collect()
    }

    pub fn active(&self) -> usize {
        self.served().len()
    }

    /// The queues that have to be at rest before this message is obeyed.
    pub fn touches(&self, message: &Message, owner: &dyn Owner) -> Vec<u16> {
        let one = |index: u32| self.served().into_iter().filter(|&queue| u32::from(queue) == index).collect();
        match message {
            Message::SetVringNum(state) | Message::SetVringBase(state) => one(state.index),
            Message::SetVringAddr(address) => one(address.index),
            Message::GetVringBase(index) | Message::SetVringEnable(index, false) => one(*index),
            Message::SetVringKick(index, _) => one(u32::from(*index)),
            Message::SetFeatures(features) if *features == self.features => Vec::new(),
            Message::SetFeatures(features) if features & !offered(owner) != 0 => Vec::new(),
            Message::SetStatus(status) if *status != 0 => Vec::new(),
            Message::SetMemTable(_)
            | Message::AddMemReg(_)
            | Message::RemMemReg(_)
            | Message::SetFeatures(_)
            | Message::SetLogBase(..)
            | Message::SetInflightFd(..)
            | Message::SetStatus(_)
            | Message::ResetOwner
            | Message::ResetDevice => self.served(),
            _ => Vec::new(),
        }
    }

    /// Messages after which requests may be submitted that an earlier session had in flight.
    pub fn needs_quiet(message: &Message) -> bool {
        matches!(
            message,
            Message::SetInflightFd(..) | Message::SetVringKick(..) | Message::SetVringEnable(_, true)
        )
    }

    /// Asks a queue back.
    pub fn recall(&mut self, queue: u16, owner: &mut dyn Owner) {
        let vring = &mut self.vrings[usize::from(queue)];
        if vring.place == Place::Reactor {
            vring.place = Place::Returning;
            owner.detach(queue);
        }
    }

    /// A queue came back.
    pub fn returned(&mut self, queue: u16, base: u32) {
        if let Some(vring) = self.vrings.get_mut(usize::from(queue)) {
            vring.place = Place::Here;
            vring.base = Some(base);
        }
    }

    /// No queue is on its way back.
    pub fn is_at_rest(&self) -> bool {
        self.vrings.iter().all(|vring| vring.place != Place::Returning)
    }

    pub fn is_drained(&self) -> bool {
        self.vrings.iter().all(|vring| vring.place == Place::Here)
    }

    /// The front end is gone: everything is asked back.
    pub fn leave(&mut self, owner: &mut dyn Owner) {
        for queue in self.served() {
            self.recall(queue, owner);
        }
        self.channel = None;
    }

    pub fn is_poisoned(&self) -> bool {
        self.memory.poisoned()
            || self.log.as_ref().is_some_and(|log| log.poisoned())
            || self.inflight.as_ref().is_some_and(|record| record.poisoned())
    }

    /// Obeys a message. The queues that it [`State::touches`] are at rest.
    pub fn apply(&mut self, message: Message, owner: &mut dyn Owner) -> Outcome {
        match message {
            Message::GetFeatures => number(offered(owner)),
            Message::SetFeatures(features) => self.set_features(features, owner).into(),
            Message::GetProtocolFeatures => number(owner.protocol_features()),
            Message::SetProtocolFeatures(features) => self.set_protocol_features(features, owner).into(),
            Message::SetOwner => Outcome::Done,
            Message::ResetOwner => {
                self.vrings.iter_mut().for_each(|vring| vring.enabled = false);
                Outcome::Done
            }
            Message::GetQueueNum => number(self.vrings.len() as u64),
            Message::SetMemTable(regions) => self.swap(|memory| memory::table(memory, regions)).into(),
            Message::AddMemReg(region) => self.swap(|memory| memory::add(memory, region)).into(),
            Message::RemMemReg(region) => {
                let (guest, size, user) = (region.guest_address, region.size, region.user_address);
                self.swap(|memory| memory.remove(guest, size, user).map_err(|error| error.to_string())).into()
            }
            Message::GetMaxMemSlots => number(MAX_REGIONS as u64),
            Message::SetLogBase(area, file) => self.set_log(area, file),
            // It would be rung when the log has changed. No front end looks at it: QEMU reads the log when it wants to.
            Message::SetLogFd(_) => Outcome::Done,
            Message::SetVringNum(state) => self.set_size(state).into(),
            Message::SetVringAddr(address) => self.set_address(address).into(),
            Message::SetVringBase(VringState { index, num }) => {
                self.change(index, |vring| vring.base = Some(num)).into()
            }
            Message::GetVringBase(index) => self.get_base(index),
            Message::SetVringKick(index, event) => {
                let kick = event.map_or(Kick::Poll, Kick::Event);
                self.change(u32::from(index), |vring| vring.kick = kick).into()
            }
            Message::SetVringCall(index, event) => self.set_call(index, event, owner).into(),
            Message::SetVringErr(index, event) => self.set_err(index, event, owner).into(),
            Message::SetVringEnable(index, enabled) => {
                self.change(index, |vring| vring.enabled = enabled).into()
            }
            Message::SetBackendReqFd(socket) => self.set_channel(socket).into(),
            Message::GetConfig { offset, size, flags } => get_config(offset, size, flags, owner),
            Message::SetConfig { offset, flags, bytes } => set_config(offset, flags, &bytes, owner).into(),
            Message::GetInflightFd(wanted) => self.get_inflight(wanted),
            Message::SetInflightFd(inflight, file) => self.set_inflight(inflight, file).into(),
            Message::ResetDevice => {
                self.reset();
                Outcome::Done
            }
            Message::SetStatus(status) => {
                if status == 0 {
                    self.vrings.iter_mut().for_each(Vring::stop);
                }
                self.status = status;
                Outcome::Done
            }
            Message::GetStatus => number(self.status),
        }
    }

    fn set_features(&mut self, features: u64, owner: &dyn Owner) -> Result<(), String> {
        let strange = features & !offered(owner);
        if strange != 0 {
            return Err(format!("features {strange:#x} were not offered"));
        }
        self.features = features;
        // vhost-user.rst, «Ring states»: without the bit there is no SET_VRING_ENABLE.
        if features & features::PROTOCOL_FEATURES == 0 {
            self.vrings.iter_mut().for_each(|vring| vring.enabled = true);
        }
        self.vrings.iter_mut().for_each(|vring| vring.broken = false);
        Ok(())
    }

    fn set_protocol_features(&mut self, features: u64, owner: &dyn Owner) -> Result<(), String> {
        let strange = features & !owner.protocol_features();
        if strange != 0 {
            return Err(format!("protocol features {strange:#x} were not offered"));
        }
        self.protocol_features = features;
        Ok(())
    }

    pub(super) fn layout(&self) -> Layout {
        if self.features & features::RING_PACKED != 0 { Layout::Packed } else { Layout::Split }
    }

    fn swap(
        &mut self,
        change: impl FnOnce(&GuestMemory) -> Result<GuestMemory, String>,
    ) -> Result<(), String> {
        self.memory = Arc::new(change(&self.memory)?);
        self.vrings.iter_mut().for_each(|vring| vring.broken = false);
        Ok(())
    }

    fn vring(&mut self, index: u32) -> Result<&mut Vring, String> {
        let count = self.vrings.len();
        let vring = self.vrings.get_mut(index as usize);
        vring.ok_or_else(|| format!("there is no queue {index}, only 0 to {}", count.saturating_sub(1)))
    }

    fn change(&mut self, index: u32, change: impl FnOnce(&mut Vring)) -> Result<(), String> {
        let vring = self.vring(index)?;
        change(vring);
        vring.broken = false;
        Ok(())
    }

    fn set_size(&mut self, state: VringState) -> Result<(), String> {
        let VringState { index, num } = state;
        let packed = self.layout() == Layout::Packed;
        if num == 0 || num > MAX_RING || !(packed || num.is_power_of_two()) {
            return Err(format!("queue {index} cannot have {num} entries"));
        }
        self.change(index, |vring| vring.size = num)
    }

    fn set_address(&mut self, address: VringAddress) -> Result<(), String> {
        self.change(address.index, |vring| vring.address = Some(address))
    }

    /// Stops a ring and says where it stands. There is no way to say that it failed.
    fn get_base(&mut self, index: u32) -> Outcome {
        let beginning = VringBase::start(self.layout()).0;
        let num = self.vring(index).map_or(beginning, |vring| {
            vring.stop();
            vring.base.unwrap_or(beginning)
        });
        Outcome::Reply(Reply::Vring(VringState { index, num }))
    }

    fn set_call(&mut self, index: u8, call: Option<OwnedFd>, owner: &mut dyn Owner) -> Result<(), String> {
        let vring = self.vring(u32::from(index))?;
        vring.call = notifier(call)?;
        if vring.place == Place::Reactor {
            let call = duplicate(&vring.call)?;
            owner.set_call(u16::from(index), call);
        }
        Ok(())
    }

    fn set_err(&mut self, index: u8, err: Option<OwnedFd>, owner: &mut dyn Owner) -> Result<(), String> {
        let vring = self.vring(u32::from(index))?;
        vring.err = notifier(err)?;
        if vring.place == Place::Reactor {
            let err = duplicate(&vring.err)?;
            owner.set_err(u16::from(index), err);
        }
        Ok(())
    }

    fn set_channel(&mut self, socket: OwnedFd) -> Result<(), String> {
        let channel = BackendChannel::new(socket).map_err(|error| format!("no socket: {error}"))?;
        self.channel = Some(channel);
        Ok(())
    }

    /// Only with LOG_SHMFD is there a log that another process can write to, and then a reply is always owed.
    fn set_log(&mut self, area: LogArea, file: Option<OwnedFd>) -> Outcome {
        let Some(file) = file else {
            self.log = None;
            return Outcome::Done;
        };
        match DirtyLog::map(file, area.offset, area.size) {
            Ok(log) => {
                self.log = Some(Arc::new(log));
                match self.protocol_features & protocol::LOG_SHMFD {
                    0 => Outcome::Done,
                    _ => Outcome::Reply(Reply::SUCCESS),
                }
            }
            Err(error) => Outcome::Failed(format!("the log cannot be mapped: {error}")),
        }
    }

    fn get_inflight(&self, wanted: Inflight) -> Outcome {
        Outcome::Reply(match inflight::create(wanted, self.layout(), self.vrings.len()) {
            Ok((inflight, file)) => Reply::Inflight(inflight, Some(file)),
            Err(why) => {
                log::warn!("no in-flight record: {why}");
                Reply::Inflight(Inflight { mmap_size: 0, mmap_offset: 0, ..wanted }, None)
            }
        })
    }

    fn set_inflight(&mut self, inflight: Inflight, file: OwnedFd) -> Result<(), String> {
        self.inflight = Some(inflight::map(inflight, file, self.layout())?);
        self.vrings.iter_mut().for_each(|vring| vring.broken = false);
        Ok(())
    }

    /// RESET_DEVICE: as after the connection was made, but for what a front end says once in a connection: protocol
    /// features, the channel, notifiers, memory.
    fn reset(&mut self) {
        self.vrings.iter_mut().for_each(Vring::reset);
        self.features = 0;
        self.log = None;
        self.inflight = None;
        self.status = 0;
    }

    /// Tells the front end something, if it has given a channel for that. The channel's failure is the channel's: what
    /// matters still arrives by the guest asking.
    pub fn tell(&mut self, message: BackendMessage) {
        let Some(channel) = &mut self.channel else { return };
        if let Err(error) = channel.send(message) {
            log::warn!("the front end's channel is closed: {error}");
            self.channel = None;
        }
    }

    /// Sends what the channel had no room for, and reads what front ends answer on it without being asked to.
    pub fn drain_channel(&mut self) {
        let Some(channel) = &mut self.channel else { return };
        if channel.flush().is_err() || !channel.drain().unwrap_or(false) {
            self.channel = None;
        }
    }
}

fn number(value: u64) -> Outcome {
    Outcome::Reply(Reply::Number(value))
}

fn offered(owner: &dyn Owner) -> u64 {
    owner.features() | TRANSPORT
}

/// A notifier that a reactor writes to must not be able to stop it.
fn notifier(event: Option<OwnedFd>) -> Result<Option<OwnedFd>, String> {
    if let Some(event) = &event {
        sys::never_block(event.as_fd()).map_err(|error| format!("the notifier cannot be used: {error}"))?;
    }
    Ok(event)
}

pub(super) fn duplicate(event: &Option<OwnedFd>) -> Result<Option<OwnedFd>, String> {
    let copy = event.as_ref().map(OwnedFd::try_clone).transpose();
    copy.map_err(|error| format!("no descriptor is left: {error}"))
}
