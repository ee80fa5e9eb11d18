//! The block devices of a reactor, and how a front end reaches them.

use nvlane_bdev::{Channel, Completion, Operation, Request, Status, Submitted};
use nvlane_memory::Segment;

use super::log::Log;

/// A channel of one reactor. Front ends keep it; a channel that was closed answers [`Status::Gone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelId {
    pub(super) reactor: u32,
    pub(super) slot: u32,
}

impl ChannelId {
    /// A channel to nothing.
    pub fn nowhere(reactor: usize) -> Self {
        Self { reactor: reactor as u32, slot: u32::MAX }
    }
}

/// Who waits for an operation, packed into the token of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    pub queue: u16,
    /// Tells the lives of a queue's place apart.
    pub life: u16,
    pub id: u16,
    pub part: u16,
}

impl Waiter {
    fn token(self) -> u64 {
        u64::from(self.queue) << 48
            | u64::from(self.life) << 32
            | u64::from(self.id) << 16
            | u64::from(self.part)
    }

    pub fn from_token(token: u64) -> Self {
        let field = |shift: u32| (token >> shift) as u16;
        Self { queue: field(48), life: field(32), id: field(16), part: field(0) }
    }
}

pub(super) struct Slot {
    pub channel: Channel,
    /// Something was submitted since the last kick.
    kick: bool,
    /// Something is under way, or was refused.
    poll: bool,
    /// Its operations are copies.
    copies: bool,
    /// No new operations; leaves when the last has ended.
    pub closing: bool,
}

/// The channels of one reactor.
#[derive(Default)]
pub(super) struct Channels {
    pub slots: Vec<Option<Box<Slot>>>,
    completions: Vec<Completion>,
    to_kick: bool,
    /// Some channel may have operations under way.
    active: bool,
    /// Bytes that were copied by this thread.
    pub copied: u64,
}

impl Channels {
    pub fn install(&mut self, slot: u32, channel: Channel) {
        let index = slot as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        let copies = channel.copies();
        self.slots[index] =
            Some(Box::new(Slot { channel, kick: false, poll: false, copies, closing: false }));
    }

    pub fn get(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// Tells the devices about what was submitted: one doorbell or system call a channel.
    #[inline]
    pub fn kick(&mut self) {
        if !self.to_kick {
            return;
        }
        self.to_kick = false;
        for slot in self.slots.iter_mut().flatten() {
            if std::mem::take(&mut slot.kick) {
                slot.channel.kick();
            }
        }
    }

    /// What has ended since the last time. Give the list back with [`Channels::reuse`].
    #[inline]
    pub fn poll(&mut self) -> Option<Vec<Completion>> {
        if !self.active {
            return None;
        }
        let mut completions = std::mem::take(&mut self.completions);
        self.active = false;
        for slot in self.slots.iter_mut().flatten() {
            if slot.poll {
                slot.channel.poll(&mut completions);
                slot.poll = slot.channel.in_flight() > 0;
                self.active |= slot.poll;
            }
        }
        Some(completions)
    }

    pub fn reuse(&mut self, mut completions: Vec<Completion>) {
        completions.clear();
        self.completions = completions;
    }

    /// Before a sleep: whoever has something under way will make its descriptor readable. False: do not sleep.
    pub fn arm(&mut self) -> bool {
        self.slots.iter_mut().flatten().all(|slot| slot.channel.arm())
    }

    /// Whether an operation may have ended that nobody was told of yet.
    pub fn wake(&mut self) {
        for slot in self.slots.iter_mut().flatten() {
            slot.poll = slot.channel.in_flight() > 0;
            self.active |= slot.poll;
        }
    }

    #[inline]
    fn submit(&mut self, slot: u32, request: &Request<'_>) -> Submitted {
        let Some(Some(slot)) = self.slots.get_mut(slot as usize) else {
            return Submitted::Done(Status::Gone);
        };
        if slot.closing {
            return Submitted::Done(Status::Gone);
        }
        let submitted = slot.channel.submit(request);
        slot.kick = true;
        self.to_kick = true;
        if slot.copies {
            self.copied += request.length;
        }
        // After a refusal, too: a limit is looked at anew by `poll`.
        if !matches!(submitted, Submitted::Done(_)) {
            slot.poll = true;
            self.active = true;
        }
        submitted
    }
}

/// A front end's way to the block devices during one call.
pub struct Io<'a> {
    pub(super) channels: &'a mut Channels,
    pub(super) log: Option<&'a Log>,
    pub(super) queue: u16,
    pub(super) life: u16,
}

impl Io<'_> {
    /// Asks a block device. [`Submitted::Pending`]: `Device::ended` will be called with this `id` and `part`.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "the fields of a request, without a copy on the way")]
    pub fn submit(
        &mut self,
        channel: ChannelId,
        operation: Operation,
        offset: u64,
        length: u64,
        segments: &[Segment],
        id: u16,
        part: u16,
    ) -> Submitted {
        let token = Waiter { queue: self.queue, life: self.life, id, part }.token();
        self.channels.submit(channel.slot, &Request { operation, offset, length, segments, token })
    }

    /// Whether [`Io::prefetch`] does anything for this channel.
    #[inline]
    pub fn prefetches(&mut self, channel: ChannelId) -> bool {
        self.channels.get(channel.slot).is_some_and(|slot| slot.channel.prefetches())
    }

    /// Brings what a later operation will touch into the cache.
    #[inline]
    pub fn prefetch(&mut self, channel: ChannelId, operation: Operation, offset: u64, length: u64) {
        if let Some(slot) = self.channels.get(channel.slot) {
            slot.channel.prefetch(operation, offset, length);
        }
    }

    /// Whether writes to guest memory have to be told to [`Io::guest_wrote`] (live migration).
    #[inline]
    pub fn logs(&self) -> bool {
        self.log.is_some()
    }

    /// These bytes of the guest's were written by the device (or a copy): to be said before the chain is done.
    pub fn guest_wrote(&mut self, segments: &[Segment]) {
        if let Some(log) = self.log {
            log.wrote(segments);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiter_survives_its_token() {
        let waiter = Waiter { queue: 0xfedc, life: 0x8001, id: 0x7fff, part: 0xffff };
        assert_eq!(Waiter::from_token(waiter.token()), waiter);
    }
}
