//! What the tests of the drivers share: a guest's memory, files to stand on, and a reactor of a few lines.
#![allow(dead_code, reason = "each test program uses a part")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use nvlane_bdev::file::{Driver, Options};
use nvlane_bdev::{
    Bdev, Channel, Completion, FileBdev, Info, Malloc, Operation, Request, Status, Submitted, Uuid,
};
use nvlane_memory::{Segment, copy};

pub const DEADLINE: Duration = Duration::from_secs(20);

/// A guest's buffer, cut into segments that need not be aligned.
pub struct Guest {
    memory: Vec<u8>,
    lengths: Vec<usize>,
}

impl Guest {
    pub fn new(length: usize, cuts: &[usize], fill: u8) -> Self {
        let mut lengths = Vec::new();
        let mut left = length;
        for cut in cuts {
            lengths.push((*cut).min(left));
            left -= (*cut).min(left);
        }
        lengths.push(left);
        let pattern: Vec<u8> = (0..253).map(|at| fill.wrapping_add(at)).collect();
        let mut memory = pattern.repeat(length / pattern.len() + 1);
        memory.truncate(length);
        Self { memory, lengths }
    }

    pub fn segments(&self) -> Vec<Segment> {
        let mut at = self.memory.as_ptr().cast_mut();
        let place = |&length: &usize| {
            // SAFETY: the lengths add up to the memory's; it lives as long as the guest, which each test keeps until
            // its requests have ended, and is looked at through raw pointers only meanwhile.
            let segment = unsafe { Segment::new(at, length) };
            at = at.wrapping_add(length);
            segment
        };
        self.lengths.iter().map(place).collect()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.memory.len()];
        assert_eq!(copy::copy_in(&self.segments(), 0, &mut bytes), bytes.len());
        bytes
    }
}

pub fn info(name: &str, block_size: u32) -> Info {
    Info::new(name, Uuid::random().unwrap(), block_size)
}

pub fn malloc(block_size: u32, blocks: u64) -> Malloc {
    Malloc::new(info("Malloc0", block_size), blocks).unwrap()
}

/// A file that is gone with the test.
pub struct TestFile(pub PathBuf);

impl TestFile {
    pub fn on_disk(size: u64) -> Self {
        Self::within(Path::new(env!("CARGO_TARGET_TMPDIR")), size)
    }

    pub fn in_memory(size: u64) -> Self {
        Self::within(Path::new("/dev/shm"), size)
    }

    fn within(directory: &Path, size: u64) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("nvlane-bdev-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let path = directory.join(name);
        File::create_new(&path).unwrap().set_len(size).unwrap();
        Self(path)
    }

    pub fn options(&self, block_size: u32, no_uring: bool) -> Options {
        Options {
            name: "File0".into(),
            uuid: Uuid::random().unwrap(),
            driver: Driver::Aio,
            path: self.0.clone(),
            block_size: Some(block_size),
            read_only: false,
            no_uring,
        }
    }

    pub fn open(&self, block_size: u32, no_uring: bool) -> FileBdev {
        FileBdev::open(self.options(block_size, no_uring)).unwrap()
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A channel and the loop of a reactor.
pub struct Disk {
    pub channel: Channel,
    tokens: u64,
    ended: Vec<Completion>,
}

impl Disk {
    pub fn open(bdev: &dyn Bdev) -> Self {
        Self { channel: bdev.open(0).unwrap(), tokens: 1000, ended: Vec::new() }
    }

    /// One request from its submission to its end.
    pub fn run(&mut self, operation: Operation, offset: u64, length: u64, segments: &[Segment]) -> Status {
        self.tokens += 1;
        let request = Request { operation, offset, length, segments, token: self.tokens };
        let start = Instant::now();
        loop {
            let submitted = self.channel.submit(&request);
            self.channel.kick();
            match submitted {
                Submitted::Done(status) => return status,
                Submitted::Pending => return self.wait(self.tokens),
                Submitted::Busy => {
                    self.channel.poll(&mut self.ended);
                }
            }
            assert!(start.elapsed() < DEADLINE, "the channel stays busy");
        }
    }

    fn wait(&mut self, token: u64) -> Status {
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            self.channel.poll(&mut self.ended);
            if let Some(index) = self.ended.iter().position(|completion| completion.token == token) {
                return self.ended.swap_remove(index).status;
            }
        }
        panic!("no completion for {token}");
    }

    pub fn everything(&mut self, bdev: &dyn Bdev) -> Vec<u8> {
        let guest = Guest::new(bdev.bytes() as usize, &[], 0x5a);
        assert_eq!(self.run(Operation::Read, 0, bdev.bytes(), &guest.segments()), Status::Ok);
        guest.bytes()
    }
}
