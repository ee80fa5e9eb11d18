//! What is asked of the blocks.

use crate::sense::Sense;

/// A range of logical blocks that lies within the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub lba: u64,
    pub blocks: u64,
}

impl Extent {
    /// LOGICAL BLOCK ADDRESS OUT OF RANGE where the range does not lie within `capacity` blocks; a range of no blocks
    /// may start right behind the last one (SBC-4 4.5: lba + length exceeds the capacity).
    #[inline]
    pub fn within(lba: u64, blocks: u64, capacity: u64) -> Result<Extent, Sense> {
        match lba.checked_add(blocks) {
            Some(end) if end <= capacity => Ok(Extent { lba, blocks }),
            _ => Err(Sense::LBA_OUT_OF_RANGE),
        }
    }
}

/// A command that passed every check and now needs the blocks. Data-Out and Data-In are exactly
/// [`Operation::data_out`] and [`Operation::data_in`] bytes, from the start of the initiator's buffers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `through`: the medium's data, so what is cached is written first (FUA, SBC-4 4.15).
    Read {
        extent: Extent,
        through: bool,
    },
    /// `through`: on stable storage before the status.
    Write {
        extent: Extent,
        through: bool,
    },
    /// WRITE AND VERIFY: written, on stable storage, read again; compared if `compare`.
    WriteVerify {
        extent: Extent,
        compare: bool,
    },
    Verify {
        extent: Extent,
        compare: Compare,
    },
    /// SYNCHRONIZE CACHE: everything written before is on stable storage.
    Flush,
    /// The blocks are no longer needed.
    Unmap {
        extents: Vec<Extent>,
    },
    /// Every block of the extent holds the pattern; `unmap`: deallocating is welcome where it gives the same.
    WriteSame {
        extent: Extent,
        pattern: Pattern,
        unmap: bool,
    },
}

/// BYTCHK of VERIFY (SBC-4 table 122).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// The blocks can be read, no more.
    Nothing,
    /// With the Data-Out buffer.
    Data,
    /// Each block with the one block in the Data-Out buffer.
    Block,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    Zeroes,
    /// The block in the Data-Out buffer.
    Block,
}

impl Operation {
    /// Bytes taken from the Data-Out buffer.
    pub fn data_out(&self, block_size: u32) -> u64 {
        let size = u64::from(block_size);
        match self {
            Operation::Write { extent, .. } | Operation::WriteVerify { extent, .. } => extent.blocks * size,
            Operation::Verify { extent, compare: Compare::Data } => extent.blocks * size,
            Operation::Verify { extent, compare: Compare::Block } if extent.blocks > 0 => size,
            Operation::WriteSame { pattern: Pattern::Block, .. } => size,
            // The list, or the block of zeroes, was taken already.
            Operation::Unmap { .. } | Operation::WriteSame { .. } => 0,
            Operation::Read { .. } | Operation::Verify { .. } | Operation::Flush => 0,
        }
    }

    /// Bytes put into the Data-In buffer.
    pub fn data_in(&self, block_size: u32) -> u64 {
        match self {
            Operation::Read { extent, .. } => extent.blocks * u64::from(block_size),
            _ => 0,
        }
    }
}
