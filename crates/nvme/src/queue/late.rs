//! Time-outs, errors that are worth another try, and devices that talk nonsense.

use super::Qpair;
use crate::inbox::Message;
use crate::spec::Status;

impl Qpair {
    /// Tells the supervisor of commands that are late: first so that it aborts them, then so that it resets.
    #[cold]
    pub(super) fn report_late(&mut self) {
        let (now, limits, queue) = (self.tick, self.limits, self.link.queue);
        if self.rings.is_none() {
            return;
        }
        let mut stuck = false;
        for (_, tracker) in self.trackers.active() {
            let age = now.wrapping_sub(tracker.tick);
            if !tracker.late && age >= limits.io_ticks {
                tracker.late = true;
                self.link.inbox.send(Message::TimedOut { queue, identifier: tracker.identifier });
            } else if tracker.late && age >= limits.io_ticks + limits.grace_ticks {
                // Not every tick again, if the supervisor is busy with another queue.
                tracker.tick = now.wrapping_sub(limits.io_ticks);
                stuck = true;
            }
        }
        if stuck {
            self.link.inbox.send(Message::Stuck { queue });
        }
    }

    /// Sends a command once more that failed for a passing reason. False when it is final.
    #[cold]
    pub(super) fn again(&mut self, slot: u16, status: Status) -> bool {
        let retries = self.trackers.get(slot).retries;
        if status.do_not_retry() || retries >= self.limits.retries || self.dead.is_some() {
            return false;
        }
        let Some(rings) = &mut self.rings else { return false };
        rings.push(&self.trackers.renew(slot, self.tick));
        rings.kick();
        true
    }

    /// The device broke the rules: nothing that it says counts any more, until it was reset.
    #[cold]
    pub(super) fn distrust(&mut self, what: String) {
        self.old = None;
        self.stop(false);
        self.link.inbox.send(Message::Garbage { queue: self.link.queue, what });
    }
}
