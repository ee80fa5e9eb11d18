//! One reserved range of addresses for everything that is shared with a guest or a drive.
//!
//! The range is reserved once with PROT_NONE: it costs address space and nothing else. A mapping goes into the lowest
//! gap that keeps it congruent with its file offset, so that the kernel can use 2 MiB and 1 GiB pages for it. Behind
//! each mapping lies at least one page that nobody may touch. When a mapping ends, PROT_NONE comes back, so no other
//! allocation of this process can ever get an address that a stale pointer of a guest's request still names.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::free_list::{FreeList, Placement};
use crate::sigbus::Slot;

/// The I/O virtual address of the arena's first byte. Nothing lies below: x86's interrupt window (0xfee00000) is
/// there, and IOMMUs reserve pieces of the first 4 GiB for it.
pub const FIRST_IOVA: u64 = 4 << 30;

pub const PAGE: usize = 4096;
pub const HUGE_2M: usize = 2 << 20;
pub const HUGE_1G: usize = 1 << 30;

const LARGEST: usize = 16 << 40;
const SMALLEST: usize = 1 << 30;

static BASE: AtomicUsize = AtomicUsize::new(0);
static END: AtomicUsize = AtomicUsize::new(0);

struct Arena {
    free: Mutex<FreeList>,
}

/// The size of the arena in bytes.
///
/// # Errors
/// When not even 1 GiB of addresses can be reserved (`ulimit -v`).
pub fn size() -> io::Result<usize> {
    arena()?;
    Ok(END.load(Ordering::Acquire) - BASE.load(Ordering::Relaxed))
}

/// Whether an address lies in the arena. Safe to call in a signal handler.
#[inline]
pub fn contains(address: usize) -> bool {
    address < END.load(Ordering::Acquire) && address >= BASE.load(Ordering::Relaxed)
}

/// The address at which a drive behind an IOMMU sees this byte of the arena.
#[inline]
pub fn iova_of(pointer: *const u8) -> u64 {
    debug_assert!(contains(pointer as usize), "{pointer:?} is outside the arena");
    (pointer as usize).wrapping_sub(BASE.load(Ordering::Relaxed)) as u64 + FIRST_IOVA
}

fn arena() -> io::Result<&'static Arena> {
    static ARENA: OnceLock<Result<Arena, i32>> = OnceLock::new();
    ARENA
        .get_or_init(|| {
            let (base, length) = reserve().map_err(|error| error.raw_os_error().unwrap_or(libc::ENOMEM))?;
            BASE.store(base, Ordering::Relaxed);
            END.store(base + length, Ordering::Release);
            Ok(Arena { free: Mutex::new(FreeList::new(base, length)) })
        })
        .as_ref()
        .map_err(|&errno| io::Error::from_raw_os_error(errno))
}

/// Reserves the largest range that the limits allow, aligned to 1 GiB, and never more than half of RLIMIT_AS.
fn reserve() -> io::Result<(usize, usize)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit to write to.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
    let allowed =
        if known && limit.rlim_cur != libc::RLIM_INFINITY { limit.rlim_cur as usize / 2 } else { usize::MAX };
    let mut length = LARGEST;
    while length > allowed && length > SMALLEST {
        length /= 2;
    }
    loop {
        match map(std::ptr::null_mut(), length + HUGE_1G, libc::PROT_NONE, libc::MAP_PRIVATE | RESERVED, None)
        {
            Ok(pointer) => {
                let base = (pointer as usize).next_multiple_of(HUGE_1G);
                return Ok((base, length));
            }
            Err(_) if length > SMALLEST => length /= 2,
            Err(error) => return Err(error),
        }
    }
}

const RESERVED: libc::c_int = libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

fn map(
    at: *mut u8,
    length: usize,
    protection: libc::c_int,
    flags: libc::c_int,
    file: Option<(BorrowedFd, u64)>,
) -> io::Result<*mut u8> {
    let (fd, offset) = file.map_or((-1, 0), |(fd, offset)| (fd.as_raw_fd(), offset));
    let offset = libc::off_t::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))?;
    // SAFETY: either the kernel chooses the place, or `at` names a range of the arena that the caller took out of the
    // free list, so that nothing else is mapped there (the callers in this module).
    let pointer = unsafe { libc::mmap(at.cast(), length, protection, flags, fd, offset) };
    if pointer == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(pointer.cast()) }
}

/// What backs a mapping.
#[derive(Clone, Copy, Debug)]
pub enum Backing<'a> {
    /// MAP_SHARED of a file. `reserve`: take the huge pages now, so that no later access can fail.
    File { file: BorrowedFd<'a>, offset: u64, page: usize, reserve: bool },
    /// Private zeroed memory that lies so that huge pages fit.
    Anonymous,
}

/// What becomes of a mapping when its memory is gone (SIGBUS): see [`crate::sigbus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFault {
    /// It is a mistake of ours or of the host: the process ends as it would without a handler.
    Die,
    /// Anonymous memory takes its place, and its owner finds it [`poisoned`](Mapping::poisoned).
    Poison,
}

/// Memory mapped in the arena, until dropped. Dropping costs system calls: not for a reactor.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    length: usize,
    /// What was taken out of the arena: the length and the untouchable rest behind it.
    reserved: usize,
    slot: Option<Slot>,
}

