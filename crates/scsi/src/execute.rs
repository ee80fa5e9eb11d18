//! The way of a command through a logical unit.

use crate::cdb::Cdb;
use crate::commands::{COMMANDS, Entry, Needs, opcode};
use crate::disk::Disk;
use crate::inquiry;
use crate::luns;
use crate::operation::Operation;
use crate::sense::Sense;
use crate::unit::Unit;
use crate::write_same;

/// A command as it arrived. `parameters` are the first [`parameter_length`] bytes of the Data-Out buffer; if the
/// buffer has fewer, the command was already refused by the transport, which knows how to say so.
#[derive(Clone, Copy, Debug)]
pub struct Command<'a> {
    pub cdb: &'a Cdb,
    pub parameters: &'a [u8],
}

/// What becomes of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// GOOD, with nothing to transfer.
    Good,
    /// GOOD, with the bytes in the buffer that was handed in, cut to the allocation length.
    Data,
    CheckCondition(Sense),
    Operation(Operation),
}

/// One command on its way.
pub(crate) struct Context<'a> {
    pub disk: &'a Disk,
    pub blocks: u64,
    pub unit: &'a mut Unit,
    pub cdb: &'a Cdb,
    pub parameters: &'a [u8],
    pub data: &'a mut Vec<u8>,
}

/// Carries out a command on a unit of `blocks` blocks. `data` is where Data-In bytes go; it is emptied first.
pub fn execute(
    disk: &Disk,
    blocks: u64,
    unit: &mut Unit,
    command: Command<'_>,
    data: &mut Vec<u8>,
) -> Outcome {
    data.clear();
    let Command { cdb, parameters } = command;
    let mut context = Context { disk, blocks, unit, cdb, parameters, data };
    context.run().unwrap_or_else(Outcome::CheckCondition)
}

/// The answer of a target to a command for a logical unit that it does not have (SPC-5 6.7.2, 6.34, 6.41; SAM-6 5.11).
/// `units`: whether the target has any.
pub fn absent(cdb: &Cdb, units: bool, data: &mut Vec<u8>) -> Outcome {
    data.clear();
    if let Err(sense) = cdb.check_control() {
        return Outcome::CheckCondition(sense);
    }
    let (bytes, allocation) = match cdb.opcode() {
        opcode::INQUIRY if cdb.bit(1, 0) || cdb.byte(2) != 0 => {
            return Outcome::CheckCondition(Sense::NO_SUCH_UNIT);
        }
        opcode::INQUIRY => (inquiry::absent().to_vec(), usize::from(cdb.u16(3))),
        opcode::REPORT_LUNS => match luns::report(cdb, units) {
            Ok(list) => (list, cdb.u32(6) as usize),
            Err(sense) => return Outcome::CheckCondition(sense),
        },
        opcode::REQUEST_SENSE => {
            let (bytes, length) = Sense::NO_SUCH_UNIT.encode(cdb.bit(1, 0));
            (bytes[..length].to_vec(), usize::from(cdb.byte(4)))
        }
        _ => return Outcome::CheckCondition(Sense::NO_SUCH_UNIT),
    };
    data.extend(&bytes[..bytes.len().min(allocation)]);
    if data.is_empty() { Outcome::Good } else { Outcome::Data }
}

/// How many bytes of Data-Out [`execute`] wants to see: the parameter list, or the block of a WRITE SAME.
pub fn parameter_length(disk: &Disk, cdb: &Cdb) -> usize {
    match cdb.opcode() {
        opcode::MODE_SELECT_6 => usize::from(cdb.byte(4)),
        opcode::MODE_SELECT_10 => usize::from(cdb.u16(7)),
        opcode::UNMAP if disk.provisioning.unmap => usize::from(cdb.u16(7)),
        opcode::WRITE_SAME_10 | opcode::WRITE_SAME_16 if !write_same::no_data(cdb) => {
            disk.block_size as usize
        }
        _ => 0,
    }
}

impl Context<'_> {
    /// Unit attention comes before everything else about a command, then whether there is such a command, then the
    /// CONTROL byte, then the unit's state, then what the command says (SAM-6 5.14; the rest is a choice).
    fn run(&mut self) -> Result<Outcome, Sense> {
        let entry = find(self.disk, self.cdb);
        let needs = entry.as_ref().map_or(Needs::Attention, |entry| entry.needs);
        if needs != Needs::Nothing {
            if let Some(attention) = self.unit.pending.take() {
                return Err(attention.sense());
            }
        }
        let entry = entry?;
        self.cdb.check_control()?;
        let (medium, writable) = match needs {
            Needs::Nothing | Needs::Attention => (false, false),
            Needs::Medium => (true, false),
            Needs::Writable | Needs::Provisioning => (true, true),
        };
        if medium && self.unit.stopped {
            return Err(Sense::STOPPED);
        }
        if writable {
            self.unit.check_writable(self.disk)?;
        }
        (entry.run)(self)
    }

    /// Data-In, no more of it than the initiator allowed (SPC-5 4.2.5.6: an allocation length of zero is no error).
    pub fn reply(&mut self, bytes: &[u8], allocation: usize) -> Outcome {
        self.data.extend(&bytes[..bytes.len().min(allocation)]);
        if self.data.is_empty() { Outcome::Good } else { Outcome::Data }
    }
}

/// INVALID COMMAND OPERATION CODE, or INVALID FIELD IN CDB where only the service action is unknown (SPC-5 4.2.5.2).
fn find(disk: &Disk, cdb: &Cdb) -> Result<&'static Entry, Sense> {
    let mut known =
        COMMANDS.iter().filter(|entry| entry.opcode == cdb.opcode() && entry.offered(disk)).peekable();
    if known.peek().is_none() {
        return Err(Sense::OPCODE);
    }
    let action = cdb.byte(1) & 0x1F;
    known.find(|entry| entry.action.is_none_or(|wanted| wanted == action)).ok_or(Sense::cdb_field(1, Some(4)))
}
