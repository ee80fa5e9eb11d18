//! Requests to a queue pair, and outcomes to completions.

use std::os::fd::RawFd;

use nvlane_nvme::spec::Status as NvmeStatus;
use nvlane_nvme::{Io, IoKind, Outcome, Qpair, Submission};

use crate::{Completion, Operation, Request, Status, Submitted};

pub struct NvmeChannel {
    queue: Qpair,
    shift: u32,
}

impl NvmeChannel {
    pub(super) fn new(queue: Qpair) -> Self {
        Self { shift: u32::from(queue.namespace().block_shift), queue }
    }

    #[inline]
    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Submitted {
        let kind = match request.operation {
            Operation::Read => IoKind::Read,
            Operation::Write => IoKind::Write,
            Operation::Flush => IoKind::Flush,
            Operation::Unmap => IoKind::Deallocate,
            Operation::WriteZeroes { unmap } => IoKind::WriteZeroes { deallocate: unmap },
        };
        let io = Io {
            kind,
            lba: request.offset >> self.shift,
            blocks: request.length >> self.shift,
            segments: request.segments,
            token: request.token,
        };
        match self.queue.submit(&io) {
            Submission::Pending => Submitted::Pending,
            Submission::Busy => Submitted::Busy,
            Submission::Done(outcome) => Submitted::Done(status_of(outcome)),
        }
    }

    #[inline]
    pub(crate) fn kick(&mut self) {
        self.queue.kick();
    }

    #[inline]
    pub(crate) fn poll(&mut self, completions: &mut Vec<Completion>) {
        self.queue.poll(|token, outcome| completions.push(Completion { token, status: status_of(outcome) }));
    }

    pub(crate) fn arm(&mut self) -> bool {
        self.queue.arm()
    }

    /// Nothing is under way: what the supervisor has to say is heard here.
    pub(crate) fn settle(&mut self) {
        if self.queue.in_flight() == 0 {
            self.queue.listen();
        }
    }

    pub(crate) fn wait_descriptor(&self) -> RawFd {
        self.queue.wait_descriptor()
    }
}

#[inline]
fn status_of(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Ok => Status::Ok,
        Outcome::Aborted => Status::Aborted,
        Outcome::Gone => Status::Gone,
        Outcome::Failed(status) => failed(status),
    }
}

#[cold]
fn failed(status: NvmeStatus) -> Status {
    match status {
        NvmeStatus::INVALID_OPCODE => Status::Unsupported,
        NvmeStatus::LBA_OUT_OF_RANGE => Status::OutOfRange,
        NvmeStatus::CAPACITY_EXCEEDED => Status::NoSpace,
        NvmeStatus::WRITE_PROTECTED | NvmeStatus::READ_ONLY_RANGE => Status::ReadOnly,
        NvmeStatus::INVALID_NAMESPACE => Status::Gone,
        NvmeStatus::ABORT_REQUESTED | NvmeStatus::ABORTED_SQ_DELETION => Status::Aborted,
        _ => Status::IoError,
    }
}
