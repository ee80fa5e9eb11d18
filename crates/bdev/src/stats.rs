//! What a bdev has done: counters with one writer each, so that counting costs a load and a store.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Operation, Status};

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Unmap,
    Flush,
    WriteZeroes,
}

impl Kind {
    pub const ALL: [Kind; 5] = [Kind::Read, Kind::Write, Kind::Unmap, Kind::Flush, Kind::WriteZeroes];

    pub const fn of(operation: Operation) -> Self {
        match operation {
            Operation::Read => Kind::Read,
            Operation::Write => Kind::Write,
            Operation::Unmap => Kind::Unmap,
            Operation::Flush => Kind::Flush,
            Operation::WriteZeroes { .. } => Kind::WriteZeroes,
        }
    }
}

/// Counters of one kind of request. Latencies are in ticks, see [`crate::ticks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStatistics {
    pub operations: u64,
    pub bytes: u64,
    pub latency: u64,
    pub longest: u64,
    /// 0: none yet.
    pub shortest: u64,
}

impl KindStatistics {
    fn add(&mut self, other: &KindStatistics) {
        self.operations += other.operations;
        self.bytes += other.bytes;
        self.latency += other.latency;
        self.longest = self.longest.max(other.longest);
        self.shortest = match (self.shortest, other.shortest) {
            (0, one) | (one, 0) => one,
            (one, two) => one.min(two),
        };
    }
}

/// Counters of a channel, or the sum of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub kinds: [KindStatistics; Kind::ALL.len()],
    /// Requests that failed, other than by being aborted.
    pub failed: u64,
    pub aborted: u64,
}

impl Statistics {
    pub fn kind(&self, kind: Kind) -> &KindStatistics {
        &self.kinds[kind as usize]
    }

    pub fn add(&mut self, other: &Statistics) {
        for (sum, part) in self.kinds.iter_mut().zip(&other.kinds) {
            sum.add(part);
        }
        self.failed += other.failed;
        self.aborted += other.aborted;
    }
}

#[derive(Default)]
struct KindCounters {
    operations: AtomicU64,
    bytes: AtomicU64,
    latency: AtomicU64,
    longest: AtomicU64,
    shortest: AtomicU64,
}

/// The counters of one channel: its reactor writes, anyone reads.
#[derive(Default)]
pub struct ChannelStats {
    kinds: [KindCounters; Kind::ALL.len()],
    failed: AtomicU64,
    aborted: AtomicU64,
    /// How often a reset was asked for, and how many of those the writer has done.
    resets_asked: AtomicU32,
    resets_done: AtomicU32,
}

/// Adds without a locked instruction: there is one writer.
#[inline(always)]
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(value), Relaxed);
}

impl ChannelStats {
    /// `count` requests of one kind took `latency` ticks each.
    #[inline]
    pub(crate) fn finished(&self, kind: Kind, count: u64, bytes: u64, latency: u64) {
        let counters = &self.kinds[kind as usize];
        add(&counters.operations, count);
        add(&counters.bytes, bytes);
        add(&counters.latency, latency * count);
        if latency > counters.longest.load(Relaxed) {
            counters.longest.store(latency, Relaxed);
        }
        let shortest = counters.shortest.load(Relaxed);
        if latency < shortest || shortest == 0 {
            counters.shortest.store(latency.max(1), Relaxed);
        }
    }

    #[cold]
    pub(crate) fn failed(&self, status: Status) {
        add(if status == Status::Aborted { &self.aborted } else { &self.failed }, 1);
    }

    /// Does the reset that the control thread asked for. The writer calls this once a batch.
    #[inline]
    pub(crate) fn reset_if_asked(&self) {
        let asked = self.resets_asked.load(Relaxed);
        if asked != self.resets_done.load(Relaxed) {
            self.reset(asked);
        }
    }

    #[cold]
    fn reset(&self, asked: u32) {
        for kind in &self.kinds {
            for counter in [&kind.operations, &kind.bytes, &kind.latency, &kind.longest, &kind.shortest] {
                counter.store(0, Relaxed);
            }
        }
        self.failed.store(0, Relaxed);
        self.aborted.store(0, Relaxed);
        self.resets_done.store(asked, Relaxed);
    }

    /// The counters now; zeroes while a reset is asked for that the writer has not come to yet.
    pub fn read(&self) -> Statistics {
        if self.resets_asked.load(Relaxed) != self.resets_done.load(Relaxed) {
            return Statistics::default();
        }
        let kinds = std::array::from_fn(|index| {
            let counters = &self.kinds[index];
            KindStatistics {
                operations: counters.operations.load(Relaxed),
                bytes: counters.bytes.load(Relaxed),
                latency: counters.latency.load(Relaxed),
                longest: counters.longest.load(Relaxed),
                shortest: counters.shortest.load(Relaxed),
            }
        });
        Statistics { kinds, failed: self.failed.load(Relaxed), aborted: self.aborted.load(Relaxed) }
    }

    fn ask_reset(&self) {
        self.resets_asked.fetch_add(1, Relaxed);
    }
}

/// The statistics of a bdev: its open channels, each with the number of its reactor, and the sum of those that closed.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<Pages>);

#[derive(Default)]
struct Pages {
    open: Vec<(usize, Arc<ChannelStats>)>,
    closed: Statistics,
}

impl Ledger {
    pub fn open(&self, reactor: usize) -> Arc<ChannelStats> {
        let stats = Arc::new(ChannelStats::default());
        self.pages().open.push((reactor, stats.clone()));
        stats
    }

    pub fn close(&self, stats: &Arc<ChannelStats>) {
        let mut pages = self.pages();
        let Some(index) = pages.open.iter().position(|(_, open)| Arc::ptr_eq(open, stats)) else { return };
        pages.open.swap_remove(index);
        pages.closed.add(&stats.read());
    }

    pub fn sum(&self) -> Statistics {
        let pages = self.pages();
        let mut sum = pages.closed;
        for (_, stats) in &pages.open {
            sum.add(&stats.read());
        }
        sum
    }

    pub fn channels(&self) -> Vec<(usize, Statistics)> {
        self.pages().open.iter().map(|(reactor, stats)| (*reactor, stats.read())).collect()
    }

    pub fn reset(&self) {
        let mut pages = self.pages();
        pages.closed = Statistics::default();
        for (_, stats) in &pages.open {
            stats.ask_reset();
        }
    }

    fn pages(&self) -> std::sync::MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_outlive_channels_and_resets_reach_open_ones() {
        let ledger = Ledger::default();
        let (one, other) = (ledger.open(0), ledger.open(1));
        one.finished(Kind::Read, 2, 8192, 10);
        other.finished(Kind::Read, 1, 4096, 7);
        other.failed(Status::IoError);
        ledger.close(&one);
        let sum = ledger.sum();
        let expected = KindStatistics { operations: 3, bytes: 12288, latency: 27, longest: 10, shortest: 7 };
        assert_eq!(*sum.kind(Kind::Read), expected);
        assert_eq!((sum.failed, sum.aborted), (1, 0));
        assert_eq!(ledger.channels().len(), 1);

        ledger.reset();
        assert_eq!(ledger.sum(), Statistics::default());
        other.reset_if_asked();
        other.finished(Kind::Write, 1, 512, 3);
        assert_eq!(ledger.sum().kind(Kind::Write).bytes, 512);
        assert_eq!(ledger.sum().kind(Kind::Read).operations, 0);
    }
}
