//! A file or block device by io_uring: one ring a channel, one `io_uring_enter` a turn of the reactor.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::{IoUring, opcode, squeue, types};

use super::job::{Call, Next};
use super::open::Opened;
use super::pool::{Mailbox, Queue, Task};
use super::raw;
use super::slots::{DEPTH, Slot};
use crate::{BdevError, Completion, Request, Status, Submitted};

const IORING_ENTER_GETEVENTS: u32 = 1; // linux/io_uring.h
/// The file, in the ring's table: the kernel then takes no reference a request.
const FILE: types::Fixed = types::Fixed(0);

/// Whether the kernel lets us have a ring (seccomp, `kernel.io_uring_disabled`, locked memory before Linux 5.12).
pub fn allowed() -> bool {
    ring().is_ok()
}

/// The best ring that this kernel has. It starts disabled: with SINGLE_ISSUER it belongs to the thread that enables it,
/// which is the reactor, not the control thread that opens the channel.
fn ring() -> io::Result<IoUring> {
    let entries = DEPTH as u32;
    let deferred = IoUring::builder()
        .setup_r_disabled()
        .setup_single_issuer()
        .setup_defer_taskrun() // Linux 6.1: completions are made when we ask, and interrupt nothing
        .setup_taskrun_flag()
        .build(entries);
    let usable = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    match deferred {
        Err(error) if usable(&error) => {}
        other => return other,
    }
    match IoUring::builder().setup_r_disabled().setup_coop_taskrun().setup_taskrun_flag().build(entries) {
        Err(error) if usable(&error) => IoUring::builder().setup_r_disabled().build(entries),
        other => other,
    }
}

pub struct UringChannel {
    ring: IoUring,
    opened: Arc<Opened>,
    /// Where the kernel reads the vectors of a request from until it was submitted: they stay in place.
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// Entries in the ring that the kernel has not seen.
    queued: u32,
    /// Results of one poll, kept to reuse the memory.
    results: Vec<(u64, i32)>,
    queue: Arc<Queue>,
    mailbox: Arc<Mailbox>,
    /// Slots that the pool has, and those that it gave back.
    away: usize,
    back: Vec<(Slot, Status)>,
    enabled: bool,
    armed: bool,
}

impl UringChannel {
    pub(super) fn new(opened: Arc<Opened>, queue: Arc<Queue>) -> Result<Self, BdevError> {
        let failed =
            |error: io::Error| BdevError::io(format_args!("{}: io_uring", opened.path.display()), &error);
        let ring = ring().map_err(failed)?;
        ring.submitter().register_files(&[opened.file.as_raw_fd()]).map_err(failed)?;
        Ok(Self {
            ring,
            opened,
            slots: (0..DEPTH).map(|_| Slot::new()).collect(),
            free: (0..DEPTH as u16).rev().collect(),
            queued: 0,
            results: Vec::with_capacity(2 * DEPTH),
            queue,
            mailbox: Mailbox::new()?,
            away: 0,
            back: Vec::new(),
            enabled: false,
            armed: false,
        })
    }

    pub(crate) fn submit(&mut self, request: &Request<'_>) -> Submitted {
        let Some(place) = self.free.pop() else { return Submitted::Busy };
        if let Err(status) = self.slots[place as usize].start(request, &self.opened) {
            self.free.push(place);
            return Submitted::Done(status);
        }
        if self.slots[place as usize].job.call == Call::Discard {
            return self.send_away(place);
        }
        self.push(place);
        Submitted::Pending
    }

    /// Discarding on a block device is an ioctl, which the ring has not: a thread makes it.
    fn send_away(&mut self, place: u16) -> Submitted {
        let slot = std::mem::replace(&mut self.slots[place as usize], Slot::new());
        self.free.push(place);
        self.away += 1;
        self.queue.push(Task { slot, opened: self.opened.clone(), mailbox: self.mailbox.clone() });
        Submitted::Pending
    }

    fn push(&mut self, place: u16) {
        let entry = entry(&self.slots[place as usize]).user_data(u64::from(place));
        // SAFETY: the vectors are on the heap and the slot leaves them as they are until the completion; the memory that they
        // name is vouched for by who submitted the request. There is room: the ring has an entry a slot.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        debug_assert!(pushed.is_ok());
        self.queued += 1;
    }

    pub(crate) fn kick(&mut self) {
        if self.queued != 0 {
            self.enter(0);
        }
    }

    /// Gives the kernel what is queued, and lets it make what completions there are.
    fn enter(&mut self, wait_for: u32) {
        if !self.enabled {
            // EBADFD: the ring is not disabled, which is just as well.
            let _ = self.ring.submitter().register_enable_rings();
            self.enabled = true;
        }
        // SAFETY: no argument is passed; the ring is ours.
        let taken =
            unsafe { self.ring.submitter().enter::<()>(self.queued, wait_for, IORING_ENTER_GETEVENTS, None) };
        match taken {
            Ok(taken) => self.queued -= (taken as u32).min(self.queued),
            // EINTR, EAGAIN (no memory now), EBUSY (completions first): what is queued stays, and the next turn asks again.
            Err(_) => std::hint::spin_loop(),
        }
    }

