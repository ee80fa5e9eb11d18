//! Virtqueues from the device's side (virtio 1.3, sections 2.6 to 2.8).
//!
//! A [`Queue`] is made once with everything it needs, its size and addresses frozen and checked: no later access leaves
//! the memory that was checked then. Ring memory belongs to the guest, which may write anything at any time: each
//! field is read once, as an atomic, and checked before it is used. What breaks the rules is a [`RingError`]: the queue
//! is broken and stays so, the process does not care.
//!
//! One iteration of whoever owns the queue, with [`Ring::publish`] called in each, also when nothing completed:
//!
//! ```text
//! while let Some(chain) = queue.pop(&mut segments)? { ... queue.complete(chain, written) ... }
//! if queue.publish() { call the guest }
//! ```

#[cfg(target_endian = "big")]
compile_error!("virtio is little-endian, and so are all hosts this was written for");

mod buffers;
mod chain;
mod config;
pub mod driver;
mod error;
#[cfg(not(loom))]
pub mod fuzz;
pub mod inflight;
mod log;
#[cfg(all(test, loom))]
mod loom;
mod notify;
pub mod packed;
pub mod split;
pub mod sync;

pub use chain::{Chain, MAX_SEGMENTS, Segments};
pub use config::{Addresses, Layout, Log, QueueConfig, VringBase};
pub use error::RingError;
pub use inflight::{Inflight, InflightQueue};
pub use packed::Packed;
pub use split::Split;

/// The device's side of a virtqueue. One thread owns it.
pub trait Ring {
    /// The next request, its buffers in `segments`. After a restart those that were in flight when the previous process
    /// died come first, in the order in which the guest had made them.
    ///
    /// An id is never in flight twice, and is less than the size of the ring: tables may be indexed by it.
    ///
    /// # Errors
    /// When the driver broke a rule; from then on the same error comes each time.
    fn pop(&mut self, segments: &mut Segments) -> Result<Option<Chain>, RingError>;

    /// Ends a request, `written` bytes of its device-writable buffers written. The driver does not see it before
    /// [`publish`](Ring::publish).
    fn complete(&mut self, chain: Chain, written: u32);

    /// Shows the driver what was completed since the last time; whether it wants to be called (its call eventfd).
    ///
    /// To be called in every iteration: whether a polling driver has begun to sleep is decided in the first iteration
    /// with nothing to show, so that the barrier it needs is not paid under load.
    fn publish(&mut self) -> bool;

    /// Shows the driver what was completed since the last time, and decides nothing: a driver that polls goes on with it
    /// while more is being done. [`publish`](Ring::publish) has to follow in the same iteration.
    fn show(&mut self);

    /// Asks the driver not to kick: it is being polled.
    fn suppress(&mut self);

    /// Asks the driver to kick, and looks again: whether nothing has come, so that it is safe to sleep. When false,
    /// poll on (the driver may kick in vain meanwhile) and [`suppress`](Ring::suppress).
    fn arm(&mut self) -> bool;

    /// Whether [`pop`](Ring::pop) would find something. Cheap; changes nothing.
    fn has_work(&self) -> bool;

    /// Fetches what the next pop reads into the cache.
    fn prefetch(&self);

    /// The first 16 bytes of what the next pop will give, if it is known to be there: a hint for what to fetch into the
    /// cache meanwhile, and nothing to act upon, since the driver may still change it.
    fn ahead(&mut self) -> Option<[u8; 16]>;

    /// Where the queue stands, for GET_VRING_BASE.
    fn base(&self) -> VringBase;

    /// Requests popped and not completed.
    fn in_flight(&self) -> u16;

    /// Requests of the previous process that [`pop`](Ring::pop) has not yet given.
    fn recovered(&self) -> usize;

    fn size(&self) -> u16;
}

/// A virtqueue of either kind. On the hot path match once and use the kind itself.
#[derive(Debug)]
pub enum Queue {
    Split(Split),
    Packed(Packed),
}

impl Queue {
    /// # Errors
    /// When sizes, addresses or the in-flight record do not fit together.
    pub fn new(config: QueueConfig) -> Result<Queue, RingError> {
        match config.layout {
            Layout::Split => Split::new(config).map(Queue::Split),
            Layout::Packed => Packed::new(config).map(Queue::Packed),
        }
    }
}

macro_rules! either {
    ($queue:expr, $ring:ident => $call:expr) => {
        match $queue {
            Queue::Split($ring) => $call,
            Queue::Packed($ring) => $call,
        }
    };
}

impl Ring for Queue {
    fn pop(&mut self, segments: &mut Segments) -> Result<Option<Chain>, RingError> {
        either!(self, ring => ring.pop(segments))
    }
    fn complete(&mut self, chain: Chain, written: u32) {
        either!(self, ring => ring.complete(chain, written));
    }
    fn publish(&mut self) -> bool {
        either!(self, ring => ring.publish())
    }
    fn show(&mut self) {
        either!(self, ring => ring.show());
    }
    fn suppress(&mut self) {
        either!(self, ring => ring.suppress());
    }
    fn arm(&mut self) -> bool {
        either!(self, ring => ring.arm())
    }
    fn has_work(&self) -> bool {
        either!(self, ring => ring.has_work())
    }
    fn prefetch(&self) {
        either!(self, ring => ring.prefetch());
    }
    fn ahead(&mut self) -> Option<[u8; 16]> {
        either!(self, ring => ring.ahead())
    }
    fn base(&self) -> VringBase {
        either!(self, ring => ring.base())
    }
    fn in_flight(&self) -> u16 {
        either!(self, ring => ring.in_flight())
    }
    fn recovered(&self) -> usize {
        either!(self, ring => ring.recovered())
    }
    fn size(&self) -> u16 {
        either!(self, ring => ring.size())
    }
}
