//! Requests that do not fit into one command: too long, across a boundary the drive does not like, or of segments that
//! no PRP list can name. They are cut into pieces, which are sent as room comes.

use nvlane_memory::Segment;

use super::{IoKind, Outcome};

/// A front end hands in at most 128 segments (virtio's indirect tables, bounded) and two headers.
pub(super) const SEGMENTS: usize = 132;
const SPLITS: u16 = 32;

pub(super) struct Split {
    pub kind: IoKind,
    pub token: u64,
    pub lba: u64,
    /// Not sent yet.
    pub blocks: u64,
    /// Bytes that were.
    pub offset: usize,
    pub outstanding: u16,
    /// The first thing that went wrong.
    pub outcome: Outcome,
    pub active: bool,
    count: usize,
    segments: [Segment; SEGMENTS],
}

impl Split {
    /// The pieces of the request's segments from `offset` on.
    pub fn pieces(&self, offset: usize, bytes: usize) -> impl Iterator<Item = Segment> + '_ {
        let mut skip = offset;
        let mut left = bytes;
        self.segments[..self.count].iter().map_while(move |segment| {
            if left == 0 {
                return None;
            }
            let piece = segment.part(skip, left);
            skip = skip.saturating_sub(segment.len());
            left -= piece.len();
            Some(piece)
        })
    }

    /// Nothing left to send, nothing to wait for.
    pub fn is_over(&self) -> bool {
        self.outstanding == 0 && (self.blocks == 0 || self.outcome != Outcome::Ok)
    }

    /// Something left to send.
    pub fn is_hungry(&self) -> bool {
        self.active && self.blocks != 0 && self.outcome == Outcome::Ok
    }
}

/// All there can be at once, made in advance.
pub(super) struct Splits {
    all: Box<[Split]>,
    free: Vec<u16>,
    /// How many are in use.
    pub active: u16,
}

impl Splits {
    pub fn new() -> Self {
        let all = (0..SPLITS)
            .map(|_| Split {
                kind: IoKind::Flush,
                token: 0,
                lba: 0,
                blocks: 0,
                offset: 0,
                outstanding: 0,
                outcome: Outcome::Ok,
                active: false,
                count: 0,
                segments: [Segment::EMPTY; SEGMENTS],
            })
            .collect();
        Self { all, free: (0..SPLITS).rev().collect(), active: 0 }
    }

    pub fn take(&mut self, io: &super::Io) -> Option<u16> {
        let index = self.free.pop()?;
        self.active += 1;
        let split = &mut self.all[usize::from(index)];
        split.count = io.segments.len();
        split.segments[..split.count].copy_from_slice(io.segments);
        (split.kind, split.token, split.lba, split.blocks) = (io.kind, io.token, io.lba, io.blocks);
        (split.offset, split.outstanding, split.outcome, split.active) = (0, 0, Outcome::Ok, true);
        Some(index)
    }

    pub fn get(&self, index: u16) -> &Split {
        &self.all[usize::from(index)]
    }

    pub fn get_mut(&mut self, index: u16) -> &mut Split {
        &mut self.all[usize::from(index)]
    }

    pub fn release(&mut self, index: u16) {
        self.all[usize::from(index)].active = false;
        self.active -= 1;
        self.free.push(index);
    }

    pub fn indices(&self) -> std::ops::Range<u16> {
        0..self.all.len() as u16
    }
}