// SAFETY: a mapping is an address range; it hands out raw pointers only, and its flag is atomic.
unsafe impl Send for Mapping {}
// SAFETY: as above: no method changes anything through a shared reference.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `length` bytes (a multiple of the backing's page size), readable and writable.
    ///
    /// # Errors
    /// Those of mmap(2); ENOMEM when the arena has no room.
    pub fn new(backing: Backing, length: usize, on_fault: OnFault) -> io::Result<Mapping> {
        let (page, offset) = match backing {
            Backing::File { page, offset, .. } => (page, offset),
            Backing::Anonymous => (PAGE, 0),
        };
        if length == 0 || length % page != 0 || offset % page as u64 != 0 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let arena = arena()?;
        let reserved = length
            .checked_add(PAGE)
            .and_then(|guarded| guarded.checked_next_multiple_of(page))
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        // Congruent with the file offset, for as large pages as the length can hold at all.
        let alignment = [HUGE_1G, HUGE_2M].into_iter().find(|&huge| length >= huge).unwrap_or(page).max(page);
        let placement = Placement { alignment, remainder: (offset % alignment as u64) as usize };
        let start = lock(&arena.free)
            .allocate(reserved, placement)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))? as *mut u8;
        let shared = libc::PROT_READ | libc::PROT_WRITE;
        let mapped = match backing {
            Backing::File { file, offset, reserve, .. } => {
                let lazy = if reserve { 0 } else { libc::MAP_NORESERVE };
                map(start, length, shared, libc::MAP_FIXED | libc::MAP_SHARED | lazy, Some((file, offset)))
            }
            Backing::Anonymous => map(
                start,
                length,
                shared,
                libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                None,
            ),
        };
        // From here on dropping gives the range back, also after a failure.
        let mut mapping = Mapping { start, length, reserved, slot: None };
        mapped?;
        // A core dump without gigabytes of guests' secrets, and no copies of them in a child.
        mapping.advise(libc::MADV_DONTDUMP)?;
        mapping.advise(libc::MADV_DONTFORK)?;
        if on_fault == OnFault::Poison {
            mapping.slot = Some(Slot::take(start as usize, length)?);
        }
        Ok(mapping)
    }

    pub fn pointer(&self) -> *mut u8 {
        self.start
    }

    #[allow(clippy::len_without_is_empty, reason = "a mapping is never empty")]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether its memory vanished (a truncated file, a broken huge page) and was replaced.
    pub fn poisoned(&self) -> bool {
        self.slot.as_ref().is_some_and(Slot::poisoned)
    }

    /// madvise(2) over the whole mapping.
    ///
    /// # Errors
    /// Those of madvise(2).
    pub fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is this mapping's; the advice used in this crate (dump, fork, huge page, populate) changes
        // no contents.
        let result = unsafe { libc::madvise(self.start.cast(), self.length, advice) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.slot = None; // before the range can belong to somebody else
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | RESERVED;
        // When even this fails (the process has too many mappings) the range stays taken: no address is given out twice.
        if map(self.start, self.length, libc::PROT_NONE, flags, None).is_ok() {
            if let Ok(arena) = arena() {
                lock(&arena.free).release(self.start as usize, self.reserved);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn memfd(length: u64) -> std::fs::File {
        let file = crate::host::memfd(c"arena-test", 0).unwrap();
        file.set_len(length).unwrap();
        file
    }

    #[test]
    fn file_memory_is_congruent_and_shared() {
        let file = memfd(6 << 20);
        let backing = Backing::File { file: file.as_fd(), offset: 0x1000, page: PAGE, reserve: false };
        let mapping = Mapping::new(backing, 4 << 20, OnFault::Poison).unwrap();
        assert_eq!(mapping.pointer() as usize % HUGE_2M, 0x1000);
        assert!(contains(mapping.pointer() as usize));
        assert!(iova_of(mapping.pointer()) >= FIRST_IOVA);
        assert_eq!(iova_of(mapping.pointer()) % HUGE_2M as u64, 0x1000);
        // SAFETY: the first byte of a live mapping.
        unsafe { mapping.pointer().write_volatile(0x5a) };
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_at(&file, &mut byte, 0x1000).unwrap();
        assert_eq!(byte, [0x5a]);
    }

    #[test]
    fn a_dropped_mapping_leaves_nothing_behind() {
        let mapping = Mapping::new(Backing::Anonymous, PAGE, OnFault::Die).unwrap();
        let address = mapping.pointer();
        drop(mapping);
        let mut resident = 0u8;
        // SAFETY: mincore only asks about the page; PROT_NONE reserved memory counts as mapped.
        let result = unsafe { libc::mincore(address.cast(), PAGE, &mut resident) };
        assert_eq!((result, resident & 1), (0, 0), "still reserved, not resident");
    }

    #[test]
    fn what_cannot_be_mapped_is_refused_and_given_back() {
        let file = memfd(4096);
        let odd = Backing::File { file: file.as_fd(), offset: 7, page: PAGE, reserve: false };
        assert_eq!(Mapping::new(odd, PAGE, OnFault::Die).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert!(Mapping::new(Backing::Anonymous, usize::MAX & !0xfff, OnFault::Die).is_err());
        let huge = size().unwrap() / 2 + HUGE_1G;
        for _ in 0..3 {
            drop(Mapping::new(Backing::Anonymous, huge, OnFault::Die)); // twice at once would not fit
        }
    }
}
