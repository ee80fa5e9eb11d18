//! REPORT LUNS: SPC-5 6.34.

use crate::bytes::put;
use crate::cdb::Cdb;
use crate::commands::opcode;
use crate::execute::Outcome;
use crate::inquiry;
use crate::sense::Sense;

/// A target has one logical unit, number 0, and no well known ones.
pub(crate) fn report(cdb: &Cdb, present: bool) -> Result<Vec<u8>, Sense> {
    let count = match cdb.byte(2) {
        // The addressable units, and all units.
        0x00 | 0x02 => usize::from(present),
        // Well known units; administrative units and what depends on them (10h to 12h).
        0x01 | 0x10..=0x12 => 0,
        _ => return Err(Sense::cdb_field(2, None)),
    };
    let mut data = vec![0; 8 + 8 * count];
    put(&mut data, 0, &(8 * count as u32).to_be_bytes());
    Ok(data)
}

/// The REPORT LUNS well known logical unit (SPC-5 8.2), through which a transport lists units in its own notation.
pub fn well_known(cdb: &Cdb, list: &[[u8; 8]], data: &mut Vec<u8>) -> Outcome {
    /// PERIPHERAL DEVICE TYPE 1Eh.
    const WELL_KNOWN: u8 = 0x1E;
    data.clear();
    if let Err(sense) = cdb.check_control() {
        return Outcome::CheckCondition(sense);
    }
    let allocation = match cdb.opcode() {
        opcode::TEST_UNIT_READY => 0,
        opcode::INQUIRY if !cdb.bit(1, 0) && cdb.byte(2) == 0 => {
            data.extend(inquiry::absent());
            data[0] = WELL_KNOWN;
            usize::from(cdb.u16(3))
        }
        opcode::REQUEST_SENSE => {
            let (bytes, length) = Sense::NONE.encode(cdb.bit(1, 0));
            data.extend(&bytes[..length]);
            usize::from(cdb.byte(4))
        }
        opcode::REPORT_LUNS if matches!(cdb.byte(2), 0 | 2) => {
            data.extend((8 * list.len() as u32).to_be_bytes());
            data.extend([0; 4]);
            data.extend(list.iter().flatten());
            cdb.u32(6) as usize
        }
        opcode::INQUIRY | opcode::REPORT_LUNS => return Outcome::CheckCondition(Sense::cdb_field(2, None)),
        _ => return Outcome::CheckCondition(Sense::OPCODE),
    };
    data.truncate(allocation);
    if data.is_empty() { Outcome::Good } else { Outcome::Data }
}
