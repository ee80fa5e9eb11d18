//! A block device, seen from the control thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use serde_json::{Value, json};

use crate::stats::Ledger;
use crate::{Backend, BdevError, Channel, Limits, Operation, Qos, Statistics, Uuid};

/// What a bdev is, fixed for its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    pub name: String,
    pub uuid: Uuid,
    /// The driver sets it: "Malloc disk", "AIO disk" and so on.
    pub product_name: &'static str,
    /// Bytes, a power of two from 512 on.
    pub block_size: u32,
    /// Bytes; the unit that the medium writes at once.
    pub physical_block_size: u32,
    pub read_only: bool,
    /// Writes may be lost with the power until a flush.
    pub volatile_cache: bool,
    /// Blocks; what one unmap should cover, and be aligned to, to free anything. 0: unknown.
    pub unmap_granularity: u32,
    /// Blocks; 0: unknown.
    pub optimal_write_size: u32,
    /// Bytes that one read or write may carry at most. 0: any.
    pub max_transfer: u32,
    /// -1: unknown.
    pub numa_node: i32,
}

impl Info {
    /// An ordinary disk in memory; drivers and callers change what differs.
    pub fn new(name: impl Into<String>, uuid: Uuid, block_size: u32) -> Self {
        Self {
            name: name.into(),
            uuid,
            product_name: "",
            block_size,
            physical_block_size: block_size,
            read_only: false,
            volatile_cache: false,
            unmap_granularity: 0,
            optimal_write_size: 0,
            max_transfer: 0,
            numa_node: -1,
        }
    }

    pub(crate) fn check(&self) -> Result<(), BdevError> {
        let wrong = |what: String| Err(BdevError::new(libc::EINVAL, format!("bdev {:?}: {what}", self.name)));
        if self.name.is_empty() {
            return wrong("an empty name".into());
        }
        if !self.block_size.is_power_of_two() || !(512..=65536).contains(&self.block_size) {
            return wrong(format!(
                "a block size of {}; a power of two from 512 to 65536 is needed",
                self.block_size
            ));
        }
        if self.physical_block_size % self.block_size != 0 {
            return wrong(format!(
                "a physical block size of {}, no multiple of the block size {}",
                self.physical_block_size, self.block_size
            ));
        }
        Ok(())
    }
}

/// What every bdev has, whatever its driver: its description, its limits, its statistics, who has claimed it.
pub struct Base {
    info: Info,
    qos: Arc<Qos>,
    ledger: Arc<Ledger>,
    claims: AtomicUsize,
}

impl Base {
    pub fn new(info: Info) -> Self {
        Self { info, qos: Arc::default(), ledger: Arc::default(), claims: AtomicUsize::new(0) }
    }

    /// Another bdev (`error`, `delay`) stands on this one.
    pub(crate) fn claim(&self) {
        self.claims.fetch_add(1, Relaxed);
    }

    pub(crate) fn release(&self) {
        self.claims.fetch_sub(1, Relaxed);
    }
}

pub trait Bdev: Send + Sync {
    fn base(&self) -> &Base;

    fn info(&self) -> &Info {
        &self.base().info
    }

    /// The size now; it changes with `resize` and `rescan`.
    fn blocks(&self) -> u64;

    fn supports(&self, operation: Operation) -> bool;

    /// A way to the device for one reactor, without statistics and limits: [`Bdev::open`] puts them around it.
    fn backend(&self, reactor: usize) -> Result<Backend, BdevError>;

    /// The `driver_specific` member of `bdev_get_bdevs`.
    fn driver_specific(&self) -> Value;

    /// Changes the size, where the driver can.
    fn resize(&self, blocks: u64) -> Result<(), BdevError> {
        let _ = blocks;
        Err(BdevError::new(
            libc::EOPNOTSUPP,
            format!("{:?} ({}) has no size of its own to change", self.info().name, self.info().product_name),
        ))
    }

    /// Looks up the size of what the device lies on; `true`: it has changed.
    fn rescan(&self) -> Result<bool, BdevError> {
        Ok(false)
    }
}

impl dyn Bdev + '_ {
    /// A channel for one reactor, which is where it has to stay.
    pub fn open(&self, reactor: usize) -> Result<Channel, BdevError> {
        let base = self.base();
        let backend = self.backend(reactor)?;
        Ok(Channel::new(backend, base.ledger.clone(), reactor, base.qos.clone()))
    }

    pub fn bytes(&self) -> u64 {
        self.blocks().saturating_mul(u64::from(self.info().block_size))
    }

    pub fn limits(&self) -> Limits {
        self.base().qos.limits()
    }

    pub fn set_limits(&self, limits: Limits) {
        self.base().qos.set(limits);
    }

    /// All that was done since the start, or since the last reset.
    pub fn statistics(&self) -> Statistics {
        self.base().ledger.sum()
    }

    /// The same, of each open channel with the number of its reactor.
    pub fn channel_statistics(&self) -> Vec<(usize, Statistics)> {
        self.base().ledger.channels()
    }

    pub fn reset_statistics(&self) {
        self.base().ledger.reset();
    }

    pub fn claimed(&self) -> bool {
        self.base().claims.load(Relaxed) != 0
    }

    /// One element of what `bdev_get_bdevs` answers.
    pub fn describe(&self) -> Value {
        let info = self.info();
        let limits = self.limits();
        let uuid = info.uuid.to_string();
        json!({
            "name": info.name,
            "aliases": [uuid],
            "product_name": info.product_name,
            "block_size": info.block_size,
            "num_blocks": self.blocks(),
            "preferred_write_alignment": 0,
            "preferred_write_granularity": 0,
            "optimal_write_size": info.optimal_write_size,
            "preferred_unmap_alignment": info.unmap_granularity,
            "preferred_unmap_granularity": info.unmap_granularity,
            "uuid": uuid,
            "numa_id": info.numa_node,
            "assigned_rate_limits": {
                "rw_ios_per_sec": limits.rw_ios_per_sec,
                "rw_mbytes_per_sec": limits.rw_mbytes_per_sec,
                "r_mbytes_per_sec": limits.r_mbytes_per_sec,
                "w_mbytes_per_sec": limits.w_mbytes_per_sec,
            },
            "claimed": self.claimed(),
            "zoned": false,
            "supported_io_types": self.io_types(),
            "driver_specific": self.driver_specific(),
        })
    }

    fn io_types(&self) -> Value {
        json!({
            "read": self.supports(Operation::Read),
            "write": self.supports(Operation::Write),
            "unmap": self.supports(Operation::Unmap),
            "flush": self.supports(Operation::Flush),
            "reset": true,
            "nvme_admin": false,
            "nvme_io": false,
            "nvme_io_md": false,
            "write_zeroes": self.supports(Operation::WriteZeroes { unmap: false }),
            "zcopy": false,
            "get_zone_info": false,
            "zone_management": false,
            "zone_append": false,
            "compare": false,
            "compare_and_write": false,
            "abort": false,
            "seek_hole": false,
            "seek_data": false,
            "copy": false,
            "nvme_iov_md": false,
            "nvme_nssr": false,
            "write_uncorrectable": false,
        })
    }
}
