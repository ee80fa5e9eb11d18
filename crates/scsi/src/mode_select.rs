//! MODE SELECT: SPC-5 6.12.

use crate::bytes::{u16_at, u24_at, u32_at, u64_at};
use crate::commands::opcode;
use crate::disk::Disk;
use crate::execute::{Context, Outcome};
use crate::mode::{self, CONTROL, D_SENSE, SWP};
use crate::sense::Sense;
use crate::unit::Modes;

/// All of the list is checked before any of it is taken (SPC-5 6.12: no change if there is an error).
pub(crate) fn select(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    if !context.cdb.bit(1, 4) {
        return Err(Sense::cdb_field(1, Some(4))); // PF: no vendor specific format is known
    }
    if context.cdb.bit(1, 0) {
        return Err(Sense::cdb_field(1, Some(0))); // SP: nothing can be saved
    }
    let list = context.parameters;
    if list.is_empty() {
        return Ok(Outcome::Good);
    }
    let long = context.cdb.opcode() == opcode::MODE_SELECT_10;
    let pages_at = check_header(context, list, long)?;
    context.unit.modes = pages(context.disk, context.unit.modes, list, pages_at)?;
    Ok(Outcome::Good)
}

/// Header and block descriptors; returns where the pages start.
fn check_header(context: &Context<'_>, list: &[u8], long: bool) -> Result<usize, Sense> {
    let header = if long { 8 } else { 4 };
    if list.len() < header {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    let (length, length_at) =
        if long { (usize::from(u16_at(list, 6)), 6) } else { (usize::from(list[3]), 3) };
    let long_lba = long && list[4] & 1 != 0;
    let expected = if long_lba { 16 } else { 8 };
    match length {
        0 => return Ok(header),
        length if length != expected => return Err(Sense::list_field(length_at, None)),
        _ => {}
    }
    if list.len() < header + length {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    check_descriptor(context, &list[header..header + length], header as u16)?;
    Ok(header + length)
}

/// The block size and the number of blocks are what they are; zero and all ones of the number mean the same
/// (SBC-4 6.5.2.2).
fn check_descriptor(context: &Context<'_>, descriptor: &[u8], at: u16) -> Result<(), Sense> {
    let (blocks, all, size, size_at) = match descriptor.len() {
        16 => (u64_at(descriptor, 0), u64::MAX, u32_at(descriptor, 12), 12),
        _ => (u64::from(u32_at(descriptor, 0)), u64::from(u32::MAX), u24_at(descriptor, 5), 5),
    };
    if blocks != 0 && blocks != all && blocks != context.blocks {
        return Err(Sense::list_field(at, None));
    }
    if size != context.disk.block_size {
        return Err(Sense::list_field(at + size_at, None));
    }
    Ok(())
}

fn pages(disk: &Disk, mut modes: Modes, list: &[u8], mut at: usize) -> Result<Modes, Sense> {
    while at < list.len() {
        // Subpage format (SPF): there are no subpages.
        if list[at] & 0x40 != 0 {
            return Err(Sense::list_field(at as u16, Some(6)));
        }
        let code = list[at] & 0x3F;
        let current = mode::page(disk, code, Some(modes)).ok_or(Sense::list_field(at as u16, Some(5)))?;
        let changeable = mode::page(disk, code, None).unwrap_or_default();
        let Some(length) = list.get(at + 1) else { return Err(Sense::PARAMETER_LIST_LENGTH) };
        if usize::from(*length) + 2 != current.len() {
            return Err(Sense::list_field(at as u16 + 1, None));
        }
        let Some(page) = list.get(at..at + current.len()) else { return Err(Sense::PARAMETER_LIST_LENGTH) };
        for index in 2..current.len() {
            let wrong = (page[index] ^ current[index]) & !changeable[index];
            if wrong != 0 {
                let bit = 7 - wrong.leading_zeros() as u8;
                return Err(Sense::list_field((at + index) as u16, Some(bit)));
            }
        }
        apply(code, page, &mut modes);
        at += current.len();
    }
    Ok(modes)
}

fn apply(code: u8, page: &[u8], modes: &mut Modes) {
    if code == CONTROL {
        modes.descriptor_sense = page[2] & D_SENSE != 0;
        modes.write_protect = page[4] & SWP != 0;
    }
}
