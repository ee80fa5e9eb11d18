//! What a request to a file needs of the kernel, one system call after another: a pure state machine that io_uring, the
//! thread pool and the direct calls all follow.
//!
//! The kernel may transfer less than was asked, and a file system may not know an operation; both mean one more step.

use nvlane_memory::Segment;

use crate::{Operation, Request, Status};

/// One system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Read,
    Write,
    /// fdatasync(2): what was written, and the metadata that is needed to find it.
    Sync,
    /// fallocate(2) with PUNCH_HOLE: frees the space; reads zeroes. On a block device only if it can unmap for that.
    PunchHole,
    /// fallocate(2) with ZERO_RANGE: reads zeroes and stays allocated. On a block device writes zeroes if need be.
    ZeroRange,
    /// ioctl(2) BLKDISCARD, block devices only.
    Discard,
}

/// The rest of a transfer: an iovec array whose front is taken off as bytes are moved.
#[derive(Default)]
pub struct Transfer {
    segments: Vec<Segment>,
    first: usize,
    pub offset: u64,
    pub left: u64,
}

/// readv(2) and its kin take at most this many (UIO_MAXIOV).
const MOST_SEGMENTS: usize = 1024;

impl Transfer {
    fn start(&mut self, offset: u64, length: u64, segments: impl Iterator<Item = Segment>) {
        self.segments.clear();
        self.segments.extend(segments.filter(|segment| !segment.is_empty()));
        (self.first, self.offset, self.left) = (0, offset, length);
    }

    /// What the next call moves.
    pub fn segments(&self) -> &[Segment] {
        let rest = &self.segments[self.first..];
        &rest[..rest.len().min(MOST_SEGMENTS)]
    }

    fn advance(&mut self, mut count: u64) {
        count = count.min(self.left);
        self.offset += count;
        self.left -= count;
        while count != 0 && self.first < self.segments.len() {
            let segment = &mut self.segments[self.first];
            let part = count.min(segment.len() as u64);
            *segment = segment.part(part as usize, usize::MAX);
            count -= part;
            if segment.is_empty() {
                self.first += 1;
            }
        }
    }
}

/// A request on its way.
pub struct Job {
    pub token: u64,
    pub operation: Operation,
    pub call: Call,
    pub transfer: Transfer,
}

/// What follows a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Again,
    Done(Status),
}

impl Job {
    pub fn idle() -> Self {
        Self { token: 0, operation: Operation::Flush, call: Call::Sync, transfer: Transfer::default() }
    }

    /// Takes a request; the memory of the last one is used again.
    pub fn start(&mut self, request: &Request<'_>, block_device: bool) {
        self.token = request.token;
        self.operation = request.operation;
        self.call = match request.operation {
            Operation::Read => Call::Read,
            Operation::Write => Call::Write,
            Operation::Flush => Call::Sync,
            Operation::Unmap if block_device => Call::Discard,
            Operation::Unmap | Operation::WriteZeroes { unmap: true } => Call::PunchHole,
            Operation::WriteZeroes { unmap: false } => Call::ZeroRange,
        };
        self.transfer.start(request.offset, request.length, request.segments.iter().copied());
    }

    /// What the call returned: a count or a negative errno.
    pub fn finish(&mut self, result: i64) -> Next {
        if result < 0 {
            return self.failed(i32::try_from(-result).unwrap_or(libc::EIO));
        }
        match self.call {
            // Beyond the end of a file that was cut short.
            Call::Read | Call::Write if result == 0 && self.transfer.left != 0 => Next::Done(Status::IoError),
            Call::Read | Call::Write => {
                self.transfer.advance(result as u64);
                if self.transfer.left == 0 { Next::Done(Status::Ok) } else { self.again() }
            }
            _ => Next::Done(Status::Ok),
        }
    }

    fn failed(&mut self, errno: i32) -> Next {
        match (errno, self.call, self.operation) {
            (libc::EINTR | libc::EAGAIN, ..) => Next::Again,
            (
                libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV,
                Call::PunchHole,
                Operation::WriteZeroes { .. },
            ) => {
                self.call = Call::ZeroRange;
                Next::Again
            }
            (libc::EOPNOTSUPP | libc::ENOSYS | libc::ENODEV, Call::ZeroRange, _) => {
                self.call = Call::Write;
                self.again()
            }
            _ => Next::Done(status_of(errno)),
        }
    }

    /// Prepares the next call of a transfer. Zeroes are written in rounds of what one call takes.
    fn again(&mut self) -> Next {
        if matches!(self.operation, Operation::WriteZeroes { .. }) && self.transfer.segments().is_empty() {
            let (offset, left) = (self.transfer.offset, self.transfer.left);
            let zeroes = super::raw::zeroes();
            let round = left.min((MOST_SEGMENTS / 4 * zeroes.len()) as u64);
            let pieces = (0..round).step_by(zeroes.len()).map(|at| zeroes.part(0, (round - at) as usize));
            self.transfer.start(offset, left, pieces);
        }
        Next::Again
    }
}

