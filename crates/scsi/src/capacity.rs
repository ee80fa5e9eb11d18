//! READ CAPACITY and GET LBA STATUS: SBC-4 5.20, 5.21, 5.8.

use crate::bytes::put;
use crate::disk::Disk;
use crate::execute::{Context, Outcome};
use crate::operation::Extent;
use crate::sense::Sense;

/// READ CAPACITY (10). PMI and its address are obsolete: an address without it is an error (SBC-2 5.10).
pub(crate) fn read_10(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    if context.cdb.byte(8) & 1 == 0 && context.cdb.u32(2) != 0 {
        return Err(Sense::cdb_field(2, None));
    }
    let last = Disk::last_block(context.blocks);
    let mut data = [0; 8];
    put(&mut data, 0, &u32::try_from(last).unwrap_or(u32::MAX).to_be_bytes());
    put(&mut data, 4, &context.disk.block_size.to_be_bytes());
    Ok(context.reply(&data, data.len()))
}

/// READ CAPACITY (16).
pub(crate) fn read_16(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let disk = context.disk;
    let mut data = [0; 32];
    put(&mut data, 0, &Disk::last_block(context.blocks).to_be_bytes());
    put(&mut data, 8, &disk.block_size.to_be_bytes());
    data[13] = disk.physical_exponent & 0x0F;
    if disk.provisioning.unmap {
        data[14] = 0x80; // LBPME
        if disk.provisioning.unmapped_is_zero {
            data[14] |= 0x40; // LBPRZ
        }
    }
    Ok(context.reply(&data, context.cdb.u32(10) as usize))
}

/// GET LBA STATUS (16): where the holes are is not known here, so the rest of the disk is one extent that is 'mapped
/// or unknown' (PROVISIONING STATUS 0h).
pub(crate) fn lba_status(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let lba = context.cdb.u64(2);
    Extent::within(lba, 1, context.blocks)?;
    let blocks = u32::try_from(context.blocks - lba).unwrap_or(u32::MAX);
    let mut data = [0; 24];
    put(&mut data, 0, &20_u32.to_be_bytes());
    put(&mut data, 8, &lba.to_be_bytes());
    put(&mut data, 16, &blocks.to_be_bytes());
    Ok(context.reply(&data, context.cdb.u32(10) as usize))
}
