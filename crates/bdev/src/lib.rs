//! Block devices: what a guest reads and writes, whatever it lies on.
//!
//! A [`Bdev`] lives on the control thread. Each reactor that serves it opens a [`Channel`] of its own, and nothing is
//! shared between channels on the path of a request.
//!
//! `unsafe` stands in `malloc`, `ticks`, `file::raw` and `file::uring` only.

mod bdev;
mod channel;
pub mod delay;
pub mod error;
mod failure;
pub mod file;
pub mod malloc;
pub mod null;
pub mod nvme;
mod pending;
mod qos;
mod request;
mod stacked;
mod stats;
pub mod ticks;
mod uuid;

pub use bdev::{Base, Bdev, Info};
pub use channel::{Backend, Channel};
pub use delay::Delay;
pub use error::ErrorBdev;
pub use failure::BdevError;
pub use file::FileBdev;
pub use malloc::Malloc;
pub use null::Null;
pub use nvme::{NvmeBdev, NvmeController, NvmeEvent, NvmeOptions, NvmeState};
pub use qos::{Limits, Qos};
pub use request::{Completion, Operation, Request, Status, Submitted};
pub use stats::{ChannelStats, Kind, KindStatistics, Statistics};
pub use uuid::Uuid;