/// What an errno of the block layer or of a file system means to a guest.
pub fn status_of(errno: i32) -> Status {
    match errno {
        libc::ENOSPC | libc::EDQUOT => Status::NoSpace,
        libc::EOPNOTSUPP => Status::Unsupported,
        libc::EROFS | libc::EBADF => Status::ReadOnly,
        libc::ENODEV | libc::ENXIO => Status::Gone,
        libc::ECANCELED => Status::Aborted,
        _ => Status::IoError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Segments of a buffer that nobody reads or writes, with gaps between them.
    fn segments(lengths: &[usize]) -> Vec<Segment> {
        let whole = super::super::raw::zeroes();
        let mut at = 0;
        let place = |&length: &usize| {
            let segment = whole.part(at, length);
            at += length + 64;
            segment
        };
        lengths.iter().map(place).collect()
    }

    fn job(operation: Operation, offset: u64, length: u64, segments: &[Segment]) -> Job {
        let mut job = Job::idle();
        job.start(&Request { operation, offset, length, segments, token: 7 }, false);
        job
    }

    proptest! {
        /// However the kernel cuts a transfer up, each byte goes to its place exactly once.
        #[test]
        fn short_transfers_lose_nothing(
            lengths in prop::collection::vec(0usize..3000, 1..10),
            cuts in prop::collection::vec(1u64..2000, 64),
        ) {
            let segments = segments(&lengths);
            let total: u64 = lengths.iter().map(|&length| length as u64).sum();
            prop_assume!(total != 0);
            let wanted: Vec<(u64, usize)> = segments
                .iter()
                .flat_map(|segment| (0..segment.len()).map(|byte| segment.base() as usize + byte))
                .enumerate()
                .map(|(at, address)| (4096 + at as u64, address))
                .collect();
            let (mut job, mut seen) = (job(Operation::Read, 4096, total, &segments), Vec::new());
            for &cut in cuts.iter().cycle() {
                let offered: usize = job.transfer.segments().iter().map(|segment| segment.len()).sum();
                let count = cut.min(offered as u64);
                let bytes = job.transfer.segments().iter()
                    .flat_map(|segment| (0..segment.len()).map(|byte| segment.base() as usize + byte));
                seen.extend(bytes.take(count as usize).enumerate().map(|(at, byte)| (job.transfer.offset + at as u64, byte)));
                match job.finish(count as i64) {
                    Next::Again => {}
                    Next::Done(status) => { prop_assert_eq!(status, Status::Ok); break }
                }
            }
            prop_assert_eq!(seen, wanted);
        }
    }

    #[test]
    fn zeroes_are_written_where_nothing_else_makes_them() {
        let length = (40 << 20) + 512;
        let mut job = job(Operation::WriteZeroes { unmap: true }, 512, length, &[]);
        assert_eq!(job.call, Call::PunchHole);
        assert_eq!(job.finish(-i64::from(libc::EOPNOTSUPP)), Next::Again);
        assert_eq!(job.call, Call::ZeroRange);
        assert_eq!(job.finish(-i64::from(libc::EOPNOTSUPP)), Next::Again);
        let mut written = 0;
        loop {
            assert_eq!(job.call, Call::Write);
            assert_eq!(job.transfer.offset, 512 + written);
            let count: usize = job.transfer.segments().iter().map(|segment| segment.len()).sum();
            written += count as u64;
            match job.finish(count as i64) {
                Next::Again => {}
                Next::Done(status) => {
                    assert_eq!((status, written), (Status::Ok, length));
                    return;
                }
            }
        }
    }

    #[test]
    fn errors_are_told_apart() {
        let ends =
            |operation, errno: i32| job(operation, 0, 512, &segments(&[512])).finish(-i64::from(errno));
        assert_eq!(ends(Operation::Write, libc::ENOSPC), Next::Done(Status::NoSpace));
        assert_eq!(ends(Operation::Write, libc::EIO), Next::Done(Status::IoError));
        assert_eq!(ends(Operation::Read, libc::EINTR), Next::Again);
        assert_eq!(ends(Operation::Unmap, libc::EOPNOTSUPP), Next::Done(Status::Unsupported));
        assert_eq!(ends(Operation::Read, libc::ENXIO), Next::Done(Status::Gone));
        assert_eq!(job(Operation::Read, 0, 512, &segments(&[512])).finish(0), Next::Done(Status::IoError));
        assert_eq!(job(Operation::Flush, 0, 0, &[]).finish(0), Next::Done(Status::Ok));
    }
}
