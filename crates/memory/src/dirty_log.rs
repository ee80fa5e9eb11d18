//! The log of pages that the device has written, for live migration (vhost-user.rst, "Migration").
//!
//! One bit for each 4 KiB of guest memory, whatever pages the host uses: byte `page / 8`, bit `page % 8`. The front end
//! reads and clears it while the device runs, so bits are set by an atomic or. A bit that is already set is set again:
//! the or is also the barrier that orders the data before the bit; a plain look first could see a bit that the front
//! end is about to clear, before our data is visible to it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::arena::{Backing, Mapping, OnFault};
use crate::error::MapError;
use crate::guest;

const PAGE_BITS: u32 = 12; // VHOST_LOG_PAGE

#[derive(Debug)]
pub struct DirtyLog {
    base: *const AtomicU8,
    length: u64,
    mapping: Mapping,
}

// SAFETY: the log is changed through atomics only.
unsafe impl Send for DirtyLog {}
// SAFETY: as above.
unsafe impl Sync for DirtyLog {}

impl DirtyLog {
    /// Maps the log of SET_LOG_BASE: `size` bytes of the file from `offset`.
    ///
    /// # Errors
    /// When the file is no memory or too small for that.
    pub fn map(file: OwnedFd, offset: u64, size: u64) -> Result<DirtyLog, MapError> {
        let refused = |error| MapError::Map { guest_address: 0, size, error };
        let status = guest::status(file.as_fd()).map_err(refused)?;
        let bad = MapError::BadRange { guest_address: 0, size };
        let Some(needs) = offset.checked_add(size) else { return Err(bad) };
        if size == 0 {
            return Err(bad);
        }
        if (status.st_size as u64) < needs {
            return Err(MapError::FileTooSmall { guest_address: 0, needs, has: status.st_size as u64 });
        }
        let page = guest::page_size(file.as_fd()).map_err(refused)?;
        let within = offset % page as u64;
        let length = (within + size).next_multiple_of(page as u64) as usize;
        let backing = Backing::File { file: file.as_fd(), offset: offset - within, page, reserve: false };
        let mapping = Mapping::new(backing, length, OnFault::Poison).map_err(refused)?;
        let base = mapping.pointer().wrapping_add(within as usize).cast_const().cast();
        Ok(DirtyLog { base, length: size, mapping })
    }

    /// The log's file was shortened.
    pub fn poisoned(&self) -> bool {
        self.mapping.poisoned()
    }

    /// Marks the pages of `length` bytes of guest memory. What lies beyond the log is left out: the front end gave a log
    /// that covers what it wants to know.
    pub fn mark(&self, guest_address: u64, length: u64) {
        if length == 0 {
            return;
        }
        let mut page = guest_address >> PAGE_BITS;
        let last = guest_address.saturating_add(length - 1) >> PAGE_BITS;
        while page <= last {
            let byte = page / 8;
            if byte >= self.length {
                return;
            }
            let through = last.min(byte * 8 + 7);
            let bits = (0xffu8 << (page % 8)) & (0xffu8 >> (7 - through % 8));
            // SAFETY: byte < length, and the mapping holds that many bytes from `base`; a byte is always aligned.
            unsafe { &*self.base.add(byte as usize) }.fetch_or(bits, Ordering::SeqCst);
            page = through + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::os::unix::fs::FileExt;

    fn log(offset: u64, size: u64) -> (std::fs::File, DirtyLog) {
        let file = crate::host::memfd(c"log-test", 0).unwrap();
        file.set_len(offset + size).unwrap();
        let log = DirtyLog::map(file.try_clone().unwrap().into(), offset, size).unwrap();
        (file, log)
    }

    fn pages(file: &std::fs::File) -> BTreeSet<u64> {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        (0..bytes.len() as u64 * 8).filter(|page| bytes[(page / 8) as usize] >> (page % 8) & 1 == 1).collect()
    }

    #[test]
    fn every_touched_page_and_no_other() {
        for (address, length) in [
            (0u64, 1u64),
            (0xfff, 2),
            (0x7000, 0x1000),
            (0x6fff, 0x2001),
            (0, 0x20_0000),
            (0x1_2345, 0x1_0000),
            (0x8000, 0),
        ] {
            let (file, log) = log(0, 4096);
            log.mark(address, length);
            let expected: BTreeSet<u64> = if length == 0 {
                BTreeSet::new()
            } else {
                (address / 4096..=(address + length - 1) / 4096).collect()
            };
            assert_eq!(pages(&file), expected, "{length:#x} bytes at {address:#x}");
        }
    }

    #[test]
    fn what_lies_beyond_is_left_out() {
        let (file, log) = log(0, 8);
        log.mark(62 * 4096, 100 * 4096);
        log.mark(u64::MAX - 10, 11);
        log.mark(u64::MAX, u64::MAX);
        assert_eq!(pages(&file), BTreeSet::from([62, 63]));
    }

    #[test]
    fn a_log_may_start_anywhere_in_its_file() {
        let (file, log) = log(4100, 16);
        log.mark(0x3000, 1);
        assert_eq!(pages(&file), BTreeSet::from([4100 * 8 + 3]));
        let small = crate::host::memfd(c"log-test", 0).unwrap();
        assert!(matches!(DirtyLog::map(small.into(), 0, 1), Err(MapError::FileTooSmall { .. })));
    }
}
