//! Opening what a bdev lies on, and finding out what it can do.

use std::fs::{File, FileTimes};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{in_use, raw};
use crate::BdevError;

/// A file or block device that was opened, and what was found.
#[derive(Debug)]
pub struct Opened {
    pub file: File,
    pub path: PathBuf,
    pub block_device: bool,
    /// Pages of the file are always in memory: a direct call never waits.
    pub in_memory: bool,
    /// Opened with O_DIRECT: what memory must be aligned to. 0: through the page cache, no alignment.
    pub memory_alignment: usize,
    /// The least that it reads or writes.
    pub sector: u32,
    /// Space can be freed.
    pub unmaps: bool,
    /// Bytes; what should be freed at once. 0: unknown.
    pub unmap_granularity: u32,
}

impl Opened {
    /// Opens for `block_size` (or the smallest that works), without the page cache where that can be.
    ///
    /// # Errors
    /// A block device that is mounted or has another owner (EBUSY), a file that another program has locked, serves or
    /// swaps to (EBUSY), something that is neither (ENOTBLK), what open(2) says.
    pub fn open(path: &Path, block_size: Option<u32>, read_only: bool) -> Result<Self, BdevError> {
        // Looked at before it is opened: opening a FIFO waits for its other end.
        let kind = std::fs::metadata(path).map_err(|error| failed(path, &error))?.file_type();
        if kind.is_block_device() {
            return block_device(path, block_size, read_only);
        }
        if !kind.is_file() {
            let message = format!("{}: neither a file nor a block device", path.display());
            return Err(BdevError::new(libc::ENOTBLK, message));
        }
        regular(path, block_size, read_only)
    }

    /// The bytes there are now.
    pub fn size(&self) -> Result<u64, BdevError> {
        let size = if self.block_device {
            raw::block_device_size(&self.file).map(|(size, _)| size)
        } else {
            self.file.metadata().map(|metadata| metadata.len())
        };
        size.map_err(|error| failed(&self.path, &error))
    }
}

fn failed(path: &Path, error: &io::Error) -> BdevError {
    BdevError::io(path.display(), error)
}

fn plain(path: &Path, read_only: bool, flags: i32) -> Result<File, BdevError> {
    let mut options = File::options();
    options.read(true).write(!read_only).custom_flags(libc::O_CLOEXEC | flags);
    options.open(path).map_err(|error| failed(path, &error))
}

fn block_device(path: &Path, block_size: Option<u32>, read_only: bool) -> Result<Opened, BdevError> {
    let open = |flags| exclusively(path, read_only, flags);
    let file = open(libc::O_DIRECT)?;
    let (_, sector) = raw::block_device_size(&file).map_err(|error| failed(path, &error))?;
    let (memory, _) = raw::direct_alignment(&file).filter(|found| found.1 != 0).unwrap_or((sector, sector));
    let (file, memory) = match block_size {
        Some(block) if block < sector => {
            drop(file);
            (open(0)?, 0)
        }
        _ => (file, memory),
    };
    let (unmaps, granularity) = discard_of(&file);
    Ok(Opened {
        file,
        path: path.to_owned(),
        block_device: true,
        in_memory: false,
        memory_alignment: memory as usize,
        sector,
        unmaps: unmaps && !read_only,
        unmap_granularity: granularity,
    })
}

/// How long a device that is busy is asked again: the kernel lets go of what a killed process held some time after it
/// has ended (io_uring's rings are taken apart by a work queue).
const PATIENCE: Duration = Duration::from_millis(500);

/// O_EXCL on a block device: refused while it is mounted, or held by another who asked so (open(2)).
fn exclusively(path: &Path, read_only: bool, flags: i32) -> Result<File, BdevError> {
    let start = Instant::now();
    loop {
        match plain(path, read_only, libc::O_EXCL | flags) {
            Err(error) if error.errno == libc::EBUSY => {
                if start.elapsed() > PATIENCE {
                    let why = "in use (mounted, or held by another program); free it first";
                    return Err(BdevError::new(libc::EBUSY, format!("{}: {why}", path.display())));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn regular(path: &Path, block_size: Option<u32>, read_only: bool) -> Result<Opened, BdevError> {
    let file = plain(path, read_only, 0)?;
    let metadata = file.metadata().map_err(|error| failed(path, &error))?;
    in_use::check(path, &metadata)?;
    in_use::lock(path, &file, read_only)?;
    let in_memory = is_in_memory(&file).map_err(|error| failed(path, &error))?;
    let page = u32::try_from(metadata.blksize()).unwrap_or(4096).clamp(512, 4096);
    // The lock belongs to the open file description, so the file is switched to O_DIRECT and not opened again.
    let memory = if in_memory { 0 } else { switch_to_direct(&file, block_size, page) };
    let unmaps = !read_only && raw::punches_holes(&file, metadata.len());
    if let Some(was) = metadata.modified().ok().filter(|_| unmaps) {
        // The hole beyond the end is no change of the file, though the kernel dates it so (file_modified): whoever made
        // the file may want to know whether anything was written. Only its owner may date it; else the new date stays.
        let _ = file.set_times(FileTimes::new().set_modified(was));
    }
    Ok(Opened {
        file,
        path: path.to_owned(),
        block_device: false,
        in_memory,
        memory_alignment: memory as usize,
        sector: 512,
        unmaps,
        unmap_granularity: page,
    })
}

/// Turns O_DIRECT on if the file system has it at this block size; the alignment of memory, 0: it stays off.
fn switch_to_direct(file: &File, block_size: Option<u32>, page: u32) -> u32 {
    let (memory, offset) = raw::direct_alignment(file).unwrap_or((page, page));
    let fits = offset != 0 && block_size.is_none_or(|block| block % offset == 0);
    let flags = rustix::fs::fcntl_getfl(file).map(|flags| flags | rustix::fs::OFlags::DIRECT);
    match flags {
        Ok(flags) if fits && rustix::fs::fcntl_setfl(file, flags).is_ok() => memory.max(1),
        _ => 0,
    }
}

/// tmpfs and its like: the page cache is all there is.
fn is_in_memory(file: &File) -> io::Result<bool> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    let kind = rustix::fs::fstatfs(file)?.f_type as u64 & 0xffff_ffff;
    Ok(matches!(kind, TMPFS_MAGIC | RAMFS_MAGIC))
}

/// Whether a block device frees what is discarded, and in units of how many bytes (sysfs-block, queue/).
fn discard_of(file: &File) -> (bool, u32) {
    let Ok(metadata) = file.metadata() else { return (false, 0) };
    let (major, minor) = (libc::major(metadata.rdev()), libc::minor(metadata.rdev()));
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition has no queue of its own.
    let queue = [device.join("queue"), device.join("../queue")].into_iter().find(|place| place.is_dir());
    let number = |name: &str| -> u64 {
        let text = queue.as_ref().and_then(|queue| std::fs::read_to_string(queue.join(name)).ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    };
    (number("discard_max_bytes") != 0, u32::try_from(number("discard_granularity")).unwrap_or(0))
}

impl Opened {
    pub fn fd(&self) -> i32 {
        self.file.as_raw_fd()
    }
}
