//! Status and sense data: SAM-6 5.3, SPC-5 4.4.

/// The status codes that this disk returns (SAM-6 table 48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    Good = 0x00,
    CheckCondition = 0x02,
    Busy = 0x08,
    ReservationConflict = 0x18,
    TaskSetFull = 0x28,
    TaskAborted = 0x40,
}

/// SPC-5 table 48.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum SenseKey {
    NoSense = 0x0,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    AbortedCommand = 0xB,
    Miscompare = 0xE,
}

/// Where the offending field is (SPC-5 4.4.2.4.2): in the CDB or in the parameter list, which byte, and the most
/// significant bit of the field if it is not the whole byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    pub in_cdb: bool,
    pub byte: u16,
    pub bit: Option<u8>,
}

/// Why a command was not GOOD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    pub key: SenseKey,
    pub code: u8,
    pub qualifier: u8,
    pub information: Option<u64>,
    pub field: Option<Field>,
}

impl Sense {
    pub const NONE: Sense = Sense::new(SenseKey::NoSense, 0x00, 0x00);
    pub const BECOMING_READY: Sense = Sense::new(SenseKey::NotReady, 0x04, 0x01);
    /// "Initializing command required": START STOP UNIT has stopped the unit.
    pub const STOPPED: Sense = Sense::new(SenseKey::NotReady, 0x04, 0x02);
    pub const WRITE_ERROR: Sense = Sense::new(SenseKey::MediumError, 0x0C, 0x00);
    pub const READ_ERROR: Sense = Sense::new(SenseKey::MediumError, 0x11, 0x00);
    pub const PARAMETER_LIST_LENGTH: Sense = Sense::new(SenseKey::IllegalRequest, 0x1A, 0x00);
    pub const OPCODE: Sense = Sense::new(SenseKey::IllegalRequest, 0x20, 0x00);
    pub const LBA_OUT_OF_RANGE: Sense = Sense::new(SenseKey::IllegalRequest, 0x21, 0x00);
    pub const NO_SUCH_UNIT: Sense = Sense::new(SenseKey::IllegalRequest, 0x25, 0x00);
    pub const SAVING_NOT_SUPPORTED: Sense = Sense::new(SenseKey::IllegalRequest, 0x39, 0x00);
    pub const WRITE_PROTECTED: Sense = Sense::new(SenseKey::DataProtect, 0x27, 0x00);
    pub const SOFTWARE_WRITE_PROTECTED: Sense = Sense::new(SenseKey::DataProtect, 0x27, 0x02);
    /// "Space allocation failed write protect" (SBC-4 4.7.3.6): Linux turns it into ENOSPC.
    pub const NO_SPACE: Sense = Sense::new(SenseKey::DataProtect, 0x27, 0x07);
    pub const MISCOMPARE: Sense = Sense::new(SenseKey::Miscompare, 0x1D, 0x00);
    pub const INTERNAL_FAILURE: Sense = Sense::new(SenseKey::HardwareError, 0x44, 0x00);
    pub const ABORTED: Sense = Sense::new(SenseKey::AbortedCommand, 0x00, 0x00);

    pub const fn new(key: SenseKey, code: u8, qualifier: u8) -> Sense {
        Sense { key, code, qualifier, information: None, field: None }
    }

    /// INVALID FIELD IN CDB; `bit` is the field's most significant bit, None where the field starts at bit 7.
    pub const fn cdb_field(byte: u16, bit: Option<u8>) -> Sense {
        let mut sense = Sense::new(SenseKey::IllegalRequest, 0x24, 0x00);
        sense.field = Some(Field { in_cdb: true, byte, bit });
        sense
    }

    /// INVALID FIELD IN PARAMETER LIST.
    pub const fn list_field(byte: u16, bit: Option<u8>) -> Sense {
        let mut sense = Sense::new(SenseKey::IllegalRequest, 0x26, 0x00);
        sense.field = Some(Field { in_cdb: false, byte, bit });
        sense
    }

