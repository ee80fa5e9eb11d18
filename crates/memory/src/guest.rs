//! The memory of one guest as its front end announced it (vhost-user.rst, "Memory regions description").
//!
//! A table is immutable and shared by `Arc`: who holds one may use any pointer that it gave. A change makes a new table
//! that shares the mappings that stay, so requests in flight to them are not touched.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::arena::{self, Backing, HUGE_2M, Mapping, OnFault, PAGE};
use crate::dma;
use crate::error::MapError;

/// How many regions one session may have; GET_MAX_MEM_SLOTS answers it, and QEMU's own limit is the same 509.
pub const MAX_REGIONS: usize = 509;

/// A region as SET_MEM_TABLE and ADD_MEM_REG describe it.
#[derive(Debug)]
pub struct RegionSpec {
    pub guest_address: u64,
    pub size: u64,
    /// Where the front end has it mapped; vhost-user names rings by these addresses.
    pub user_address: u64,
    pub mmap_offset: u64,
    pub file: OwnedFd,
}

/// A mapped region.
#[derive(Debug)]
pub struct Region {
    guest_address: u64,
    size: u64,
    user_address: u64,
    base: *mut u8,
    /// (device, inode, offset): what the region is, whatever descriptor it came with.
    identity: (u64, u64, u64),
    /// Dropped before the mapping.
    _registration: dma::Registration,
    mapping: Mapping,
}

// SAFETY: a region gives out raw pointers only and nothing in it changes.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

/// The last region that an address was found in: copied by value into each queue, so that the next look-up in the same
/// region is one subtraction and two comparisons. It is good for the table it came from.
#[derive(Clone, Copy, Debug)]
pub struct Hint {
    start: u64,
    size: u64,
    base: *mut u8,
}

impl Default for Hint {
    fn default() -> Hint {
        Hint { start: 0, size: 0, base: std::ptr::null_mut() }
    }
}

// SAFETY: an address and a length.
unsafe impl Send for Hint {}

impl Region {
    fn map(spec: &RegionSpec, identity: (u64, u64, u64), pages: Pages) -> Result<Region, MapError> {
        let &RegionSpec { guest_address, size, user_address, mmap_offset, ref file } = spec;
        let refused = |error| MapError::Map { guest_address, size, error };
        let page = pages.size as u64;
        let offset = mmap_offset - mmap_offset % page;
        let within = (mmap_offset - offset) as usize;
        let length = usize::try_from(size)
            .ok()
            .and_then(|size| size.checked_add(within)?.checked_next_multiple_of(pages.size))
            .ok_or(MapError::BadRange { guest_address, size })?;
        // One session must not take all addresses from the others.
        if length > arena::size().map_err(refused)? / 4 {
            return Err(refused(io::Error::from_raw_os_error(libc::ENOMEM)));
        }
        let backing = Backing::File { file: file.as_fd(), offset, page: pages.size, reserve: false };
        let mapping = Mapping::new(backing, length, OnFault::Poison).map_err(refused)?;
        let registration = dma::register(mapping.pointer(), mapping.len())
            .map_err(|error| MapError::Dma { guest_address, size, error })?;
        // SAFETY: `within` is less than the mapping's length.
        let base = unsafe { mapping.pointer().add(within) };
        Ok(Region { guest_address, size, user_address, base, identity, _registration: registration, mapping })
    }

    pub fn guest_address(&self) -> u64 {
        self.guest_address
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn user_address(&self) -> u64 {
        self.user_address
    }

    /// Where its first byte is in this process.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    pub fn poisoned(&self) -> bool {
        self.mapping.poisoned()
    }

    fn is(&self, spec: &RegionSpec, identity: (u64, u64, u64)) -> bool {
        (self.guest_address, self.size, self.user_address, self.identity)
            == (spec.guest_address, spec.size, spec.user_address, identity)
            && !self.poisoned()
    }

