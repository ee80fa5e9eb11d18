//! Memory that several parties touch at once.
//!
//! Everything that a guest, a drive and this process share is mapped inside one reserved range of addresses, the
//! [`arena`]. That makes three questions one subtraction each: is this address shared memory (the SIGBUS handler asks),
//! whose is it, and under which I/O virtual address does a drive reach it ([`arena::iova_of`]).
//!
//! No reference to such memory is ever made: another party may change it at any time. It is read and written through
//! atomics (ring fields), through [`copy`] (everything else), or handed on as a [`Segment`].

pub mod arena;
pub mod copy;
mod dirty_log;
pub mod dma;
mod error;
mod free_list;
mod guest;
mod host;
mod scratch;
mod segment;
pub mod sigbus;

pub use arena::{Backing, Mapping, OnFault};
pub use dirty_log::DirtyLog;
pub use error::MapError;
pub use guest::{GuestMemory, Hint, MAX_REGIONS, Region, RegionSpec};
pub use host::{HostMemory, PageKind, memfd};
pub use scratch::Scratch;
pub use segment::{Segment, total};
