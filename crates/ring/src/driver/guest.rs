//! A guest's memory without a guest.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use nvlane_memory::{GuestMemory, RegionSpec, memfd};

use super::Driver;
use crate::config::{Addresses, Layout, QueueConfig, VringBase};
use crate::error::RingError;

/// What a front end adds to a guest address to make an address of its own: any number that shows a mix-up.
pub const USER_OFFSET: u64 = 0x7e00_0000_0000;

/// A memory file that starts at guest address 0. Rings are put at the start, one after the other; the rest is for
/// buffers.
#[derive(Debug)]
pub struct Guest {
    file: File,
    size: u64,
    memory: Arc<GuestMemory>,
    next: u64,
}

impl Guest {
    /// # Errors
    /// When there is no memory.
    pub fn new(size: u64) -> io::Result<Guest> {
        let file = memfd(c"guest", 0)?;
        file.set_len(size)?;
        let memory = Guest::map(&file, size)?;
        Ok(Guest { file, size, memory, next: 0 })
    }

    fn map(file: &File, size: u64) -> io::Result<Arc<GuestMemory>> {
        let region = RegionSpec {
            guest_address: 0,
            size,
            user_address: USER_OFFSET,
            mmap_offset: 0,
            file: file.try_clone()?.into(),
        };
        GuestMemory::map(vec![region]).map(Arc::new).map_err(io::Error::other)
    }

    /// The memory's file, for SET_MEM_TABLE: one region at guest address 0 and user address [`USER_OFFSET`].
    pub fn file(&self) -> &File {
        &self.file
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Another mapping of the memory, as a restarted device has it.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn mapped_again(&self) -> io::Result<Arc<GuestMemory>> {
        Guest::map(&self.file, self.size)
    }

    /// Takes memory that nothing else of this guest uses, aligned to `alignment`, a power of two.
    pub fn allocate(&mut self, length: u64, alignment: u64) -> u64 {
        let at = self.next.next_multiple_of(alignment);
        self.next = at + length;
        assert!(self.next <= self.size, "the guest has only {:#x} bytes", self.size);
        at
    }

    /// A queue with rings of its own, without EVENT_IDX and indirect descriptors, that starts at the start.
    pub fn queue(&mut self, layout: Layout, size: u16) -> QueueConfig {
        let entries = u64::from(size);
        let (driver, device) = match layout {
            Layout::Split => (6 + 2 * entries, 6 + 8 * entries),
            Layout::Packed => (4, 4),
        };
        // Each area on a page of its own, as Linux has it for PCI devices.
        let addresses = Addresses {
            descriptors: self.allocate(16 * entries, 4096),
            driver: self.allocate(driver, 4096),
            device: self.allocate(device, 4096),
        };
        QueueConfig {
            layout,
            size,
            addresses,
            event_idx: false,
            indirect: false,
            memory: self.memory.clone(),
            inflight: None,
            log: None,
            base: VringBase::start(layout),
        }
    }

    /// The driver of a queue of this guest.
    ///
    /// # Errors
    /// When the areas do not fit.
    pub fn driver(&self, config: &QueueConfig) -> Result<Driver, RingError> {
        Driver::new(config)
    }

    /// Writes memory from outside, as the guest's processor.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, address).expect("the guest's memory is a file in memory");
    }

    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, address).expect("the guest's memory is a file in memory");
        bytes
    }
}