    fn hint(&self) -> Hint {
        Hint { start: self.guest_address, size: self.size, base: self.base }
    }
}

impl Hint {
    /// Brings the cache line of a guest address closer, if it lies in the region; otherwise nothing happens.
    #[inline(always)]
    pub fn prefetch(&self, address: u64) {
        if let Some((base, _)) = self.find(address, 1) {
            crate::copy::prefetch(base);
        }
    }

    /// Where a guest address is, and how many of `length` bytes lie there in one piece; none beyond the region.
    #[inline(always)]
    pub fn find(&self, address: u64, length: u64) -> Option<(*mut u8, u64)> {
        let offset = address.wrapping_sub(self.start);
        if offset >= self.size {
            return None;
        }
        let contiguous = length.min(self.size - offset);
        // Not `add`: the pointer is in bounds of the region's mapping because offset < size.
        Some((self.base.wrapping_add(offset as usize), contiguous))
    }
}

/// All regions of a session, sorted by guest address.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: Vec<Arc<Region>>,
}

impl GuestMemory {
    /// Maps a whole table.
    ///
    /// # Errors
    /// When one region is refused; then none is mapped.
    pub fn map(specs: Vec<RegionSpec>) -> Result<GuestMemory, MapError> {
        GuestMemory::default().remap(specs)
    }

    /// A table of exactly these regions; those of this table that are the same keep their mapping (and what is pinned
    /// for drives).
    ///
    /// # Errors
    /// When one region is refused; this table stays as it is.
    pub fn remap(&self, specs: Vec<RegionSpec>) -> Result<GuestMemory, MapError> {
        let mut table = GuestMemory::default();
        for spec in specs {
            table.insert(&spec, &self.regions)?;
        }
        Ok(table)
    }

    /// This table and one region more (ADD_MEM_REG).
    ///
    /// # Errors
    /// When the region is refused.
    pub fn add(&self, spec: RegionSpec) -> Result<GuestMemory, MapError> {
        let mut table = GuestMemory { regions: self.regions.clone() };
        table.insert(&spec, &[])?;
        Ok(table)
    }

