//! The front end's end of the wire.
//!
//! [`Client`] is blocking and simple: each call sends a message and waits, with a deadline, for what the back end owes
//! for it. With [`SharedMemory`] for the guest's memory and the driver's side of a ring it is a whole virtual machine
//! as far as a back end can tell; tests, fuzzing and benchmarks are made with it.

mod client;
mod shared;

pub use client::{Client, ClientError};
pub use shared::{SharedMemory, notifier, notify, wait_notified};
