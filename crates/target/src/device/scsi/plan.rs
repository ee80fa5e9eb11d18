//! What takes more than one operation of a block device, or has to wait for room: the stages of a command, one after
//! the other.

use std::collections::VecDeque;
use std::io;

use nvlane_bdev::{Operation, Status, Submitted};
use nvlane_memory::{Scratch, Segment, copy};
use nvlane_scsi::{Compare, Extent, Operation as Asked, Pattern, Sense};

use super::super::{ChannelId, Io};
use super::lun::{Lun, sense_of};
use super::place::part;

/// A range is zeroed or unmapped in pieces of this size, so that a disk in memory does not hold its reactor up.
const PIECE: u64 = 4 << 20;
/// So much may be done at once before the other queues have their turn.
const BUDGET: u64 = 8 << 20;

enum Stage {
    Transfer {
        operation: Operation,
        offset: u64,
        data: Box<[Segment]>,
        done: u64,
        length: u64,
    },
    Flush {
        sent: bool,
    },
    /// Unmap or write zeroes: offset and length of what is left of each range.
    Ranges {
        operation: Operation,
        ranges: VecDeque<(u64, u64)>,
    },
    /// Writes the scratch, which holds the pattern, again and again.
    Fill {
        scratch: Scratch,
        offset: u64,
        left: u64,
    },
    Verify(Verify),
}

/// Reads piece by piece into the scratch and compares.
struct Verify {
    scratch: Scratch,
    offset: u64,
    left: u64,
    /// What is being read.
    reading: u64,
    expected: Expected,
}

enum Expected {
    Anything,
    /// The rest of the data, from a byte on.
    Data(Box<[Segment]>, u64),
    Block(Vec<u8>),
}

/// A command under way.
pub(super) struct Plan {
    stages: VecDeque<Stage>,
    pub under_way: u32,
    failure: Option<Sense>,
}

pub(super) enum Progress {
    Pending,
    /// There is no room, or others have their turn: to be asked again.
    Again,
    Ended(Result<(), Sense>),
}

enum Next {
    Submit { operation: Operation, offset: u64, length: u64, segments: Vec<Segment> },
    Wait,
    Over,
    Failed(Sense),
}

impl Plan {
    /// `data`: the Data-Out or Data-In buffer, cut to what the operation transfers.
    pub fn new(asked: &Asked, data: &[Segment], lun: &Lun) -> io::Result<Plan> {
        let place = |extent: &Extent| (lun.bytes_of(extent.lba), lun.bytes_of(extent.blocks));
        let transfer = |operation, extent: &Extent| {
            let (offset, length) = place(extent);
            Stage::Transfer { operation, offset, data: data.into(), done: 0, length }
        };
        let mut stages = VecDeque::new();
        match asked {
            Asked::Read { extent, through } => {
                if *through {
                    stages.push_back(Stage::Flush { sent: false });
                }
                stages.push_back(transfer(Operation::Read, extent));
            }
            Asked::Write { extent, through } => {
                stages.push_back(transfer(Operation::Write, extent));
                if *through {
                    stages.push_back(Stage::Flush { sent: false });
                }
            }
            Asked::WriteVerify { extent, compare } => {
                stages.push_back(transfer(Operation::Write, extent));
                if lun.disk().write_cache {
                    stages.push_back(Stage::Flush { sent: false });
                }
                let compare = if *compare { Compare::Data } else { Compare::Nothing };
                stages.push_back(Stage::Verify(Verify::new(place(extent), compare, data)?));
            }
            Asked::Verify { extent, compare } => {
                stages.push_back(Stage::Verify(Verify::new(place(extent), *compare, data)?));
            }
            Asked::Flush => stages.push_back(Stage::Flush { sent: false }),
            Asked::Unmap { extents } => {
                let ranges = extents.iter().map(place).collect();
                stages.push_back(Stage::Ranges { operation: Operation::Unmap, ranges });
            }
            Asked::WriteSame { extent, pattern, unmap } => {
                stages.push_back(write_same(place(extent), *pattern, *unmap, data, lun)?);
            }
        }
        Ok(Plan { stages, under_way: 0, failure: None })
    }

    /// An operation has ended.
    pub fn ended(&mut self, status: Status) {
        self.under_way -= 1;
        self.note(status);
    }

    fn note(&mut self, status: Status) {
        if status != Status::Ok && self.failure.is_none() {
            let write = !matches!(
                self.stages.front(),
                Some(Stage::Verify(_) | Stage::Transfer { operation: Operation::Read, .. })
            );
            self.failure = Some(sense_of(status, write));
        }
    }

    /// Nothing more is begun.
    pub fn give_up(&mut self) {
        self.stages.clear();
    }

