//! Block devices: what a guest reads and writes, whatever it lies on.
//!
//! A [`Bdev`] lives on the control thread. Each reactor that serves it opens a [`Channel`] of its own, and nothing is
//! shared between channels on the path of a request.

mod request;

pub use request::{Completion, Operation, Request, Status, Submitted};
