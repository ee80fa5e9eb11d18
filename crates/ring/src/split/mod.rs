//! The split virtqueue (virtio 1.3, section 2.7).

mod ahead;
mod areas;

use std::collections::VecDeque;
use std::sync::Arc;

use nvlane_memory::{GuestMemory, Hint};

use crate::Ring;
use crate::buffers::{Buffers, INDIRECT, NEXT, Table, WRITE, peek};
use crate::chain::{Chain, Segments};
use crate::config::{QueueConfig, VringBase};
use crate::error::RingError;
use crate::inflight::split::SplitRecord;
use crate::log::WriteLog;
use crate::notify::{Call, crossed};
use crate::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use crate::sync::fence;

pub(crate) use areas::Areas;

pub(crate) const NO_INTERRUPT: u16 = 1; // in the available ring's flags
pub(crate) const NO_NOTIFY: u16 = 1; // in the used ring's flags

#[derive(Debug)]
pub struct Split {
    areas: Areas,
    mask: u16,
    /// The next index of the available ring to take, and the driver's index when we last looked.
    next_avail: u16,
    seen_avail: u16,
    /// The next index of the used ring to fill, and how many are filled but not shown.
    next_used: u16,
    filled: u16,
    in_flight: u16,
    event_idx: bool,
    indirect: bool,
    call: Call,
    hint: Hint,
    ahead_hint: Hint,
    /// Which heads are in flight.
    busy: Box<[bool]>,
    memory: Arc<GuestMemory>,
    record: Option<SplitRecord>,
    /// The heads that are filled but not shown, for the record.
    batch: Vec<u16>,
    log: Option<WriteLog>,
    /// Heads that were in flight in the previous process, oldest first.
    recovered: VecDeque<u16>,
    broken: Option<RingError>,
}

// SAFETY: the pointers are into memory that the queue holds; one thread at a time has the queue.
unsafe impl Send for Split {}

impl Split {
    /// # Errors
    /// When size, addresses or the in-flight record do not fit together.
    pub fn new(mut config: QueueConfig) -> Result<Split, RingError> {
        let areas = Areas::find(&config)?;
        let used_idx = areas.used_idx().load(Acquire);
        let mut next_avail = config.base.0 as u16;
        let (mut record, mut recovered) = (None, VecDeque::new());
        if let Some(region) = config.inflight.take() {
            let opened = SplitRecord::open(region, config.size, used_idx)?;
            // What was taken is either used or in flight, in whatever order it was completed. The front end's number is
            // only good for a record that is new: after a lost connection QEMU gives the used index it found when it
            // noticed (hw/virtio/vhost.c, vhost_virtqueue_stop), and the process before this one may have gone on.
            if !opened.is_new {
                next_avail = used_idx.wrapping_add(opened.heads.len() as u16);
            }
            (record, recovered) = (Some(opened.record), opened.heads.into());
        }
        let mut split = Split::over(areas, config.memory.clone(), used_idx, next_avail);
        split.event_idx = config.event_idx;
        split.indirect = config.indirect;
        split.record = record;
        split.recovered = recovered;
        split.log = config.log.map(|log| WriteLog::new(log, config.size));
        Ok(split)
    }

    /// A queue over areas that hold what their size says, for as long as it lives.
    pub(crate) fn over(areas: Areas, memory: Arc<GuestMemory>, used_idx: u16, next_avail: u16) -> Split {
        Split {
            areas,
            mask: areas.size - 1,
            next_avail,
            seen_avail: next_avail,
            next_used: used_idx,
            filled: 0,
            in_flight: 0,
            event_idx: false,
            indirect: false,
            call: Call::default(),
            hint: Hint::default(),
            ahead_hint: Hint::default(),
            busy: vec![false; usize::from(areas.size)].into(),
            memory,
            record: None,
            batch: Vec::with_capacity(usize::from(areas.size)),
            log: None,
            recovered: VecDeque::new(),
            broken: None,
        }
    }

    #[cfg(loom)]
    pub(crate) fn with_event_idx(mut self) -> Split {
        self.event_idx = true;
        self
    }

