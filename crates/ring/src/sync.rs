//! Atomics, or loom's model of them (`--cfg loom`). Everything in this crate that another thread or the guest touches
//! goes through here, so that the model checker runs the code that ships.
//!
//! In this crate's own tests a store can also be the last thing that a process does (`kill`).

#[cfg(not(any(loom, test)))]
pub use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

#[cfg(not(loom))]
pub use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

#[cfg(all(test, not(loom)))]
pub(crate) use kill::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};

#[cfg(loom)]
pub use loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

/// Atomics that stop the world at a chosen store.
#[cfg(all(test, not(loom)))]
pub(crate) mod kill {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    use std::sync::atomic::Ordering;

    thread_local!(static LEFT: Cell<Option<u32>> = const { Cell::new(None) });

    struct Killed;

    fn before_a_store() {
        match LEFT.get() {
            None => (),
            Some(0) => {
                LEFT.set(None);
                resume_unwind(Box::new(Killed))
            }
            Some(left) => LEFT.set(Some(left - 1)),
        }
    }

    /// Runs until `stores` stores were made; `None` when it was killed before the next one.
    pub fn after<T>(stores: u32, life: impl FnOnce() -> T) -> Option<T> {
        LEFT.set(Some(stores));
        let result = catch_unwind(AssertUnwindSafe(life));
        LEFT.set(None);
        match result {
            Ok(value) => Some(value),
            Err(killed) if killed.is::<Killed>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    macro_rules! atomic {
        ($name:ident, $value:ty) => {
            #[repr(transparent)]
            #[derive(Debug)]
            pub struct $name(std::sync::atomic::$name);

            impl $name {
                pub fn load(&self, ordering: Ordering) -> $value {
                    self.0.load(ordering)
                }

                pub fn store(&self, value: $value, ordering: Ordering) {
                    before_a_store();
                    self.0.store(value, ordering);
                }
            }
        };
    }

    atomic!(AtomicU8, u8);
    atomic!(AtomicU16, u16);
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
}

#[cfg(not(loom))]
pub use std::sync::{Arc, Condvar, Mutex};

#[cfg(loom)]
pub use loom::sync::{Arc, Condvar, Mutex};
