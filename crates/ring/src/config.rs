//! What a queue is made of.

use std::sync::Arc;

use nvlane_memory::{DirtyLog, GuestMemory};

use crate::error::RingError;
use crate::inflight::InflightQueue;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Split,
    /// VIRTIO_F_RING_PACKED
    Packed,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Layout::Split => "split",
            Layout::Packed => "packed",
        })
    }
}

/// Guest addresses of the three areas. SET_VRING_ADDR gives them as addresses of the front end's process:
/// [`GuestMemory::user_to_guest`] makes guest addresses of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The descriptor table; the ring itself when packed.
    pub descriptors: u64,
    /// The available ring; the driver event suppression structure when packed.
    pub driver: u64,
    /// The used ring; the device event suppression structure when packed.
    pub device: u64,
}

/// What the device writes is logged there. To switch it on or off, drain the queue and make it anew.
#[derive(Clone, Debug)]
pub struct Log {
    pub log: Arc<DirtyLog>,
    /// VHOST_VRING_F_LOG: writes to the ring are logged too, those to the used ring at this guest address
    /// (`log_guest_addr`).
    pub used_address: Option<u64>,
}

/// Where a queue stands: the number of SET_VRING_BASE and GET_VRING_BASE.
///
/// Split: the next index of the available ring. Packed: bits 0-14 the next available position, bit 15 its wrap counter,
/// bits 16-30 the next used position, bit 31 its wrap counter (vhost-user.rst, "Vring state description").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VringBase(pub u32);

impl VringBase {
    /// Where a queue of this layout begins after a reset.
    pub fn start(layout: Layout) -> VringBase {
        match layout {
            Layout::Split => VringBase(0),
            Layout::Packed => VringBase(0x8000_8000),
        }
    }
}

#[derive(Clone, Debug)]
pub struct QueueConfig {
    pub layout: Layout,
    pub size: u16,
    pub addresses: Addresses,
    /// VIRTIO_F_EVENT_IDX
    pub event_idx: bool,
    /// VIRTIO_F_INDIRECT_DESC
    pub indirect: bool,
    pub memory: Arc<GuestMemory>,
    /// VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD: where requests in flight are recorded.
    pub inflight: Option<InflightQueue>,
    /// VHOST_F_LOG_ALL
    pub log: Option<Log>,
    pub base: VringBase,
}

impl QueueConfig {
    /// The place of `length` bytes of ring memory, in one piece and aligned.
    pub(crate) fn area(
        &self,
        name: &'static str,
        address: u64,
        length: usize,
        alignment: usize,
    ) -> Result<*mut u8, RingError> {
        match self.memory.translate(address, length as u64) {
            Some((pointer, contiguous))
                if contiguous == length as u64 && pointer as usize % alignment == 0 =>
            {
                Ok(pointer)
            }
            _ => Err(RingError::Area { name, address }),
        }
    }
}
