//! Which of this process's memory drives can reach.
//!
//! A process-wide list of ranges of the arena, and of mappers (IOMMU containers of the NVMe driver). Each mapper knows
//! each range: a range is refused when one mapper refuses it, and a mapper when it cannot take one of the ranges. So
//! whoever has a mapped range and a drive need not ask whether the two know each other.
//!
//! Mapping pins memory: it takes seconds for gigabytes of small pages and must not happen on a reactor.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arena;

/// Something that makes memory reachable for a drive.
pub trait DmaMapper: Send + Sync {
    /// Makes `length` bytes at `pointer` reachable at `iova` (all page aligned), for reading and writing.
    ///
    /// # Errors
    /// The kernel's: ENOMEM (`ulimit -l` too low), EINVAL (the IOMMU cannot translate the address), ENOSPC (too many).
    fn map(&self, iova: u64, pointer: *mut u8, length: usize) -> io::Result<()>;
    /// Ends that; the range was mapped before with the same length.
    fn unmap(&self, iova: u64, length: usize);
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Range {
    start: usize,
    length: usize,
}

impl Range {
    fn iova(self) -> u64 {
        arena::iova_of(self.start as *const u8)
    }

    fn map(self, mapper: &dyn DmaMapper) -> io::Result<()> {
        mapper.map(self.iova(), self.start as *mut u8, self.length)
    }

    fn unmap(self, mapper: &dyn DmaMapper) {
        mapper.unmap(self.iova(), self.length);
    }
}

struct Registry {
    ranges: Vec<Range>,
    mappers: Vec<(u64, Arc<dyn DmaMapper>)>,
    next: u64,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { ranges: Vec::new(), mappers: Vec::new(), next: 0 });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A range that all mappers know until this is dropped (before its memory is unmapped).
#[derive(Debug)]
pub struct Registration {
    start: usize,
    length: usize,
}

/// Makes a range of the arena known to every mapper there is and will be.
///
/// # Errors
/// When one mapper refuses; then no mapper knows the range.
pub fn register(pointer: *mut u8, length: usize) -> io::Result<Registration> {
    let range = Range { start: pointer as usize, length };
    let mut registry = registry();
    for (done, (_, mapper)) in registry.mappers.iter().enumerate() {
        if let Err(error) = range.map(mapper.as_ref()) {
            registry.mappers[..done].iter().for_each(|(_, mapper)| range.unmap(mapper.as_ref()));
            return Err(error);
        }
    }
    registry.ranges.push(range);
    Ok(Registration { start: range.start, length })
}

impl Drop for Registration {
    fn drop(&mut self) {
        let range = Range { start: self.start, length: self.length };
        let mut registry = registry();
        registry.ranges.retain(|other| *other != range);
        registry.mappers.iter().for_each(|(_, mapper)| range.unmap(mapper.as_ref()));
    }
}

/// A mapper that hears of all ranges until this is dropped; then all ranges are unmapped from it.
#[derive(Debug)]
pub struct MapperHandle(u64);

/// Adds a mapper and maps all ranges there are now.
///
/// # Errors
/// When it cannot map one of them; then none stays mapped.
pub fn add_mapper(mapper: Arc<dyn DmaMapper>) -> io::Result<MapperHandle> {
    let mut registry = registry();
    for (done, range) in registry.ranges.iter().enumerate() {
        if let Err(error) = range.map(mapper.as_ref()) {
            registry.ranges[..done].iter().for_each(|range| range.unmap(mapper.as_ref()));
            return Err(error);
        }
    }
    let id = registry.next;
    registry.next += 1;
    registry.mappers.push((id, mapper));
    Ok(MapperHandle(id))
}

impl Drop for MapperHandle {
    fn drop(&mut self) {
        let mut registry = registry();
        if let Some(at) = registry.mappers.iter().position(|(id, _)| *id == self.0) {
            let (_, mapper) = registry.mappers.remove(at);
            registry.ranges.iter().for_each(|range| range.unmap(mapper.as_ref()));
        }
    }
}
