//! The system calls of a file bdev that take addresses: the only `unsafe` of the direct calls and the thread pool.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nvlane_memory::{HostMemory, Segment, copy};

use super::job::{Call, Job};

const BLKDISCARD: libc::c_ulong = 0x1277; // _IO(0x12, 119), linux/fs.h
const BLKGETSIZE64: libc::c_ulong = 0x8008_1272; // _IOR(0x12, 114, size_t)
const BLKSSZGET: libc::c_ulong = 0x1268; // _IO(0x12, 104)

/// Makes the call that the job is at; the result is a count or a negative errno.
pub fn perform(fd: RawFd, job: &Job) -> i64 {
    let transfer = &job.transfer;
    let segments = transfer.segments();
    let offset = transfer.offset as libc::off_t;
    let vectors = segments.as_ptr().cast::<libc::iovec>();
    let count = segments.len() as libc::c_int;
    // SAFETY: `Segment` has the layout of `iovec` and the array lives through the call. The memory that the segments
    // name is vouched for by who submitted the request, until its completion; the kernel answers EFAULT for pages that
    // are gone. The ioctl reads the array of two numbers that is given.
    let result = unsafe {
        match job.call {
            Call::Read => libc::preadv(fd, vectors, count, offset),
            Call::Write => libc::pwritev(fd, vectors, count, offset),
            Call::Sync => libc::fdatasync(fd) as isize,
            Call::PunchHole | Call::ZeroRange => {
                libc::fallocate(fd, fallocate_mode(job.call), offset, transfer.left as libc::off_t) as isize
            }
            Call::Discard => {
                let range = [transfer.offset, transfer.left];
                libc::ioctl(fd, BLKDISCARD, range.as_ptr()) as isize
            }
        }
    };
    if result < 0 {
        -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
    } else {
        result as i64
    }
}

/// The mode of fallocate(2) for a call that is one.
pub fn fallocate_mode(call: Call) -> libc::c_int {
    let mode = if call == Call::PunchHole { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
    mode | libc::FALLOC_FL_KEEP_SIZE
}

/// Whether the file system can free space within a file. A hole beyond the end changes nothing.
pub fn punches_holes(file: &File, size: u64) -> bool {
    let beyond = size.next_multiple_of(4096) as libc::off_t;
    // SAFETY: no address is passed.
    unsafe { libc::fallocate(file.as_raw_fd(), fallocate_mode(Call::PunchHole), beyond, 4096) == 0 }
}

/// The bytes of a block device, and the least that it reads or writes.
pub fn block_device_size(file: &File) -> io::Result<(u64, u32)> {
    let (mut size, mut sector) = (0u64, 0 as libc::c_int);
    // SAFETY: each ioctl writes one number of the type that is given.
    let failed = unsafe {
        libc::ioctl(file.as_raw_fd(), BLKGETSIZE64, &raw mut size) < 0
            || libc::ioctl(file.as_raw_fd(), BLKSSZGET, &raw mut sector) < 0
    };
    if failed { Err(io::Error::last_os_error()) } else { Ok((size, sector.max(512) as u32)) }
}

/// What O_DIRECT asks of memory and of offsets (statx STATX_DIOALIGN, Linux 6.1), if the file system says so. Zeroes:
/// it has no O_DIRECT.
pub fn direct_alignment(file: &File) -> Option<(u32, u32)> {
    const STATX_DIOALIGN: libc::c_uint = 0x2000;
    // SAFETY: all bytes zero are a valid `statx`, and the call writes no more than one.
    let (result, found) = unsafe {
        let mut found: libc::statx = std::mem::zeroed();
        let result =
            libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, STATX_DIOALIGN, &raw mut found);
        (result, found)
    };
    (result == 0 && found.stx_mask & STATX_DIOALIGN != 0)
        .then_some((found.stx_dio_mem_align, found.stx_dio_offset_align))
}

/// Zeroes to write from, where neither the file system nor the drive makes them. Read by the kernel only.
pub fn zeroes() -> Segment {
    #[repr(align(4096))]
    struct Aligned([u8; 65536]);
    static ZEROES: Aligned = Aligned([0; 65536]);
    // SAFETY: a static lives for ever. It is not writable, and the one user (a job that writes zeroes) only has it read.
    unsafe { Segment::new(ZEROES.0.as_ptr().cast_mut(), ZEROES.0.len()) }
}

/// Bytes of a file that a lock is about.
#[derive(Clone, Copy)]
pub struct Range {
    pub start: i64,
    pub length: i64,
}

fn flock(kind: libc::c_int, range: Range) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: range.start,
        l_len: range.length,
        l_pid: 0,
    }
}

/// Takes a shared lock of the open file description.
pub fn lock_shared(fd: RawFd, range: Range) -> io::Result<()> {
    let lock = flock(libc::F_RDLCK, range);
    // SAFETY: the call reads one `flock`.
    if unsafe { libc::fcntl(fd, libc::F_OFD_SETLK, &raw const lock) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether another open file description has locked any of it.
pub fn is_locked(fd: RawFd, range: Range) -> io::Result<bool> {
    let mut lock = flock(libc::F_WRLCK, range);
    // SAFETY: the call reads and writes one `flock`.
    if unsafe { libc::fcntl(fd, libc::F_OFD_GETLK, &raw mut lock) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// The first `length` bytes of a buffer, as what a call reads or writes.
pub fn buffer_segment(buffer: &HostMemory, length: usize) -> Segment {
    assert!(length <= buffer.len());
    // SAFETY: within the buffer, which its slot keeps until the request that uses it has ended.
    unsafe { Segment::new(buffer.pointer(), length) }
}

/// Copies the guest's memory to a buffer.
pub fn gather(guest: &[Segment], buffer: Segment) {
    // SAFETY: the buffer is memory of ours, not the guest's.
    unsafe { copy::gather(guest, buffer.base(), buffer.len()) };
}

/// Copies a buffer to the guest's memory.
pub fn scatter(buffer: Segment, guest: &[Segment]) {
    // SAFETY: the buffer is memory of ours, not the guest's.
    unsafe { copy::scatter(buffer.base(), guest, buffer.len()) };
}

/// Has an epoll descriptor watch another for reading.
pub fn watch(epoll: &OwnedFd, descriptor: RawFd) -> Result<(), rustix::io::Errno> {
    use rustix::event::epoll::{EventData, EventFlags, add};
    // SAFETY: the descriptor is that of a channel which lives as long as whoever asks to watch it.
    let descriptor = unsafe { BorrowedFd::borrow_raw(descriptor) };
    add(epoll, descriptor, EventData::new_u64(descriptor.as_raw_fd() as u64), EventFlags::IN)
}
