//! What is kept of a request while block devices work at it. Requests that are done at once leave no trace here.

use nvlane_bdev::{Operation, Status};
use nvlane_memory::{Segment, total};

pub(super) struct Slot {
    /// The byte where the guest looks for the reply.
    pub reply_to: Segment,
    pub written: u32,
    pub under_way: u32,
    /// The first failure.
    pub status: Status,
    /// What is left to submit.
    pub rest: Option<Box<Rest>>,
    /// What a read writes, if somebody logs it.
    pub logged: Option<Box<[Segment]>>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            reply_to: Segment::EMPTY,
            written: 0,
            under_way: 0,
            status: Status::Ok,
            rest: None,
            logged: None,
        }
    }
}

impl Slot {
    /// One operation is under way.
    #[inline]
    pub fn begin(&mut self, reply_to: Segment, written: u32, logged: Option<Box<[Segment]>>) {
        *self = Self { reply_to, written, under_way: 1, status: Status::Ok, rest: None, logged };
    }

    #[inline]
    pub fn note(&mut self, status: Status) {
        if self.status == Status::Ok {
            self.status = status;
        }
    }
}

/// The operations of a request that are not submitted yet.
pub(super) struct Rest {
    /// Operation, offset and length of each range, the next one first.
    ranges: std::vec::IntoIter<(Operation, u64, u64)>,
    present: Option<(Operation, u64, u64)>,
    /// The data of `present`, and how much of it is submitted.
    data: Box<[Segment]>,
    done: u64,
}

/// The next operation.
pub(super) struct Next {
    pub operation: Operation,
    pub offset: u64,
    pub length: u64,
    pub segments: Vec<Segment>,
}

impl Rest {
    pub fn transfer(operation: Operation, offset: u64, data: &[Segment]) -> Self {
        let present = Some((operation, offset, total(data) as u64));
        Self { ranges: Vec::new().into_iter(), present, data: data.into(), done: 0 }
    }

    pub fn flush() -> Self {
        Self::ranges(vec![(Operation::Flush, 0, 0)])
    }

    pub fn ranges(ranges: Vec<(Operation, u64, u64)>) -> Self {
        let mut ranges = ranges.into_iter();
        let present = ranges.next();
        Self { ranges, present, data: Box::default(), done: 0 }
    }

    /// At most `most` bytes of data at once.
    pub fn next(&self, most: u32) -> Option<Next> {
        let (operation, offset, length) = self.present?;
        if self.data.is_empty() {
            return Some(Next { operation, offset, length, segments: Vec::new() });
        }
        let length = (length - self.done).min(u64::from(most));
        let mut skip = self.done as usize;
        let mut left = length as usize;
        let mut segments = Vec::with_capacity(self.data.len());
        for segment in &self.data {
            let part = segment.part(skip, left);
            skip = skip.saturating_sub(segment.len());
            left -= part.len();
            if !part.is_empty() {
                segments.push(part);
            }
        }
        Some(Next { operation, offset: offset + self.done, length, segments })
    }

    /// `length` bytes of the present operation are submitted.
    pub fn taken(&mut self, length: u64) {
        self.done += length;
        if self.present.is_some_and(|(_, _, whole)| self.done >= whole) {
            self.present = self.ranges.next();
            self.done = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_cut_where_the_device_needs_it() {
        let mut memory = vec![0_u8; 10_000];
        let base = memory.as_mut_ptr();
        // SAFETY: the ranges lie within `memory`, which nothing else touches.
        let data = unsafe { [Segment::new(base, 3000), Segment::new(base.add(3000), 7000)] };
        let mut rest = Rest::transfer(Operation::Read, 512, &data);
        let mut cuts = Vec::new();
        while let Some(next) = rest.next(4096) {
            assert_eq!(total(&next.segments) as u64, next.length);
            cuts.push((next.offset, next.length, next.segments.len()));
            rest.taken(next.length);
        }
        assert_eq!(cuts, [(512, 4096, 2), (4608, 4096, 1), (8704, 1808, 1)]);
    }

    #[test]
    fn ranges_one_after_the_other_and_a_flush_of_nothing() {
        let mut rest = Rest::ranges(vec![(Operation::Unmap, 0, 512), (Operation::Unmap, 1024, 512)]);
        assert_eq!(rest.next(1).map(|next| next.offset), Some(0));
        rest.taken(512);
        assert_eq!(rest.next(1).map(|next| next.offset), Some(1024));
        rest.taken(512);
        assert!(rest.next(1).is_none());
        let mut flush = Rest::flush();
        assert_eq!(flush.next(1).map(|next| next.operation), Some(Operation::Flush));
        flush.taken(0);
        assert!(flush.next(1).is_none());
        assert!(Rest::ranges(Vec::new()).next(1).is_none());
    }
}
