//! What a reactor counts. It is the only writer; anyone reads.

use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

/// A counter with one writer: an addition without a locked instruction.
#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, value: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(value), Relaxed);
    }

    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[derive(Default)]
pub(super) struct Counters {
    pub thread: AtomicI32,
    pub busy: Counter,
    pub idle: Counter,
    pub sleeps: Counter,
    pub calls: Counter,
    pub queues: Counter,
}

/// A reactor as `framework_get_reactors` and `thread_get_stats` show it. Times are in ticks of [`super::tick_rate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReactorStats {
    pub cpu: usize,
    /// The thread's number in /proc/self/task.
    pub thread: i32,
    /// Time in turns that found something to do.
    pub busy: u64,
    /// The rest, asleep or not.
    pub idle: u64,
    pub asleep: bool,
    /// How often it went to sleep.
    pub sleeps: u64,
    /// How often it called a guest: one system call each.
    pub calls: u64,
    pub queues: u64,
}