    /// Looks at the driver's index; whether there is something to take.
    #[inline]
    fn look(&mut self) -> Result<bool, RingError> {
        let index = self.areas.avail_idx().load(Acquire);
        let new = index.wrapping_sub(self.next_avail);
        if new > self.areas.size {
            return Err(RingError::IndexTooFar { index, expected: self.next_avail });
        }
        self.seen_avail = index;
        self.fetch_first_ones(new);
        Ok(new != 0)
    }

    #[inline(always)]
    fn take(&mut self, segments: &mut Segments) -> Result<Option<Chain>, RingError> {
        if self.next_avail == self.seen_avail && !self.look()? {
            return Ok(None);
        }
        self.fetch_ahead();
        let head = self.areas.available(self.next_avail & self.mask, 0).load(Relaxed);
        self.walk(head, segments)?;
        self.next_avail = self.next_avail.wrapping_add(1);
        if let Some(record) = &mut self.record {
            record.begin(head);
        }
        Ok(Some(Chain { id: head, descriptors: 1 }))
    }

    /// Collects the buffers of the chain and marks it as in flight.
    #[inline(always)]
    fn walk(&mut self, head: u16, segments: &mut Segments) -> Result<(), RingError> {
        let size = self.areas.size;
        match self.busy.get(usize::from(head)) {
            None => return Err(RingError::OutOfRange(head)),
            Some(true) => return Err(RingError::InFlightTwice(head)),
            Some(false) => (),
        }
        segments.clear();
        let mut buffers = Buffers {
            memory: &self.memory,
            hint: &mut self.hint,
            segments,
            written: self.log.as_mut().map(|log| log.buffers(head)),
            id: head,
            any_writable: false,
        };
        let mut index = head;
        let mut left = size;
        loop {
            let (address, rest) = (
                self.areas.descriptor(index, 0).load(Relaxed),
                self.areas.descriptor(index, 1).load(Relaxed),
            );
            let (address, length, flags, next) = fields(address, rest);
            if flags & INDIRECT != 0 {
                if !self.indirect || flags & NEXT != 0 {
                    return Err(RingError::Indirect(head)); // 2.7.5.3.1
                }
                let table = Table::find(&mut buffers, address, length)?;
                walk_table(&mut buffers, table)?;
                break;
            }
            buffers.add(address, length, flags & WRITE != 0)?;
            if flags & NEXT == 0 {
                break;
            }
            left -= 1;
            if left == 0 {
                return Err(RingError::Loop(head));
            }
            if next >= size {
                return Err(RingError::OutOfRange(next));
            }
            index = next;
        }
        self.busy[usize::from(head)] = true;
        self.in_flight += 1;
        Ok(())
    }

    #[cold]
    fn take_recovered(&mut self, head: u16, segments: &mut Segments) -> Result<Option<Chain>, RingError> {
        self.walk(head, segments)?;
        self.recovered.pop_front();
        Ok(Some(Chain { id: head, descriptors: 1 }))
    }

    /// Whether the driver wants to be called for the last `count` used buffers.
    #[inline(always)]
    fn wants_call(&self, count: u32) -> bool {
        if self.event_idx {
            return crossed(self.areas.used_event().load(Relaxed), self.next_used, count);
        }
        self.areas.avail_flags().load(Relaxed) & NO_INTERRUPT == 0
    }

    #[inline(always)]
    fn settle(&mut self) -> bool {
        let mut call = std::mem::take(&mut self.call);
        let wanted = call.settle(|count| self.wants_call(count));
        self.call = call;
        wanted
    }

    /// Shows the driver what is filled; how much it was.
    #[inline(always)]
    fn uncover(&mut self) -> u32 {
        if let Some(record) = &self.record {
            record.about_to_publish(&self.batch);
        }
        if let Some(log) = &self.log {
            log.used(2, 2);
        }
        self.areas.used_idx().store(self.next_used, Release);
        if let Some(record) = &self.record {
            record.published(&self.batch, self.next_used);
            self.batch.clear();
        }
        u32::from(std::mem::take(&mut self.filled))
    }

    /// Asks for a kick when the driver's index passes `event` (with EVENT_IDX), or for any or none.
    fn notify(&mut self, event: u16, flags: u16) {
        let length = 4 + 8 * u64::from(self.areas.size);
        if self.event_idx {
            self.areas.avail_event().store(event, Relaxed);
        } else {
            self.areas.used_flags().store(flags, Relaxed);
        }
        if let Some(log) = &self.log {
            log.used(if self.event_idx { length } else { 0 }, 2);
        }
    }
}

