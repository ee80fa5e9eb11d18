//! What the words do.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use nvlane_memory::{HostMemory, Segment, copy};
use nvlane_nvme::{Controller, Device, Event, Io, IoKind, NvmeError, Outcome, Qpair, Submission};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::pattern;

pub type Failure = Box<dyn std::error::Error>;

/// Bytes of one request.
const CHUNK: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);

pub struct Work<'a> {
    pub controller: &'a Controller,
    pub device: Option<Arc<dyn Device>>,
    pub events: Receiver<Event>,
}

impl Work<'_> {
    pub fn perform(&mut self, word: &str) -> Result<(), Failure> {
        let mut fields = word.split(':');
        let verb = fields.next().unwrap_or_default();
        let numbers = fields.map(str::parse).collect::<Result<Vec<u64>, _>>()?;
        match (verb, numbers.as_slice()) {
            ("identify", []) => self.identify(),
            ("fill", &[id, start, count, seed]) => self.fill(id, start, count, seed, 0)?,
            ("odd", &[id, start, count, seed]) => self.fill(id, start, count, seed, 20)?,
            ("check", &[id, start, count, seed]) => self.check(id, start, count, seed)?,
            ("zero", &[id, start, count]) => {
                self.simple(id, IoKind::WriteZeroes { deallocate: true }, start, count)?;
            }
            ("trim", &[id, start, count]) => self.simple(id, IoKind::Deallocate, start, count)?,
            ("flush", &[id]) => self.simple(id, IoKind::Flush, 0, 0)?,
            ("reset", []) => self.under_load(|work| Ok(work.controller.reset(LIMIT)?))?,
            ("flr", []) => self.under_load(|work| match &work.device {
                Some(device) => Ok(device.reset()?),
                None => Ok(()),
            })?,
            ("sleep", &[id]) => self.sleep(id)?,
            ("removal", []) => self.removal()?,
            _ => return Err(format!("{word:?} is no word of mine").into()),
        }
        println!("done {word}");
        Ok(())
    }

    fn identify(&self) {
        let info = self.controller.info();
        println!(
            "controller {} serial {:?} model {:?} version {} queues {} entries {} vectors {} mdts {:?} cache {} shadows {}",
            info.address,
            info.identify.serial,
            info.identify.model,
            info.version,
            info.queues,
            info.queue_entries,
            info.vectors,
            info.identify.max_transfer,
            info.identify.volatile_cache,
            info.shadow_doorbells,
        );
        for namespace in self.controller.namespaces() {
            println!(
                "namespace {} blocks {} of {}",
                namespace.id,
                namespace.blocks(),
                namespace.block_size()
            );
        }
        for why in self.controller.unusable() {
            println!("unusable {why}");
        }
    }

    fn open(&self, id: u64) -> Result<Qpair, NvmeError> {
        self.controller.open(u32::try_from(id).unwrap_or(u32::MAX))
    }

    fn fill(&self, id: u64, start: u64, count: u64, seed: u64, shift: usize) -> Result<(), Failure> {
        let mut queue = self.open(id)?;
        let memory = Memory::new(CHUNK + 4096)?;
        for (at, length) in chunks(start, count) {
            let segment = [memory.part(shift, length)];
            copy::copy_out(&pattern::bytes(seed as u32, at, length), &segment, 0);
            run(&mut queue, IoKind::Write, at, length as u64, &segment)?;
        }
        Ok(())
    }

    fn check(&self, id: u64, start: u64, count: u64, seed: u64) -> Result<(), Failure> {
        let mut queue = self.open(id)?;
        let memory = Memory::new(CHUNK + 4096)?;
        // Once into whole pages, once through bounce buffers.
        for shift in [0, 20] {
            for (at, length) in chunks(start, count) {
                let segment = [memory.part(shift, length)];
                run(&mut queue, IoKind::Read, at, length as u64, &segment)?;
                let mut found = vec![0; length];
                copy::copy_in(&segment, 0, &mut found);
                if found != pattern::bytes(seed as u32, at, length) {
                    return Err(format!("namespace {id}: other bytes from {at} on").into());
                }
            }
        }
        Ok(())
    }

    fn simple(&self, id: u64, kind: IoKind, start: u64, count: u64) -> Result<(), Failure> {
        Ok(run(&mut self.open(id)?, kind, start, count, &[])?)
    }

    /// Does something while requests are in flight on two queues; none of them may fail.
    fn under_load(&self, deed: impl FnOnce(&Self) -> Result<(), Failure> + Send) -> Result<(), Failure> {
        let id = self.controller.namespaces().first().ok_or("no namespace")?.id.into();
        let mut queues = [self.open(id)?, self.open(id)?];
        let memory = Memory::new(64 << 10)?;
        let segment = [memory.part(0, 4096)];
        let begun = Instant::now();
        let mut deed = Some(deed);
        let (mut sent, mut ended) = (0u64, 0u64);
        while ended < 2000 {
            for queue in &mut queues {
                let lba = (sent * 4096 % (1 << 20)) >> queue.namespace().block_shift;
                let blocks = 4096 >> queue.namespace().block_shift;
                let io = Io { kind: IoKind::Read, lba, blocks, segments: &segment, token: sent };
                if sent < 2000 && queue.in_flight() < 32 && queue.submit(&io) == Submission::Pending {
                    sent += 1;
                }
                queue.kick();
                let mut bad = None;
                queue.poll(|_, outcome| {
                    ended += 1;
                    if outcome != Outcome::Ok {
                        bad = Some(outcome);
                    }
                });
                if let Some(outcome) = bad {
                    return Err(format!("a request ended with {outcome:?}").into());
                }
            }
            if sent >= 1000 {
                if let Some(deed) = deed.take() {
                    deed(self)?;
                }
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("{ended} of {sent} requests ended within {LIMIT:?}").into());
            }
        }
        Ok(())
    }

    fn sleep(&self, id: u64) -> Result<(), Failure> {
        let mut queue = self.open(id)?;
        let memory = Memory::new(4096)?;
        let segment = [memory.part(0, 4096)];
        let blocks = 4096 >> queue.namespace().block_shift;
        let (mut slept, mut ended) = (0, 0);
        queue.poll(|_, _| ());
        while ended < 50 {
            let io = Io { kind: IoKind::Read, lba: 0, blocks, segments: &segment, token: 0 };
            if queue.submit(&io) != Submission::Pending {
                return Err("it does not take a request".into());
            }
            queue.kick();
            while queue.in_flight() != 0 {
                if queue.arm() {
                    slept += 1;
                    wait(&queue, Duration::from_secs(10))?;
                }
                ended += queue.poll(|_, _| ());
            }
        }
        println!("slept {slept} times over 50 requests");
        Ok(())
    }

    fn removal(&mut self) -> Result<(), Failure> {
        let id = self.controller.namespaces().first().ok_or("no namespace")?.id.into();
        let mut queue = self.open(id)?;
        // Only queue pairs and the supervisor keep the device now: it has to be let go when they do.
        self.device = None;
        let memory = Memory::new(4096)?;
        let segment = [memory.part(0, 4096)];
        println!("ready");
        let deadline = Instant::now() + LIMIT;
        while Instant::now() < deadline {
            match run(&mut queue, IoKind::Read, 0, 4096, &segment) {
                Ok(()) => std::thread::sleep(Duration::from_millis(1)),
                Err(_) => {
                    println!("requests fail");
                    drop(queue);
                    self.events.iter().find(|event| *event == Event::Gone).ok_or("no word of it")?;
                    return Ok(());
                }
            }
        }
        Err("the drive is still there".into())
    }
}

