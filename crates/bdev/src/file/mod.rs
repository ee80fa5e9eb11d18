//! `aio` and `uring`: a file or a block device. Both names are SPDK's; both are driven by io_uring, by a pool of threads
//! where the kernel forbids io_uring, and by plain calls where the file is memory anyway (tmpfs).

mod direct;
mod in_use;
mod job;
mod open;
mod pool;
mod raw;
mod slots;
mod threads;
mod uring;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

pub use direct::DirectChannel;
pub(crate) use raw::watch;
pub use threads::ThreadChannel;
pub use uring::UringChannel;

use crate::{Backend, Base, Bdev, BdevError, Info, Operation, Uuid};
use open::Opened;
use pool::Pool;

/// Under which of SPDK's two names it was made: the replies differ, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    Aio,
    Uring,
}

/// Who makes the calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Uring,
    Threads,
    /// The reactor itself.
    Direct,
}

pub struct Options {
    pub name: String,
    pub uuid: Uuid,
    pub driver: Driver,
    pub path: PathBuf,
    /// `None`: what the device has, 4096 for a file, as SPDK takes it.
    pub block_size: Option<u32>,
    pub read_only: bool,
    /// `--no-uring`.
    pub no_uring: bool,
}

pub struct FileBdev {
    base: Base,
    driver: Driver,
    engine: Engine,
    block_size_given: bool,
    blocks: AtomicU64,
    opened: Arc<Opened>,
    pool: Pool,
}

impl FileBdev {
    /// # Errors
    /// See `Opened::open`; and EINVAL for a block size below the device's, or a file of less than one block.
    pub fn open(options: Options) -> Result<Self, BdevError> {
        let path = options.path.display();
        let opened = Opened::open(&options.path, options.block_size, options.read_only)?;
        let default = if opened.block_device { opened.sector } else { 4096 };
        let block_size = options.block_size.unwrap_or(default);
        if opened.block_device && block_size < opened.sector {
            let message =
                format!("{path}: a block size of {block_size}, but the device has {}", opened.sector);
            return Err(BdevError::new(libc::EINVAL, message));
        }
        let info = Info {
            product_name: match options.driver {
                Driver::Aio => "AIO disk",
                Driver::Uring => "URING bdev",
            },
            physical_block_size: block_size.max(opened.sector),
            read_only: options.read_only,
            // Without O_DIRECT it is the page cache; with it, the drive's cache and the file's metadata.
            volatile_cache: true,
            unmap_granularity: opened.unmap_granularity / block_size.max(1),
            ..Info::new(options.name, options.uuid, block_size)
        };
        info.check()?;
        let blocks = opened.size()? / u64::from(block_size);
        if blocks == 0 {
            return Err(BdevError::new(
                libc::EINVAL,
                format!("{path}: smaller than one block of {block_size} bytes"),
            ));
        }
        let engine = match () {
            () if opened.in_memory => Engine::Direct,
            () if options.no_uring || !uring::allowed() => Engine::Threads,
            () => Engine::Uring,
        };
        // Discarding on a block device is an ioctl, which io_uring has not: one thread does those.
        let threads = match engine {
            Engine::Threads => pool::THREADS,
            Engine::Uring => usize::from(opened.block_device && opened.unmaps),
            Engine::Direct => 0,
        };
        Ok(Self {
            base: Base::new(info),
            driver: options.driver,
            engine,
            block_size_given: options.block_size.is_some(),
            blocks: AtomicU64::new(blocks),
            opened: Arc::new(opened),
            pool: Pool::start(threads)?,
        })
    }

    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Past the page cache.
    pub fn direct_io(&self) -> bool {
        self.opened.memory_alignment != 0
    }
}

impl Bdev for FileBdev {
    fn base(&self) -> &Base {
        &self.base
    }

    fn blocks(&self) -> u64 {
        self.blocks.load(Relaxed)
    }

    fn supports(&self, operation: Operation) -> bool {
        match operation {
            Operation::Read | Operation::Flush => true,
            Operation::Write | Operation::WriteZeroes { .. } => !self.info().read_only,
            Operation::Unmap => self.opened.unmaps,
        }
    }

    fn backend(&self, _reactor: usize) -> Result<Backend, BdevError> {
        let opened = self.opened.clone();
        Ok(match self.engine {
            Engine::Direct => Backend::Direct(Box::new(DirectChannel::new(opened))),
            Engine::Threads => Backend::Threads(Box::new(ThreadChannel::new(opened, self.pool.queue())?)),
            Engine::Uring => Backend::Uring(Box::new(UringChannel::new(opened, self.pool.queue())?)),
        })
    }

    fn driver_specific(&self) -> Value {
        let filename = self.opened.path.to_string_lossy();
        match self.driver {
            Driver::Aio => json!({"aio": {
                "filename": filename,
                "block_size_override": self.block_size_given,
                "readonly": self.info().read_only,
                "fallocate": self.opened.unmaps,
                "nowait": false,
            }}),
            Driver::Uring => json!({"uring": {"filename": filename}}),
        }
    }

    fn rescan(&self) -> Result<bool, BdevError> {
        let blocks = self.opened.size()? / u64::from(self.info().block_size);
        Ok(self.blocks.swap(blocks, Relaxed) != blocks)
    }
}
