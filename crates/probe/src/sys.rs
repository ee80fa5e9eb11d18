//! The system calls that need `unsafe`; everything else goes through rustix's safe ones.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr;

use rustix::io::Errno;
use rustix::ioctl::{self, Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, ProtFlags};

/// Drop what the kernel caches of a block device (BLKFLSBUF), so that the next read is from the device itself.
pub fn drop_block_cache(device: &File) -> io::Result<()> {
    const BLKFLSBUF: Opcode = ioctl::opcode::none(0x12, 97);
    // SAFETY: BLKFLSBUF (include/uapi/linux/fs.h) takes no argument and touches no memory of ours.
    let request = unsafe { ioctl::NoArg::<BLKFLSBUF>::new() };
    // SAFETY: as above; a descriptor that is no block device is answered with ENOTTY.
    Ok(unsafe { ioctl::ioctl(device.as_fd(), request) }?)
}

/// One zone, as `struct blk_zone` (include/uapi/linux/blkzoned.h) has it. Sectors are of 512 bytes.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Zone {
    pub start: u64,
    pub length: u64,
    pub write_pointer: u64,
    pub kind: u8,
    pub condition: u8,
    pub non_sequential: u8,
    pub reset: u8,
    padding: [u8; 4],
    pub capacity: u64,
    reserved: [u8; 24],
}

/// The most zones that one call reports.
pub const MOST_ZONES: usize = 256;

/// `struct blk_zone_report` with its trailing array.
#[repr(C)]
struct ZoneReport {
    sector: u64,
    count: u32,
    flags: u32,
    zones: [Zone; MOST_ZONES],
}

// SAFETY: the opcode is BLKREPORTZONE, _IOWR(0x12, 130, struct blk_zone_report), whose size in the opcode is that of
// the header alone (16 bytes); the kernel writes at most `count` zones behind it, and `count` is the array's length.
unsafe impl Ioctl for &mut ZoneReport {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        ioctl::opcode::read_write::<[u64; 2]>(0x12, 130)
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        ptr::from_mut::<ZoneReport>(self).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut std::ffi::c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// The zones of a zoned device from `sector` on, MOST_ZONES at most.
pub fn report_zones(device: &File, sector: u64) -> io::Result<Vec<Zone>> {
    let mut report = Box::new(ZoneReport {
        sector,
        count: MOST_ZONES as u32,
        flags: 0,
        zones: [Zone::default(); MOST_ZONES],
    });
    // SAFETY: see the implementation of Ioctl above.
    unsafe { ioctl::ioctl(device.as_fd(), &mut *report) }?;
    let count = (report.count as usize).min(MOST_ZONES);
    Ok(report.zones[..count].to_vec())
}

/// Whether a file can be mapped with MAP_SYNC: the promise that a flushed store is durable with no fsync (mmap(2)).
pub fn maps_with_sync(file: &File, length: NonZeroUsize) -> Result<(), Errno> {
    let flags = MapFlags::SHARED_VALIDATE | MapFlags::SYNC;
    // SAFETY: a fresh mapping at an address of the kernel's choice; it is unmapped below and never read or written.
    let place = unsafe {
        rustix::mm::mmap(ptr::null_mut(), length.get(), ProtFlags::READ | ProtFlags::WRITE, flags, file, 0)
    }?;
    // SAFETY: the mapping just made, whole, with no reference into it.
    unsafe { rustix::mm::munmap(place, length.get()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernels() {
        assert_eq!(size_of::<Zone>(), 64);
        assert_eq!(std::mem::offset_of!(Zone, capacity), 32);
        assert_eq!(std::mem::offset_of!(ZoneReport, zones), 16);
    }

    #[test]
    fn an_ordinary_file_is_no_persistent_memory() {
        let file = File::options().read(true).write(true).open("/dev/zero").expect("/dev/zero");
        assert!(maps_with_sync(&file, NonZeroUsize::new(4096).expect("not zero")).is_err());
        assert!(drop_block_cache(&file).is_err());
        assert!(report_zones(&file, 0).is_err());
    }
}
