//! REPORT LUNS: SPC-5 6.34.

use crate::bytes::put;
use crate::cdb::Cdb;
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
