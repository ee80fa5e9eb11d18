//! The admin queue: commands one at a time, each with a deadline, and asynchronous events in between.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::inbox::drain;
use crate::spec::{
    COMMAND_BYTES, COMPLETION_BYTES, Capabilities, Command, Completion, PAGE, Status, doorbell, register,
};
use crate::{Device, DmaBuffer, NvmeError, Options};

const ENTRIES: u16 = 32;
/// Asynchronous event requests that the driver keeps with the controller: one of each kind that it acts on.
const MAX_EVENTS: u16 = 4;
/// Identifiers of asynchronous event requests begin here.
const EVENT_IDENTIFIERS: u16 = 0x100;
/// How long between two looks, where there is no interrupt.
const LOOK: Duration = Duration::from_millis(1);

const COMPLETIONS_AT: usize = (ENTRIES as usize * COMMAND_BYTES).next_multiple_of(PAGE);
/// The page that commands read and write.
const DATA_AT: usize = COMPLETIONS_AT + PAGE;

pub(crate) struct Admin {
    device: Arc<dyn Device>,
    memory: DmaBuffer,
    stride: usize,
    tail: u16,
    head: u16,
    phase: bool,
    next: u16,
    timeout: Duration,
    interrupt: std::os::fd::OwnedFd,
    has_interrupt: bool,
    /// Results of asynchronous events that nobody has looked at.
    events: VecDeque<u32>,
    /// Asynchronous event requests that the controller has: a bit for each.
    armed: u16,
}

impl Admin {
    pub fn new(device: Arc<dyn Device>, options: &Options) -> Result<Self, NvmeError> {
        let interrupt = crate::inbox::new_event()?;
        // Without interrupts the queue is looked at by the clock.
        let has_interrupt = device.vectors() > 0 && device.connect_vector(0, Some(interrupt.as_fd())).is_ok();
        Ok(Self {
            device,
            memory: DmaBuffer::new(DATA_AT + PAGE)?,
            stride: 4,
            tail: 0,
            head: 0,
            phase: true,
            next: 0,
            timeout: options.admin_timeout,
            interrupt,
            has_interrupt,
            events: VecDeque::new(),
            armed: 0,
        })
    }

    pub fn interrupt(&self) -> std::os::fd::BorrowedFd<'_> {
        self.interrupt.as_fd()
    }

    /// Writes AQA, ASQ and ACQ, over queues as new. The controller is disabled.
    pub fn install(&mut self, capabilities: Capabilities) {
        self.memory.zero(0, DATA_AT);
        self.stride = capabilities.doorbell_stride();
        (self.tail, self.head, self.phase, self.armed) = (0, 0, true, 0);
        self.events.clear();
        let last = u32::from(ENTRIES - 1);
        self.device.write32(register::AQA, last | last << 16);
        self.device.write64(register::ASQ, self.memory.iova(0));
        self.device.write64(register::ACQ, self.memory.iova(COMPLETIONS_AT));
    }

    /// Address of the page for data.
    pub fn data(&self) -> u64 {
        self.memory.iova(DATA_AT)
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// ETIMEDOUT, ENODEV when the device is gone, EIO with the status when the controller refuses, EPROTO when it
    /// answers what was never asked.
    pub fn run(&mut self, what: &str, command: &Command) -> Result<u32, NvmeError> {
        let identifier = self.next % EVENT_IDENTIFIERS;
        self.next = self.next.wrapping_add(1);
        self.push(&command.with_identifier(identifier));
        let deadline = Instant::now() + self.timeout;
        loop {
            while let Some(completion) = self.pop() {
                if completion.identifier != identifier {
                    self.event(&completion)?;
                    continue;
                }
                return match completion.status {
                    status if status.is_success() => Ok(completion.result),
                    status => Err(self.refused(what, status)),
                };
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.silent(what));
            }
            self.wait(left);
        }
    }

    /// A command whose answer is a page.
    pub fn read_page(&mut self, what: &str, command: &Command) -> Result<Box<[u8; PAGE]>, NvmeError> {
        self.memory.zero(DATA_AT, PAGE);
        self.run(what, command)?;
        Ok(self.memory.page(DATA_AT))
    }

    fn refused(&self, what: &str, status: Status) -> NvmeError {
        NvmeError::new(
            libc::EIO,
            format!("{}: {what}: the controller answers '{status}'", self.device.address()),
        )
    }

    fn silent(&self, what: &str) -> NvmeError {
        let address = self.device.address();
        if self.device.read32(register::CSTS) == u32::MAX {
            return NvmeError::gone(address);
        }
        NvmeError::new(libc::ETIMEDOUT, format!("{address}: {what}: no answer within {:?}", self.timeout))
    }

    fn wait(&self, left: Duration) {
        let look = if self.has_interrupt { left.min(Duration::from_millis(20)) } else { left.min(LOOK) };
        let mut fds = [PollFd::new(&self.interrupt, PollFlags::IN)];
        let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: look.as_nanos().min(999_999_999) as i64 };
        // However it ends, the queue is looked at next.
        let _ = poll(&mut fds, Some(&timeout));
        drain(self.interrupt.as_fd());
    }

    fn push(&mut self, command: &Command) {
        self.memory.store_command(usize::from(self.tail) * COMMAND_BYTES, command);
        self.tail = (self.tail + 1) % ENTRIES;
        self.device.write32(doorbell(0, false, self.stride), u32::from(self.tail));
    }

    fn pop(&mut self) -> Option<Completion> {
        let at = COMPLETIONS_AT + usize::from(self.head) * COMPLETION_BYTES;
        let status = self.memory.load32(at + 12, Ordering::Acquire);
        if (status & 1 << 16 != 0) != self.phase {
            return None;
        }
        let queue = self.memory.load32(at + 8, Ordering::Relaxed);
        let completion = Completion::parse(self.memory.load32(at, Ordering::Relaxed), queue, status);
        self.head = (self.head + 1) % ENTRIES;
        self.phase ^= self.head == 0;
        self.device.write32(doorbell(0, true, self.stride), u32::from(self.head));
        Some(completion)
    }

    /// A completion that is no answer to a command: an event, or nonsense.
    fn event(&mut self, completion: &Completion) -> Result<(), NvmeError> {
        let bit = completion.identifier.checked_sub(EVENT_IDENTIFIERS).filter(|&number| number < MAX_EVENTS);
        let Some(bit) = bit.map(|number| 1 << number).filter(|bit| self.armed & bit != 0) else {
            return Err(NvmeError::new(
                libc::EPROTO,
                format!(
                    "{}: a completion on the admin queue names command {:#06x}, which is not in flight",
                    self.device.address(),
                    completion.identifier
                ),
            ));
        };
        self.armed &= !bit;
        if completion.status.is_success() {
            self.events.push_back(completion.result);
        }
        Ok(())
    }

    /// Gives the controller as many asynchronous event requests as it takes.
    pub fn arm_events(&mut self, limit: u16) {
        for number in 0..limit.min(MAX_EVENTS) {
            if self.armed & (1 << number) == 0 {
                self.push(&Command::async_event().with_identifier(EVENT_IDENTIFIERS + number));
                self.armed |= 1 << number;
            }
        }
    }

    /// The next event, if there is one.
    pub fn take_event(&mut self) -> Result<Option<u32>, NvmeError> {
        drain(self.interrupt.as_fd());
        while let Some(completion) = self.pop() {
            self.event(&completion)?;
        }
        Ok(self.events.pop_front())
    }
}
