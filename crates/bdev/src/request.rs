//! One request to a block device, and how it ends.

use nvlane_memory::Segment;

/// What is asked of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    /// All writes that have completed before are on stable storage when this completes.
    Flush,
    /// The range is no longer needed; it may read as anything afterwards (virtio-blk DISCARD, SCSI UNMAP, NVMe DSM).
    Unmap,
    /// The range reads as zeroes afterwards; `unmap`: it may be deallocated for that.
    WriteZeroes {
        unmap: bool,
    },
}

/// A request. `offset` and `length` are in bytes and multiples of the block size; the front end has checked that they
/// lie within the device. `segments` hold `length` bytes for a read or a write and are empty otherwise; they need to
/// live during `submit` only, the memory they name until the completion.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub operation: Operation,
    pub offset: u64,
    pub length: u64,
    pub segments: &'a [Segment],
    /// Comes back in the [`Completion`].
    pub token: u64,
}

/// What became of a request that was handed to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It is done already (memory, or an error seen at once); there will be no completion.
    Done(Status),
    /// A [`Completion`] with its token will come from `poll`.
    Pending,
    /// The channel has no room: nothing was taken, ask again after the next `poll`.
    Busy,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    /// The medium or the way to it failed.
    IoError,
    Unsupported,
    OutOfRange,
    ReadOnly,
    NoSpace,
    /// The device was removed.
    Gone,
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    pub token: u64,
    pub status: Status,
}
