//! Standard INQUIRY data: SPC-5 6.7.

use crate::bytes::{put, put_text};
use crate::disk::Disk;
use crate::execute::{Context, Outcome};
use crate::sense::Sense;
use crate::vpd;

const LENGTH: usize = 96;

/// VERSION of SPC-4: drivers and judges in use know it, and everything here that is newer (the UUID designator) is an
/// addition that they pass over. libiscsi's tests take 07h for a mistake.
const VERSION: u8 = 0x06;
/// HISUP (LUNs are the hierarchical ones of SAM) and RESPONSE DATA FORMAT 2.
const FORMAT: u8 = 0x12;
const COMMAND_QUEUE: u8 = 0x02;
/// SAM-5, SPC-4 and SBC-3, no version claimed (SPC-5 table 143).
const VERSION_DESCRIPTORS: [u16; 3] = [0x00A0, 0x0460, 0x04C0];

/// PERIPHERAL QUALIFIER 011b, type 1Fh: there is no such unit, and there could be none.
const NO_UNIT: u8 = 0x7F;

pub(crate) fn inquiry(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    check(context)?;
    let data = match context.cdb.bit(1, 0) {
        true => vpd::page(context.disk, context.cdb.byte(2))?,
        false => standard(context.disk).to_vec(),
    };
    Ok(context.reply(&data, usize::from(context.cdb.u16(3))))
}

/// CMDDT went with SPC-3; a page code without EVPD is an error (SPC-5 6.7.1).
fn check(context: &Context<'_>) -> Result<(), Sense> {
    if context.cdb.bit(1, 1) {
        return Err(Sense::cdb_field(1, Some(1)));
    }
    if !context.cdb.bit(1, 0) && context.cdb.byte(2) != 0 {
        return Err(Sense::cdb_field(2, None));
    }
    Ok(())
}

pub(crate) fn standard(disk: &Disk) -> [u8; LENGTH] {
    let mut data = [0; LENGTH];
    data[2] = VERSION;
    data[3] = FORMAT;
    data[4] = (LENGTH - 5) as u8;
    data[7] = COMMAND_QUEUE;
    put_text(&mut data[8..16], &disk.vendor);
    put_text(&mut data[16..32], &disk.product);
    put_text(&mut data[32..36], &disk.revision);
    for (index, descriptor) in VERSION_DESCRIPTORS.iter().enumerate() {
        put(&mut data, 58 + 2 * index, &descriptor.to_be_bytes());
    }
    data
}

/// The answer of a target for a logical unit that it does not have: only the first byte matters (SPC-5 6.7.2).
pub(crate) fn absent() -> [u8; LENGTH] {
    let mut data = [0; LENGTH];
    data[0] = NO_UNIT;
    data[2] = VERSION;
    data[3] = FORMAT;
    data[4] = (LENGTH - 5) as u8;
    data
}
