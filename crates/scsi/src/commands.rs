//! The commands there are: one table for carrying them out and for reporting them.

use crate::disk::Disk;
use crate::execute::{Context, Outcome};
use crate::opcodes;
use crate::sense::Sense;
use crate::{capacity, inquiry, log, mode, mode_select, simple, unmap, write_same};

/// Operation codes: SPC-5 table E.2.
pub(crate) mod opcode {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const READ_6: u8 = 0x08;
    pub const WRITE_6: u8 = 0x0A;
    pub const INQUIRY: u8 = 0x12;
    pub const MODE_SELECT_6: u8 = 0x15;
    pub const MODE_SENSE_6: u8 = 0x1A;
    pub const START_STOP_UNIT: u8 = 0x1B;
    pub const SEND_DIAGNOSTIC: u8 = 0x1D;
    pub const PREVENT_ALLOW: u8 = 0x1E;
    pub const READ_CAPACITY_10: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const WRITE_10: u8 = 0x2A;
    pub const WRITE_VERIFY_10: u8 = 0x2E;
    pub const VERIFY_10: u8 = 0x2F;
    pub const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub const WRITE_SAME_10: u8 = 0x41;
    pub const UNMAP: u8 = 0x42;
    pub const LOG_SENSE: u8 = 0x4D;
    pub const MODE_SELECT_10: u8 = 0x55;
    pub const MODE_SENSE_10: u8 = 0x5A;
    pub const READ_16: u8 = 0x88;
    pub const WRITE_16: u8 = 0x8A;
    pub const WRITE_VERIFY_16: u8 = 0x8E;
    pub const VERIFY_16: u8 = 0x8F;
    pub const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub const WRITE_SAME_16: u8 = 0x93;
    pub const SERVICE_ACTION_IN_16: u8 = 0x9E;
    pub const REPORT_LUNS: u8 = 0xA0;
    pub const MAINTENANCE_IN: u8 = 0xA3;
    pub const READ_12: u8 = 0xA8;
    pub const WRITE_12: u8 = 0xAA;
    pub const WRITE_VERIFY_12: u8 = 0xAE;
    pub const VERIFY_12: u8 = 0xAF;
}

/// Service actions, in the low five bits of byte 1.
pub(crate) const READ_CAPACITY_16: u8 = 0x10;
pub(crate) const GET_LBA_STATUS: u8 = 0x12;
pub(crate) const REPORT_OPERATION_CODES: u8 = 0x0C;
pub(crate) const REPORT_TASK_MANAGEMENT: u8 = 0x0D;

/// What a command needs before it is carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Answered whatever the state: not even a unit attention condition comes before it (SAM-6 5.14).
    Nothing,
    /// The initiator has heard every unit attention condition.
    Attention,
    /// And the unit is started.
    Medium,
    /// And it may be written.
    Writable,
    /// As Writable, for commands that exist only where blocks can be given back.
    Provisioning,
}

pub(crate) struct Entry {
    pub opcode: u8,
    pub action: Option<u8>,
    /// CDB USAGE DATA (SPC-5 6.35.3): the bits that are looked at, after the operation code; a reserved bit is zero.
    pub usage: &'static [u8],
    pub needs: Needs,
    pub run: fn(&mut Context<'_>) -> Result<Outcome, Sense>,
}

impl Entry {
    pub fn offered(&self, disk: &Disk) -> bool {
        self.needs != Needs::Provisioning || disk.provisioning.unmap
    }

    const fn plain(opcode: u8, usage: &'static [u8], needs: Needs, run: Handler) -> Entry {
        Entry { opcode, action: None, usage, needs, run }
    }

