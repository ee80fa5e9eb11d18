//! A polled NVMe driver in user space, over VFIO.
//!
//! ```text
//!   reactor                     supervisor (a thread for each controller)            device
//!   Qpair ── SQ, doorbell ──────────────────────────────────────────────────────────> I/O queue
//!     │   <── CQ (phase bit) ─────────────────────────────────────────────────────────┘
//!     └── inbox: 'this timed out' ──> admin queue, abort, reset, events ────────────> admin queue
//!         <── link: 'down', 'up', 'dead' ──┘
//! ```
//!
//! A [`Qpair`] belongs to one reactor: submitting and polling allocate nothing and call nothing. Everything slow is the
//! supervisor's: it sleeps until the controller, the system or a queue pair wants something.

#[cfg(any(test, feature = "emulated"))]
pub mod emulated;

mod admin;
mod bringup;
mod controller;
mod device;
mod dma;
mod error;
mod event;
mod inbox;
mod link;
mod mmio;
mod namespace;
mod options;
mod queue;
mod quiesce;
pub mod spec;
mod supervisor;
pub mod vfio;

pub use controller::{Controller, ControllerInfo, State};
pub use device::{Device, Registers};
pub use dma::DmaBuffer;
pub use error::NvmeError;
pub use event::Event;
pub use namespace::Namespace;
pub use options::Options;
pub use queue::{Io, IoKind, Outcome, Qpair, Submission};
