//! The driver's side of both rings, as a guest has it: for tests, fuzzing and benchmarks of what is on the other side.
//!
//! It shares the layout of the areas with the device's side and nothing of its logic.

mod guest;
mod packed;
mod split;

pub use guest::Guest;
pub use packed::PackedDriver;
pub use split::SplitDriver;

use crate::buffers::{INDIRECT, NEXT, WRITE};
use crate::config::{Layout, QueueConfig};
use crate::error::RingError;

/// A buffer in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    pub address: u64,
    pub length: u32,
    /// The device may write it; such buffers follow those that it only reads.
    pub writable: bool,
}

/// What the device gave back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// What [`DriverRing::add`] returned.
    pub id: u16,
    pub written: u32,
}

/// The driver's side of a virtqueue.
pub trait DriverRing {
    /// Adds a request; its id, or `None` when there are not enough descriptors. The device sees it after
    /// [`publish`](DriverRing::publish) at the latest.
    fn add(&mut self, buffers: &[Buffer]) -> Option<u16>;

    /// Adds one descriptor as it is: an indirect table that the caller has written ([`table`]), or rubbish.
    fn add_raw(&mut self, address: u64, length: u32, flags: u16) -> Option<u16>;

    /// Shows the device what was added; whether it wants to be kicked.
    fn publish(&mut self) -> bool;

    /// The next request that the device has completed.
    fn reap(&mut self) -> Option<Used>;

    /// Asks not to be called.
    fn disable_calls(&mut self);

    /// Asks to be called, and looks again: whether nothing was completed, so that it is safe to sleep.
    fn enable_calls(&mut self) -> bool;

    /// How many descriptors are free.
    fn free(&self) -> usize;
}

/// The driver's side of either kind.
#[derive(Debug)]
pub enum Driver {
    Split(SplitDriver),
    Packed(PackedDriver),
}

impl Driver {
    /// The driver of the queue that `config` describes; the two sides may have different mappings of one memory.
    ///
    /// # Errors
    /// When the areas do not fit.
    pub fn new(config: &QueueConfig) -> Result<Driver, RingError> {
        match config.layout {
            Layout::Split => SplitDriver::new(config).map(Driver::Split),
            Layout::Packed => PackedDriver::new(config).map(Driver::Packed),
        }
    }
}

macro_rules! either {
    ($driver:expr, $ring:ident => $call:expr) => {
        match $driver {
            Driver::Split($ring) => $call,
            Driver::Packed($ring) => $call,
        }
    };
}

impl DriverRing for Driver {
    fn add(&mut self, buffers: &[Buffer]) -> Option<u16> {
        either!(self, ring => ring.add(buffers))
    }
    fn add_raw(&mut self, address: u64, length: u32, flags: u16) -> Option<u16> {
        either!(self, ring => ring.add_raw(address, length, flags))
    }
    fn publish(&mut self) -> bool {
        either!(self, ring => ring.publish())
    }
    fn reap(&mut self) -> Option<Used> {
        either!(self, ring => ring.reap())
    }
    fn disable_calls(&mut self) {
        either!(self, ring => ring.disable_calls());
    }
    fn enable_calls(&mut self) -> bool {
        either!(self, ring => ring.enable_calls())
    }
    fn free(&self) -> usize {
        either!(self, ring => ring.free())
    }
}

/// The bytes of an indirect table, to be written to guest memory and added with [`INDIRECT_FLAG`].
pub fn table(layout: Layout, buffers: &[Buffer]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(buffers.len() * 16);
    for (index, buffer) in (0u16..).zip(buffers) {
        let write = if buffer.writable { WRITE } else { 0 };
        let last = usize::from(index) + 1 == buffers.len();
        bytes.extend(buffer.address.to_le_bytes());
        bytes.extend(buffer.length.to_le_bytes());
        let (third, fourth) = match layout {
            Layout::Split if last => (write, 0),
            Layout::Split => (write | NEXT, index + 1),
            Layout::Packed => (0, write), // id, flags
        };
        bytes.extend(third.to_le_bytes());
        bytes.extend(fourth.to_le_bytes());
    }
    bytes
}

/// VIRTQ_DESC_F_INDIRECT
pub const INDIRECT_FLAG: u16 = INDIRECT;
