//! A SCSI disk as a pure function.
//!
//! [`execute`] takes a command, what the disk is ([`Disk`]) and what it remembers about one initiator ([`Unit`]), and
//! returns what happens: data and GOOD, CHECK CONDITION with sense, or an [`Operation`] on blocks that somebody else
//! carries out. Nothing here reads or writes a disk, allocates a buffer that a command chose the size of, or keeps
//! state of its own.
//!
//! Sources, named in the comments by section: SAM-6 (how a logical unit behaves), SPC-5 (commands of every device),
//! SBC-4 (commands of a disk).

#![forbid(unsafe_code)]

mod attention;
mod bytes;
mod capacity;
mod cdb;
mod commands;
mod disk;
mod execute;
mod inquiry;
mod log;
mod luns;
mod mode;
mod mode_select;
mod opcodes;
mod operation;
mod sense;
mod simple;
mod transfer;
mod unit;
mod unmap;
mod vpd;
mod write_same;

#[doc(hidden)]
pub mod exercise;

pub use attention::Attention;
pub use cdb::{CDB_LENGTH, Cdb};
pub use disk::{Disk, Limits, Provisioning};
pub use execute::{Command, Outcome, absent, execute, parameter_length};
pub use luns::well_known;
pub use operation::{Compare, Extent, Operation, Pattern};
pub use sense::{Field, Sense, SenseKey, Status};
pub use transfer::Transfer;
pub use unit::{Modes, Unit};
