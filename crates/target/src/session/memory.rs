//! Files that a front end hands over as memory.

use std::os::fd::{AsFd, BorrowedFd};

use nvlane_memory::{GuestMemory, RegionSpec};
use nvlane_vhost_user::MemoryRegion;
use rustix::fs::{FsWord, fstatfs};

/// FUSE_SUPER_MAGIC and those of network file systems (linux/magic.h). A page fault in such a file waits for somebody
/// else's process, for as long as that likes: a reactor would stand still with everybody's queues.
const FOREIGN: [FsWord; 5] =
    [0x6573_5546, 0x6969, 0xff53_4d42_u32 as FsWord, 0xfe53_4d42_u32 as FsWord, 0x0102_1997];

fn check(file: BorrowedFd<'_>) -> Result<(), String> {
    let kind =
        fstatfs(file).map_err(|error| format!("the file behind it cannot be examined: {error}"))?.f_type;
    if FOREIGN.contains(&kind) {
        return Err("the file behind it is on a FUSE or network file system; guest memory must be local \
                    (memory-backend-memfd, or memory-backend-file on hugetlbfs, tmpfs or a disk)"
            .to_string());
    }
    Ok(())
}

fn spec(region: MemoryRegion) -> Result<RegionSpec, String> {
    let MemoryRegion { region, file } = region;
    check(file.as_fd()).map_err(|why| format!("memory region at {:#x}: {why}", region.guest_address))?;
    Ok(RegionSpec {
        guest_address: region.guest_address,
        size: region.size,
        user_address: region.user_address,
        mmap_offset: region.mmap_offset,
        file,
    })
}

/// The table of SET_MEM_TABLE; regions that stay keep their mappings.
pub(super) fn table(present: &GuestMemory, regions: Vec<MemoryRegion>) -> Result<GuestMemory, String> {
    let specs = regions.into_iter().map(spec).collect::<Result<Vec<_>, _>>()?;
    present.remap(specs).map_err(|error| error.to_string())
}

/// The table with one region more.
pub(super) fn add(present: &GuestMemory, region: MemoryRegion) -> Result<GuestMemory, String> {
    present.add(spec(region)?).map_err(|error| error.to_string())
}
