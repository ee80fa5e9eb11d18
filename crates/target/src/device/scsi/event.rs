//! The event queue (virtio 1.3, 5.6.6.3): buffers that wait for something to happen.

use std::any::Any;
use std::collections::VecDeque;

use nvlane_bdev::Status;
use nvlane_memory::copy;
use nvlane_ring::{Chain, Segments};

use super::super::{Device, Io, Step};
use super::wire::{EVENT, Event};

/// Events kept while the guest has given no buffers; those after them are missed, and it is told so.
const KEPT: usize = 16;

pub(super) struct EventQueue {
    waiting: VecDeque<Event>,
    missed: bool,
}

impl EventQueue {
    /// `missed`: things happened while there was no queue.
    pub fn new(missed: bool) -> EventQueue {
        EventQueue { waiting: VecDeque::new(), missed }
    }

    pub fn post(&mut self, event: Event) {
        if self.waiting.len() < KEPT {
            self.waiting.push_back(event);
        } else {
            self.missed = true;
        }
    }
}

impl Device for EventQueue {
    /// A buffer that is too short gets what fits (5.6.6.3: the driver makes them `event_info_size` long).
    fn request(&mut self, _chain: &Chain, segments: &mut Segments, io: &mut Io<'_>) -> Step {
        let event = self.waiting.pop_front().unwrap_or(Event::None);
        let bytes = event.encode(std::mem::take(&mut self.missed));
        let written = copy::copy_out(&bytes, segments.writable(), 0);
        if io.logs() {
            io.guest_wrote(segments.writable());
        }
        debug_assert!(written <= EVENT);
        Step::Done { written: written as u32 }
    }

    fn ended(&mut self, _id: u16, _part: u16, _status: Status, _io: &mut Io<'_>) -> Step {
        Step::Pending
    }

    /// Buffers stay on the ring until there is something to say.
    fn wants(&self) -> bool {
        self.missed || !self.waiting.is_empty()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_missed() {
        let mut queue = EventQueue::new(false);
        assert!(!queue.wants());
        for _ in 0..=KEPT {
            queue.post(Event::Rescan(1));
        }
        assert!(queue.wants() && queue.missed);
        assert_eq!(queue.waiting.len(), KEPT);
        assert!(EventQueue::new(true).wants());
    }
}
