//! What a back end answers.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::code::Request;
use crate::framing::{Frame, frame};
use crate::message::write_config;
use crate::payload::{Inflight, Reader, VringState};

/// A reply; its frame carries the number of the request it answers.
#[derive(Debug)]
pub enum Reply {
    /// A number: features, a count, a status, or an acknowledgement, in which 0 is success.
    Number(u64),
    Vring(VringState),
    Config {
        offset: u32,
        flags: u32,
        bytes: Vec<u8>,
    },
    /// No body: how GET_CONFIG says that it cannot answer.
    Empty,
    Inflight(Inflight, Option<OwnedFd>),
}

impl Reply {
    pub const SUCCESS: Reply = Reply::Number(0);
    pub const FAILURE: Reply = Reply::Number(1);

    /// The frame as bytes.
    pub fn bytes(&self, number: u32) -> Vec<u8> {
        let mut body = Vec::new();
        match self {
            Reply::Number(value) => body.extend(value.to_ne_bytes()),
            Reply::Vring(state) => state.write(&mut body),
            Reply::Config { offset, flags, bytes } => {
                write_config(&mut body, *offset, bytes.len() as u32, *flags, bytes);
            }
            Reply::Empty => {}
            Reply::Inflight(inflight, _) => inflight.write(&mut body),
        }
        frame(number, true, false, &body)
    }

    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Reply::Inflight(_, file) => file.iter().map(AsFd::as_fd).collect(),
            _ => Vec::new(),
        }
    }

    /// Reads a reply to `request`. None: it is not one.
    pub fn parse(request: Request, frame: Frame) -> Option<Reply> {
        if !frame.header.reply || frame.header.number != request as u32 {
            return None;
        }
        let body = &frame.body;
        match request {
            Request::GetVringBase if body.len() == VringState::SIZE => {
                VringState::read(body).map(Reply::Vring)
            }
            Request::GetConfig if body.is_empty() => Some(Reply::Empty),
            Request::GetConfig => {
                let mut reader = Reader(body);
                let (offset, size, flags) = (reader.u32()?, reader.u32()?, reader.u32()?);
                let bytes = reader.0.to_vec();
                (bytes.len() == size as usize).then_some(Reply::Config { offset, flags, bytes })
            }
            Request::GetInflightFd => {
                Inflight::read(body).map(|i| Reply::Inflight(i, frame.descriptors.into_iter().next()))
            }
            _ if body.len() == 8 => Reader(body).u64().map(Reply::Number),
            _ => None,
        }
    }
}
