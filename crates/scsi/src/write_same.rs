//! WRITE SAME: SBC-4 5.49, 5.50.

use crate::cdb::Cdb;
use crate::commands::opcode;
use crate::execute::{Context, Outcome};
use crate::operation::{Extent, Operation, Pattern};
use crate::sense::Sense;

pub(crate) fn write_same(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let cdb = context.cdb;
    let unmap = cdb.bit(1, 3);
    check(context, unmap)?;
    let (lba, blocks, length_at) = match cdb.opcode() {
        opcode::WRITE_SAME_16 => (cdb.u64(2), cdb.u32(10), 10),
        _ => (u64::from(cdb.u32(2)), u32::from(cdb.u16(7)), 7),
    };
    // WSNZ is set: no blocks does not mean 'to the end'. The limit is that of page B0h.
    if blocks == 0 || blocks > context.disk.limits.write_same_blocks {
        return Err(Sense::cdb_field(length_at, None));
    }
    let extent = Extent::within(lba, u64::from(blocks), context.blocks)?;
    let zeroes = no_data(cdb) || context.parameters.iter().all(|byte| *byte == 0);
    let pattern = if zeroes { Pattern::Zeroes } else { Pattern::Block };
    Ok(Outcome::Operation(Operation::WriteSame { extent, pattern, unmap }))
}

/// NDOB, of the 16-byte command only: no Data-Out, the block is zeroes.
pub(crate) fn no_data(cdb: &Cdb) -> bool {
    cdb.opcode() == opcode::WRITE_SAME_16 && cdb.bit(1, 0)
}

fn check(context: &Context<'_>, unmap: bool) -> Result<(), Sense> {
    let cdb = context.cdb;
    if cdb.byte(1) & 0xE0 != 0 {
        return Err(Sense::cdb_field(1, Some(7))); // WRPROTECT
    }
    if cdb.bit(1, 4) {
        return Err(Sense::cdb_field(1, Some(4))); // ANCHOR
    }
    if unmap && !context.disk.provisioning.unmap {
        return Err(Sense::cdb_field(1, Some(3)));
    }
    // PBDATA and LBDATA are obsolete, NDOB exists in the long command only.
    let reserved = if cdb.opcode() == opcode::WRITE_SAME_16 { 0x06 } else { 0x07 };
    match cdb.byte(1) & reserved {
        0 => Ok(()),
        set => Err(Sense::cdb_field(1, Some(7 - set.leading_zeros() as u8))),
    }
}
