//! A logical unit as one guest sees it: shared by the control thread and by the guest's queues on all reactors.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nvlane_bdev::{Bdev, Operation, Status};
use nvlane_scsi::{Attention, Cdb, Command, Disk, Limits, Outcome, Provisioning, Sense, Unit, execute};

/// A disk in memory is zeroed while the other queues of its reactor wait; what takes longer comes in pieces.
const MAX_WRITE_SAME: u32 = 64 << 20;
/// Deallocating is cheap. No more than a million blocks: libiscsi's tests doubt larger limits.
const MAX_UNMAP: u32 = 512 << 20;
const MAX_UNMAP_DESCRIPTORS: u32 = 256;

/// Reads, or writes, need no look at the unit's state.
const PLAIN_READS: u8 = 1;
const PLAIN_WRITES: u8 = 2;
const DESCRIPTOR_SENSE: u8 = 4;

/// Reads and writes look at atomics that hardly ever change; everything else takes the lock, for as long as the answer
/// to one command takes.
pub struct Lun {
    disk: Disk,
    block_shift: u32,
    max_transfer: u64,
    write_zeroes: bool,
    blocks: AtomicU64,
    flags: AtomicU8,
    unit: Mutex<Unit>,
}

impl Lun {
    pub fn new(bdev: &dyn Bdev) -> Lun {
        let disk = disk(bdev);
        let info = bdev.info();
        let lun = Lun {
            block_shift: disk.block_size.trailing_zeros(),
            max_transfer: match info.max_transfer {
                0 => u64::MAX,
                // In whole blocks.
                bytes => u64::from(bytes - bytes % disk.block_size).max(u64::from(disk.block_size)),
            },
            write_zeroes: bdev.supports(Operation::WriteZeroes { unmap: false }),
            blocks: AtomicU64::new(bdev.blocks()),
            flags: AtomicU8::new(0),
            unit: Mutex::new(Unit::powered_on()),
            disk,
        };
        lun.change(|_, _| ());
        lun
    }

    #[inline]
    pub fn blocks(&self) -> u64 {
        self.blocks.load(Relaxed)
    }

    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    #[inline]
    pub fn bytes_of(&self, blocks: u64) -> u64 {
        blocks << self.block_shift
    }

    /// The most that the bdev takes at once.
    #[inline]
    pub fn max_transfer(&self) -> u64 {
        self.max_transfer
    }

    pub fn has_write_zeroes(&self) -> bool {
        self.write_zeroes
    }

    /// A read or write can be carried out from its CDB alone.
    #[inline]
    pub fn is_plain(&self, write: bool) -> bool {
        self.flags.load(Relaxed) & if write { PLAIN_WRITES } else { PLAIN_READS } != 0
    }

    pub fn senses_in_descriptors(&self) -> bool {
        self.flags.load(Relaxed) & DESCRIPTOR_SENSE != 0
    }

    pub fn execute(&self, cdb: &Cdb, parameters: &[u8], data: &mut Vec<u8>) -> Outcome {
        let command = Command { cdb, parameters };
        self.change(|disk, unit| execute(disk, self.blocks(), unit, command, data))
    }

    pub fn reset(&self, why: Attention) {
        self.change(|_, unit| unit.reset(why));
    }

    /// The initiator knows the unit from before this process was.
    pub fn resume(&self) {
        self.change(|_, unit| *unit = Unit::resumed());
    }

    pub fn raise(&self, attention: Attention) {
        self.change(|_, unit| unit.raise(attention));
    }

    /// The bdev has another size. False: it has not.
    pub fn resized(&self, blocks: u64) -> bool {
        if self.blocks.swap(blocks, Relaxed) == blocks {
            return false;
        }
        self.raise(Attention::CapacityChanged);
        true
    }

    fn change<T>(&self, change: impl FnOnce(&Disk, &mut Unit) -> T) -> T {
        let mut unit: MutexGuard<'_, Unit> = self.unit.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&self.disk, &mut unit);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags = flag(unit.is_plain(&self.disk, false), PLAIN_READS)
            | flag(unit.is_plain(&self.disk, true), PLAIN_WRITES)
            | flag(unit.modes().descriptor_sense, DESCRIPTOR_SENSE);
        self.flags.store(flags, Relaxed);
        result
    }
}

