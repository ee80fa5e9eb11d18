//! Atomics, or loom's model of them (`--cfg loom`). Everything in this crate that another thread or the guest touches
//! goes through here, so that the model checker runs the code that ships.

#[cfg(not(loom))]
pub use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(loom)]
pub use loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(not(loom))]
pub use std::sync::{Arc, Condvar, Mutex};

#[cfg(loom)]
pub use loom::sync::{Arc, Condvar, Mutex};
