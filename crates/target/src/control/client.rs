//! One client of the socket: what it sent, what it is owed, what it has not read yet.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags};
use serde_json::value::RawValue;

use super::inbox::Inbox;
use super::message::{Reply, RpcError, code, render};
use super::parameters::Parameters;

/// Above this much unread output nothing more is read from a client: whoever does not read is not served.
const HIGH_WATER: usize = 1 << 20;
/// As many calls may be under way for one client.
const MAX_PENDING: usize = 1024;
/// A batch's answer may grow so long (SPDK's `SPDK_JSONRPC_SEND_BUF_SIZE_MAX`).
const MAX_BATCH_REPLY: usize = 32 << 20;

/// Where a reply goes.
#[derive(Debug)]
pub struct Ticket {
    pub client: u64,
    pub id: Option<Box<RawValue>>,
    pub batch: Option<u64>,
}

/// A call with its method and parameters.
pub type Call = (Ticket, String, Parameters);

#[derive(Debug, Default)]
struct Batch {
    replies: Vec<String>,
    length: usize,
    /// Calls that have not answered, and one for as long as the batch is being dispatched.
    open: usize,
}

#[derive(Debug)]
pub struct Client {
    stream: OwnedFd,
    pub inbox: Inbox,
    outbox: Vec<u8>,
    sent: usize,
    pending: usize,
    batches: HashMap<u64, Batch>,
    next_batch: u64,
    /// Slow work for it is under way, and what it has asked for since.
    pub working: bool,
    pub waiting: VecDeque<Call>,
    /// Nothing more is read; it is closed when it has what it is owed.
    pub ending: bool,
    /// All whole requests that it sent were taken.
    pub drained: bool,
    /// What is waited for, as it was last told to epoll.
    pub interest: Option<(bool, bool)>,
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Client {
    pub fn new(stream: OwnedFd) -> Client {
        Client {
            stream,
            inbox: Inbox::default(),
            outbox: Vec::new(),
            sent: 0,
            pending: 0,
            batches: HashMap::new(),
            next_batch: 0,
            working: false,
            waiting: VecDeque::new(),
            ending: false,
            drained: true,
            interest: None,
        }
    }

    /// Takes in what has arrived, without waiting. False: there was nothing.
    pub fn receive(&mut self) -> io::Result<bool> {
        let mut piece = [0u8; 65536];
        match rustix::net::recv(&self.stream, &mut piece, RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.ending = true;
                Ok(false)
            }
            Ok((length, _)) => {
                self.inbox.push(&piece[..length]);
                self.drained = false;
                Ok(true)
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends what fits, without waiting.
    pub fn send(&mut self) -> io::Result<()> {
        while self.sent < self.outbox.len() {
            match rustix::net::send(
                &self.stream,
                &self.outbox[self.sent..],
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(length) => self.sent += length,
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => break,
                Err(errno) => return Err(errno.into()),
            }
        }
        if self.sent == self.outbox.len() {
            self.outbox = Vec::new();
            self.sent = 0;
        } else if self.sent > HIGH_WATER {
            self.outbox.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Whether there is room for what a request would answer.
    pub fn room(&self) -> bool {
        self.unsent() < HIGH_WATER && self.pending < MAX_PENDING
    }

    /// Whether more is read from it now.
    pub fn served(&self) -> bool {
        !self.ending && self.room()
    }

    /// It has closed its end altogether and can be told nothing.
    pub fn gone(&self) -> bool {
        let mut wanted = [PollFd::new(&self.stream, PollFlags::empty())];
        let ready = rustix::event::poll(&mut wanted, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        ready.is_ok() && wanted[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// What it sent cannot be followed any longer.
    pub fn end(&mut self) {
        self.inbox = Inbox::default();
        self.drained = true;
        self.ending = true;
    }

    pub fn unsent(&self) -> usize {
        self.outbox.len() - self.sent
    }

    pub fn finished(&self) -> bool {
        self.ending && self.drained && self.unsent() == 0 && self.pending == 0
    }

    /// A call came in and will be answered with the ticket.
    pub fn ticket(&mut self, client: u64, id: Option<Box<RawValue>>, batch: Option<u64>) -> Ticket {
        self.pending += 1;
        if let Some(batch) = batch.and_then(|batch| self.batches.get_mut(&batch)) {
            batch.open += 1;
        }
        Ticket { client, id, batch }
    }

    /// The answer to a call. A notification gets none, whatever came of it.
    pub fn answer(&mut self, ticket: &Ticket, reply: &Reply) {
        self.pending -= 1;
        let text = ticket.id.as_deref().map(|id| render(Some(id), reply));
        match ticket.batch {
            None => self.write(text),
            Some(batch) => self.answer_in_batch(batch, ticket.id.as_deref(), text),
        }
    }

    /// What was sent is no request.
    pub fn refuse(&mut self, code: i32, message: &str, why: &str, batch: Option<u64>) {
        let text = render(None, &Err(RpcError::new(code, message).with(why)));
        match batch {
            None => self.write(Some(text)),
            Some(batch) => {
                if let Some(open) = self.batches.get_mut(&batch) {
                    open.open += 1;
                }
                self.answer_in_batch(batch, None, Some(text));
            }
        }
    }

    pub fn open_batch(&mut self) -> u64 {
        self.next_batch += 1;
        self.batches.insert(self.next_batch, Batch { open: 1, ..Batch::default() });
        self.next_batch
    }

    /// All its calls were dispatched.
    pub fn close_batch(&mut self, batch: u64) {
        self.answer_in_batch(batch, None, None);
    }

    fn answer_in_batch(&mut self, number: u64, id: Option<&RawValue>, text: Option<String>) {
        let Some(batch) = self.batches.get_mut(&number) else { return };
        if let Some(mut text) = text {
            if batch.length + text.len() > MAX_BATCH_REPLY {
                let error = RpcError::new(code::INTERNAL_ERROR, "Internal error")
                    .with("the answers of this batch are too long together: ask in several batches");
                text = render(id, &Err(error));
            }
            batch.length += text.len();
            batch.replies.push(text);
        }
        batch.open -= 1;
        if batch.open == 0 {
            let text = (!batch.replies.is_empty()).then(|| format!("[{}]", batch.replies.join(",")));
            self.batches.remove(&number);
            self.write(text);
        }
    }

    fn write(&mut self, text: Option<String>) {
        if let Some(text) = text {
            self.outbox.extend_from_slice(text.as_bytes());
            self.outbox.push(b'\n');
        }
    }
}