impl Ring for Split {
    #[inline]
    fn pop(&mut self, segments: &mut Segments) -> Result<Option<Chain>, RingError> {
        if let Some(error) = self.broken {
            return Err(error);
        }
        let taken = match self.recovered.front() {
            None => self.take(segments),
            Some(&head) => self.take_recovered(head, segments),
        };
        if let Err(error) = taken {
            self.broken = Some(error);
        }
        taken
    }

    #[inline]
    fn complete(&mut self, chain: Chain, written: u32) {
        let head = chain.id;
        debug_assert!(self.busy[usize::from(head)], "{head} is not in flight");
        self.busy[usize::from(head)] = false;
        self.in_flight -= 1;
        let place = self.next_used & self.mask;
        self.areas.used(place, 0).store(u32::from(head), Relaxed);
        self.areas.used(place, 1).store(written, Relaxed);
        self.next_used = self.next_used.wrapping_add(1);
        self.filled += 1;
        if self.record.is_some() {
            self.batch.push(head);
        }
        if let Some(log) = &mut self.log {
            log.complete(head);
            log.used(4 + 8 * u64::from(place), 8);
        }
    }

    #[inline]
    fn publish(&mut self) -> bool {
        if self.filled == 0 {
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
        if self.filled > 0 && self.call.room_for(u32::from(self.filled)) {
            let count = self.uncover();
            self.call.later(count);
        }
    }

    fn suppress(&mut self) {
        // With EVENT_IDX there is no way to say 'never': the index just passed comes round after 65536 requests.
        self.notify(self.next_avail.wrapping_sub(1), NO_NOTIFY);
    }

    fn arm(&mut self) -> bool {
        self.notify(self.next_avail, 0);
        fence(SeqCst);
        !self.has_work() && self.call.settled() && self.filled == 0
    }

    #[inline]
    fn has_work(&self) -> bool {
        self.next_avail != self.areas.avail_idx().load(Acquire) || !self.recovered.is_empty()
    }

    #[inline]
    fn prefetch(&self) {
        nvlane_memory::copy::prefetch(self.areas.avail_idx.cast());
    }

    #[inline]
    fn ahead(&mut self) -> Option<[u8; 16]> {
        if self.next_avail == self.seen_avail {
            return None;
        }
        let place = self.next_avail & self.mask;
        let after = self.areas.available(self.next_avail.wrapping_add(1) & self.mask, 0).load(Relaxed);
        nvlane_memory::copy::prefetch(self.areas.descriptors.wrapping_add(2 * usize::from(after)).cast());
        let head = self.areas.available(place, 0).load(Relaxed);
        if head >= self.areas.size {
            return None;
        }
        let (address, rest) =
            (self.areas.descriptor(head, 0).load(Relaxed), self.areas.descriptor(head, 1).load(Relaxed));
        let (address, length, flags, _) = fields(address, rest);
        peek(&self.memory, &mut self.ahead_hint, address, length, flags)
    }

    fn base(&self) -> VringBase {
        VringBase(u32::from(self.next_avail))
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

/// Address, length, flags and next of a descriptor.
#[inline(always)]
fn fields(address: u64, rest: u64) -> (u64, u32, u16, u16) {
    (address, rest as u32, (rest >> 32) as u16, (rest >> 48) as u16)
}

#[inline(always)]
fn walk_table(buffers: &mut Buffers, table: Table) -> Result<(), RingError> {
    let mut index = 0;
    for _ in 0..table.entries {
        let (address, rest) = table.entry(index);
        let (address, length, flags, next) = fields(address, rest);
        if flags & INDIRECT != 0 {
            return Err(RingError::Indirect(buffers.id));
        }
        buffers.add(address, length, flags & WRITE != 0)?;
        if flags & NEXT == 0 {
            return Ok(());
        }
        index = u32::from(next);
        if index >= table.entries {
            return Err(RingError::OutOfRange(next));
        }
    }
    Err(RingError::Loop(buffers.id))
}
