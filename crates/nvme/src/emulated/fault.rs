use crate::spec::Status;

/// What the device does wrong from now on.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Commands on I/O queues stay where they are until `Emulated::run`.
    pub hold: bool,
    /// So many of the next I/O commands are never answered.
    pub swallow: u32,
    /// Abort answers, but does not abort.
    pub abort_useless: bool,
    /// No admin command is answered.
    pub admin_silent: bool,
    /// CSTS.RDY does not become 1; with `reset_cures` a function level reset ends that.
    pub never_ready: bool,
    pub reset_cures: bool,
    /// CSTS.RDY does not become 0, until a function level reset.
    pub stays_ready: bool,
    pub reset_fails: bool,
    /// Every register reads as ones and takes nothing.
    pub vanished: bool,
    /// CSTS.CFS, until the controller is disabled.
    pub fatal: bool,
    /// The next I/O commands end with these.
    pub statuses: Vec<Status>,
    /// The next completion on an I/O queue has these double words 2 and 3 xored: a bad identifier, a bad queue.
    pub garble: Option<(u32, u32)>,
    /// Bytes that answer instead of the model: every page of data, every completion, every register is xored with what
    /// comes next here, until it ends (fuzzing).
    pub noise: Vec<u8>,
}

impl Faults {
    /// The next byte of noise.
    pub(super) fn noise(&mut self) -> u8 {
        self.noise.pop().unwrap_or(0)
    }
}
