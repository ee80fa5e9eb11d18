//! Who else uses a file. O_EXCL says it of a block device; of a file three things have to be asked.

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::raw::{self, Range};
use crate::BdevError;

/// A file that is swapped to, or that a loop device stands on.
pub fn check(path: &Path, metadata: &Metadata) -> Result<(), BdevError> {
    let same = |other: &str| {
        // The kernel writes spaces as \040 (seq_escape) and "(deleted)" behind names that are gone: those match nothing.
        std::fs::metadata(other.replace("\\040", " "))
            .is_ok_and(|other| other.dev() == metadata.dev() && other.ino() == metadata.ino())
    };
    let busy = |by: String| {
        Err(BdevError::new(libc::EBUSY, format!("{}: in use by {by}; free it first", path.display())))
    };
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    if swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()).any(same) {
        return busy("the kernel, which swaps to it (swapoff)".into());
    }
    for entry in std::fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("loop") {
            continue;
        }
        let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if !backing.is_empty() && same(backing.trim_end()) {
            return busy(format!("/dev/{name} (losetup -d /dev/{name})"));
        }
    }
    Ok(())
}

/// QEMU's image locking (block/file-posix.c): a byte of the file stands for each permission in use, another for each
/// that is not shared. With it QEMU refuses an image that we serve, and we refuse one that it has open for writing.
const USED: i64 = 100;
const UNSHARED: i64 = 200;
const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;

/// Takes the locks; they are gone with the descriptor, also when the process is killed.
pub fn lock(path: &Path, file: &File, read_only: bool) -> Result<(), BdevError> {
    let fd = file.as_raw_fd();
    let wanted: &[i64] =
        if read_only { &[USED + CONSISTENT_READ] } else { &[USED + CONSISTENT_READ, USED + WRITE] };
    for &byte in wanted {
        match raw::lock_shared(fd, Range { start: byte, length: 1 }) {
            Ok(()) => {}
            // A file system without such locks (some network ones): nobody can be asked.
            Err(error)
                if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOLCK | libc::EOPNOTSUPP)) =>
            {
                return Ok(());
            }
            Err(error) => return Err(BdevError::io(format_args!("{}: locking it", path.display()), &error)),
        }
    }
    // Somebody has locked what we use away from others?
    let refused: &[i64] = if read_only {
        &[UNSHARED + CONSISTENT_READ]
    } else {
        &[UNSHARED + CONSISTENT_READ, UNSHARED + WRITE]
    };
    for &byte in refused {
        if raw::is_locked(fd, Range { start: byte, length: 1 }).unwrap_or(false) {
            let message =
                format!("{}: another program (QEMU?) has it open and does not share it", path.display());
            return Err(BdevError::new(libc::EBUSY, message));
        }
    }
    Ok(())
}
