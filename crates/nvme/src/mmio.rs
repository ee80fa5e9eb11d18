//! Registers in memory.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nvlane_memory::sigbus;

/// A mapping of a device's BAR. Once the device is gone it reads as ones and swallows writes.
#[derive(Debug)]
pub struct Bar {
    start: *mut u8,
    bytes: usize,
    /// Ends before the mapping does (`drop`).
    watch: Option<sigbus::Registers>,
}

// SAFETY: registers belong to the device; each access is one volatile instruction, from whichever thread.
unsafe impl Send for Bar {}
// SAFETY: as above.
unsafe impl Sync for Bar {}

impl Bar {
    /// # Errors
    /// Those of mmap(2).
    pub fn map(device: BorrowedFd<'_>, offset: u64, bytes: usize) -> io::Result<Self> {
        let at = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at a place that the kernel chooses.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, device.as_raw_fd(), at)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut bar = Self { start: start.cast(), bytes, watch: None };
        // SAFETY: the mapping is ours alone, and is unmapped after the watch has ended (`drop`).
        bar.watch = Some(unsafe { sigbus::Registers::watch(bar.start, bytes) }?);
        Ok(bar)
    }

    pub fn len(&self) -> usize {
        self.bytes
    }

    /// # Panics
    /// When the offset is not inside the mapping, or not aligned: a mistake in the driver.
    #[inline(always)]
    fn at(&self, offset: usize) -> *mut u32 {
        assert!(offset % 4 == 0 && offset < self.bytes && self.bytes - offset >= 4, "inside BAR0");
        self.start.wrapping_add(offset).cast()
    }

    pub fn read32(&self, offset: usize) -> u32 {
        // SAFETY: an aligned register of the live mapping (`at`).
        let value = u32::from_le(unsafe { self.at(offset).read_volatile() });
        // The read itself may have found that the device is gone; what stands there since was written by us.
        if self.watch.as_ref().is_some_and(sigbus::Registers::gone) { u32::MAX } else { value }
    }

    #[inline]
    pub fn write32(&self, offset: usize, value: u32) {
        publish();
        // SAFETY: an aligned register of the live mapping (`at`).
        unsafe { self.at(offset).write_volatile(value.to_le()) };
    }
}

/// What was written to memory before is seen by the device before the register's new value. On x86-64 stores stay in
/// order, also between cached and uncached memory (Intel SDM 3A, 11.3); the compiler has to keep it too.
#[inline(always)]
fn publish() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::Release);
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier, for the outer shareable domain, which devices are in (Linux, dma_wmb and __iowmb).
    unsafe {
        std::arch::asm!("dsb st", options(nostack, preserves_flags));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.watch = None;
        // SAFETY: the mapping that `map` made, which nothing uses any more.
        unsafe { libc::munmap(self.start.cast(), self.bytes) };
    }
}
