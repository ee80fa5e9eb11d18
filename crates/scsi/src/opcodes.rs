//! REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS: SPC-5 6.35, 6.36.

use crate::bytes::put;
use crate::commands::{COMMANDS, Entry};
use crate::execute::{Context, Outcome};
use crate::sense::Sense;

/// Command timeouts descriptor: its length, and no timeouts, which means that none are known.
const TIMEOUTS: [u8; 12] = [0, 0x0A, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// SUPPORT of the one-command format.
const NOT_SUPPORTED: u8 = 0x01;
const SUPPORTED: u8 = 0x03;

pub(crate) fn operation_codes(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    let cdb = context.cdb;
    let (timeouts, opcode, action) = (cdb.bit(2, 7), cdb.byte(3), cdb.u16(4));
    let mut known = COMMANDS.iter().filter(|entry| entry.opcode == opcode && entry.offered(context.disk));
    let data = match cdb.byte(2) & 0x07 {
        0 => all(context, timeouts),
        1 => match known.next() {
            // One command by its code alone, where codes have service actions, is an error (SPC-5 table 199).
            Some(Entry { action: Some(_), .. }) => return Err(Sense::cdb_field(2, Some(2))),
            entry => one(entry, timeouts),
        },
        2 => match known.clone().next() {
            Some(Entry { action: None, .. }) => return Err(Sense::cdb_field(2, Some(2))),
            _ => one(known.find(|entry| entry.action.map(u16::from) == Some(action)), timeouts),
        },
        3 => one(
            known.find(|entry| entry.action.map_or(action == 0, |own| u16::from(own) == action)),
            timeouts,
        ),
        _ => return Err(Sense::cdb_field(2, Some(2))),
    };
    Ok(context.reply(&data, cdb.u32(6) as usize))
}

/// Table 200: eight bytes for each command, and its timeouts if asked for.
fn all(context: &Context<'_>, timeouts: bool) -> Vec<u8> {
    let mut data = vec![0; 4];
    for entry in COMMANDS.iter().filter(|entry| entry.offered(context.disk)) {
        let mut descriptor = [0; 8];
        descriptor[0] = entry.opcode;
        descriptor[3] = entry.action.unwrap_or(0);
        descriptor[5] = u8::from(entry.action.is_some()) | if timeouts { 0x02 } else { 0 }; // SERVACTV, CTDP
        descriptor[7] = length(entry) as u8;
        data.extend(descriptor);
        if timeouts {
            data.extend(TIMEOUTS);
        }
    }
    let rest = (data.len() - 4) as u32;
    put(&mut data, 0, &rest.to_be_bytes());
    data
}

/// Table 203: the command's usage map: the operation code, then each bit that is looked at.
fn one(entry: Option<&Entry>, timeouts: bool) -> Vec<u8> {
    let Some(entry) = entry else { return vec![0, NOT_SUPPORTED, 0, 0] };
    let timed = if timeouts { 0x80 } else { 0 };
    let mut data = vec![0, SUPPORTED | timed, 0, length(entry) as u8, entry.opcode];
    data.extend(entry.usage);
    if let Some(action) = entry.action {
        data[5] = (data[5] & 0xE0) | action; // the service action is itself in the map
    }
    if timeouts {
        data.extend(TIMEOUTS);
    }
    data
}

fn length(entry: &Entry) -> usize {
    entry.usage.len() + 1
}

/// Abort task, abort task set, clear task set, logical unit reset, query task; query task set and I_T nexus reset:
/// what virtio-scsi can carry and the target does.
pub(crate) fn task_management(context: &mut Context<'_>) -> Result<Outcome, Sense> {
    const ABORT_TASK: u8 = 0x80;
    const ABORT_TASK_SET: u8 = 0x40;
    const CLEAR_TASK_SET: u8 = 0x10;
    const UNIT_RESET: u8 = 0x08;
    const QUERY_TASK: u8 = 0x04;
    const QUERY_TASK_SET: u8 = 0x02;
    const NEXUS_RESET: u8 = 0x01;
    let mut data = vec![0; if context.cdb.bit(2, 7) { 16 } else { 4 }];
    data[0] = ABORT_TASK | ABORT_TASK_SET | CLEAR_TASK_SET | UNIT_RESET | QUERY_TASK;
    data[1] = QUERY_TASK_SET | NEXUS_RESET;
    if data.len() == 16 {
        data[3] = 12; // REPORT SUPPORTED TMFS ADDITIONAL LENGTH
    }
    let allocation = context.cdb.u32(6);
    // SPC-5 6.36: less than four bytes is an error.
    if allocation < 4 {
        return Err(Sense::cdb_field(6, None));
    }
    Ok(context.reply(&data, allocation as usize))
}