/// How a bdev looks as a SCSI disk.
fn disk(bdev: &dyn Bdev) -> Disk {
    let info = bdev.info();
    let uuid = info.uuid.to_string();
    let size = info.block_size;
    let unmap = bdev.supports(Operation::Unmap) && !info.read_only;
    Disk {
        uuid: uuid_bytes(&uuid),
        vendor: Disk::VENDOR.into(),
        product: info.product_name.into(),
        revision: Disk::REVISION.into(),
        // Not the name: a guest finds the same disk again when it was renamed.
        serial: uuid.replace('-', ""),
        block_size: size,
        physical_exponent: (info.physical_block_size.max(size) / size).ilog2().min(15) as u8,
        read_only: info.read_only,
        write_cache: info.volatile_cache,
        // What an unmapped block reads as is up to the bdev (Operation::Unmap), so LBPRZ is not promised.
        provisioning: Provisioning { unmap, unmapped_is_zero: false, thin: unmap },
        limits: Limits {
            transfer_blocks: 0,
            unmap_blocks: MAX_UNMAP / size,
            unmap_descriptors: MAX_UNMAP_DESCRIPTORS,
            write_same_blocks: MAX_WRITE_SAME / size,
            unmap_granularity: info.unmap_granularity.max(1),
        },
    }
}

fn uuid_bytes(text: &str) -> [u8; 16] {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    bytes
}

/// What the guest is told when a bdev could not do what it was asked.
pub fn sense_of(status: Status, write: bool) -> Sense {
    match status {
        Status::Unsupported => Sense::OPCODE,
        Status::OutOfRange => Sense::LBA_OUT_OF_RANGE,
        Status::ReadOnly => Sense::WRITE_PROTECTED,
        Status::NoSpace => Sense::NO_SPACE,
        Status::Gone => Sense::NO_SUCH_UNIT,
        Status::Aborted => Sense::ABORTED,
        _ if write => Sense::WRITE_ERROR,
        _ => Sense::READ_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvlane_bdev::{Info, Null, Uuid};

    fn lun(info: Info) -> Lun {
        Lun::new(&Null::new(info, 1000).unwrap())
    }

    #[test]
    fn a_disk_keeps_the_name_of_its_bdev() {
        let uuid = Uuid::random().unwrap();
        let lun = lun(Info::new("disk", uuid, 4096));
        let digits: String = lun.disk().uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digits, uuid.to_string().replace('-', ""));
        assert_eq!(digits, lun.disk().serial);
        assert_eq!((lun.bytes_of(3), lun.blocks()), (12288, 1000));
    }

    #[test]
    fn the_short_path_opens_when_everything_was_said() {
        let lun = lun(Info { volatile_cache: true, ..Info::new("disk", Uuid::random().unwrap(), 512) });
        let run = |cdb: &[u8], list: &[u8]| lun.execute(&Cdb::new(cdb), list, &mut Vec::new());
        assert!(!lun.is_plain(false), "power on comes first");
        assert!(matches!(run(&[0; 6], &[]), Outcome::CheckCondition(_)));
        assert!(lun.is_plain(false) && lun.is_plain(true));
        // Software write protection.
        let list = [0, 0, 0, 0, 0x0A, 0x0A, 0x02, 0x10, 0x08, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(run(&[0x15, 0x10, 0, 0, 16, 0], &list), Outcome::Good);
        assert!(lun.is_plain(false) && !lun.is_plain(true));
        assert!(lun.resized(2000) && !lun.resized(2000));
        assert!(!lun.is_plain(false));
    }

    #[test]
    fn a_large_transfer_limit_is_in_whole_blocks() {
        let limited = |bytes| {
            lun(Info { max_transfer: bytes, ..Info::new("disk", Uuid::random().unwrap(), 4096) })
                .max_transfer()
        };
        assert_eq!((limited(0), limited(10_000), limited(100)), (u64::MAX, 8192, 4096));
    }
}
