//! The vhost-user protocol as values.
//!
//! [`Message::parse`] is a pure function of bytes and descriptors, so a whole conversation can be replayed, and fuzzed,
//! without a socket. [`Framing`] cuts a stream into frames without ever asking for more bytes than the frame at hand has:
//! that is what ties descriptors to the message they came with. [`Connection`] puts both on a non-blocking socket.
//! [`frontend`] is the other end of the wire: what a virtual machine monitor does, without the virtual machine.
//!
//! The text of the protocol is `docs/interop/vhost-user.rst` in QEMU's sources, called vhost-user.rst below.

#![forbid(unsafe_code)]

mod backend_channel;
mod code;
mod connection;
pub mod features;
mod framing;
pub mod frontend;
mod message;
mod payload;
mod refusal;
mod reply;

pub use backend_channel::{BackendChannel, BackendMessage};
pub use code::{BackendRequest, Request};
pub use connection::{Connection, Received};
pub use framing::{Frame, Framing, FramingError, HEADER_SIZE, Header, MAX_BODY};
pub use message::{MAX_CONFIG, MAX_TABLE_REGIONS, MemoryRegion, Message};
pub use payload::{Inflight, LogArea, Region, VringAddress, VringState};
pub use refusal::Refusal;
pub use reply::Reply;
