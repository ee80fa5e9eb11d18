//! Memory of the driver's own that the device reads and writes: queues, PRP lists, bounce buffers.

#[cfg(any(test, feature = "emulated"))]
pub(crate) mod reach;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nvlane_memory::{HostMemory, Segment, arena, copy};

use crate::NvmeError;
use crate::spec::Command;

/// Zeroed memory that the device reaches at [`iova`](DmaBuffer::iova). Every access names an offset, is checked, and
/// goes through atomics or volatile copies: a device may write at any time, also one that should not.
#[derive(Debug)]
pub struct DmaBuffer {
    memory: HostMemory,
}

impl DmaBuffer {
    /// # Errors
    /// When memory is short, or may not be locked (`vfio::space` says it with numbers).
    pub fn new(bytes: usize) -> Result<Self, NvmeError> {
        let memory = HostMemory::for_dma(bytes).map_err(|error| {
            NvmeError::system(
                format_args!("no {bytes} bytes of memory for a drive to read and write"),
                &error,
            )
        })?;
        Ok(Self { memory })
    }

    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// The address at which the device sees byte `offset`.
    #[inline]
    pub fn iova(&self, offset: usize) -> u64 {
        debug_assert!(offset < self.len());
        arena::iova_of(self.memory.pointer()) + offset as u64
    }

    /// # Panics
    /// When `bytes` from `offset` on are not all in the buffer, or not aligned to their size: a mistake in the driver.
    #[inline(always)]
    fn at(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(
            offset % bytes == 0 && offset < self.len() && bytes <= self.len() - offset,
            "inside the buffer"
        );
        self.memory.pointer().wrapping_add(offset)
    }

    #[inline(always)]
    fn atomic32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: four aligned bytes of the live mapping (`at`), which are only ever accessed as a device's memory:
        // atomically, or by the volatile copies below, which no other thread of ours makes at the same time.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    #[inline(always)]
    fn atomic64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as above, eight bytes.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    #[inline(always)]
    pub fn load32(&self, offset: usize, ordering: Ordering) -> u32 {
        u32::from_le(self.atomic32(offset).load(ordering))
    }

    #[inline(always)]
    pub fn store32(&self, offset: usize, value: u32, ordering: Ordering) {
        self.atomic32(offset).store(value.to_le(), ordering);
    }

    #[inline(always)]
    pub fn store64(&self, offset: usize, value: u64) {
        self.atomic64(offset).store(value.to_le(), Ordering::Relaxed);
    }

    pub fn load64(&self, offset: usize) -> u64 {
        u64::from_le(self.atomic64(offset).load(Ordering::Relaxed))
    }

    /// Writes a submission queue entry; the doorbell publishes it.
    #[inline(always)]
    pub fn store_command(&self, offset: usize, command: &Command) {
        let to = self.at(offset, 64).cast::<[u64; 8]>();
        // SAFETY: 64 aligned bytes of the live mapping; Command is 64 bytes without padding, aligned to 64.
        unsafe { to.write_volatile(std::ptr::from_ref(command).cast::<[u64; 8]>().read()) };
    }

    /// A copy of a whole page, which nobody changes any more.
    ///
    /// # Panics
    /// When the page is not in the buffer.
    pub fn page(&self, offset: usize) -> Box<[u8; 4096]> {
        let mut page = Box::new([0; 4096]);
        let from = self.at(offset, 4096);
        // SAFETY: one page of the live mapping, and a page of our own.
        unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), page.as_mut_ptr(), page.len()) };
        page
    }

    pub fn zero(&self, offset: usize, bytes: usize) {
        copy::zero(&[self.part(offset, bytes)], 0, bytes);
    }

    /// A piece of it as a segment.
    ///
    /// # Panics
    /// When it is not in the buffer.
    pub fn part(&self, offset: usize, bytes: usize) -> Segment {
        assert!(offset <= self.len() && bytes <= self.len() - offset, "inside the buffer");
        // SAFETY: inside the live mapping; who uses the segment holds this buffer as long (queue::Staging).
        unsafe { Segment::new(self.memory.pointer().wrapping_add(offset), bytes) }
    }

    /// Copies guests' bytes into the buffer: the bounce of a write.
    pub fn gather(&self, segments: &[Segment], offset: usize, bytes: usize) -> usize {
        let to = self.part(offset, bytes);
        // SAFETY: the piece is inside this buffer, which is part of no request.
        unsafe { copy::gather(segments, to.base(), to.len()) }
    }

    /// Copies bytes of the buffer to guests: the bounce of a read.
    pub fn scatter(&self, offset: usize, segments: &[Segment], bytes: usize) -> usize {
        let from = self.part(offset, bytes);
        // SAFETY: the piece is inside this buffer, which is part of no request.
        unsafe { copy::scatter(from.base(), segments, from.len()) }
    }
}

/// The address at which a device sees memory of a request, where it sees it at all.
#[inline(always)]
pub(crate) fn iova_of(pointer: *const u8) -> Option<u64> {
    arena::contains(pointer as usize).then(|| arena::iova_of(pointer))
}
