//! The packed virtqueue (virtio 1.3, section 2.8).

mod areas;
mod used;

use std::collections::VecDeque;
use std::sync::Arc;

use nvlane_memory::{GuestMemory, Hint};

use crate::Ring;
use crate::buffers::{Buffers, INDIRECT, NEXT, Table, WRITE, peek};
use crate::chain::{Chain, Segments};
use crate::config::{QueueConfig, VringBase};
use crate::error::RingError;
use crate::inflight::packed::{PackedRecord, Recovered};
use crate::log::WriteLog;
use crate::notify::Call;
use crate::sync::Ordering::{Relaxed, SeqCst};
use crate::sync::fence;

pub use areas::Position;
pub(crate) use areas::{AVAIL, Areas, Descriptor, EVENT_DESCRIPTOR, EVENT_DISABLE, EVENT_ENABLE, USED, word};

/// A request that is completed but not shown.
#[derive(Clone, Copy, Debug)]
struct Done {
    chain: Chain,
    written: u32,
}

#[derive(Debug)]
pub struct Packed {
    areas: Areas,
    next_avail: Position,
    /// Where the next used descriptor goes that the driver has not been shown.
    next_used: Position,
    in_flight: u16,
    /// Places of the ring between `next_used` and `next_avail`.
    taken: u16,
    event_idx: bool,
    indirect: bool,
    call: Call,
    hint: Hint,
    ahead_hint: Hint,
    busy: Box<[bool]>,
    memory: Arc<GuestMemory>,
    batch: Vec<Done>,
    record: Option<PackedRecord>,
    /// The descriptors of the chain being taken, for the record.
    descriptors: Vec<Descriptor>,
    log: Option<WriteLog>,
    /// The device-writable buffers of the chain being taken: its id comes with its last descriptor.
    written: Vec<(u64, u32)>,
    /// Where the ring is, for the log.
    ring_address: u64,
    /// What was in flight in the previous process, oldest first.
    recovered: VecDeque<Recovered>,
    broken: Option<RingError>,
}

// SAFETY: the pointers are into memory that the queue holds; one thread at a time has the queue.
unsafe impl Send for Packed {}

impl Packed {
    /// # Errors
    /// When size, addresses or the in-flight record do not fit together.
    pub fn new(mut config: QueueConfig) -> Result<Packed, RingError> {
        let areas = Areas::find(&config)?;
        let size = config.size;
        let mut next_avail = Position::from_bits(config.base.0 as u16);
        let mut next_used = Position::from_bits((config.base.0 >> 16) as u16);
        for position in [next_avail, next_used] {
            if position.index >= size {
                return Err(RingError::OutOfRange(position.index));
            }
        }
        let (mut record, mut recovered, mut taken) = (None, VecDeque::new(), 0);
        if let Some(region) = config.inflight.take() {
            let opened = PackedRecord::open(region, size, next_used, &areas)?;
            taken = opened.chains.iter().map(|chain| chain.descriptors.len() as u16).sum();
            next_used = opened.used;
            next_avail = next_used.advance(taken, size);
            (record, recovered) = (Some(opened.record), opened.chains.into());
        }
        let mut packed = Packed::over(areas, config.memory.clone(), next_used, next_avail);
        packed.taken = taken;
        packed.event_idx = config.event_idx;
        packed.indirect = config.indirect;
        packed.record = record;
        packed.recovered = recovered;
        packed.ring_address = config.addresses.descriptors;
        packed.log = config.log.map(|log| WriteLog::new(log, size));
        Ok(packed)
    }

    /// A queue over areas that hold what their size says, for as long as it lives.
    pub(crate) fn over(
        areas: Areas,
        memory: Arc<GuestMemory>,
        next_used: Position,
        next_avail: Position,
    ) -> Packed {
        let size = usize::from(areas.size);
        Packed {
            areas,
            next_avail,
            next_used,
            in_flight: 0,
            taken: 0,
            event_idx: false,
            indirect: false,
            call: Call::default(),
            hint: Hint::default(),
            ahead_hint: Hint::default(),
            busy: vec![false; size].into(),
            memory,
            batch: Vec::with_capacity(size),
            record: None,
            descriptors: Vec::new(),
            log: None,
            written: Vec::new(),
            ring_address: 0,
            recovered: VecDeque::new(),
            broken: None,
        }
    }

