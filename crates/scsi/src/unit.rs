//! What a logical unit remembers about one initiator.

use crate::attention::{Attention, Pending};
use crate::disk::Disk;
use crate::sense::Sense;

/// The state of one I_T_L nexus. Each initiator of the target sees modes of its own (SPC-5 7.5.2 allows it: the mode
/// page policy of page 87h says so), because each is a machine of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub(crate) pending: Pending,
    pub(crate) stopped: bool,
    pub(crate) modes: Modes,
}

/// The mode parameters that can be changed; the rest is constant (mode.rs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// D_SENSE: sense data comes as descriptors.
    pub descriptor_sense: bool,
    /// SWP: the initiator does not want writes.
    pub write_protect: bool,
}

impl Modes {
    pub const DEFAULT: Modes = Modes { descriptor_sense: false, write_protect: false };
}

impl Unit {
    /// The state after power on: that it is so is the first thing the initiator hears.
    pub fn powered_on() -> Unit {
        let mut unit = Unit::resumed();
        unit.pending.raise(Attention::PowerOn);
        unit
    }

    /// The state of a unit whose device server was replaced under an initiator that did not notice. Its modes are the
    /// defaults again; none of those that can be changed is one that data depends on.
    pub fn resumed() -> Unit {
        Unit { pending: Pending::default(), stopped: false, modes: Modes::DEFAULT }
    }

    /// LOGICAL UNIT RESET (SAM-6 6.3.3): modes go back to their defaults, the initiator hears why.
    pub fn reset(&mut self, why: Attention) {
        self.stopped = false;
        self.modes = Modes::DEFAULT;
        self.pending.raise(why);
    }

    pub fn raise(&mut self, attention: Attention) {
        self.pending.raise(attention);
    }

    pub fn modes(&self) -> Modes {
        self.modes
    }

    /// No state of this unit bears on a READ (or on a WRITE): it can be carried out from its CDB alone, through
    /// [`crate::Transfer`], without asking [`crate::execute`].
    pub fn is_plain(&self, disk: &Disk, write: bool) -> bool {
        !self.pending.any() && !self.stopped && (!write || self.check_writable(disk).is_ok())
    }

    pub(crate) fn check_writable(&self, disk: &Disk) -> Result<(), Sense> {
        match self.modes.write_protect {
            _ if disk.read_only => Err(Sense::WRITE_PROTECTED),
            true => Err(Sense::SOFTWARE_WRITE_PROTECTED),
            false => Ok(()),
        }
    }
}