    pub(crate) fn poll(&mut self, completions: &mut Vec<Completion>) {
        if self.armed {
            self.settle();
        }
        if self.away != 0 {
            self.take_back(completions);
        }
        let state = self.ring.submission();
        if self.queued != 0 || state.taskrun() || state.cq_overflow() {
            drop(state);
            self.enter(0);
        } else {
            drop(state);
        }
        self.reap(completions);
        if self.queued != 0 {
            self.enter(0); // what has to go on: short transfers
        }
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        self.results.extend(self.ring.completion().map(|entry| (entry.user_data(), entry.result())));
        for index in 0..self.results.len() {
            let (place, result) = self.results[index];
            let slot = &mut self.slots[place as usize];
            match slot.job.finish(i64::from(result)) {
                Next::Again => self.push(place as u16),
                Next::Done(status) => {
                    slot.finish(status);
                    completions.push(Completion { token: slot.job.token, status });
                    self.free.push(place as u16);
                }
            }
        }
        self.results.clear();
    }

    #[cold]
    fn take_back(&mut self, completions: &mut Vec<Completion>) {
        self.mailbox.take(&mut self.back);
        for (mut slot, status) in self.back.drain(..) {
            slot.finish(status);
            self.away -= 1;
            completions.push(Completion { token: slot.job.token, status });
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        DEPTH - self.free.len() + self.away
    }

    /// The ring's own descriptor is not woken by deferred completions; an eventfd in the ring is. It is there only while
    /// the reactor sleeps, since each completion would write to it.
    pub(crate) fn arm(&mut self) -> bool {
        if self.queued != 0 {
            return false;
        }
        if !self.armed {
            if self.ring.submitter().register_eventfd(self.mailbox.descriptor()).is_err() {
                return false;
            }
            self.armed = true;
        }
        let nothing_back = self.mailbox.arm();
        let waiting = self.ring.submission().taskrun() || !self.ring.completion().is_empty();
        nothing_back && !waiting
    }

    #[cold]
    pub(crate) fn settle(&mut self) {
        if self.armed {
            let _ = self.ring.submitter().unregister_eventfd(); // ENXIO: there is none, which is what is wanted
            self.armed = false;
        }
        self.mailbox.disarm();
    }

    pub(crate) fn wait_descriptor(&self) -> RawFd {
        self.mailbox.descriptor()
    }
}

/// What the slot asks of the kernel next.
fn entry(slot: &Slot) -> squeue::Entry {
    let transfer = &slot.job.transfer;
    let segments = transfer.segments();
    match (slot.job.call, segments) {
        (Call::Read, [one]) => {
            opcode::Read::new(FILE, one.base(), length(one.len())).offset(transfer.offset).build()
        }
        (Call::Write, [one]) => {
            opcode::Write::new(FILE, one.base(), length(one.len())).offset(transfer.offset).build()
        }
        (Call::Read, many) => {
            opcode::Readv::new(FILE, many.as_ptr().cast(), many.len() as u32).offset(transfer.offset).build()
        }
        (Call::Write, many) => {
            opcode::Writev::new(FILE, many.as_ptr().cast(), many.len() as u32).offset(transfer.offset).build()
        }
        (Call::PunchHole | Call::ZeroRange, _) => opcode::Fallocate::new(FILE, transfer.left)
            .offset(transfer.offset)
            .mode(raw::fallocate_mode(slot.job.call))
            .build(),
        (Call::Sync | Call::Discard, _) => {
            opcode::Fsync::new(FILE).flags(types::FsyncFlags::DATASYNC).build()
        }
    }
}

/// One call moves less than 2 GiB (MAX_RW_COUNT); the job asks for the rest.
fn length(bytes: usize) -> u32 {
    bytes.min(0x7fff_f000) as u32
}

impl Drop for UringChannel {
    /// The kernel must not write to memory that is gone: what is under way is waited for. A drive that never answers
    /// would hold us for ever, so after a while the ring is left to the kernel, with all that it may still touch.
    fn drop(&mut self) {
        let mut ended = Vec::new();
        let start = std::time::Instant::now();
        while self.in_flight() != 0 && start.elapsed() < std::time::Duration::from_secs(5) {
            self.poll(&mut ended);
            std::thread::yield_now();
        }
        if self.in_flight() != 0 {
            std::mem::forget(std::mem::take(&mut self.slots));
        }
        // A ring that is closed is taken apart some time later, and would hold the file until then.
        let _ = self.ring.submitter().unregister_files();
    }
}
