//! What only files do: free space, run out of it, grow, be locked, be read-only.

mod disk;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;

use disk::{Disk, Guest, TestFile};
use nvlane_bdev::file::{Driver, Engine, Options};
use nvlane_bdev::{Bdev, FileBdev, Operation, Status};
use serde_json::json;

fn errno(result: Result<FileBdev, nvlane_bdev::BdevError>) -> i32 {
    result.err().map_or(0, |error| error.errno)
}

#[test]
fn space_is_freed() {
    for (file, no_uring) in [
        (TestFile::on_disk(16 << 20), false),
        (TestFile::on_disk(16 << 20), true),
        (TestFile::in_memory(16 << 20), false),
    ] {
        let bdev = file.open(512, no_uring);
        assert!(bdev.supports(Operation::Unmap));
        let mut disk = Disk::open(&bdev);
        let guest = Guest::new(8 << 20, &[], 1);
        assert_eq!(disk.run(Operation::Write, 1 << 20, 8 << 20, &guest.segments()), Status::Ok);
        assert_eq!(disk.run(Operation::Flush, 0, 0, &[]), Status::Ok);
        let used = || fs::metadata(&file.0).unwrap().blocks() * 512;
        assert!(used() >= 8 << 20, "{}", used());
        assert_eq!(disk.run(Operation::Unmap, 1 << 20, 4 << 20, &[]), Status::Ok);
        assert!(used() <= 5 << 20, "{}", used());
        assert_eq!(disk.run(Operation::WriteZeroes { unmap: true }, 5 << 20, 4 << 20, &[]), Status::Ok);
        assert!(used() <= 1 << 20, "{}", used());
        assert_eq!(fs::metadata(&file.0).unwrap().len(), 16 << 20, "the size stays");
        assert!(disk.everything(&bdev).iter().all(|&byte| byte == 0));
    }
}

#[test]
fn the_engine_is_what_the_file_needs() {
    let (on_disk, in_memory) = (TestFile::on_disk(1 << 20), TestFile::in_memory(1 << 20));
    assert_eq!(on_disk.open(4096, false).engine(), Engine::Uring);
    assert_eq!(on_disk.open(4096, true).engine(), Engine::Threads);
    assert_eq!(in_memory.open(4096, true).engine(), Engine::Direct);
    assert!(!in_memory.open(4096, false).direct_io());
}

#[test]
fn a_file_that_grows_is_seen_and_one_that_is_cut_short_fails_cleanly() {
    for (file, no_uring) in [
        (TestFile::on_disk(1 << 20), false),
        (TestFile::on_disk(1 << 20), true),
        (TestFile::in_memory(1 << 20), false),
    ] {
        let bdev = file.open(4096, no_uring);
        assert!(!bdev.rescan().unwrap());
        let handle = OpenOptions::new().write(true).open(&file.0).unwrap();
        handle.set_len((2 << 20) + 5000).unwrap();
        assert!(bdev.rescan().unwrap());
        assert_eq!(bdev.blocks(), 513, "rounded down to whole blocks");
        handle.set_len(4096).unwrap();
        let guest = Guest::new(8192, &[], 1);
        assert_eq!(Disk::open(&bdev).run(Operation::Read, 0, 8192, &guest.segments()), Status::IoError);
    }
}

#[test]
fn read_only_stays_as_it_is() {
    let file = TestFile::on_disk(1 << 20);
    let before = fs::metadata(&file.0).unwrap().mtime_nsec();
    for no_uring in [false, true] {
        let bdev = FileBdev::open(Options { read_only: true, ..file.options(512, no_uring) }).unwrap();
        assert!(!bdev.supports(Operation::Write) && !bdev.supports(Operation::Unmap));
        let guest = Guest::new(512, &[], 1);
        let mut disk = Disk::open(&bdev);
        assert_eq!(disk.run(Operation::Read, 0, 512, &guest.segments()), Status::Ok);
        assert_eq!(disk.run(Operation::Write, 0, 512, &guest.segments()), Status::ReadOnly);
        assert_eq!(disk.run(Operation::WriteZeroes { unmap: true }, 0, 512, &[]), Status::ReadOnly);
        assert_eq!(disk.run(Operation::Flush, 0, 0, &[]), Status::Ok);
    }
    assert_eq!(fs::metadata(&file.0).unwrap().mtime_nsec(), before);
}

#[test]
fn wrong_files_are_refused() {
    let file = TestFile::on_disk(1000);
    assert_eq!(errno(FileBdev::open(file.options(4096, false))), libc::EINVAL, "less than a block");
    assert_eq!(errno(FileBdev::open(file.options(1000, false))), libc::EINVAL, "no power of two");
    let elsewhere = |path: &str| FileBdev::open(Options { path: path.into(), ..file.options(512, false) });
    assert_eq!(errno(elsewhere("/nonexistent/x")), libc::ENOENT);
    assert_eq!(errno(elsewhere("/dev/zero")), libc::ENOTBLK);
    assert_eq!(errno(elsewhere("/tmp")), libc::ENOTBLK);
}

#[test]
fn a_mounted_block_device_is_refused() {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mounted =
        mounts.lines().filter_map(|line| line.split(' ').next()).find(|source| source.starts_with("/dev/"));
    let Some(source) = mounted.filter(|source| File::open(source).is_ok()) else {
        eprintln!("no block device is mounted, or none can be opened: nothing to refuse");
        return;
    };
    let file = TestFile::on_disk(4096);
    let result =
        FileBdev::open(Options { path: source.into(), read_only: true, ..file.options(4096, false) });
    assert_eq!(errno(result), libc::EBUSY, "{source}");
}

#[test]
fn described_as_spdk_does() {
    let file = TestFile::on_disk(1 << 20);
    let path = file.0.to_str().unwrap().to_owned();
    let aio = file.open(512, false);
    let found = (&aio as &dyn Bdev).describe();
    assert_eq!(found["product_name"], "AIO disk");
    assert_eq!(found["num_blocks"], 2048);
    let aio = json!({"aio": {
        "filename": path, "block_size_override": true, "readonly": false, "fallocate": true, "nowait": false,
    }});
    assert_eq!(found["driver_specific"], aio);
    let uring =
        FileBdev::open(Options { driver: Driver::Uring, block_size: None, ..file.options(512, false) })
            .unwrap();
    let found = (&uring as &dyn Bdev).describe();
    assert_eq!((&found["product_name"], &found["block_size"]), (&json!("URING bdev"), &json!(4096)));
    assert_eq!(found["driver_specific"], json!({"uring": {"filename": path}}));
}

/// The members of `bdev_get_bdevs` are those of SPDK, with the same types.
#[test]
fn the_shape_is_spdks() {
    let shape = [
        ("name", "string"),
        ("aliases", "array"),
        ("product_name", "string"),
        ("block_size", "number"),
        ("num_blocks", "number"),
        ("uuid", "string"),
        ("assigned_rate_limits", "object"),
        ("claimed", "bool"),
        ("zoned", "bool"),
        ("supported_io_types", "object"),
        ("driver_specific", "object"),
        ("numa_id", "number"),
    ];
    let bdev = disk::malloc(512, 100);
    let found = (&bdev as &dyn Bdev).describe();
    for (member, kind) in shape {
        let of = match &found[member] {
            serde_json::Value::String(_) => "string",
            serde_json::Value::Array(_) => "array",
            serde_json::Value::Number(_) => "number",
            serde_json::Value::Object(_) => "object",
            serde_json::Value::Bool(_) => "bool",
            serde_json::Value::Null => "missing",
        };
        assert_eq!(of, kind, "{member}");
    }
}
