//! Records of requests in flight in memory that outlives this process (vhost-user.rst, "Inflight I/O tracking").
//!
//! The front end keeps the file; after a restart it hands the file to the next process, which does again what had not
//! been completed. The front end can also write to it: nothing in it is trusted. What is read is bounded and checked,
//! and a record that contradicts itself breaks its queue ([`RingError::Inflight`](crate::RingError)), not more.
//!
//! Stores come in the order of the specification, as release stores: a process that is killed leaves a prefix of them.

pub(crate) mod packed;
#[cfg(all(test, not(loom)))]
mod restart;
pub(crate) mod split;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nvlane_memory::{Backing, Mapping, OnFault, memfd};

use crate::config::Layout;
use crate::error::RingError;
use crate::sync::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

/// DPDK's and libvhost-user's: each queue's region starts on a cache line.
const ALIGNMENT: usize = 64;
const PAGE: usize = 4096;

/// The regions of all queues of a session.
#[derive(Clone, Debug)]
pub struct Inflight {
    mapping: Arc<Mapping>,
    /// Where the first region starts in the mapping.
    within: usize,
    layout: Layout,
    queues: u16,
    capacity: u16,
}

/// The region of one queue.
#[derive(Clone, Debug)]
pub struct InflightQueue {
    /// Keeps the memory mapped.
    _mapping: Arc<Mapping>,
    base: *mut u8,
    layout: Layout,
    /// How many entries it has: at least the size of the ring.
    capacity: u16,
}

// SAFETY: the memory is changed through atomics only.
unsafe impl Send for InflightQueue {}
// SAFETY: as above.
unsafe impl Sync for InflightQueue {}

/// The bytes of a region's header and of each of its entries.
fn parts(layout: Layout) -> (usize, usize) {
    match layout {
        Layout::Split => (split::HEADER, split::ENTRY),
        Layout::Packed => (packed::HEADER, packed::ENTRY),
    }
}

fn region_length(layout: Layout, capacity: u16) -> usize {
    let (header, entry) = parts(layout);
    (header + entry * usize::from(capacity)).next_multiple_of(ALIGNMENT)
}

impl Inflight {
    /// How many bytes the regions of so many queues take.
    pub fn length(layout: Layout, queues: u16, capacity: u16) -> usize {
        region_length(layout, capacity) * usize::from(queues)
    }

    /// How many entries each queue has in regions of so many bytes, when they are laid out as [`length`] says.
    ///
    /// [`length`]: Inflight::length
    pub fn capacity(layout: Layout, queues: u16, length: u64) -> Option<u16> {
        let each = usize::try_from(length).ok()?.checked_div(queues.into())?;
        let (header, entry) = parts(layout);
        let capacity = u16::try_from(each.checked_sub(header)? / entry).ok()?;
        (Inflight::length(layout, queues, capacity) as u64 == length).then_some(capacity)
    }

    /// A new, sealed file for GET_INFLIGHT_FD; its size is [`length`](Inflight::length), rounded up to pages.
    ///
    /// # Errors
    /// Those of memfd_create(2), and EINVAL for no queues or no entries.
    pub fn create(layout: Layout, queues: u16, capacity: u16) -> io::Result<File> {
        let length = Inflight::length(layout, queues, capacity).next_multiple_of(PAGE);
        if length == 0 || capacity == 0 || capacity > 32768 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let file = memfd(c"nvlane-inflight", 0)?;
        file.set_len(length as u64)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: fcntl with integers on a descriptor that is open.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(file)
    }

