//! A blocking client of a back end.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::code::Request;
use crate::connection::{Connection, Received, send_some};
use crate::features::{self, protocol};
use crate::framing::Frame;
use crate::message::Message;
use crate::payload::{Inflight, LogArea, VringAddress, VringState};
use crate::reply::Reply;

/// Why a call failed.
#[derive(Debug)]
pub enum ClientError {
    Io(io::Error),
    /// The back end closed the connection.
    Closed,
    /// No reply came in time.
    Silent {
        request: Request,
    },
    /// The back end said no: the number is what it acknowledged with.
    Refused {
        request: Request,
        number: u64,
    },
    /// What came is no reply to this request.
    Unexpected {
        request: Request,
    },
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClientError::Io(error) => write!(f, "the socket failed: {error}"),
            ClientError::Closed => write!(f, "the back end closed the connection"),
            ClientError::Silent { request } => write!(f, "the back end did not answer {request:?} in time"),
            ClientError::Refused { request, number } => {
                write!(f, "the back end refused {request:?} ({number})")
            }
            ClientError::Unexpected { request } => write!(f, "what came is no reply to {request:?}"),
        }
    }
}

impl std::error::Error for ClientError {}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> ClientError {
        ClientError::Io(error)
    }
}

/// A connection to a back end.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    /// How long a reply may take.
    pub deadline: Duration,
    /// What was agreed.
    pub features: u64,
    pub protocol_features: u64,
}

impl Client {
    pub fn connect(path: impl AsRef<Path>) -> Result<Client, ClientError> {
        Client::new(UnixStream::connect(path)?)
    }

    pub fn new(stream: UnixStream) -> Result<Client, ClientError> {
        let connection = Connection::new(stream)?;
        Ok(Client { connection, deadline: Duration::from_secs(10), features: 0, protocol_features: 0 })
    }

    /// Agrees on those of the features wanted that the back end offers.
    pub fn negotiate(&mut self, features: u64, protocol_features: u64) -> Result<(), ClientError> {
        let offered = self.get_features()?;
        if offered & features::PROTOCOL_FEATURES != 0 {
            self.protocol_features = self.get_protocol_features()? & protocol_features;
            self.send(&Message::SetProtocolFeatures(self.protocol_features), false)?;
        }
        self.call(&Message::SetOwner)?;
        self.set_features(offered & features)
    }

    /// Sends a message as it is. The caller reads what may come for it.
    pub fn send(&mut self, message: &Message, need_reply: bool) -> Result<(), ClientError> {
        self.send_raw(&message.bytes(need_reply), &message.descriptors())
    }

