//! The driver's side of a packed virtqueue.

use std::sync::Arc;

use nvlane_memory::GuestMemory;

use super::{Buffer, DriverRing, Used};
use crate::buffers::{NEXT, WRITE};
use crate::config::QueueConfig;
use crate::error::RingError;
use crate::notify::crossed;
use crate::packed::{AVAIL, Areas, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, Position, USED, word};
use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::fence;

#[derive(Debug)]
pub struct PackedDriver {
    areas: Areas,
    /// Keeps the areas mapped.
    _memory: Arc<GuestMemory>,
    event_idx: bool,
    next_avail: Position,
    next_used: Position,
    /// Places made available since the device was last asked whether it wants a kick.
    added: u32,
    free_places: u16,
    free_ids: Vec<u16>,
    /// How many places the request with each id takes.
    places: Vec<u16>,
}

// SAFETY: the pointers are into memory that the driver holds; one thread at a time has the driver.
unsafe impl Send for PackedDriver {}

impl PackedDriver {
    /// It begins where the configuration's base is.
    ///
    /// # Errors
    /// When the areas do not fit.
    pub fn new(config: &QueueConfig) -> Result<PackedDriver, RingError> {
        let areas = Areas::find(config)?;
        let start = Position::from_bits(config.base.0 as u16);
        Ok(PackedDriver::over(areas, config.memory.clone(), config.event_idx, start))
    }

    pub(crate) fn over(
        areas: Areas,
        memory: Arc<GuestMemory>,
        event_idx: bool,
        start: Position,
    ) -> PackedDriver {
        PackedDriver {
            areas,
            _memory: memory,
            event_idx,
            next_avail: start,
            next_used: start,
            added: 0,
            free_places: areas.size,
            free_ids: (0..areas.size).rev().collect(),
            places: vec![0; usize::from(areas.size)],
        }
    }

    /// Writes the descriptors, the flags of the first last.
    #[inline]
    fn offer(&mut self, descriptors: impl ExactSizeIterator<Item = (u64, u32, u16)>) -> Option<u16> {
        let count = descriptors.len();
        if count == 0 || count > usize::from(self.free_places) {
            return None;
        }
        let id = self.free_ids.pop()?;
        let start = self.next_avail;
        let mut head = 0;
        for (place, (address, length, flags)) in descriptors.enumerate() {
            let at = self.next_avail;
            let next = if place + 1 < count { NEXT } else { 0 };
            let word = word(length, id, flags | next | at.available_flags());
            self.areas.word(at.index, 0).store(address, Relaxed);
            if place == 0 {
                head = word;
            } else {
                self.areas.word(at.index, 1).store(word, Relaxed);
            }
            self.next_avail = at.advance(1, self.areas.size);
        }
        self.areas.word(start.index, 1).store(head, Release);
        self.free_places -= count as u16;
        self.places[usize::from(id)] = count as u16;
        self.added += count as u32;
        Some(id)
    }
}

impl DriverRing for PackedDriver {
    #[inline]
    fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        let flags = |buffer: &Buffer| if buffer.writable { WRITE } else { 0 };
        self.offer(buffers.iter().map(|buffer| (buffer.address, buffer.length, flags(buffer))))
    }

    fn add_raw(&mut self, address: u64, length: u32, flags: u16) -> Option<u16> {
        self.offer(std::iter::once((address, length, flags)))
    }

    #[inline]
    fn publish(&mut self) -> bool {
        let added = std::mem::take(&mut self.added);
        if added == 0 {
            return false;
        }
        fence(SeqCst);
        let event = self.areas.device_event().load(Relaxed);
        match event >> 16 & 3 {
            EVENT_DISABLE => false,
            EVENT_DESCRIPTOR if self.event_idx => {
                let at = Position::from_bits(event as u16);
                let lap = if at.wrap == self.next_avail.wrap { 0 } else { self.areas.size };
                crossed(at.index.wrapping_sub(lap), self.next_avail.index, added)
            }
            _ => true,
        }
    }

    #[inline]
    fn reap(&mut self) -> Option<Used> {
        let word = self.areas.word(self.next_used.index, 1).load(Acquire);
        let (written, id, flags) = (word as u32, (word >> 32) as u16, (word >> 48) as u16);
        if flags & (AVAIL | USED) != self.next_used.used_flags() {
            return None;
        }
        let places = std::mem::take(&mut self.places[usize::from(id)]);
        assert!(places != 0, "{id} was completed and not in flight");
        self.next_used = self.next_used.advance(places, self.areas.size);
        self.free_places += places;
        self.free_ids.push(id);
        Some(Used { id, written })
    }

    fn disable_calls(&mut self) {
        self.areas.driver_event().store(EVENT_DISABLE << 16, Relaxed);
    }

    fn enable_calls(&mut self) -> bool {
        let event = match self.event_idx {
            true => EVENT_DESCRIPTOR << 16 | u32::from(self.next_used.bits()),
            false => EVENT_ENABLE << 16,
        };
        self.areas.driver_event().store(event, Relaxed);
        fence(SeqCst);
        let flags = (self.areas.word(self.next_used.index, 1).load(Acquire) >> 48) as u16;
        flags & (AVAIL | USED) != self.next_used.used_flags()
    }

    fn free(&self) -> usize {
        usize::from(self.free_places)
    }
}
