//! One end of a conversation on a non-blocking socket.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::framing::{Frame, Framing, MAX_BODY, MAX_DESCRIPTORS};

/// The most descriptors that the kernel passes with one sendmsg(2) (SCM_MAX_FD). With room for all of them none is lost
/// in the kernel, and those that no message takes are closed here.
const KERNEL_DESCRIPTORS: usize = 253;

/// What reading brought.
#[derive(Debug)]
pub enum Received {
    Frame(Frame),
    /// Nothing more for now.
    Later,
    /// The peer is gone; `partial`: in the middle of a message.
    Closed {
        partial: bool,
    },
}

/// A socket, the frame that is being read, and what could not be sent yet.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    framing: Framing,
    unsent: VecDeque<Unsent>,
}

#[derive(Debug)]
struct Unsent {
    bytes: Vec<u8>,
    sent: usize,
    descriptors: Vec<OwnedFd>,
}

impl Connection {
    /// Takes over a connected socket and makes it non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Connection> {
        stream.set_nonblocking(true)?;
        Ok(Connection { stream, framing: Framing::new(), unsent: VecDeque::new() })
    }

    /// Reads until a frame is whole or nothing is left to read.
    pub fn receive(&mut self) -> io::Result<Received> {
        let mut bytes = [0; MAX_BODY];
        loop {
            let wanted = self.framing.wanted();
            let (count, descriptors) = match receive_some(self.stream.as_fd(), &mut bytes[..wanted]) {
                Ok(received) => received,
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(Received::Later),
                Err(Errno::CONNRESET) => return Ok(Received::Closed { partial: self.framing.is_partial() }),
                Err(error) => return Err(error.into()),
            };
            if count == 0 {
                return Ok(Received::Closed { partial: self.framing.is_partial() });
            }
            let frame = self.framing.feed(&bytes[..count], descriptors);
            match frame.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
                Some(frame) => return Ok(Received::Frame(frame)),
                None => continue,
            }
        }
    }

    /// Sends a frame, or as much as the socket takes: the rest goes with [`Connection::flush`]. Descriptors are
    /// duplicated only if they have to wait.
    pub fn send(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let sent = if self.unsent.is_empty() { self.try_send(bytes, descriptors)? } else { 0 };
        if sent == bytes.len() {
            return Ok(());
        }
        let descriptors = match sent {
            0 => descriptors.iter().map(|fd| fd.try_clone_to_owned()).collect::<io::Result<_>>()?,
            _ => Vec::new(),
        };
        self.unsent.push_back(Unsent { bytes: bytes.to_vec(), sent, descriptors });
        Ok(())
    }

    /// Sends what had to wait. True: nothing waits any more.
    pub fn flush(&mut self) -> io::Result<bool> {
        while let Some(mut unsent) = self.unsent.pop_front() {
            let descriptors: Vec<_> = unsent.descriptors.iter().map(AsFd::as_fd).collect();
            let count = self.try_send(&unsent.bytes[unsent.sent..], &descriptors)?;
            if count > 0 {
                unsent.descriptors.clear();
            }
            unsent.sent += count;
            if unsent.sent < unsent.bytes.len() {
                self.unsent.push_front(unsent);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether something waits for room in the socket. A peer that does not read its replies is not read from.
    pub fn is_blocked(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn try_send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
        match send_some(self.stream.as_fd(), bytes, descriptors) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn receive_some(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for descriptor in rights {
                // Dropped, and so closed, at once beyond what any message takes.
                if descriptors.len() < MAX_DESCRIPTORS {
                    descriptors.push(descriptor);
                }
            }
        }
    }
    Ok((received.bytes, descriptors))
}

/// One sendmsg(2): bytes with descriptors, without SIGPIPE.
pub(crate) fn send_some(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(KERNEL_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more descriptors than a message can carry"));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => continue,
            result => return Ok(result?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framing::frame;

    fn pair() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours).unwrap(), theirs)
    }

    #[test]
    fn descriptors_belong_to_the_message_they_came_with() {
        let (mut connection, peer) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        // Three messages are in the socket before any is read; the middle one has descriptors.
        send_some(peer.as_fd(), &frame(1, false, false, &[]), &[]).unwrap();
        send_some(peer.as_fd(), &frame(5, false, false, &[1; 40]), &[file.as_fd(), file.as_fd()]).unwrap();
        send_some(peer.as_fd(), &frame(3, false, false, &[]), &[]).unwrap();
        let mut counts = Vec::new();
        while let Received::Frame(frame) = connection.receive().unwrap() {
            counts.push((frame.header.number, frame.descriptors.len()));
        }
        assert_eq!(counts, [(1, 0), (5, 2), (3, 0)]);
    }

    #[test]
    fn surplus_descriptors_are_closed() {
        let (mut connection, peer) = pair();
        let (reader, writer) = rustix_pipe();
        let many: Vec<_> = (0..200).map(|_| writer.as_fd()).collect();
        send_some(peer.as_fd(), &frame(5, false, false, &[]), &many).unwrap();
        let Received::Frame(frame) = connection.receive().unwrap() else { panic!("no frame") };
        assert_eq!(frame.descriptors.len(), MAX_DESCRIPTORS);
        drop((frame, writer));
        // The end of the pipe is seen only when every copy of the writing end is closed.
        let mut byte = [0];
        let mut reader = UnixStream::from(reader);
        reader.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
        assert_eq!(io::Read::read(&mut reader, &mut byte).unwrap(), 0);
    }

    fn rustix_pipe() -> (OwnedFd, OwnedFd) {
        let (reader, writer) = UnixStream::pair().unwrap();
        (reader.into(), writer.into())
    }

    #[test]
    fn half_a_message_blocks_nobody() {
        let (mut connection, peer) = pair();
        let bytes = frame(2, false, false, &[7; 8]);
        send_some(peer.as_fd(), &bytes[..5], &[]).unwrap();
        assert!(matches!(connection.receive().unwrap(), Received::Later));
        send_some(peer.as_fd(), &bytes[5..13], &[]).unwrap();
        assert!(matches!(connection.receive().unwrap(), Received::Later));
        drop(peer);
        assert!(matches!(connection.receive().unwrap(), Received::Closed { partial: true }));
    }

    #[test]
    fn replies_wait_for_a_peer_that_does_not_read() {
        let (mut connection, mut peer) = pair();
        let file = std::fs::File::open("/dev/null").unwrap();
        let bytes = frame(1, true, false, &[5; 4000]);
        let mut sent = 0;
        while !connection.is_blocked() {
            connection.send(&bytes, &[file.as_fd()]).unwrap();
            sent += 1;
            assert!(sent < 10_000, "the socket never fills");
        }
        assert!(!connection.flush().unwrap());
        let mut read = vec![0; sent * bytes.len()];
        let reader = std::thread::spawn(move || {
            io::Read::read_exact(&mut peer, &mut read).unwrap();
            read
        });
        while !connection.flush().unwrap() {
            std::thread::yield_now();
        }
        assert!(reader.join().unwrap().chunks(bytes.len()).all(|chunk| chunk == bytes));
    }
}
