//! The requests of a channel that the kernel has: values that move between the channel and who makes the calls.

use nvlane_memory::{HostMemory, Segment};

use super::job::Job;
use super::open::Opened;
use super::raw;
use crate::{Operation, Request, Status};

/// How many requests a channel takes at once.
pub const DEPTH: usize = 256;
/// A buffer up to this size is kept for the next request that needs one.
const KEPT: usize = 256 << 10;

/// A request, and the buffer that stands in for the guest's where that is not aligned for O_DIRECT.
pub struct Slot {
    pub job: Job,
    buffer: Option<HostMemory>,
    /// The guest's memory, while the buffer stands in for it, and the bytes there are.
    guest: Vec<Segment>,
    length: usize,
}

impl Slot {
    pub fn new() -> Self {
        Self { job: Job::idle(), buffer: None, guest: Vec::new(), length: 0 }
    }

    /// Takes a request; an error if there is no memory for a buffer.
    pub fn start(&mut self, request: &Request<'_>, opened: &Opened) -> Result<(), Status> {
        self.guest.clear();
        let moves = matches!(request.operation, Operation::Read | Operation::Write);
        if !moves || aligned(request.segments, opened.memory_alignment) {
            self.job.start(request, opened.block_device);
            return Ok(());
        }
        let length = request.length as usize;
        if self.buffer.as_ref().is_none_or(|buffer| buffer.len() < length) {
            self.buffer = Some(HostMemory::new(length, false).map_err(|_| Status::IoError)?);
        }
        let Some(buffer) = &self.buffer else { return Err(Status::IoError) };
        self.guest.extend_from_slice(request.segments);
        self.length = length;
        let whole = raw::buffer_segment(buffer, length);
        if request.operation == Operation::Write {
            raw::gather(&self.guest, whole);
        }
        self.job.start(&Request { segments: &[whole], ..*request }, opened.block_device);
        Ok(())
    }

    /// The request has ended: what was read goes to the guest.
    pub fn finish(&mut self, status: Status) {
        if self.guest.is_empty() {
            return;
        }
        if let Some(buffer) = &self.buffer {
            if status == Status::Ok && self.job.operation == Operation::Read {
                raw::scatter(raw::buffer_segment(buffer, self.length), &self.guest);
            }
            if buffer.len() > KEPT {
                self.buffer = None;
            }
        }
        self.guest.clear();
    }
}

/// O_DIRECT wants addresses and lengths in multiples of this.
#[inline]
fn aligned(segments: &[Segment], alignment: usize) -> bool {
    alignment <= 1
        || segments.iter().all(|segment| (segment.base() as usize | segment.len()) & (alignment - 1) == 0)
}
