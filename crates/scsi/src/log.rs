//! LOG SENSE: SPC-5 6.6. Only the list of pages, which lists itself.

use crate::execute::{Context, Outcome};
use crate::sense::Sense;

pub(crate) fn sense(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    if context.cdb.bit(1, 0) {
        return Err(Sense::cdb_field(1, Some(0))); // SP: nothing can be saved
    }
    let data: &[u8] = match (context.cdb.byte(2) & 0x3F, context.cdb.byte(3)) {
        (0x00, 0x00) => &[0x00, 0x00, 0, 1, 0x00],
        // With subpages: SPF is set, and each entry is a page and a subpage.
        (0x00, 0xFF) => &[0x40, 0xFF, 0, 4, 0x00, 0x00, 0x00, 0xFF],
        (0x00, _) => return Err(Sense::cdb_field(3, None)),
        _ => return Err(Sense::cdb_field(2, Some(5))),
    };
    Ok(context.reply(data, usize::from(context.cdb.u16(7))))
}
