//! Requests that a back end sends to its front end, on the socket that SET_BACKEND_REQ_FD brought.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::code::BackendRequest;
use crate::connection::{Connection, Received};
use crate::framing::{Frame, frame};

/// What a storage back end has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendMessage {
    /// The configuration space has changed: the front end reads it again and tells its guest.
    ConfigChange,
}

impl BackendMessage {
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            BackendMessage::ConfigChange => frame(BackendRequest::ConfigChangeMsg as u32, false, false, &[]),
        }
    }

    /// The message in a frame, if it is one that this end knows.
    pub fn parse(frame: &Frame) -> Option<BackendMessage> {
        match BackendRequest::from_number(frame.header.number) {
            Some(BackendRequest::ConfigChangeMsg) if !frame.header.reply => {
                Some(BackendMessage::ConfigChange)
            }
            _ => None,
        }
    }
}

/// The back end's side of the channel. Nothing is asked to be acknowledged: QEMU handles such requests in the thread
/// that at the same time may wait for a reply of ours, and each would wait for the other.
#[derive(Debug)]
pub struct BackendChannel(Connection);

impl BackendChannel {
    pub fn new(descriptor: OwnedFd) -> io::Result<BackendChannel> {
        Connection::new(UnixStream::from(descriptor)).map(BackendChannel)
    }

    /// Sends a message, or keeps it until [`BackendChannel::flush`] finds room.
    pub fn send(&mut self, message: BackendMessage) -> io::Result<()> {
        // Several changes that wait are one change for the front end: it reads what is there when it reads.
        if self.0.is_blocked() {
            return self.0.flush().map(|_| ());
        }
        self.0.send(&message.bytes(), &[])
    }

    pub fn flush(&mut self) -> io::Result<bool> {
        self.0.flush()
    }

    pub fn is_blocked(&self) -> bool {
        self.0.is_blocked()
    }

    /// Reads replies and drops them. False: the front end closed the channel.
    pub fn drain(&mut self) -> io::Result<bool> {
        loop {
            match self.0.receive()? {
                Received::Frame(_) => continue,
                Received::Later => return Ok(true),
                Received::Closed { .. } => return Ok(false),
            }
        }
    }
}

impl AsFd for BackendChannel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
