//! The configuration space and the feature bits of a virtio block device (virtio 1.3, 5.2.3 and 5.2.4).

use nvlane_bdev::{Bdev, Operation};

use super::{MAX_DISCARD_SECTORS, MAX_RANGES, MAX_WRITE_ZEROES_SECTORS, SECTOR, SEGMENTS};

/// Bits of virtio 1.3, 5.2.3.
pub mod feature {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// The features of a disk, without those of its rings.
pub fn features(bdev: Option<&dyn Bdev>, read_only: bool) -> u64 {
    let mut features =
        feature::SEG_MAX | feature::BLK_SIZE | feature::TOPOLOGY | feature::FLUSH | feature::MQ;
    if read_only || bdev.is_some_and(|bdev| bdev.info().read_only) {
        return features | feature::RO;
    }
    if bdev.is_some_and(|bdev| bdev.supports(Operation::Unmap)) {
        features |= feature::DISCARD;
    }
    if bdev.is_some_and(|bdev| bdev.supports(Operation::WriteZeroes { unmap: false })) {
        features |= feature::WRITE_ZEROES;
    }
    features
}

/// `struct virtio_blk_config`, zero-padded. Without a bdev the capacity is 0: an error would make QEMU exit.
pub fn space(bdev: Option<&dyn Bdev>, queues: u16) -> [u8; 256] {
    let mut space = [0; 256];
    let mut put = |at: usize, bytes: &[u8]| space[at..at + bytes.len()].copy_from_slice(bytes);
    put(12, &(SEGMENTS as u32).to_le_bytes()); // seg_max
    put(34, &queues.to_le_bytes());
    let Some(bdev) = bdev else { return space };
    let info = bdev.info();
    let sectors = |blocks: u32| blocks.saturating_mul(info.block_size / SECTOR as u32);
    put(0, &(bdev.bytes() / SECTOR).to_le_bytes());
    put(20, &info.block_size.to_le_bytes());
    // Topology: blocks in a physical one as a power of two, no offset, and the sizes that suit, in blocks.
    let physical = info.physical_block_size.max(info.block_size) / info.block_size;
    put(24, &[physical.ilog2() as u8, 0]);
    put(26, &u16::try_from(physical).unwrap_or(1).to_le_bytes());
    put(28, &info.optimal_write_size.to_le_bytes());
    put(36, &MAX_DISCARD_SECTORS.to_le_bytes());
    put(40, &(MAX_RANGES as u32).to_le_bytes());
    put(44, &sectors(info.unmap_granularity.max(1)).to_le_bytes());
    put(48, &MAX_WRITE_ZEROES_SECTORS.to_le_bytes());
    put(52, &(MAX_RANGES as u32).to_le_bytes());
    put(56, &[u8::from(bdev.supports(Operation::Unmap))]);
    space
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvlane_bdev::{Info, Null, Uuid};

    fn field<const N: usize>(space: &[u8; 256], at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&space[at..at + N]);
        u64::from_le_bytes(bytes)
    }

    #[test]
    fn the_space_of_a_disk_with_large_blocks() {
        let info = Info { physical_block_size: 16384, ..Info::new("disk", Uuid::random().unwrap(), 4096) };
        let bdev = Null::new(info, 1000).unwrap();
        let space = space(Some(&bdev), 4);
        assert_eq!(field::<8>(&space, 0), 8000, "capacity in sectors of 512 bytes");
        assert_eq!(field::<4>(&space, 12), 126, "seg_max");
        assert_eq!(field::<4>(&space, 20), 4096, "blk_size");
        assert_eq!(space[24], 2, "physical_block_exp");
        assert_eq!(field::<2>(&space, 26), 4, "min_io_size");
        assert_eq!(field::<2>(&space, 34), 4, "num_queues");
        assert_eq!(field::<4>(&space, 44), 8, "discard_sector_alignment");
        assert_eq!(space[56], 1, "write_zeroes_may_unmap");
        assert!(space[60..].iter().all(|&byte| byte == 0));
    }

    #[test]
    fn without_a_bdev_there_is_no_capacity_and_no_error() {
        assert_eq!(field::<8>(&space(None, 1), 0), 0);
        assert_eq!(features(None, false) & (feature::DISCARD | feature::RO), 0);
    }

    #[test]
    fn a_read_only_disk_offers_nothing_that_writes() {
        let bdev = Null::new(Info::new("disk", Uuid::random().unwrap(), 512), 1000).unwrap();
        let offered = features(Some(&bdev), true);
        assert_ne!(offered & feature::RO, 0);
        assert_eq!(offered & (feature::DISCARD | feature::WRITE_ZEROES), 0);
        assert_ne!(features(Some(&bdev), false) & feature::DISCARD, 0);
    }
}
