//! Requests of several commands: sending their pieces, and putting the outcomes together.

use nvlane_memory::Segment;

use super::split::{SEGMENTS, Split};
use super::staging::{BOUNCE, Staging};
use super::tracker::Tracker;
use super::{IoKind, Outcome, Qpair};
use crate::spec::{Command, io as opcode};

impl Qpair {
    /// Sends as much of a split request as there is room for.
    pub(super) fn feed(&mut self, index: u16) {
        while let Some(slot) = self.trackers.peek() {
            let staging = &mut self.staging;
            let split = self.splits.get_mut(index);
            if self.rings.is_none() || !split.is_hungry() {
                return;
            }
            let id = self.id;
            let mut bounce = None;
            let (command, blocks) = match split.kind {
                IoKind::Flush => (Command::new(opcode::FLUSH, id), 1),
                IoKind::Deallocate => {
                    let blocks = split.blocks.min(u64::from(self.limits.deallocate));
                    let range = staging.range(slot, split.lba, blocks as u32);
                    (Command::deallocate(id, range), blocks)
                }
                IoKind::WriteZeroes { deallocate } => {
                    let limit = self.limits.write_zeroes.map_or(65536, |bytes| (bytes >> self.shift) as u64);
                    let blocks = split.blocks.min(limit.clamp(1, 65536));
                    let command = Command::blocks(opcode::WRITE_ZEROES, id, split.lba, blocks as u32);
                    let deallocates = deallocate && self.namespace.data.deallocate_zeroes;
                    (if deallocates { command.deallocating() } else { command }, blocks)
                }
                IoKind::Read | IoKind::Write => {
                    let rest = match self.boundary {
                        0 => u64::MAX,
                        boundary => boundary - (split.lba & (boundary - 1)),
                    };
                    let mut blocks = split.blocks.min(self.max_blocks).min(rest);
                    let bytes = (blocks << self.shift) as usize;
                    let prps = match staging.describe(slot, split.pieces(split.offset, bytes), bytes) {
                        Some(prps) => prps,
                        None => {
                            blocks = blocks.min((BOUNCE >> self.shift) as u64);
                            let bytes = (blocks << self.shift) as usize;
                            let Some(buffer) = staging.take_bounce() else { return };
                            bounce = Some(buffer);
                            if split.kind == IoKind::Write {
                                fill(staging, buffer, split, bytes);
                            }
                            staging.bounce_prps(slot, buffer, bytes).unwrap_or_default()
                        }
                    };
                    let code = if split.kind == IoKind::Read { opcode::READ } else { opcode::WRITE };
                    (Command::blocks(code, id, split.lba, blocks as u32).with_prps(prps.0, prps.1), blocks)
                }
            };
            let offset = split.offset;
            let bytes = if split.kind.has_data() { (blocks << self.shift) as usize } else { 0 };
            split.offset += bytes;
            split.lba += blocks;
            split.blocks -= blocks;
            split.outstanding += 1;
            let tracker = self.send(|identifier| command.with_identifier(identifier), 0);
            (tracker.split, tracker.bounce, tracker.offset, tracker.bytes) = (index, bounce, offset, bytes);
        }
    }

    pub(super) fn finish_piece(&mut self, slot: u16, outcome: Outcome, done: &mut impl FnMut(u64, Outcome)) {
        let tracker = self.trackers.get(slot).clone();
        self.trackers.release(slot);
        let split = self.splits.get_mut(tracker.split);
        if let Some(bounce) = tracker.bounce {
            if split.kind == IoKind::Read && outcome == Outcome::Ok {
                empty(&self.staging, bounce, split, &tracker);
            }
            self.staging.give_bounce(bounce);
        }
        split.outstanding -= 1;
        if split.outcome == Outcome::Ok {
            split.outcome = outcome;
        }
        if split.is_over() {
            let (token, outcome) = (split.token, split.outcome);
            self.splits.release(tracker.split);
            self.in_flight -= 1;
            done(token, outcome);
        }
    }
}

fn fill(staging: &Staging, bounce: u8, split: &Split, bytes: usize) {
    let mut pieces = [Segment::EMPTY; SEGMENTS];
    let count = gathered(&mut pieces, split, split.offset, bytes);
    staging.fill_bounce(bounce, &pieces[..count], bytes);
}

fn empty(staging: &Staging, bounce: u8, split: &Split, tracker: &Tracker) {
    let mut pieces = [Segment::EMPTY; SEGMENTS];
    let count = gathered(&mut pieces, split, tracker.offset, tracker.bytes);
    staging.empty_bounce(bounce, &pieces[..count], tracker.bytes);
}

fn gathered(pieces: &mut [Segment], split: &Split, offset: usize, bytes: usize) -> usize {
    let mut count = 0;
    for (to, piece) in pieces.iter_mut().zip(split.pieces(offset, bytes)) {
        *to = piece;
        count += 1;
    }
    count
}
