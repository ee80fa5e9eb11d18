//! Front ends: what the requests in a guest's queues mean.
//!
//! A [`Device`] is the reactor's half of one queue. It sees one chain at a time as [`Segments`], asks block devices
//! through [`Io`], and says what became of the chain. Everything else, the ring, holding back, counting, calling the
//! guest, is the reactor's.

use std::any::Any;

use nvlane_bdev::Status;
use nvlane_ring::{Chain, Segments};

pub mod blk;
pub mod scsi;

pub use crate::reactor::{ChannelId, Io};

/// The requests of one queue.
pub trait Device: Send + 'static {
    /// A request. `segments` is scratch of the reactor and may be changed, but not by an answer of [`Step::Busy`]:
    /// then the same segments come again.
    fn request(&mut self, chain: &Chain, segments: &mut Segments, io: &mut Io<'_>) -> Step;

    /// Whether [`Device::foresee`] is of use now; asked once a turn.
    #[inline]
    fn looks_ahead(&self, io: &mut Io<'_>) -> bool {
        let _ = io;
        false
    }

    /// The first bytes of the request after the one that is about to be shown, to fetch into the cache what it will
    /// need. It may come differently, or not at all.
    #[inline]
    fn foresee(&self, header: &[u8; 16], io: &mut Io<'_>) {
        let _ = (header, io);
    }

    /// An operation that was submitted for chain `id` as `part` has ended.
    fn ended(&mut self, id: u16, part: u16, status: Status, io: &mut Io<'_>) -> Step;

    /// Chain `id`, which answered [`Step::Again`], may go on.
    fn resume(&mut self, id: u16, io: &mut Io<'_>) -> Step {
        let _ = (id, io);
        unreachable!("only a device that answers Again is resumed")
    }

    /// Whether chains shall be taken off the ring now. The queue of SCSI events says so only when it has one.
    fn wants(&self) -> bool {
        true
    }

    /// Whether new chains shall wait while one answered [`Step::Again`]. Not so where chains are for different block
    /// devices: one of them must not hold up the others.
    fn keeps_order(&self) -> bool {
        true
    }

    /// For [`crate::reactor::Reactors::with_device`].
    fn as_any(&mut self) -> &mut dyn Any;
}

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The guest gets it back; `written` bytes of its writable part were written from the start on.
    Done { written: u32 },
    /// Operations are under way; [`Device::ended`] will be told.
    Pending,
    /// A block device has no room and nothing was submitted: show the request again later.
    Busy,
    /// The request is half done and the device knows how to go on: call [`Device::resume`] later. Operations of it may
    /// be under way, but no answer to one of them but `Again` or `Pending` may come before.
    Again,
}
