//! READ and WRITE: SBC-4 5.13 to 5.16 and 5.40 to 5.43. The path that has to be short.

use crate::cdb::Cdb;
use crate::commands::opcode;
use crate::operation::Extent;
use crate::sense::Sense;

/// A READ or WRITE of any length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub write: bool,
    pub lba: u64,
    pub blocks: u32,
    /// FUA. DPO is a hint about a cache that is not ours.
    pub through: bool,
}

impl Transfer {
    /// None if the CDB is no READ or WRITE. The fields are checked, the range is not: that needs the disk's size.
    #[inline]
    pub fn decode(cdb: &Cdb) -> Option<Result<Transfer, Sense>> {
        let (write, lba, blocks) = match cdb.opcode() {
            opcode::READ_10 | opcode::WRITE_10 => {
                (cdb.opcode() == opcode::WRITE_10, u64::from(cdb.u32(2)), u32::from(cdb.u16(7)))
            }
            opcode::READ_16 | opcode::WRITE_16 => (cdb.opcode() == opcode::WRITE_16, cdb.u64(2), cdb.u32(10)),
            opcode::READ_6 | opcode::WRITE_6 => return Some(Transfer::decode_6(cdb)),
            opcode::READ_12 | opcode::WRITE_12 => {
                (cdb.opcode() == opcode::WRITE_12, u64::from(cdb.u32(2)), cdb.u32(6))
            }
            _ => return None,
        };
        Some(Transfer::check(cdb, Transfer { write, lba, blocks, through: cdb.byte(1) & 0x08 != 0 }))
    }

    /// RDPROTECT and WRPROTECT ask for protection information, which this disk has not (PROTECT is zero).
    #[inline]
    fn check(cdb: &Cdb, transfer: Transfer) -> Result<Transfer, Sense> {
        cdb.check_control()?;
        if cdb.byte(1) & 0xE0 != 0 {
            return Err(Sense::cdb_field(1, Some(7)));
        }
        Ok(transfer)
    }

    /// Six bytes: 21 bits of address, and a length of zero means 256.
    fn decode_6(cdb: &Cdb) -> Result<Transfer, Sense> {
        cdb.check_control()?;
        let blocks = match cdb.byte(4) {
            0 => 256,
            length => u32::from(length),
        };
        let write = cdb.opcode() == opcode::WRITE_6;
        Ok(Transfer { write, lba: u64::from(cdb.u24(1) & 0x1F_FFFF), blocks, through: false })
    }

    /// The blocks, if they lie within `capacity` and are no more than `limit` (zero: no limit).
    #[inline]
    pub fn extent(&self, capacity: u64, limit: u32) -> Result<Extent, Sense> {
        if limit != 0 && self.blocks > limit {
            return Err(self.too_long());
        }
        Extent::within(self.lba, u64::from(self.blocks), capacity)
    }

    /// MAXIMUM TRANSFER LENGTH exceeded (SBC-4 6.6.4): INVALID FIELD IN CDB, at the length.
    #[cold]
    fn too_long(&self) -> Sense {
        Sense::new(crate::sense::SenseKey::IllegalRequest, 0x24, 0x00)
    }
}