    const fn action(opcode: u8, action: u8, usage: &'static [u8], needs: Needs, run: Handler) -> Entry {
        Entry { opcode, action: Some(action), usage, needs, run }
    }
}

type Handler = fn(&mut Context<'_>) -> Result<Outcome, Sense>;

const READ_WRITE_10: &[u8] = &[0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0x04];
const READ_WRITE_12: &[u8] = &[0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04];
const READ_WRITE_16: &[u8] =
    &[0x18, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04];
const VERIFY_10: &[u8] = &[0x16, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0x04];
const VERIFY_12: &[u8] = &[0x16, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04];
const VERIFY_16: &[u8] =
    &[0x16, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04];
const SYNCHRONIZE_10: &[u8] = &[0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0x04];
const SYNCHRONIZE_16: &[u8] =
    &[0x02, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04];
const WRITE_SAME_10: &[u8] = &[0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0x04];
const WRITE_SAME_16: &[u8] =
    &[0x09, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04];
const ACTION_IN_16: &[u8] =
    &[0x1F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04];

use Needs::{Attention, Medium, Nothing, Provisioning, Writable};

/// In ascending order of operation code and service action.
pub(crate) const COMMANDS: &[Entry] = &[
    Entry::plain(opcode::TEST_UNIT_READY, &[0, 0, 0, 0, 0x04], Medium, simple::good),
    Entry::plain(opcode::REQUEST_SENSE, &[0x01, 0, 0, 0xFF, 0x04], Nothing, simple::request_sense),
    Entry::plain(opcode::READ_6, &[0x1F, 0xFF, 0xFF, 0xFF, 0x04], Medium, simple::transfer),
    Entry::plain(opcode::WRITE_6, &[0x1F, 0xFF, 0xFF, 0xFF, 0x04], Writable, simple::transfer),
    Entry::plain(opcode::INQUIRY, &[0x01, 0xFF, 0xFF, 0xFF, 0x04], Nothing, inquiry::inquiry),
    Entry::plain(opcode::MODE_SELECT_6, &[0x11, 0, 0, 0xFF, 0x04], Attention, mode_select::select),
    Entry::plain(opcode::MODE_SENSE_6, &[0x08, 0xFF, 0xFF, 0xFF, 0x04], Attention, mode::sense),
    Entry::plain(opcode::START_STOP_UNIT, &[0x01, 0, 0x0F, 0xF7, 0x04], Attention, simple::start_stop),
    Entry::plain(opcode::SEND_DIAGNOSTIC, &[0xF7, 0, 0xFF, 0xFF, 0x04], Attention, simple::self_test),
    Entry::plain(opcode::PREVENT_ALLOW, &[0, 0, 0, 0x03, 0x04], Attention, simple::prevent_allow),
    Entry::plain(
        opcode::READ_CAPACITY_10,
        &[0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0x01, 0x04],
        Medium,
        capacity::read_10,
    ),
    Entry::plain(opcode::READ_10, READ_WRITE_10, Medium, simple::transfer),
    Entry::plain(opcode::WRITE_10, READ_WRITE_10, Writable, simple::transfer),
    Entry::plain(opcode::WRITE_VERIFY_10, VERIFY_10, Writable, simple::verify),
    Entry::plain(opcode::VERIFY_10, VERIFY_10, Medium, simple::verify),
    Entry::plain(opcode::SYNCHRONIZE_CACHE_10, SYNCHRONIZE_10, Medium, simple::synchronize),
    Entry::plain(opcode::WRITE_SAME_10, WRITE_SAME_10, Writable, write_same::write_same),
    Entry::plain(opcode::UNMAP, &[0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0x04], Provisioning, unmap::unmap),
    Entry::plain(opcode::LOG_SENSE, &[0, 0xFF, 0xFF, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0x04], Attention, log::sense),
    Entry::plain(
        opcode::MODE_SELECT_10,
        &[0x11, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0x04],
        Attention,
        mode_select::select,
    ),
    Entry::plain(
        opcode::MODE_SENSE_10,
        &[0x18, 0xFF, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0x04],
        Attention,
        mode::sense,
    ),
    Entry::plain(opcode::READ_16, READ_WRITE_16, Medium, simple::transfer),
    Entry::plain(opcode::WRITE_16, READ_WRITE_16, Writable, simple::transfer),
    Entry::plain(opcode::WRITE_VERIFY_16, VERIFY_16, Writable, simple::verify),
    Entry::plain(opcode::VERIFY_16, VERIFY_16, Medium, simple::verify),
    Entry::plain(opcode::SYNCHRONIZE_CACHE_16, SYNCHRONIZE_16, Medium, simple::synchronize),
    Entry::plain(opcode::WRITE_SAME_16, WRITE_SAME_16, Writable, write_same::write_same),
    Entry::action(
        opcode::SERVICE_ACTION_IN_16,
        READ_CAPACITY_16,
        &[0x1F, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04],
        Medium,
        capacity::read_16,
    ),
    Entry::action(opcode::SERVICE_ACTION_IN_16, GET_LBA_STATUS, ACTION_IN_16, Medium, capacity::lba_status),
    Entry::plain(
        opcode::REPORT_LUNS,
        &[0, 0xFF, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04],
        Nothing,
        simple::report_luns,
    ),
    Entry::action(
        opcode::MAINTENANCE_IN,
        REPORT_OPERATION_CODES,
        &[0x1F, 0x87, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04],
        Attention,
        opcodes::operation_codes,
    ),
    Entry::action(
        opcode::MAINTENANCE_IN,
        REPORT_TASK_MANAGEMENT,
        &[0x1F, 0x80, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0x04],
        Attention,
        opcodes::task_management,
    ),
    Entry::plain(opcode::READ_12, READ_WRITE_12, Medium, simple::transfer),
    Entry::plain(opcode::WRITE_12, READ_WRITE_12, Writable, simple::transfer),
    Entry::plain(opcode::WRITE_VERIFY_12, VERIFY_12, Writable, simple::verify),
    Entry::plain(opcode::VERIFY_12, VERIFY_12, Medium, simple::verify),
];
