//! Mode pages and MODE SENSE: SPC-5 6.14, 7.5; SBC-4 6.5.

use crate::bytes::put;
use crate::disk::Disk;
use crate::execute::{Context, Outcome};
use crate::sense::Sense;
use crate::unit::Modes;

const ERROR_RECOVERY: u8 = 0x01;
const CACHING: u8 = 0x08;
pub(crate) const CONTROL: u8 = 0x0A;
const INFORMATIONAL_EXCEPTIONS: u8 = 0x1C;
const ALL: u8 = 0x3F;
const ALL_SUBPAGES: u8 = 0xFF;

/// In ascending order, as all-pages wants them (SPC-5 6.14.1).
const PAGES: [u8; 4] = [ERROR_RECOVERY, CACHING, CONTROL, INFORMATIONAL_EXCEPTIONS];

const WCE: u8 = 0x04;
pub(crate) const D_SENSE: u8 = 0x04;
pub(crate) const SWP: u8 = 0x08;

/// A page with its header. `modes` None gives the mask of what can be changed.
pub(crate) fn page(disk: &Disk, code: u8, modes: Option<Modes>) -> Option<Vec<u8>> {
    let length = match code {
        ERROR_RECOVERY => 0x0A,
        CACHING => 0x12,
        CONTROL => 0x0A,
        INFORMATIONAL_EXCEPTIONS => 0x0A,
        _ => return None,
    };
    let mut page = vec![0; 2 + length];
    page[0] = code;
    page[1] = length as u8;
    match modes {
        Some(modes) => fill(disk, code, &mut page, modes),
        None => fill_changeable(code, &mut page),
    }
    Some(page)
}

fn fill(disk: &Disk, code: u8, page: &mut [u8], modes: Modes) {
    match code {
        // AWRE and ARRE: what lies below reassigns on its own.
        ERROR_RECOVERY => page[2] = 0xC0,
        CACHING => page[2] = if disk.write_cache { WCE } else { 0 },
        CONTROL => {
            page[2] = if modes.descriptor_sense { D_SENSE } else { 0 } | 0x02; // GLTSD
            page[3] = 0x10; // QUEUE ALGORITHM MODIFIER 1: commands are reordered freely
            page[4] = if modes.write_protect { SWP } else { 0 };
        }
        // DEXCPT: no informational exceptions are generated.
        _ => page[2] = 0x08,
    }
}

/// WCE is not among what can be changed: a guest that had turned the cache off would lose its writes with the power if
/// the program behind this disk was restarted and had forgotten it. FUA and SYNCHRONIZE CACHE are always there.
fn fill_changeable(code: u8, page: &mut [u8]) {
    if code == CONTROL {
        page[2] = D_SENSE;
        page[4] = SWP;
    }
}

/// MODE SENSE (6) and (10).
pub(crate) fn sense(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let long = context.cdb.opcode() == crate::commands::opcode::MODE_SENSE_10;
    let (code, subpage) = (context.cdb.byte(2) & 0x3F, context.cdb.byte(3));
    let modes = match context.cdb.byte(2) >> 6 {
        0 => Some(context.unit.modes),
        1 => None,
        2 => Some(Modes::DEFAULT),
        _ => return Err(Sense::SAVING_NOT_SUPPORTED),
    };
    let pages = select(context.disk, code, subpage, modes)?;
    let descriptor = match context.cdb.bit(1, 3) {
        true => Vec::new(), // DBD
        false => block_descriptor(context, long && context.cdb.bit(1, 4)),
    };
    let data = assemble(context, long, &descriptor, &pages);
    let allocation = if long { usize::from(context.cdb.u16(7)) } else { usize::from(context.cdb.byte(4)) };
    Ok(context.reply(&data, allocation))
}

/// The pages asked for. No page has subpages, so FFh gives the same as 00h.
fn select(disk: &Disk, code: u8, subpage: u8, modes: Option<Modes>) -> Result<Vec<u8>, Sense> {
    if subpage != 0 && subpage != ALL_SUBPAGES {
        return Err(Sense::cdb_field(3, None));
    }
    let wanted = PAGES.into_iter().filter(|page| code == ALL || code == *page);
    let pages: Vec<u8> = wanted.filter_map(|code| page(disk, code, modes)).flatten().collect();
    if pages.is_empty() { Err(Sense::cdb_field(2, Some(5))) } else { Ok(pages) }
}

/// SBC-4 6.5.2: the short descriptor where the numbers fit, FFFFFFFFh where they do not.
fn block_descriptor(context: &Context<'_>, long: bool) -> Vec<u8> {
    let size = context.disk.block_size;
    if long {
        let mut descriptor = vec![0; 16];
        put(&mut descriptor, 0, &context.blocks.to_be_bytes());
        put(&mut descriptor, 12, &size.to_be_bytes());
        return descriptor;
    }
    let blocks = u32::try_from(context.blocks).unwrap_or(u32::MAX);
    let mut descriptor = vec![0; 8];
    put(&mut descriptor, 0, &blocks.to_be_bytes());
    put(&mut descriptor, 5, &size.to_be_bytes()[1..]);
    descriptor
}

/// The header of SPC-5 7.5.5 in front. MODE DATA LENGTH does not count itself.
fn assemble(context: &Context<'_>, long: bool, descriptor: &[u8], pages: &[u8]) -> Vec<u8> {
    let protected = context.disk.read_only || context.unit.modes.write_protect;
    let specific = if protected { 0x80 } else { 0 } | 0x10; // WP, DPOFUA
    let mut data = if long { vec![0; 8] } else { vec![0; 4] };
    data.extend(descriptor);
    data.extend(pages);
    if long {
        let length = (data.len() - 2) as u16;
        put(&mut data, 0, &length.to_be_bytes());
        data[3] = specific;
        data[4] = u8::from(descriptor.len() == 16); // LONGLBA
        data[7] = descriptor.len() as u8;
    } else {
        data[0] = (data.len() - 1) as u8;
        data[2] = specific;
        data[3] = descriptor.len() as u8;
    }
    data
}
