//! What a disk is: everything that stays as it is while a logical unit lives.

/// A disk, as it is presented. Its size is not here, because it may change: it is given with each command.
#[derive(Clone, Debug)]
pub struct Disk {
    /// All designators are derived from it, so that a guest finds the same disk again wherever it is attached.
    pub uuid: [u8; 16],
    /// At most 8 characters (T10 VENDOR IDENTIFICATION).
    pub vendor: String,
    /// At most 16 characters are shown (PRODUCT IDENTIFICATION).
    pub product: String,
    /// At most 4 characters (PRODUCT REVISION LEVEL). Drivers key quirks on it, so it is no release number.
    pub revision: String,
    /// PRODUCT SERIAL NUMBER; at most 64 characters are shown.
    pub serial: String,
    /// Bytes in a logical block, a power of two of at least 512.
    pub block_size: u32,
    /// Physical blocks hold 2^exponent logical blocks.
    pub physical_exponent: u8,
    pub read_only: bool,
    /// There is a volatile write cache: SYNCHRONIZE CACHE means something, and so does WCE.
    pub write_cache: bool,
    pub provisioning: Provisioning,
    pub limits: Limits,
}

/// Logical block provisioning: SBC-4 4.7.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provisioning {
    /// Blocks can be given back: UNMAP, and WRITE SAME with UNMAP set.
    pub unmap: bool,
    /// Blocks that were unmapped read as zeroes (LBPRZ).
    pub unmapped_is_zero: bool,
    /// The unit may run out of space (thin), rather than having it all (resource provisioned).
    pub thin: bool,
}

/// The most that one command may ask for, in blocks where nothing else is said. They bound how long one command
/// keeps a reactor busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one READ, WRITE or VERIFY; zero reports no limit.
    pub transfer_blocks: u32,
    pub unmap_blocks: u32,
    pub unmap_descriptors: u32,
    pub write_same_blocks: u32,
    /// The unit in which space is really given back.
    pub unmap_granularity: u32,
}

impl Disk {
    /// The vendor of all disks that are not given another.
    pub const VENDOR: &'static str = "NVLANE";
    pub const REVISION: &'static str = "0001";

    /// 60 bits for the locally assigned NAA designator: FNV-1a over the UUID, which keeps what is random in it
    /// wherever that is (version 1 UUIDs differ in their first bytes only, version 4 UUIDs in all but two fields).
    pub(crate) fn local_name(&self) -> u64 {
        let hash = self.uuid.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        });
        hash & 0x0FFF_FFFF_FFFF_FFFF
    }

    /// The LBA of the last block, as READ CAPACITY tells it; a unit without blocks says zero like one with one block,
    /// for there is no other way to say it.
    pub(crate) fn last_block(blocks: u64) -> u64 {
        blocks.saturating_sub(1)
    }
}
