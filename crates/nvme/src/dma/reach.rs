//! The memory that a modelled device reaches: an IOMMU, as honest as the real one. What is not mapped is a fault.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::PoisonError;

use nvlane_memory::Segment;
use nvlane_memory::copy;
use nvlane_memory::dma::DmaMapper;

/// Addresses are handed out and taken away by `nvlane_memory::dma`, as to a VFIO container.
#[derive(Default)]
pub(crate) struct Reach {
    mapped: Mutex<BTreeMap<u64, (usize, usize)>>,
}

impl DmaMapper for Reach {
    fn map(&self, iova: u64, pointer: *mut u8, length: usize) -> io::Result<()> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner).insert(iova, (pointer as usize, length));
        Ok(())
    }

    fn unmap(&self, iova: u64, _length: usize) {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner).remove(&iova);
    }
}

impl Reach {
    /// Runs `with` on the memory, which stays mapped meanwhile; None where a part of it is not mapped.
    fn on(&self, iova: u64, bytes: usize, with: impl FnOnce(&[Segment])) -> Option<()> {
        let mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let (&start, &(pointer, length)) = mapped.range(..=iova).next_back()?;
        let offset = usize::try_from(iova - start).ok()?;
        if offset >= length || bytes > length - offset {
            return None;
        }
        // SAFETY: the range was registered by its owner, who unregisters it (under the lock held here) before the
        // memory goes.
        let segment = unsafe { Segment::new((pointer + offset) as *mut u8, bytes) };
        with(&[segment]);
        Some(())
    }

    pub fn read(&self, iova: u64, to: &mut [u8]) -> Option<()> {
        self.on(iova, to.len(), |segments| {
            copy::copy_in(segments, 0, to);
        })
    }

    pub fn write(&self, iova: u64, from: &[u8]) -> Option<()> {
        self.on(iova, from.len(), |segments| {
            copy::copy_out(from, segments, 0);
        })
    }

    /// A store that is seen after all others: the double word with a completion's phase bit.
    pub fn publish32(&self, iova: u64, value: u32) -> Option<()> {
        self.on(iova, 4, |segments| {
            // SAFETY: four bytes of mapped memory (`on`), aligned as completion queue entries are (the model checks),
            // and only ever accessed as a device's memory.
            let word = unsafe { std::sync::atomic::AtomicU32::from_ptr(segments[0].base().cast()) };
            word.store(value.to_le(), std::sync::atomic::Ordering::Release);
        })
    }
}
