use nvlane_memory::Segment;

use crate::spec::Status;

/// What is asked of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoKind {
    Read,
    Write,
    Flush,
    /// Dataset Management, deallocate: what the blocks hold afterwards is the drive's affair.
    Deallocate,
    /// The blocks read as zeroes afterwards; `deallocate`: they may be freed for it.
    WriteZeroes {
        deallocate: bool,
    },
}

impl IoKind {
    pub(super) fn has_data(self) -> bool {
        matches!(self, IoKind::Read | IoKind::Write)
    }
}

/// One request. The segments are needed during the call, the memory they name until the outcome.
#[derive(Clone, Copy, Debug)]
pub struct Io<'a> {
    pub kind: IoKind,
    pub lba: u64,
    /// Logical blocks; ignored by a flush.
    pub blocks: u64,
    /// As many bytes as the blocks have, for a read or a write.
    pub segments: &'a [Segment],
    /// Comes back with the outcome.
    pub token: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The drive refused it, or the medium failed.
    Failed(Status),
    /// The controller was reset under it more often than it is repeated, or has been given up.
    Aborted,
    /// The drive is not there any more.
    Gone,
}

/// What became of a request that was handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submission {
    /// It will come out of `poll`.
    Pending,
    /// No room (or the controller is being reset): ask again after the next `poll`.
    Busy,
    /// It ended at once; it will not come out of `poll`.
    Done(Outcome),
}
