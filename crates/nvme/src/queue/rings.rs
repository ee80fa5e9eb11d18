//! A submission and a completion queue in memory, and their doorbells.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::spec::{COMMAND_BYTES, COMPLETION_BYTES, Command, Completion, PAGE, doorbell};
use crate::{Device, DmaBuffer, NvmeError};

/// Both queues have the same number of entries: some controllers insist.
pub(crate) struct Rings {
    device: Arc<dyn Device>,
    memory: DmaBuffer,
    completions_at: usize,
    entries: u16,
    tail: u16,
    /// The tail that the device was told last.
    rung: u16,
    head: u16,
    phase: bool,
    /// Completions taken that the device has not been told of.
    unreported: u16,
    submission_doorbell: Doorbell,
    completion_doorbell: Doorbell,
}

/// Shadow doorbells of a whole controller (5.8): one page that the host writes, one that the controller does.
pub(crate) struct Shadows {
    pub memory: DmaBuffer,
}

pub(crate) const SHADOWS: usize = 0;
pub(crate) const EVENT_INDICES: usize = PAGE;

struct Doorbell {
    /// In BAR0.
    register: usize,
    /// The shadow page, and the entry's offset there.
    shadow: Option<(Arc<Shadows>, usize)>,
}

impl Doorbell {
    fn new(queue: u16, completion: bool, stride: usize, shadows: Option<&Arc<Shadows>>) -> Self {
        let register = doorbell(queue, completion, stride);
        let entry = register - crate::spec::register::DOORBELLS;
        // Without room in the page there is no shadow for this queue, and the register is all there is.
        let shadow = shadows.filter(|_| entry < PAGE).map(|shadows| (shadows.clone(), entry));
        if let Some((shadows, entry)) = &shadow {
            shadows.memory.store32(SHADOWS + entry, 0, Ordering::Relaxed);
            shadows.memory.store32(EVENT_INDICES + entry, 0, Ordering::Relaxed);
        }
        Self { register, shadow }
    }

    /// Tells the device that the index went from `old` to `new`, through memory alone where that is enough.
    #[inline]
    fn ring(&self, device: &dyn Device, old: u16, new: u16) {
        if let Some((shadows, entry)) = &self.shadow {
            // The entries that the shadow publishes come first.
            shadows.memory.store32(SHADOWS + entry, u32::from(new), Ordering::Release);
            // The device writes its index, then looks at the shadow; here it is the other way round (5.8).
            fence(Ordering::SeqCst);
            let event = shadows.memory.load32(EVENT_INDICES + entry, Ordering::Relaxed) as u16;
            // As virtio's need_event: was `event` passed by this step?
            if new.wrapping_sub(event).wrapping_sub(1) >= new.wrapping_sub(old) {
                return;
            }
        }
        device.write32(self.register, u32::from(new));
    }
}

impl Rings {
    pub fn new(
        device: Arc<dyn Device>,
        queue: u16,
        entries: u16,
        stride: usize,
        shadows: Option<&Arc<Shadows>>,
    ) -> Result<Self, NvmeError> {
        debug_assert!(entries >= 2);
        let completions_at = (usize::from(entries) * COMMAND_BYTES).next_multiple_of(PAGE);
        let memory = DmaBuffer::new(completions_at + usize::from(entries) * COMPLETION_BYTES)?;
        Ok(Self {
            device,
            memory,
            completions_at,
            entries,
            tail: 0,
            rung: 0,
            head: 0,
            phase: true,
            unreported: 0,
            submission_doorbell: Doorbell::new(queue, false, stride, shadows),
            completion_doorbell: Doorbell::new(queue, true, stride, shadows),
        })
    }

    pub fn submissions_iova(&self) -> u64 {
        self.memory.iova(0)
    }

    pub fn completions_iova(&self) -> u64 {
        self.memory.iova(self.completions_at)
    }

    pub fn entries(&self) -> u16 {
        self.entries
    }

    pub fn device(&self) -> &Arc<dyn Device> {
        &self.device
    }

    /// Puts a command into the queue. The caller keeps fewer in flight than there are entries.
    #[inline]
    pub fn push(&mut self, command: &Command) {
        self.memory.store_command(usize::from(self.tail) * COMMAND_BYTES, command);
        self.tail = if self.tail + 1 == self.entries { 0 } else { self.tail + 1 };
    }

    /// Tells the device of what was pushed: one doorbell for all of it.
    #[inline]
    pub fn kick(&mut self) {
        if self.tail != self.rung {
            self.submission_doorbell.ring(&*self.device, self.rung, self.tail);
            self.rung = self.tail;
        }
    }

    /// Whether there is a completion.
    #[inline]
    pub fn has_completion(&self) -> bool {
        let at = self.completions_at + usize::from(self.head) * COMPLETION_BYTES;
        (self.memory.load32(at + 12, Ordering::Acquire) & 1 << 16 != 0) == self.phase
    }

    /// Takes the next completion. It is the device's word: to be checked.
    #[inline]
    pub fn pop(&mut self) -> Option<Completion> {
        let at = self.completions_at + usize::from(self.head) * COMPLETION_BYTES;
        let status = self.memory.load32(at + 12, Ordering::Acquire);
        if (status & 1 << 16 != 0) != self.phase {
            return None;
        }
        let queue = self.memory.load32(at + 8, Ordering::Relaxed);
        let result = self.memory.load32(at, Ordering::Relaxed);
        self.head += 1;
        if self.head == self.entries {
            self.head = 0;
            self.phase = !self.phase;
        }
        self.unreported += 1;
        Some(Completion::parse(result, queue, status))
    }

    /// Gives completion entries back when a quarter of them was taken. No more than half of them can be in flight
    /// (`queue::Qpair`), so the device always has room, and most requests cost one doorbell and not two.
    #[inline]
    pub fn report(&mut self) {
        if self.unreported >= self.entries / 4 {
            self.report_all();
        }
    }

    pub fn report_all(&mut self) {
        if self.unreported != 0 {
            let old = (self.head + self.entries - self.unreported) % self.entries;
            self.completion_doorbell.ring(&*self.device, old, self.head);
            self.unreported = 0;
        }
    }
}
