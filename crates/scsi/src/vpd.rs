//! Vital product data pages: SPC-5 7.7, SBC-4 6.6.

use crate::bytes::{put, put_text};
use crate::disk::Disk;
use crate::sense::Sense;

type Builder = fn(&Disk) -> Vec<u8>;

/// The pages there are, in ascending order as page 00h lists them.
const PAGES: [(u8, Builder); 8] = [
    (0x00, supported),
    (0x80, serial),
    (0x83, identification),
    (0x86, extended_inquiry),
    (0x87, mode_page_policy),
    (0xB0, block_limits),
    (0xB1, characteristics),
    (0xB2, provisioning),
];

pub(crate) fn page(disk: &Disk, code: u8) -> Result<Vec<u8>, Sense> {
    let (_, build) = PAGES.iter().find(|(page, _)| *page == code).ok_or(Sense::cdb_field(2, None))?;
    let body = build(disk);
    let mut data = vec![0, code];
    data.extend((body.len() as u16).to_be_bytes());
    data.extend(body);
    Ok(data)
}

fn supported(_: &Disk) -> Vec<u8> {
    PAGES.iter().map(|(page, _)| *page).collect()
}

fn serial(disk: &Disk) -> Vec<u8> {
    let mut text = vec![0; disk.serial.len().min(64)];
    put_text(&mut text, &disk.serial);
    text
}

/// Page 83h. All name the logical unit (ASSOCIATION 00b):
/// - a UUID (SPC-5 7.7.6.11), which is what the disk really has;
/// - NAA 3h, locally assigned (7.7.6.6.4): no OUI is ours, yet multipath and udev's `wwn-` links want an NAA name;
/// - T10 vendor identification (7.7.6.4), which every initiator understands.
fn identification(disk: &Disk) -> Vec<u8> {
    const BINARY: u8 = 0x1;
    const ASCII: u8 = 0x2;
    let mut body = Vec::new();
    let mut designator = |code_set: u8, kind: u8, bytes: &[u8]| {
        body.extend([code_set, kind, 0, bytes.len() as u8]);
        body.extend(bytes);
    };
    let name = 0x3000_0000_0000_0000 | disk.local_name();
    designator(BINARY, 0x3, &name.to_be_bytes());
    let mut uuid = vec![0x10, 0x00];
    uuid.extend(disk.uuid);
    designator(BINARY, 0xA, &uuid);
    let mut vendor = [0; 8 + 32];
    put_text(&mut vendor[..8], &disk.vendor);
    let digits: String = disk.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    put_text(&mut vendor[8..], &digits);
    designator(ASCII, 0x1, &vendor);
    body
}

/// Page 86h, 60 bytes. No protection, simple tags only (HEADSUP and ORDSUP are zero), and V_SUP where there is a
/// volatile cache (SPC-5 7.7.7).
fn extended_inquiry(disk: &Disk) -> Vec<u8> {
    let mut body = vec![0; 60];
    body[1] = 0x01; // SIMPSUP
    body[2] = u8::from(disk.write_cache); // V_SUP
    body[9] = Sense::MAX_LENGTH as u8; // MAXIMUM SUPPORTED SENSE DATA LENGTH
    body
}

/// Page 87h: every mode page and subpage (3Fh, FFh) exists once for each I_T nexus (policy 11b; SPC-5 7.7.9).
fn mode_page_policy(_: &Disk) -> Vec<u8> {
    const PER_I_T_NEXUS: u8 = 0x03;
    vec![0x3F, 0xFF, PER_I_T_NEXUS, 0]
}

/// Page B0h, 60 bytes: offsets are those of SBC-4 table 241 less the four bytes of the header.
fn block_limits(disk: &Disk) -> Vec<u8> {
    let limits = &disk.limits;
    let mut body = vec![0; 60];
    body[0] = 0x01; // WSNZ: WRITE SAME of zero blocks does not mean 'to the end'
    let physical = 1_u16.checked_shl(u32::from(disk.physical_exponent)).unwrap_or(0);
    put(&mut body, 2, &physical.to_be_bytes());
    put(&mut body, 4, &limits.transfer_blocks.to_be_bytes());
    if disk.provisioning.unmap {
        put(&mut body, 16, &limits.unmap_blocks.to_be_bytes());
        put(&mut body, 20, &limits.unmap_descriptors.to_be_bytes());
        put(&mut body, 24, &limits.unmap_granularity.to_be_bytes());
        body[28] = 0x80; // UGAVALID, alignment zero
    }
    put(&mut body, 32, &u64::from(limits.write_same_blocks).to_be_bytes());
    body
}

/// Page B1h, 60 bytes: a medium that does not rotate (SBC-4 6.6.2).
fn characteristics(_: &Disk) -> Vec<u8> {
    let mut body = vec![0; 60];
    put(&mut body, 0, &1_u16.to_be_bytes());
    body
}

/// Page B2h (SBC-4 6.6.6).
fn provisioning(disk: &Disk) -> Vec<u8> {
    const UNMAP_AND_WRITE_SAME: u8 = 0xE0; // LBPU, LBPWS, LBPWS10
    const RESOURCE: u8 = 0x01;
    const THIN: u8 = 0x02;
    let provisioning = disk.provisioning;
    if !provisioning.unmap {
        return vec![0; 4];
    }
    let zeroes = u8::from(provisioning.unmapped_is_zero) << 2; // LBPRZ 001b
    vec![0, UNMAP_AND_WRITE_SAME | zeroes, if provisioning.thin { THIN } else { RESOURCE }, 0]
}
