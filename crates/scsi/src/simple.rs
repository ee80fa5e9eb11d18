//! Commands of a few lines each.

use crate::attention::Attention;
use crate::commands::opcode;
use crate::execute::{Context, Outcome};
use crate::luns;
use crate::operation::{Compare, Extent, Operation};
use crate::sense::Sense;
use crate::transfer::Transfer;

pub(crate) fn good(_: &mut Context<'_>) -> Result<Outcome, Sense> {
    Ok(Outcome::Good)
}

/// REQUEST SENSE (SPC-5 6.41): what TEST UNIT READY would say, which also counts as having said it.
pub(crate) fn request_sense(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let sense = match context.unit.pending.take() {
        Some(attention) => attention.sense(),
        None if context.unit.stopped => Sense::STOPPED,
        None => Sense::NONE,
    };
    let (bytes, length) = sense.encode(context.cdb.bit(1, 0));
    Ok(context.reply(&bytes[..length], usize::from(context.cdb.byte(4))))
}

/// REPORT LUNS also clears the condition that says its answer has changed (SPC-5 6.34).
pub(crate) fn report_luns(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let list = luns::report(context.cdb, true)?;
    context.unit.pending.clear(Attention::LunsChanged);
    Ok(context.reply(&list, context.cdb.u32(6) as usize))
}

pub(crate) fn transfer(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let transfer = Transfer::decode(context.cdb).unwrap_or(Err(Sense::OPCODE))?;
    let extent = transfer.extent(context.blocks, context.disk.limits.transfer_blocks)?;
    Ok(Outcome::Operation(match transfer.write {
        true => Operation::Write { extent, through: transfer.through && context.disk.write_cache },
        false => Operation::Read { extent, through: transfer.through && context.disk.write_cache },
    }))
}

/// VERIFY and WRITE AND VERIFY (SBC-4 5.37 to 5.39, 5.44 to 5.46).
pub(crate) fn verify(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let cdb = context.cdb;
    if cdb.byte(1) & 0xE0 != 0 {
        return Err(Sense::cdb_field(1, Some(7))); // VRPROTECT, WRPROTECT
    }
    let (lba, blocks) = match cdb.length() {
        Some(16) => (cdb.u64(2), cdb.u32(10)),
        Some(12) => (u64::from(cdb.u32(2)), cdb.u32(6)),
        _ => (u64::from(cdb.u32(2)), u32::from(cdb.u16(7))),
    };
    let limit = context.disk.limits.transfer_blocks;
    let extent = Transfer { write: false, lba, blocks, through: false }.extent(context.blocks, limit)?;
    let writes =
        matches!(cdb.opcode(), opcode::WRITE_VERIFY_10 | opcode::WRITE_VERIFY_12 | opcode::WRITE_VERIFY_16);
    Ok(Outcome::Operation(match (cdb.byte(1) >> 1) & 3 {
        0 if writes => Operation::WriteVerify { extent, compare: false },
        1 if writes => Operation::WriteVerify { extent, compare: true },
        0 => Operation::Verify { extent, compare: Compare::Nothing },
        1 => Operation::Verify { extent, compare: Compare::Data },
        3 if !writes => Operation::Verify { extent, compare: Compare::Block },
        _ => return Err(Sense::cdb_field(1, Some(2))),
    }))
}

/// SYNCHRONIZE CACHE (SBC-4 5.32, 5.33): the whole cache, whatever the range, which only has to be on the disk.
/// IMMED allows an answer before it is done; waiting is allowed too.
pub(crate) fn synchronize(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let (lba, blocks) = match context.cdb.opcode() {
        opcode::SYNCHRONIZE_CACHE_16 => (context.cdb.u64(2), context.cdb.u32(10)),
        _ => (u64::from(context.cdb.u32(2)), u32::from(context.cdb.u16(7))),
    };
    Extent::within(lba, u64::from(blocks), context.blocks)?;
    Ok(if context.disk.write_cache { Outcome::Operation(Operation::Flush) } else { Outcome::Good })
}

/// START STOP UNIT (SBC-4 5.31). There are no power conditions but 'active', and nothing to load or eject.
pub(crate) fn start_stop(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    const START_VALID: u8 = 0;
    const ACTIVE: u8 = 1;
    let (condition, start, load_eject) =
        (context.cdb.byte(4) >> 4, context.cdb.bit(4, 0), context.cdb.bit(4, 1));
    match condition {
        START_VALID if load_eject => return Err(Sense::cdb_field(4, Some(1))),
        START_VALID => context.unit.stopped = !start,
        ACTIVE => context.unit.stopped = false,
        _ => return Err(Sense::cdb_field(4, Some(7))),
    }
    // What was written is on stable storage before the unit stops, unless NO_FLUSH says not to care.
    let flush = context.unit.stopped && !context.cdb.bit(4, 2) && context.disk.write_cache;
    Ok(if flush { Outcome::Operation(Operation::Flush) } else { Outcome::Good })
}

/// PREVENT ALLOW MEDIUM REMOVAL (SBC-4 5.11): the medium cannot be removed anyway.
pub(crate) fn prevent_allow(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    if context.cdb.byte(4) & 0x02 != 0 {
        return Err(Sense::cdb_field(4, Some(1)));
    }
    Ok(Outcome::Good)
}

/// SEND DIAGNOSTIC (SPC-5 6.42): the default self-test, which a disk that answers has passed. No other test, no
/// parameter list.
pub(crate) fn self_test(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    if context.cdb.byte(1) >> 5 != 0 {
        return Err(Sense::cdb_field(1, Some(7)));
    }
    if context.cdb.u16(3) != 0 {
        return Err(Sense::cdb_field(3, None));
    }
    Ok(Outcome::Good)
}
