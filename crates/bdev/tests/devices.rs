//! A real block device: a loop device, where this machine lets us make one.

mod disk;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use disk::{Disk, Guest, TestFile};
use nvlane_bdev::file::{Engine, Options};
use nvlane_bdev::{Bdev, FileBdev, Operation, Status};

const MIB: u64 = 1 << 20;

/// Gone with the test.
struct Loop(PathBuf);

impl Loop {
    /// `None`, with a word about it, where there is no losetup, no privilege, or no free device.
    fn over(file: &TestFile) -> Option<Self> {
        let made = Command::new("losetup").args(["-f", "--show", "--direct-io=on"]).arg(&file.0).output();
        match made {
            Ok(output) if output.status.success() => {
                Some(Self(String::from_utf8(output.stdout).unwrap().trim().into()))
            }
            other => {
                eprintln!("no loop device can be made here, so nothing was tested: {other:?}");
                None
            }
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("-d").arg(&self.0).status();
    }
}

fn open(file: &TestFile, device: &Loop, no_uring: bool) -> Result<FileBdev, nvlane_bdev::BdevError> {
    FileBdev::open(Options { path: device.0.clone(), ..file.options(512, no_uring) })
}

#[test]
fn what_is_written_is_there_and_what_is_discarded_is_free() {
    let file = TestFile::on_disk(32 * MIB);
    let Some(device) = Loop::over(&file) else { return };
    for (no_uring, engine) in [(false, Engine::Uring), (true, Engine::Threads)] {
        let bdev = open(&file, &device, no_uring).unwrap();
        assert_eq!((bdev.engine(), bdev.direct_io(), bdev.blocks()), (engine, true, 32 * MIB / 512));
        assert!(bdev.supports(Operation::Unmap));
        let mut disk = Disk::open(&bdev);
        let guest = Guest::new(8 << 20, &[], 3);
        assert_eq!(disk.run(Operation::Write, MIB, 8 * MIB, &guest.segments()), Status::Ok);
        assert_eq!(disk.run(Operation::Flush, 0, 0, &[]), Status::Ok);
        let used = || fs::metadata(&file.0).unwrap().blocks() * 512;
        assert!(used() >= 8 * MIB);
        let mut model = vec![0; 32 << 20];
        model[1 << 20..9 << 20].copy_from_slice(&guest.bytes());
        assert!(disk.everything(&bdev) == model);

        assert_eq!(disk.run(Operation::Unmap, 2 * MIB, 4 * MIB, &[]), Status::Ok);
        assert!(used() <= 5 * MIB, "{}", used());
        assert_eq!(disk.run(Operation::WriteZeroes { unmap: false }, 6 * MIB, MIB, &[]), Status::Ok);
        assert_eq!(disk.run(Operation::WriteZeroes { unmap: true }, 7 * MIB, MIB, &[]), Status::Ok);
        model[2 << 20..8 << 20].fill(0);
        assert!(disk.everything(&bdev) == model);
        assert_eq!(disk.run(Operation::Unmap, 0, 32 * MIB, &[]), Status::Ok);
    }
}

#[test]
fn what_is_in_use_is_refused() {
    let file = TestFile::on_disk(4 * MIB);
    let Some(device) = Loop::over(&file) else { return };
    let below = FileBdev::open(file.options(512, false));
    assert_eq!(below.err().map(|error| error.errno), Some(libc::EBUSY), "a file under a loop device");
    let first = open(&file, &device, false).unwrap();
    assert_eq!(open(&file, &device, false).err().map(|error| error.errno), Some(libc::EBUSY), "opened twice");
    drop(first);
    open(&file, &device, false).unwrap();
}

#[test]
fn a_device_that_grows_is_seen() {
    let file = TestFile::on_disk(4 * MIB);
    let Some(device) = Loop::over(&file) else { return };
    let bdev = open(&file, &device, false).unwrap();
    fs::OpenOptions::new().write(true).open(&file.0).unwrap().set_len(6 * MIB).unwrap();
    assert!(Command::new("losetup").arg("-c").arg(&device.0).status().unwrap().success());
    assert!(bdev.rescan().unwrap());
    assert_eq!(bdev.blocks(), 6 * MIB / 512);
}
