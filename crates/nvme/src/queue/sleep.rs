//! Interrupts: none while the reactor polls, one when it sleeps over requests in flight.

use std::os::fd::{AsRawFd, RawFd};

use super::{Qpair, Rings};
use crate::inbox::drain;

impl Qpair {
    /// An eventfd that wakes a reactor which sleeps after `arm`.
    pub fn wait_descriptor(&self) -> RawFd {
        self.link.event().as_raw_fd()
    }

    /// Prepares for sleep: true when nothing has come and the descriptor will tell when something does.
    pub fn arm(&mut self) -> bool {
        if self.link.epoch() != self.epoch {
            return false;
        }
        drain(self.link.event());
        if self.in_flight != 0 {
            let (Some(vector), Some(rings)) = (self.link.vector, &mut self.rings) else {
                // During a reset the supervisor's word is what there is to wait for; without a vector, nothing.
                self.sleep.armed = self.rings.is_none();
                return self.sleep.armed && self.link.epoch() == self.epoch;
            };
            rings.kick();
            rings.report_all();
            if !self.sleep.connected {
                if rings.device().connect_vector(vector, Some(self.link.event())).is_err() {
                    return false;
                }
                self.sleep.connected = true;
            }
        }
        self.link.set_armed(self.in_flight != 0);
        self.sleep.armed = true;
        self.sleep.awake = 0;
        // What came before the interrupt was connected brings none.
        let came = self.in_flight != 0 && self.rings.as_ref().is_some_and(Rings::has_completion);
        self.link.epoch() == self.epoch && !came
    }

    /// The reactor is awake.
    #[cold]
    pub(super) fn wake(&mut self) {
        self.sleep.armed = false;
        self.link.set_armed(false);
        drain(self.link.event());
    }

    /// Turns interrupts off when the reactor has been awake for long.
    #[cold]
    pub(super) fn quieten(&mut self) {
        if let (Some(vector), Some(rings)) = (self.link.vector, &self.rings) {
            // When it fails interrupts go on coming, which costs time and nothing else.
            let _ = rings.device().connect_vector(vector, None);
        }
        self.sleep.connected = false;
    }
}