    /// Submits as much as there is room for.
    pub fn advance(&mut self, id: u16, channel: ChannelId, lun: &Lun, io: &mut Io<'_>) -> Progress {
        let mut at_once = 0;
        loop {
            if self.failure.is_some() {
                self.stages.clear();
            }
            let Some(stage) = self.stages.front_mut() else {
                return match self.failure {
                    _ if self.under_way > 0 => Progress::Pending,
                    Some(sense) => Progress::Ended(Err(sense)),
                    None => Progress::Ended(Ok(())),
                };
            };
            if at_once > BUDGET && self.under_way == 0 {
                return Progress::Again;
            }
            match stage.next(lun, self.under_way) {
                Next::Submit { operation, offset, length, segments } => {
                    match io.submit(channel, operation, offset, length, &segments, id, 0) {
                        Submitted::Busy if self.under_way > 0 => return Progress::Pending,
                        Submitted::Busy => return Progress::Again,
                        Submitted::Pending => {
                            stage.taken(length);
                            self.under_way += 1;
                        }
                        Submitted::Done(status) => {
                            stage.taken(length);
                            at_once += length;
                            self.note(status);
                        }
                    }
                }
                Next::Wait => return Progress::Pending,
                // A stage begins when all of the one before it has ended.
                Next::Over if self.under_way > 0 => return Progress::Pending,
                Next::Over => drop(self.stages.pop_front()),
                Next::Failed(sense) => self.failure = Some(sense),
            }
        }
    }
}

fn write_same(
    (offset, left): (u64, u64),
    pattern: Pattern,
    unmap: bool,
    data: &[Segment],
    lun: &Lun,
) -> io::Result<Stage> {
    if pattern == Pattern::Zeroes && lun.has_write_zeroes() {
        let operation = Operation::WriteZeroes { unmap };
        return Ok(Stage::Ranges { operation, ranges: VecDeque::from([(offset, left)]) });
    }
    let mut block = vec![0; lun.disk().block_size as usize];
    if pattern == Pattern::Block {
        copy::copy_in(data, 0, &mut block);
    }
    let scratch = Scratch::new()?;
    for at in (0..scratch.segment().len()).step_by(block.len()) {
        copy::copy_out(&block, &[scratch.segment()], at);
    }
    Ok(Stage::Fill { scratch, offset, left })
}

impl Stage {
    /// What to submit now.
    fn next(&mut self, lun: &Lun, under_way: u32) -> Next {
        match self {
            Stage::Transfer { operation, offset, data, done, length } => {
                let now = (*length - *done).min(lun.max_transfer());
                if now == 0 {
                    return Next::Over;
                }
                let segments = part(data, *done as usize, now as usize);
                Next::Submit { operation: *operation, offset: *offset + *done, length: now, segments }
            }
            Stage::Flush { sent: false } => {
                Next::Submit { operation: Operation::Flush, offset: 0, length: 0, segments: Vec::new() }
            }
            Stage::Flush { sent: true } => Next::Over,
            Stage::Ranges { operation, ranges } => match ranges.front() {
                Some(&(offset, left)) => Next::Submit {
                    operation: *operation,
                    offset,
                    length: left.min(PIECE),
                    segments: Vec::new(),
                },
                None => Next::Over,
            },
            Stage::Fill { scratch, offset, left } => {
                let length = (scratch.segment().len() as u64).min(*left).min(lun.max_transfer());
                if length == 0 {
                    return Next::Over;
                }
                let segments = vec![scratch.segment().part(0, length as usize)];
                Next::Submit { operation: Operation::Write, offset: *offset, length, segments }
            }
            Stage::Verify(verify) => verify.next(lun, under_way),
        }
    }

    /// `length` bytes of it are submitted.
    fn taken(&mut self, length: u64) {
        match self {
            Stage::Transfer { done, .. } => *done += length,
            Stage::Flush { sent } => *sent = true,
            Stage::Ranges { ranges, .. } => {
                if let Some((offset, left)) = ranges.front_mut() {
                    *offset += length;
                    *left -= length;
                    if *left == 0 {
                        ranges.pop_front();
                    }
                }
            }
            Stage::Fill { offset, left, .. } => {
                *offset += length;
                *left -= length;
            }
            Stage::Verify(verify) => verify.reading = length,
        }
    }
}

impl Verify {
    fn new((offset, left): (u64, u64), compare: Compare, data: &[Segment]) -> io::Result<Verify> {
        let expected = match compare {
            Compare::Nothing => Expected::Anything,
            Compare::Data => Expected::Data(data.into(), 0),
            Compare::Block => {
                let mut block = vec![0; nvlane_memory::total(data)];
                copy::copy_in(data, 0, &mut block);
                Expected::Block(block)
            }
        };
        Ok(Verify { scratch: Scratch::new()?, offset, left, reading: 0, expected })
    }

    fn next(&mut self, lun: &Lun, under_way: u32) -> Next {
        if self.reading > 0 {
            if under_way > 0 {
                return Next::Wait;
            }
            if !self.is_as_expected() {
                return Next::Failed(Sense::MISCOMPARE);
            }
            self.offset += self.reading;
            self.left -= self.reading;
            self.reading = 0;
        }
        let length = (self.scratch.segment().len() as u64).min(self.left).min(lun.max_transfer());
        if length == 0 {
            return Next::Over;
        }
        let segments = vec![self.scratch.segment().part(0, length as usize)];
        Next::Submit { operation: Operation::Read, offset: self.offset, length, segments }
    }

    fn is_as_expected(&mut self) -> bool {
        let length = self.reading as usize;
        let mut found = vec![0; length];
        copy::copy_in(&[self.scratch.segment()], 0, &mut found);
        match &mut self.expected {
            Expected::Anything => true,
            Expected::Data(data, done) => {
                let mut wanted = vec![0; length];
                let there = copy::copy_in(data, *done as usize, &mut wanted);
                *done += length as u64;
                there == length && found == wanted
            }
            Expected::Block(block) => found.chunks_exact(block.len()).all(|piece| piece == block),
        }
    }
}
