//! A file whose pages are memory: the reactor makes the calls itself, since none of them waits for a device.

use std::sync::Arc;

use super::job::{Job, Next};
use super::open::Opened;
use super::raw;
use crate::{Operation, Request, Status};

pub struct DirectChannel {
    opened: Arc<Opened>,
    job: Job,
}

impl DirectChannel {
    pub(super) fn new(opened: Arc<Opened>) -> Self {
        Self { opened, job: Job::idle() }
    }

    #[inline]
    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Status {
        if request.operation == Operation::Flush {
            return Status::Ok; // tmpfs has nothing below it (noop_fsync in mm/shmem.c)
        }
        self.job.start(request, false);
        run(&self.opened, &mut self.job)
    }
}

/// Makes call after call until the request has ended.
pub(super) fn run(opened: &Opened, job: &mut Job) -> Status {
    loop {
        let result = raw::perform(opened.fd(), job);
        if let Next::Done(status) = job.finish(result) {
            return status;
        }
    }
}