    /// This table without one region (REM_MEM_REG), which is found by the two addresses and the size.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn remove(&self, guest_address: u64, size: u64, user_address: u64) -> Result<GuestMemory, MapError> {
        let wanted = (guest_address, size, user_address);
        let at = self
            .regions
            .iter()
            .position(|region| (region.guest_address, region.size, region.user_address) == wanted);
        let mut regions = self.regions.clone();
        regions.remove(at.ok_or(MapError::Unknown { guest_address, size })?);
        Ok(GuestMemory { regions })
    }

    fn insert(&mut self, spec: &RegionSpec, known: &[Arc<Region>]) -> Result<(), MapError> {
        let &RegionSpec { guest_address, size, user_address, mmap_offset, ref file } = spec;
        let bad = MapError::BadRange { guest_address, size };
        if self.regions.len() >= MAX_REGIONS {
            return Err(MapError::TooManyRegions);
        }
        let Some(end) = guest_address.checked_add(size) else { return Err(bad) };
        let Some(file_end) = mmap_offset.checked_add(size) else { return Err(bad) };
        if size == 0 || user_address.checked_add(size).is_none() {
            return Err(bad);
        }
        let at = self.regions.partition_point(|region| region.guest_address < guest_address);
        let before = at.checked_sub(1).map(|at| &self.regions[at]);
        let before = before.filter(|region| region.guest_address + region.size > guest_address);
        let after = self.regions.get(at).filter(|region| region.guest_address < end);
        if let Some(other) = before.or(after) {
            return Err(MapError::Overlap { guest_address, size, other: other.guest_address });
        }
        let status = status(file.as_fd()).map_err(|error| MapError::Map { guest_address, size, error })?;
        let pages =
            pages(file.as_fd(), &status).map_err(|error| MapError::Map { guest_address, size, error })?;
        match status.st_mode & libc::S_IFMT {
            libc::S_IFREG if (status.st_size as u64) < file_end => {
                let has = status.st_size as u64;
                return Err(MapError::FileTooSmall { guest_address, needs: file_end, has });
            }
            // A DAX device has no size that stat could tell; mmap and, at worst, the SIGBUS handler do.
            libc::S_IFREG | libc::S_IFCHR => (),
            _ => return Err(MapError::NotMemory { guest_address }),
        }
        let identity = (status.st_dev, status.st_ino, mmap_offset);
        let region = match known.iter().find(|region| region.is(spec, identity)) {
            Some(region) => region.clone(),
            None => Arc::new(Region::map(spec, identity, pages)?),
        };
        self.regions.insert(at, region);
        Ok(())
    }

    pub fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }

    fn region(&self, guest_address: u64) -> Option<&Region> {
        let at = self.regions.partition_point(|region| region.guest_address <= guest_address);
        let region = self.regions.get(at.checked_sub(1)?)?;
        (guest_address - region.guest_address < region.size).then_some(region)
    }

    /// Where a guest address is in this process, and how many of the `length` bytes follow there without a gap
    /// (`None`: not even the first).
    #[inline]
    pub fn translate(&self, guest_address: u64, length: u64) -> Option<(*mut u8, u64)> {
        self.region(guest_address)?.hint().find(guest_address, length)
    }

    /// The same, looking into the hint first and keeping what was found in it.
    #[inline(always)]
    pub fn translate_near(&self, hint: &mut Hint, guest_address: u64, length: u64) -> Option<(*mut u8, u64)> {
        match hint.find(guest_address, length) {
            Some(found) => Some(found),
            None => self.translate_far(hint, guest_address, length),
        }
    }

    #[inline(never)]
    fn translate_far(&self, hint: &mut Hint, guest_address: u64, length: u64) -> Option<(*mut u8, u64)> {
        *hint = self.region(guest_address)?.hint();
        hint.find(guest_address, length)
    }

    /// The guest address of an address of the front end's process.
    pub fn user_to_guest(&self, user_address: u64) -> Option<u64> {
        self.regions.iter().find_map(|region| {
            let offset = user_address.wrapping_sub(region.user_address);
            (offset < region.size).then(|| region.guest_address + offset)
        })
    }

    /// Whether the memory of one of its regions vanished; the session must end.
    pub fn poisoned(&self) -> bool {
        self.regions.iter().any(|region| region.poisoned())
    }
}

#[derive(Clone, Copy)]
struct Pages {
    size: usize,
}

pub(crate) fn status(file: BorrowedFd) -> io::Result<libc::stat> {
    use std::os::fd::AsRawFd;
    let mut status = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat fills the whole structure when it succeeds.
    unsafe {
        if libc::fstat(file.as_raw_fd(), status.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(status.assume_init())
    }
}

fn pages(file: BorrowedFd, status: &libc::stat) -> io::Result<Pages> {
    // A DAX device is mapped by its alignment, 2 MiB unless made otherwise.
    if status.st_mode & libc::S_IFMT == libc::S_IFCHR {
        return Ok(Pages { size: HUGE_2M });
    }
    Ok(Pages { size: page_size(file)? })
}

/// The size of the pages behind a file: hugetlbfs maps whole ones only.
pub(crate) fn page_size(file: BorrowedFd) -> io::Result<usize> {
    use std::os::fd::AsRawFd;
    let mut filesystem = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: fstatfs fills the whole structure when it succeeds.
    let filesystem = unsafe {
        if libc::fstatfs(file.as_raw_fd(), filesystem.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        filesystem.assume_init()
    };
    const HUGETLBFS_MAGIC: u64 = 0x958458f6; // linux/magic.h
    Ok(if filesystem.f_type as u64 == HUGETLBFS_MAGIC { filesystem.f_bsize as usize } else { PAGE })
}
