//! The command descriptor block: SPC-5 4.2.

use crate::bytes;
use crate::sense::Sense;

/// What of a CDB is looked at. Variable length CDBs (7Fh) are not supported, so no command has more.
pub const CDB_LENGTH: usize = 16;

/// A CDB, padded with zeroes: a transport with shorter CDBs than the command has gives no garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cdb([u8; CDB_LENGTH]);

impl Cdb {
    pub fn new(bytes: &[u8]) -> Cdb {
        let mut padded = [0; CDB_LENGTH];
        let length = bytes.len().min(CDB_LENGTH);
        padded[..length].copy_from_slice(&bytes[..length]);
        Cdb(padded)
    }

    #[inline]
    pub fn opcode(&self) -> u8 {
        self.0[0]
    }

    #[inline]
    pub fn byte(&self, offset: usize) -> u8 {
        self.0[offset]
    }

    pub fn bit(&self, byte: usize, bit: u8) -> bool {
        self.0[byte] & (1 << bit) != 0
    }

    #[inline]
    pub fn u16(&self, offset: usize) -> u16 {
        bytes::u16_at(&self.0, offset)
    }

    #[inline]
    pub fn u32(&self, offset: usize) -> u32 {
        bytes::u32_at(&self.0, offset)
    }

    #[inline]
    pub fn u64(&self, offset: usize) -> u64 {
        bytes::u64_at(&self.0, offset)
    }

    #[inline]
    pub fn u24(&self, offset: usize) -> u32 {
        bytes::u24_at(&self.0, offset)
    }

    /// How long the command is, by the group in its first three bits (SPC-5 table 23); None for groups 3 (variable
    /// length and reserved), 6 and 7 (vendor specific).
    pub fn length(&self) -> Option<usize> {
        match self.opcode() >> 5 {
            0 => Some(6),
            1 | 2 => Some(10),
            4 => Some(16),
            5 => Some(12),
            _ => None,
        }
    }

    /// The CONTROL byte (SAM-6 5.2): NACA is refused because NORMACA is zero, LINK because linked commands are gone.
    #[inline]
    pub fn check_control(&self) -> Result<(), Sense> {
        let Some(length) = self.length() else { return Ok(()) };
        match self.0[length - 1] {
            control if control & 0x04 != 0 => Err(Sense::cdb_field(length as u16 - 1, Some(2))),
            control if control & 0x01 != 0 => Err(Sense::cdb_field(length as u16 - 1, Some(0))),
            _ => Ok(()),
        }
    }
}