    /// Maps what SET_INFLIGHT_FD brings.
    ///
    /// # Errors
    /// EINVAL when the file or the size is too small for so many queues, or the offset is not aligned; those of mmap(2).
    pub fn map(
        file: OwnedFd,
        offset: u64,
        size: u64,
        layout: Layout,
        queues: u16,
        capacity: u16,
    ) -> io::Result<Inflight> {
        let file = File::from(file);
        let needs = Inflight::length(layout, queues, capacity) as u64;
        let end = offset.checked_add(needs);
        let has = file.metadata()?.len();
        if needs == 0
            || capacity > 32768
            || size < needs
            || end.is_none_or(|end| end > has)
            || offset % 8 != 0
        {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let within = (offset % PAGE as u64) as usize;
        let backing =
            Backing::File { file: file.as_fd(), offset: offset - within as u64, page: PAGE, reserve: false };
        let length = (within + needs as usize).next_multiple_of(PAGE);
        let mapping = Arc::new(Mapping::new(backing, length, OnFault::Poison)?);
        Ok(Inflight { mapping, within, layout, queues, capacity })
    }

    /// The region of a queue.
    pub fn queue(&self, index: u16) -> Option<InflightQueue> {
        if index >= self.queues {
            return None;
        }
        let at = self.within + usize::from(index) * region_length(self.layout, self.capacity);
        let base = self.mapping.pointer().wrapping_add(at);
        Some(InflightQueue {
            _mapping: self.mapping.clone(),
            base,
            layout: self.layout,
            capacity: self.capacity,
        })
    }

    /// The file was shortened; the session must end.
    pub fn poisoned(&self) -> bool {
        self.mapping.poisoned()
    }
}

macro_rules! field {
    ($name:ident, $atomic:ty) => {
        #[inline(always)]
        pub(crate) fn $name(&self, offset: usize) -> &$atomic {
            debug_assert!(offset + size_of::<$atomic>() <= region_length(self.layout, self.capacity));
            // SAFETY: the callers' offsets are those of the header or of an entry below the capacity, hence inside the
            // region (checked above in tests), aligned, and mapped for as long as `_mapping`; everybody in this
            // process reaches the memory through atomics.
            unsafe { &*self.base.add(offset).cast() }
        }
    };
}

impl InflightQueue {
    field!(u8, AtomicU8);
    field!(u16, AtomicU16);
    field!(u32, AtomicU32);
    field!(u64, AtomicU64);

    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    pub(crate) fn capacity(&self) -> u16 {
        self.capacity
    }

    /// Takes the number of entries that the record itself names: whoever made it may have left room behind them.
    pub(crate) fn narrow(&mut self, entries: u16, size: u16) -> Result<(), RingError> {
        if !(size..=self.capacity).contains(&entries) {
            return Err(RingError::Inflight("its number of entries is not the queue's"));
        }
        self.capacity = entries;
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_what_was_asked_and_no_more() {
        for layout in [Layout::Split, Layout::Packed] {
            let file = Inflight::create(layout, 3, 100).unwrap();
            let length = Inflight::length(layout, 3, 100) as u64;
            let map = |offset, size, queues, capacity| {
                Inflight::map(file.try_clone().unwrap().into(), offset, size, layout, queues, capacity)
            };
            let inflight = map(0, length, 3, 100).unwrap();
            assert!(inflight.queue(2).is_some() && inflight.queue(3).is_none());
            assert!(map(0, length - 1, 3, 100).is_err(), "smaller than it says");
            assert!(map(0, u64::MAX, 300, 32768).is_err(), "the file is smaller");
            assert!(map(u64::MAX - 7, length, 3, 100).is_err(), "the end wraps");
            assert!(map(0, length, 0, 100).is_err() && map(4, length, 1, 100).is_err());
            assert!(file.set_len(0).is_err(), "sealed");
            for capacity in [1, 100, 1024, 32768] {
                let length = Inflight::length(layout, 3, capacity) as u64;
                let found = Inflight::capacity(layout, 3, length).unwrap();
                assert!(
                    (capacity..capacity + 4).contains(&found),
                    "what is left of a cache line is room, too"
                );
                assert_eq!(Inflight::capacity(layout, 3, length + 1), None);
            }
            assert_eq!(Inflight::capacity(layout, 0, 4096), None);
            assert_eq!(Inflight::capacity(layout, 1, u64::MAX), None);
        }
    }
}
