//! UNMAP: SBC-4 5.35.

use crate::bytes::{u16_at, u32_at, u64_at};
use crate::execute::{Context, Outcome};
use crate::operation::{Extent, Operation};
use crate::sense::Sense;

const HEADER: usize = 8;
const DESCRIPTOR: usize = 16;

pub(crate) fn unmap(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    if context.cdb.bit(1, 0) {
        return Err(Sense::cdb_field(1, Some(0))); // ANCHOR: no block can be anchored
    }
    let list = context.parameters;
    if list.is_empty() {
        return Ok(Outcome::Good);
    }
    if list.len() < HEADER {
        return Err(Sense::PARAMETER_LIST_LENGTH);
    }
    // A descriptor that is not there as a whole is ignored (5.35.2).
    let length = usize::from(u16_at(list, 2)).min(list.len() - HEADER);
    let extents = extents(context, &list[HEADER..HEADER + length])?;
    Ok(match extents.is_empty() {
        true => Outcome::Good,
        false => Outcome::Operation(Operation::Unmap { extents }),
    })
}

/// The ranges that are not empty, each within the disk and all within the limits of page B0h.
fn extents(context: &Context<'_>, list: &[u8]) -> Result<Vec<Extent>, Sense> {
    let limits = &context.disk.limits;
    let count = list.len() / DESCRIPTOR;
    if count > limits.unmap_descriptors as usize {
        return Err(Sense::list_field(2, None));
    }
    let mut total = 0;
    let mut extents = Vec::with_capacity(count);
    for (index, descriptor) in list.chunks_exact(DESCRIPTOR).enumerate() {
        let blocks = u64::from(u32_at(descriptor, 8));
        let extent = Extent::within(u64_at(descriptor, 0), blocks, context.blocks)?;
        total += blocks;
        if total > u64::from(limits.unmap_blocks) {
            return Err(Sense::list_field((HEADER + index * DESCRIPTOR + 8) as u16, None));
        }
        if blocks > 0 {
            extents.push(extent);
        }
    }
    Ok(extents)
}