fn wait(queue: &Qpair, limit: Duration) -> Result<(), Failure> {
    // SAFETY: the queue pair's descriptor, which it keeps.
    let descriptor = unsafe { BorrowedFd::borrow_raw(queue.wait_descriptor()) };
    let timeout = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: 0 };
    match poll(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)], Some(&timeout))? {
        0 => Err("no interrupt came".into()),
        _ => Ok(()),
    }
}

/// One request, submitted and waited for.
fn run(queue: &mut Qpair, kind: IoKind, start: u64, count: u64, segments: &[Segment]) -> Result<(), String> {
    let shift = queue.namespace().block_shift;
    let io = Io { kind, lba: start >> shift, blocks: count >> shift, segments, token: 1 };
    let deadline = Instant::now() + LIMIT;
    let mut result = None;
    let mut sent = false;
    while result.is_none() {
        if !sent {
            match queue.submit(&io) {
                Submission::Pending => sent = true,
                Submission::Done(outcome) => result = Some(outcome),
                Submission::Busy => {}
            }
            queue.kick();
        }
        queue.poll(|_, outcome| result = Some(outcome));
        if Instant::now() > deadline {
            return Err(format!("{kind:?} at {start}: no answer within {LIMIT:?}"));
        }
    }
    match result {
        Some(Outcome::Ok) | None => Ok(()),
        Some(outcome) => Err(format!("{kind:?} at {start}: {outcome:?}")),
    }
}

fn chunks(start: u64, count: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..count).step_by(CHUNK).map(move |at| (start + at, (count - at).min(CHUNK as u64) as usize))
}

struct Memory(HostMemory);

impl Memory {
    fn new(bytes: usize) -> Result<Self, Failure> {
        Ok(Self(HostMemory::for_dma(bytes)?))
    }

    fn part(&self, offset: usize, bytes: usize) -> Segment {
        assert!(offset + bytes <= self.0.len());
        // SAFETY: inside the memory, which outlives every request here.
        unsafe { Segment::new(self.0.pointer().add(offset), bytes) }
    }
}