    #[cfg(loom)]
    pub(crate) fn with_event_idx(mut self) -> Packed {
        self.event_idx = true;
        self
    }

    /// Brings closer what the requests behind this one need: their descriptors, eight places on, and what the ones four
    /// places on name, header or indirect table. The ring is read in order, so the processor does part of it by itself.
    #[inline(always)]
    fn fetch_ahead(&self) {
        let far = self.next_avail.advance(8.min(self.areas.size), self.areas.size);
        nvlane_memory::copy::prefetch(std::ptr::from_ref(self.areas.word(far.index, 0)).cast());
        let near = self.next_avail.advance(4.min(self.areas.size), self.areas.size);
        self.hint.prefetch(self.areas.word(near.index, 0).load(Relaxed));
    }

    #[inline(always)]
    fn take(&mut self, segments: &mut Segments) -> Result<Option<Chain>, RingError> {
        let start = self.next_avail;
        let mut at = start;
        let (mut length, mut id, mut flags) = self.areas.load(at.index);
        if flags & (AVAIL | USED) != at.available_flags() {
            return Ok(None);
        }
        self.fetch_ahead();
        segments.clear();
        let mut buffers = Buffers {
            memory: &self.memory,
            hint: &mut self.hint,
            segments,
            written: self.log.is_some().then_some(&mut self.written),
            id,
            any_writable: false,
        };
        let room = self.areas.size - self.taken;
        let mut count = 0;
        loop {
            if count == room {
                return Err(RingError::Loop(id));
            }
            count += 1;
            let address = self.areas.word(at.index, 0).load(Relaxed);
            add(&mut buffers, self.indirect, address, length, flags)?;
            if self.record.is_some() {
                self.descriptors.push(Descriptor { address, length, id, flags });
            }
            at = at.advance(1, self.areas.size);
            if flags & NEXT == 0 {
                break;
            }
            (length, id, flags) = self.areas.load(at.index);
        }
        self.begin(id)?;
        if let Some(record) = &mut self.record {
            record.begin(id, &self.descriptors);
            self.descriptors.clear();
        }
        self.taken += count;
        self.next_avail = at;
        Ok(Some(Chain { id, descriptors: count }))
    }

    /// A chain whose buffers were collected, and whose id is known now, is in flight.
    #[inline(always)]
    fn begin(&mut self, id: u16) -> Result<(), RingError> {
        match self.busy.get_mut(usize::from(id)) {
            None => return Err(RingError::OutOfRange(id)),
            Some(true) => return Err(RingError::InFlightTwice(id)),
            Some(free) => *free = true,
        }
        self.in_flight += 1;
        if let Some(log) = &mut self.log {
            std::mem::swap(log.buffers(id), &mut self.written);
        }
        Ok(())
    }

    #[cold]
    fn take_recovered(&mut self, segments: &mut Segments) -> Result<Option<Chain>, RingError> {
        let Some(chain) = self.recovered.pop_front() else { return Ok(None) };
        segments.clear();
        let mut buffers = Buffers {
            memory: &self.memory,
            hint: &mut self.hint,
            segments,
            written: self.log.is_some().then_some(&mut self.written),
            id: chain.id,
            any_writable: false,
        };
        for descriptor in &chain.descriptors {
            add(&mut buffers, self.indirect, descriptor.address, descriptor.length, descriptor.flags)?;
        }
        self.begin(chain.id)?;
        Ok(Some(Chain { id: chain.id, descriptors: chain.descriptors.len() as u16 }))
    }

    fn notify(&mut self, event: u32) {
        self.areas.device_event().store(event, Relaxed);
        if let Some(log) = &self.log {
            log.used(0, 4);
        }
    }
}

