//! Memory of our own: what a memory disk is made of, and what a drive reads its commands from.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, FromRawFd};

use crate::arena::{Backing, HUGE_2M, Mapping, OnFault, PAGE};
use crate::dma;
use crate::segment::Segment;

/// What kind of pages it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Reserved 2 MiB pages (hugetlbfs).
    Huge,
    /// Ordinary memory that the kernel was asked to back by huge pages where it can.
    Transparent,
    /// The pages of a file that was handed in.
    File,
}

/// Zeroed memory in the arena, until dropped.
#[derive(Debug)]
pub struct HostMemory {
    /// Dropped before the mapping: a drive must not reach memory that is not there.
    _registration: Option<dma::Registration>,
    mapping: Mapping,
    kind: PageKind,
}

impl HostMemory {
    /// `length` bytes for the processor: huge pages where enough are free, else transparent ones. Rounded up to whole
    /// pages. `populate`: take all pages now, so that the first access is as fast as the second.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn new(length: usize, populate: bool) -> io::Result<HostMemory> {
        if length >= HUGE_2M / 2 {
            if let Ok(memory) = HostMemory::huge(length) {
                return Ok(memory);
            }
        }
        let mapping = Mapping::new(Backing::Anonymous, round_up(length, PAGE)?, OnFault::Die)?;
        if length >= HUGE_2M {
            // Refused where the kernel was built without transparent huge pages: small pages are right then.
            let _ = mapping.advise(libc::MADV_HUGEPAGE);
        }
        if populate {
            self::populate(&mapping)?;
        }
        Ok(HostMemory { _registration: None, mapping, kind: PageKind::Transparent })
    }

    /// Memory that every drive reaches ([`crate::dma`]); always populated.
    ///
    /// # Errors
    /// ENOMEM, also when the limit of locked memory is too low (`ulimit -l`).
    pub fn for_dma(length: usize) -> io::Result<HostMemory> {
        let mut memory = HostMemory::new(length, true)?;
        memory._registration = Some(dma::register(memory.pointer(), memory.len())?);
        Ok(memory)
    }

    /// The first `length` bytes of a file, shared: memory that outlives this process for as long as somebody holds the
    /// file. The file has at least that size, and nobody shortens it.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub fn from_file(file: &File, length: usize) -> io::Result<HostMemory> {
        let page = crate::guest::page_size(file.as_fd())?;
        let length = round_up(length, page)?;
        let backing = Backing::File { file: file.as_fd(), offset: 0, page, reserve: true };
        let mapping = Mapping::new(backing, length, OnFault::Die)?;
        let _ = mapping.advise(libc::MADV_HUGEPAGE); // refused for huge pages, and where tmpfs has none: see above
        Ok(HostMemory { _registration: None, mapping, kind: PageKind::File })
    }

    fn huge(length: usize) -> io::Result<HostMemory> {
        let length = round_up(length, HUGE_2M)?;
        let file = memfd(c"nvlane-huge", libc::MFD_HUGETLB | libc::MFD_HUGE_2MB)?;
        file.set_len(length as u64)?;
        let backing = Backing::File { file: file.as_fd(), offset: 0, page: HUGE_2M, reserve: true };
        let mapping = Mapping::new(backing, length, OnFault::Die)?;
        // The pool has them reserved for us; a cgroup's limit may still say no, which must be now and not at an access.
        populate(&mapping)?;
        Ok(HostMemory { _registration: None, mapping, kind: PageKind::Huge })
    }

    /// Takes all pages now; what was written stays, and others may write meanwhile.
    ///
    /// # Errors
    /// ENOMEM; EINVAL before Linux 5.14.
    pub fn populate(&self) -> io::Result<()> {
        self.mapping.advise(libc::MADV_POPULATE_WRITE)
    }

    /// Keeps it mapped for as long as the process lives, as a segment.
    pub fn leak(self) -> Segment {
        // SAFETY: the mapping is never dropped, and only raw pointers ever name it.
        let segment = unsafe { Segment::new(self.pointer(), self.len()) };
        std::mem::forget(self);
        segment
    }

    pub fn pointer(&self) -> *mut u8 {
        self.mapping.pointer()
    }

    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    pub fn kind(&self) -> PageKind {
        self.kind
    }
}

/// MADV_POPULATE_WRITE (Linux 5.14) says what went wrong, where a plain access would raise SIGBUS.
fn populate(mapping: &Mapping) -> io::Result<()> {
    match mapping.advise(libc::MADV_POPULATE_WRITE) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            for offset in (0..mapping.len()).step_by(PAGE) {
                // SAFETY: within the live mapping, which nobody else knows yet; it reads as zero and stays so.
                unsafe { mapping.pointer().add(offset).write_volatile(0) };
            }
            Ok(())
        }
        other => other,
    }
}

fn round_up(length: usize, page: usize) -> io::Result<usize> {
    length.max(1).checked_next_multiple_of(page).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// A file that lives in memory and has no name.
///
/// # Errors
/// Those of memfd_create(2).
pub fn memfd(name: &CStr, flags: libc::c_uint) -> io::Result<File> {
    // SAFETY: the name is a C string; the descriptor is new and nobody else's.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | flags);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(fd)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_writable() {
        for populate in [false, true] {
            let memory = HostMemory::new(5 << 20, populate).unwrap();
            assert!(memory.len() >= 5 << 20);
            for offset in [0, 4096, (5 << 20) - 1] {
                // SAFETY: within the memory, which is this test's alone.
                unsafe {
                    assert_eq!(memory.pointer().add(offset).read_volatile(), 0);
                    memory.pointer().add(offset).write_volatile(1);
                }
            }
        }
    }

    #[test]
    fn a_file_keeps_what_was_written() {
        let file = memfd(c"host-test", 0).unwrap();
        file.set_len(8192).unwrap();
        let memory = HostMemory::from_file(&file, 8192).unwrap();
        // SAFETY: within the memory, which is this test's alone.
        unsafe { memory.pointer().add(5000).write_volatile(7) };
        drop(memory);
        let memory = HostMemory::from_file(&file, 8192).unwrap();
        // SAFETY: as above.
        assert_eq!(unsafe { memory.pointer().add(5000).read_volatile() }, 7);
        assert_eq!(memory.kind(), PageKind::File);
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(HostMemory::new(usize::MAX - 4096, false).is_err());
    }
}
