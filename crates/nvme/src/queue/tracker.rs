//! Which commands are in flight: a slot for each, its identifier on the wire, and what it belongs to.

use crate::spec::Command;

pub(super) const NONE: u16 = u16::MAX;

#[derive(Clone, Debug)]
pub(super) struct Tracker {
    /// As it was sent: it is sent again after a reset.
    pub command: Command,
    pub identifier: u16,
    pub active: bool,
    pub retries: u8,
    /// The supervisor was told that it is late.
    pub late: bool,
    /// The supervisor's clock when it was sent, and when its abort was asked for.
    pub tick: u32,
    /// Whose it is: a token, or a part of a split request and which bytes of it.
    pub token: u64,
    pub split: u16,
    pub bounce: Option<u8>,
    pub offset: usize,
    pub bytes: usize,
}

/// The slots. An identifier is the slot and, above it, a generation: a completion that a device sends twice, or long
/// after, names a command that is not there and is known as garbage.
pub(super) struct Trackers {
    slots: Box<[Tracker]>,
    free: Vec<u16>,
    slot_bits: u32,
}

impl Trackers {
    pub fn new(count: u16) -> Self {
        let empty = Tracker {
            command: Command::default(),
            identifier: 0,
            active: false,
            retries: 0,
            late: false,
            tick: 0,
            token: 0,
            split: NONE,
            bounce: None,
            offset: 0,
            bytes: 0,
        };
        let slots: Box<[Tracker]> =
            (0..count).map(|slot| Tracker { identifier: slot, ..empty.clone() }).collect();
        // One more than needed, so that no identifier is FFFFh, which means "no command" in some logs (3.3.3.1).
        let slot_bits = (u32::from(count) + 1).next_power_of_two().trailing_zeros();
        Self { slots, free: (0..count).rev().collect(), slot_bits }
    }

    /// A free slot, not yet taken: its PRP list can be written.
    #[inline]
    pub fn peek(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Takes the slot that `peek` named, for the command that `make` makes of an identifier.
    #[inline(always)]
    pub fn take(&mut self, make: impl FnOnce(u16) -> Command, token: u64, tick: u32) -> &mut Tracker {
        let slot = self.free.pop().unwrap_or_default();
        let tracker = &mut self.slots[usize::from(slot)];
        tracker.identifier = tracker.identifier.wrapping_add(1 << self.slot_bits);
        tracker.command = make(tracker.identifier);
        tracker.active = true;
        tracker.retries = 0;
        tracker.late = false;
        tracker.tick = tick;
        tracker.token = token;
        tracker.split = NONE;
        tracker.bounce = None;
        tracker
    }

    /// The slot of a command in flight that has this identifier.
    #[inline]
    pub fn find(&self, identifier: u16) -> Option<u16> {
        let slot = identifier & ((1 << self.slot_bits) - 1);
        let tracker = self.slots.get(usize::from(slot))?;
        (tracker.active && tracker.identifier == identifier).then_some(slot)
    }

    /// A new identifier for a command that is sent again.
    pub fn renew(&mut self, slot: u16, tick: u32) -> Command {
        let step = 1 << self.slot_bits;
        let tracker = &mut self.slots[usize::from(slot)];
        tracker.identifier = tracker.identifier.wrapping_add(step);
        tracker.command = tracker.command.with_identifier(tracker.identifier);
        tracker.retries += 1;
        tracker.late = false;
        tracker.tick = tick;
        tracker.command
    }

    #[inline]
    pub fn get(&self, slot: u16) -> &Tracker {
        &self.slots[usize::from(slot)]
    }

    #[inline]
    pub fn release(&mut self, slot: u16) {
        self.slots[usize::from(slot)].active = false;
        self.free.push(slot);
    }

    pub fn len(&self) -> u16 {
        self.slots.len() as u16
    }

    pub fn active(&mut self) -> impl Iterator<Item = (u16, &mut Tracker)> {
        self.slots
            .iter_mut()
            .enumerate()
            .map(|(slot, tracker)| (slot as u16, tracker))
            .filter(|(_, t)| t.active)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_good_for_one_life() {
        let mut trackers = Trackers::new(5);
        let first = trackers.take(|id| Command::default().with_identifier(id), 1, 0).identifier;
        let slot = trackers.find(first).unwrap();
        trackers.release(slot);
        assert_eq!(trackers.find(first), None, "answered already");
        let second = trackers.take(|id| Command::default().with_identifier(id), 2, 0).identifier;
        assert_ne!(first, second);
        assert_eq!((trackers.find(first), trackers.find(second)), (None, Some(slot)));
        assert_eq!(trackers.renew(slot, 3).identifier(), trackers.get(slot).identifier);
        assert_eq!(trackers.find(second), None, "sent again under another one");
        assert_eq!(trackers.find(7), None, "no such slot");
    }

    #[test]
    fn all_slots_are_given_and_taken_back() {
        let mut trackers = Trackers::new(4);
        let ids: Vec<u16> = (0..4)
            .map(|token| trackers.take(|id| Command::default().with_identifier(id), token, 0).identifier)
            .collect();
        assert_eq!(trackers.peek(), None);
        for id in ids {
            let slot = trackers.find(id).unwrap();
            trackers.release(slot);
        }
        assert_eq!(trackers.active().count(), 0);
        assert!(trackers.peek().is_some());
    }
}
