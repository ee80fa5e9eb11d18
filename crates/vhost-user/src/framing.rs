//! A stream of bytes cut into frames.

use std::fmt;
use std::os::fd::OwnedFd;

/// Request, flags, size of the body: 32 bits each.
pub const HEADER_SIZE: usize = 12;

/// The longest body that is read. The longest that the protocol has is a memory table; a peer that announces more is
/// not worth the memory.
pub const MAX_BODY: usize = 4096;

/// The most descriptors that one message takes: as many as a memory table has regions. More are closed as they come.
pub const MAX_DESCRIPTORS: usize = crate::message::MAX_TABLE_REGIONS;

const VERSION: u32 = 1;
const VERSION_MASK: u32 = 3;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub number: u32,
    pub reply: bool,
    /// The sender wants an acknowledgement (REPLY_ACK).
    pub need_reply: bool,
    pub size: u32,
}

impl Header {
    pub fn parse(bytes: &[u8; HEADER_SIZE]) -> Result<Header, FramingError> {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (number, flags, size) = (word(0), word(4), word(8));
        if flags & VERSION_MASK != VERSION {
            return Err(FramingError::Version { version: flags & VERSION_MASK });
        }
        if size as usize > MAX_BODY {
            return Err(FramingError::TooLong { number, size });
        }
        Ok(Header { number, reply: flags & REPLY != 0, need_reply: flags & NEED_REPLY != 0, size })
    }

    pub fn bytes(&self) -> [u8; HEADER_SIZE] {
        let flags =
            VERSION | if self.reply { REPLY } else { 0 } | if self.need_reply { NEED_REPLY } else { 0 };
        let mut bytes = [0; HEADER_SIZE];
        bytes[..4].copy_from_slice(&self.number.to_ne_bytes());
        bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.size.to_ne_bytes());
        bytes
    }
}

/// A header, its body, and the descriptors that came while it was read.
#[derive(Debug)]
pub struct Frame {
    pub header: Header,
    pub body: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// The stream cannot be followed any further: the connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    Version {
        version: u32,
    },
    TooLong {
        number: u32,
        size: u32,
    },
    /// More bytes were handed in than the frame at hand has.
    Surplus,
}

impl fmt::Display for FramingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FramingError::Version { version } => {
                write!(f, "a message of protocol version {version}; this end speaks version {VERSION}")
            }
            FramingError::TooLong { number, size } => {
                write!(f, "request {number} announces {size} bytes; at most {MAX_BODY} are read")
            }
            FramingError::Surplus => write!(f, "more bytes than the message has"),
        }
    }
}

impl std::error::Error for FramingError {}

/// Puts frames together from pieces of any size.
///
/// The kernel hands descriptors over with the bytes they were sent with and stops reading there (unix(7)), but bytes
/// *before* those may be in the same read. Who never reads past the end of a frame therefore knows which message a
/// descriptor belongs to; [`Framing::wanted`] says how far that is.
#[derive(Debug, Default)]
pub struct Framing {
    head: [u8; HEADER_SIZE],
    filled: usize,
    header: Option<Header>,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Framing {
    pub fn new() -> Framing {
        Framing::default()
    }

    /// How many bytes may be handed in next; never 0.
    pub fn wanted(&self) -> usize {
        match self.header {
            None => HEADER_SIZE - self.filled,
            Some(header) => header.size as usize - self.body.len(),
        }
    }

    /// Whether a frame has begun and not ended.
    pub fn is_partial(&self) -> bool {
        self.filled != 0 || !self.descriptors.is_empty()
    }

    /// Takes bytes, at most [`Framing::wanted`], and the descriptors that came with them. Returns the frame that they
    /// complete.
    pub fn feed(&mut self, bytes: &[u8], descriptors: Vec<OwnedFd>) -> Result<Option<Frame>, FramingError> {
        if bytes.len() > self.wanted() {
            return Err(FramingError::Surplus);
        }
        let room = MAX_DESCRIPTORS - self.descriptors.len();
        self.descriptors.extend(descriptors.into_iter().take(room));
        match self.header {
            None => {
                self.head[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
                self.filled += bytes.len();
                if self.filled < HEADER_SIZE {
                    return Ok(None);
                }
                let header = Header::parse(&self.head)?;
                self.header = Some(header);
            }
            Some(_) => self.body.extend_from_slice(bytes),
        }
        let Some(header) = self.header else { return Ok(None) };
        if self.body.len() < header.size as usize {
            return Ok(None);
        }
        self.header = None;
        self.filled = 0;
        let body = std::mem::take(&mut self.body);
        let descriptors = std::mem::take(&mut self.descriptors);
        Ok(Some(Frame { header, body, descriptors }))
    }
}

/// A frame as bytes.
pub(crate) fn frame(number: u32, reply: bool, need_reply: bool, body: &[u8]) -> Vec<u8> {
    let header = Header { number, reply, need_reply, size: body.len() as u32 };
    let mut bytes = Vec::with_capacity(HEADER_SIZE + body.len());
    bytes.extend(header.bytes());
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_together_byte_by_byte() {
        let bytes = frame(2, false, true, &7u64.to_ne_bytes());
        let mut framing = Framing::new();
        for byte in &bytes[..bytes.len() - 1] {
            assert!(framing.feed(&[*byte], Vec::new()).unwrap().is_none());
            assert!(framing.is_partial());
        }
        let frame = framing.feed(&bytes[bytes.len() - 1..], Vec::new()).unwrap().unwrap();
        assert_eq!(frame.header, Header { number: 2, reply: false, need_reply: true, size: 8 });
        assert_eq!(frame.body, 7u64.to_ne_bytes());
        assert!(!framing.is_partial());
        assert_eq!(framing.wanted(), HEADER_SIZE);
    }

    #[test]
    fn a_header_without_body_is_a_frame() {
        let frame = Framing::new().feed(&frame(1, false, false, &[]), Vec::new()).unwrap().unwrap();
        assert!(frame.body.is_empty());
    }

    #[test]
    fn hostile_heads_end_the_stream() {
        let mut bytes = frame(1, false, false, &[]);
        bytes[8..].copy_from_slice(&u32::MAX.to_ne_bytes());
        let error = Framing::new().feed(&bytes, Vec::new()).unwrap_err();
        assert_eq!(error, FramingError::TooLong { number: 1, size: u32::MAX });
        bytes[4] = 2;
        let error = Framing::new().feed(&bytes, Vec::new()).unwrap_err();
        assert_eq!(error, FramingError::Version { version: 2 });
    }

    #[test]
    fn bytes_of_the_next_frame_are_not_taken() {
        let mut framing = Framing::new();
        assert_eq!(framing.feed(&[0; 13], Vec::new()).unwrap_err(), FramingError::Surplus);
    }
}
