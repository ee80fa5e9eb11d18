//! What the supervisor says: the controller goes down, comes up, or is dead.

use super::{Outcome, Qpair};
use crate::inbox::Message;
use crate::link::Stage;

impl Qpair {
    #[cold]
    pub(super) fn hear(&mut self, done: &mut impl FnMut(u64, Outcome)) {
        let link = self.link.clone();
        let (mut stage, epoch) = link.stage();
        self.epoch = epoch;
        let new = std::mem::replace(&mut *stage, Stage::Taken);
        match new {
            Stage::New | Stage::Taken => {}
            Stage::Down => {
                *stage = Stage::Down;
                drop(stage);
                self.stop(true);
                self.link.inbox.send(Message::LetGo { queue: self.link.queue, epoch });
            }
            Stage::Up(rings) => {
                drop(stage);
                self.stop(true);
                self.reap_old(done);
                // Nothing of the old life reaches memory any more: it goes, and what it left open is sent again.
                self.old = None;
                self.rings = Some(rings);
                self.tick = self.link.tick();
                self.resend(done);
            }
            Stage::Dead(outcome) => {
                *stage = Stage::Dead(outcome);
                drop(stage);
                self.stop(true);
                self.reap_old(done);
                self.old = None;
                self.dead = Some(outcome);
                self.fail_all(outcome, done);
            }
        }
    }

    /// The rings are let alone. `trusted`: what the device has put into them until it is reset counts.
    pub(super) fn stop(&mut self, trusted: bool) {
        if let Some(rings) = self.rings.take() {
            self.old = Some(rings);
            self.old_is_trusted = trusted;
        }
    }

    /// Completions that came between the last poll and the reset are true ones.
    fn reap_old(&mut self, done: &mut impl FnMut(u64, Outcome)) {
        while self.old_is_trusted {
            let Some(completion) = self.old.as_mut().and_then(super::Rings::pop) else { return };
            match self.trackers.find(completion.identifier) {
                Some(slot) if completion.status.is_success() => self.finish(slot, Outcome::Ok, done),
                Some(_) => {} // it is sent again, or fails, with the others
                None => return,
            }
        }
    }

    fn resend(&mut self, done: &mut impl FnMut(u64, Outcome)) {
        for slot in 0..self.trackers.len() {
            if !self.trackers.get(slot).active {
                continue;
            }
            if self.trackers.get(slot).retries >= self.limits.retries {
                self.finish(slot, Outcome::Aborted, done);
            } else if let Some(rings) = &mut self.rings {
                rings.push(&self.trackers.renew(slot, self.tick));
            }
        }
        self.after();
        self.kick();
    }

    fn fail_all(&mut self, outcome: Outcome, done: &mut impl FnMut(u64, Outcome)) {
        // Split requests first: then none of their pieces finds anything left to send.
        for index in self.splits.indices() {
            let split = self.splits.get_mut(index);
            if split.active && split.outcome == Outcome::Ok {
                split.outcome = outcome;
            }
        }
        for slot in 0..self.trackers.len() {
            if self.trackers.get(slot).active {
                self.finish(slot, outcome, done);
            }
        }
        // Those that had nothing under way, for want of room.
        for index in self.splits.indices() {
            let split = self.splits.get(index);
            if split.active && split.outstanding == 0 {
                let token = split.token;
                self.splits.release(index);
                self.in_flight -= 1;
                done(token, outcome);
            }
        }
        debug_assert_eq!(self.in_flight, 0);
    }
}