    pub const fn with_information(mut self, information: u64) -> Sense {
        self.information = Some(information);
        self
    }

    /// The sense data as bytes; `descriptors` asks for the descriptor format. Returns the buffer and how much of it
    /// is used.
    pub fn encode(&self, descriptors: bool) -> ([u8; Sense::MAX_LENGTH], usize) {
        // INFORMATION of the fixed format has four bytes: a larger value is told in descriptors or not at all
        // (SPC-5 4.4.3: VALID is zero then).
        if descriptors { self.descriptor_format() } else { self.fixed_format() }
    }

    pub const MAX_LENGTH: usize = 32;

    /// SPC-5 4.4.3.
    fn fixed_format(&self) -> ([u8; Sense::MAX_LENGTH], usize) {
        let mut bytes = [0; Sense::MAX_LENGTH];
        bytes[0] = 0x70;
        bytes[2] = self.key as u8;
        if let Some(Ok(information)) = self.information.map(u32::try_from) {
            bytes[0] |= 0x80;
            bytes[3..7].copy_from_slice(&information.to_be_bytes());
        }
        bytes[7] = 10;
        bytes[12] = self.code;
        bytes[13] = self.qualifier;
        if let Some(field) = self.field {
            bytes[15..18].copy_from_slice(&field.specific());
        }
        (bytes, 18)
    }

    /// SPC-5 4.4.2.
    fn descriptor_format(&self) -> ([u8; Sense::MAX_LENGTH], usize) {
        let mut bytes = [0; Sense::MAX_LENGTH];
        bytes[0] = 0x72;
        bytes[1] = self.key as u8;
        bytes[2] = self.code;
        bytes[3] = self.qualifier;
        let mut length = 8;
        if let Some(information) = self.information {
            bytes[length] = 0x00;
            bytes[length + 1] = 0x0A;
            bytes[length + 2] = 0x80;
            bytes[length + 4..length + 12].copy_from_slice(&information.to_be_bytes());
            length += 12;
        }
        if let Some(field) = self.field {
            bytes[length] = 0x02;
            bytes[length + 1] = 0x06;
            bytes[length + 4..length + 7].copy_from_slice(&field.specific());
            length += 8;
        }
        bytes[7] = (length - 8) as u8;
        (bytes, length)
    }
}

impl Field {
    /// Sense key specific data of ILLEGAL REQUEST: SKSV, C/D, BPV and BIT POINTER, FIELD POINTER.
    fn specific(&self) -> [u8; 3] {
        let in_cdb = if self.in_cdb { 0x40 } else { 0 };
        let bit = self.bit.map_or(0, |bit| 0x08 | (bit & 7));
        let [high, low] = self.byte.to_be_bytes();
        [0x80 | in_cdb | bit, high, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format_points_at_the_field() {
        let (bytes, length) = Sense::cdb_field(1, Some(7)).encode(false);
        assert_eq!(bytes[..length], [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xCF, 0, 1]);
    }

    #[test]
    fn descriptor_format_has_information_and_field() {
        let sense = Sense::list_field(0x0102, None).with_information(0x1_0000_0001);
        let (bytes, length) = sense.encode(true);
        assert_eq!(bytes[..8], [0x72, 5, 0x26, 0, 0, 0, 0, 20]);
        assert_eq!(bytes[8..20], [0, 0x0A, 0x80, 0, 0, 0, 0, 1, 0, 0, 0, 1]);
        assert_eq!(bytes[20..length], [2, 6, 0, 0, 0x80, 1, 2, 0]);
    }

    #[test]
    fn information_beyond_four_bytes_is_not_valid_in_the_fixed_format() {
        let (small, _) = Sense::READ_ERROR.with_information(7).encode(false);
        let (large, _) = Sense::READ_ERROR.with_information(1 << 32).encode(false);
        assert_eq!((small[0], &small[3..7]), (0xF0, &[0, 0, 0, 7][..]));
        assert_eq!((large[0], &large[3..7]), (0x70, &[0, 0, 0, 0][..]));
    }
}