    /// Sends any bytes with any descriptors: what no decent front end does.
    pub fn send_raw(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), ClientError> {
        let end = Instant::now() + self.deadline;
        let mut sent = 0;
        while sent < bytes.len() {
            let with = if sent == 0 { descriptors } else { &[] };
            match send_some(self.connection.as_fd(), &bytes[sent..], with) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.wait(PollFlags::OUT, end)? {
                        return Err(ClientError::Io(io::ErrorKind::TimedOut.into()));
                    }
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
                {
                    return Err(ClientError::Closed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next frame, if one comes before the deadline.
    pub fn receive(&mut self) -> Result<Option<Frame>, ClientError> {
        let end = Instant::now() + self.deadline;
        loop {
            match self.connection.receive()? {
                Received::Frame(frame) => return Ok(Some(frame)),
                Received::Closed { .. } => return Err(ClientError::Closed),
                Received::Later => {
                    if !self.wait(PollFlags::IN, end)? {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn wait(&self, events: PollFlags, end: Instant) -> Result<bool, ClientError> {
        let left = end.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        match poll(&mut [PollFd::new(&self.connection, events)], Some(&timeout)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(io::Error::from(error).into()),
        }
    }

    fn reply(&mut self, request: Request) -> Result<Reply, ClientError> {
        let frame = self.receive()?.ok_or(ClientError::Silent { request })?;
        Reply::parse(request, frame).ok_or(ClientError::Unexpected { request })
    }

    /// Sends a message that has no reply of its own, and waits for its acknowledgement if that was agreed on.
    pub fn call(&mut self, message: &Message) -> Result<(), ClientError> {
        let acknowledged = self.protocol_features & protocol::REPLY_ACK != 0;
        self.send(message, acknowledged)?;
        if !acknowledged {
            return Ok(());
        }
        match self.reply(message.request())? {
            Reply::Number(0) => Ok(()),
            Reply::Number(number) => Err(ClientError::Refused { request: message.request(), number }),
            _ => Err(ClientError::Unexpected { request: message.request() }),
        }
    }

    fn ask(&mut self, message: &Message) -> Result<u64, ClientError> {
        self.send(message, false)?;
        match self.reply(message.request())? {
            Reply::Number(number) => Ok(number),
            _ => Err(ClientError::Unexpected { request: message.request() }),
        }
    }

    pub fn get_features(&mut self) -> Result<u64, ClientError> {
        self.ask(&Message::GetFeatures)
    }

    pub fn set_features(&mut self, features: u64) -> Result<(), ClientError> {
        self.call(&Message::SetFeatures(features))?;
        self.features = features;
        Ok(())
    }

    pub fn get_protocol_features(&mut self) -> Result<u64, ClientError> {
        self.ask(&Message::GetProtocolFeatures)
    }

    pub fn get_queue_num(&mut self) -> Result<u64, ClientError> {
        self.ask(&Message::GetQueueNum)
    }

    pub fn get_max_mem_slots(&mut self) -> Result<u64, ClientError> {
        self.ask(&Message::GetMaxMemSlots)
    }

    pub fn get_status(&mut self) -> Result<u64, ClientError> {
        self.ask(&Message::GetStatus)
    }

    /// Part of the configuration space. None: the back end says that it cannot.
    pub fn get_config(&mut self, offset: u32, size: u32) -> Result<Option<Vec<u8>>, ClientError> {
        self.send(&Message::GetConfig { offset, size, flags: 0 }, false)?;
        match self.reply(Request::GetConfig)? {
            Reply::Config { bytes, .. } => Ok(Some(bytes)),
            Reply::Empty => Ok(None),
            _ => Err(ClientError::Unexpected { request: Request::GetConfig }),
        }
    }

    /// A fresh in-flight record for rings of that number and size.
    pub fn get_inflight(&mut self, queues: u16, size: u16) -> Result<(Inflight, OwnedFd), ClientError> {
        let request = Request::GetInflightFd;
        let wanted = Inflight { mmap_size: 0, mmap_offset: 0, num_queues: queues, queue_size: size };
        self.send(&Message::GetInflightFd(wanted), false)?;
        match self.reply(request)? {
            Reply::Inflight(inflight, Some(file)) => Ok((inflight, file)),
            Reply::Inflight(_, None) => Err(ClientError::Refused { request, number: 0 }),
            _ => Err(ClientError::Unexpected { request }),
        }
    }

    pub fn set_inflight(&mut self, inflight: Inflight, file: BorrowedFd<'_>) -> Result<(), ClientError> {
        self.call(&Message::SetInflightFd(inflight, file.try_clone_to_owned()?))
    }

    /// Sets the dirty log. With LOG_SHMFD the back end answers always.
    pub fn set_log(&mut self, area: LogArea, file: BorrowedFd<'_>) -> Result<(), ClientError> {
        let message = Message::SetLogBase(area, Some(file.try_clone_to_owned()?));
        match self.ask(&message)? {
            0 => Ok(()),
            number => Err(ClientError::Refused { request: Request::SetLogBase, number }),
        }
    }

    /// Sets a ring up and starts it.
    pub fn start_vring(
        &mut self,
        size: u32,
        base: u32,
        address: VringAddress,
        kick: Option<BorrowedFd<'_>>,
        call: Option<BorrowedFd<'_>>,
    ) -> Result<(), ClientError> {
        let owned = |fd: Option<BorrowedFd<'_>>| fd.map(|fd| fd.try_clone_to_owned()).transpose();
        let index = address.index;
        self.call(&Message::SetVringNum(VringState { index, num: size }))?;
        self.call(&Message::SetVringBase(VringState { index, num: base }))?;
        self.call(&Message::SetVringAddr(address))?;
        self.call(&Message::SetVringCall(index as u8, owned(call)?))?;
        self.call(&Message::SetVringKick(index as u8, owned(kick)?))?;
        if self.features & features::PROTOCOL_FEATURES != 0 {
            self.call(&Message::SetVringEnable(index, true))?;
        }
        Ok(())
    }

    /// Stops a ring. Returns where it stood.
    pub fn stop_vring(&mut self, index: u32) -> Result<u32, ClientError> {
        self.send(&Message::GetVringBase(index), false)?;
        match self.reply(Request::GetVringBase)? {
            Reply::Vring(state) if state.index == index => Ok(state.num),
            _ => Err(ClientError::Unexpected { request: Request::GetVringBase }),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}
