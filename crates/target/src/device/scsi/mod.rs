//! A virtio SCSI host (virtio 1.3, 5.6): targets 0 to 7, each a bdev with one logical unit.
//!
//! [`ScsiFrontEnd`] is the control thread's half. Each session is an initiator of its own (an I_T nexus), with units of
//! its own: what it has set and what it still has to hear is nobody else's. A queue knows its targets by a table that
//! the control thread changes by visiting it, so a target comes and goes while commands to the others run, and a
//! target that hangs holds nothing up but its own commands.

mod control;
mod event;
mod front_end;
mod lun;
mod nexus;
mod place;
mod plan;
mod request;
mod tasks;
mod wire;

pub use front_end::{ScsiFrontEnd, TargetView};

/// SPDK_VHOST_SCSI_CTRLR_MAX_DEVS
pub const TARGETS: usize = 8;

/// The queues that are not for requests (virtio 1.3, 5.6.2).
const CONTROL_QUEUE: u16 = 0;
const EVENT_QUEUE: u16 = 1;
const FIRST_REQUEST_QUEUE: u16 = 2;

/// Bits of virtio 1.3, 5.6.3. INOUT (commands with data in both directions) is for commands that a disk has not; the
/// protection information of T10_PI is nowhere below.
mod feature {
    pub const HOTPLUG: u64 = 1 << 1;
    pub const CHANGE: u64 = 1 << 2;
}

/// `struct virtio_scsi_config`. QEMU answers its guest from a copy of its own and never asks.
fn config_space() -> [u8; 36] {
    let mut space = [0; 36];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    let queues = u32::from(crate::controller::MAX_QUEUES - FIRST_REQUEST_QUEUE);
    put(0, &queues.to_le_bytes());
    put(4, &126_u32.to_le_bytes()); // seg_max
    put(8, &0xFFFF_u32.to_le_bytes()); // max_sectors
    put(12, &128_u32.to_le_bytes()); // cmd_per_lun
    put(16, &(wire::EVENT as u32).to_le_bytes());
    put(20, &(wire::SENSE_SIZE as u32).to_le_bytes());
    put(24, &(wire::CDB_SIZE as u32).to_le_bytes());
    put(30, &(TARGETS as u16 - 1).to_le_bytes()); // max_target; max_channel and max_lun are zero
    space
}