/// Adds the buffers of one descriptor of the ring.
#[inline(always)]
fn add(
    buffers: &mut Buffers,
    indirect: bool,
    address: u64,
    length: u32,
    flags: u16,
) -> Result<(), RingError> {
    if flags & INDIRECT == 0 {
        return buffers.add(address, length, flags & WRITE != 0);
    }
    if !indirect || flags & NEXT != 0 {
        return Err(RingError::Indirect(buffers.id));
    }
    let table = Table::find(buffers, address, length)?;
    // All of a packed indirect table belongs to the chain, in order; of the flags only WRITE means something (2.8.7).
    for index in 0..table.entries {
        let (address, rest) = table.entry(index);
        let flags = (rest >> 48) as u16;
        if flags & INDIRECT != 0 {
            return Err(RingError::Indirect(buffers.id));
        }
        buffers.add(address, rest as u32, flags & WRITE != 0)?;
        if index > 32768 {
            return Err(RingError::Loop(buffers.id)); // empty buffers only: no request is that long
        }
    }
    Ok(())
}

impl Ring for Packed {
    #[inline]
    fn pop(&mut self, segments: &mut Segments) -> Result<Option<Chain>, RingError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let taken =
            if self.recovered.is_empty() { self.take(segments) } else { self.take_recovered(segments) };
        if let Err(error) = taken {
            self.broken = Some(error);
        }
        taken
    }

    #[inline]
    fn complete(&mut self, chain: Chain, written: u32) {
        debug_assert!(self.busy[usize::from(chain.id)], "{} is not in flight", chain.id);
        self.busy[usize::from(chain.id)] = false;
        self.in_flight -= 1;
        self.batch.push(Done { chain, written });
        if let Some(log) = &mut self.log {
            log.complete(chain.id);
        }
    }

    #[inline]
    fn publish(&mut self) -> bool {
        if self.batch.is_empty() {
            return self.settle();
        }
        let count = self.uncover();
        let mut call = std::mem::take(&mut self.call);
        let wanted = call.shown(count, |count| self.wants_call(count));
        self.call = call;
        wanted
    }

    #[inline]
    fn show(&mut self) {
        if !self.batch.is_empty() && self.call.room_for(u32::from(self.areas.size)) {
            let count = self.uncover();
            self.call.later(count);
        }
    }

    fn suppress(&mut self) {
        self.notify(EVENT_DISABLE << 16);
    }

    fn arm(&mut self) -> bool {
        let event = match self.event_idx {
            true => EVENT_DESCRIPTOR << 16 | u32::from(self.next_avail.bits()),
            false => EVENT_ENABLE << 16,
        };
        self.notify(event);
        fence(SeqCst);
        !self.has_work() && self.call.settled() && self.batch.is_empty()
    }

    #[inline]
    fn has_work(&self) -> bool {
        let flags = self.areas.load(self.next_avail.index).2;
        flags & (AVAIL | USED) == self.next_avail.available_flags() || !self.recovered.is_empty()
    }

    #[inline]
    fn prefetch(&self) {
        let at = usize::from(self.next_avail.index) * 2;
        nvlane_memory::copy::prefetch(self.areas.descriptors.wrapping_add(at).cast());
    }

    #[inline]
    fn ahead(&mut self) -> Option<[u8; 16]> {
        let (length, _, flags) = self.areas.load(self.next_avail.index);
        if flags & (AVAIL | USED) != self.next_avail.available_flags() {
            return None;
        }
        let address = self.areas.word(self.next_avail.index, 0).load(Relaxed);
        peek(&self.memory, &mut self.ahead_hint, address, length, flags)
    }

    fn base(&self) -> VringBase {
        VringBase(u32::from(self.next_avail.bits()) | u32::from(self.next_used.bits()) << 16)
    }

    fn in_flight(&self) -> u16 {
        self.in_flight
    }

    fn recovered(&self) -> usize {
        self.recovered.len()
    }

    fn size(&self) -> u16 {
        self.areas.size
    }
}
