//! Rate limits of a bdev, shared by all its channels.
//!
//! Time is cut into slices of a millisecond, as SPDK does it. A slice has a budget; the request that finds the budget
//! used up is refused (`Busy`) and comes again. A request may overdraw its slice, and the next slices pay for it, so
//! that a request larger than a slice's budget still passes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::{Operation, ticks};

const SLICES_A_SECOND: u64 = 1000;
const MEBIBYTE: u64 = 1 << 20;
/// What was not used is kept for this many slices: more would allow a burst.
const MOST_SLICES: i64 = 4;

/// 0: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub rw_ios_per_sec: u64,
    pub rw_mbytes_per_sec: u64,
    pub r_mbytes_per_sec: u64,
    pub w_mbytes_per_sec: u64,
}

impl Limits {
    fn budgets(&self) -> [u64; 4] {
        let bytes =
            |mebibytes: u64| (mebibytes.saturating_mul(MEBIBYTE) / SLICES_A_SECOND).min(i64::MAX as u64 >> 8);
        [
            self.rw_ios_per_sec.div_ceil(SLICES_A_SECOND),
            bytes(self.rw_mbytes_per_sec),
            bytes(self.r_mbytes_per_sec),
            bytes(self.w_mbytes_per_sec),
        ]
    }
}

/// Which of the four limits a request counts for.
fn applying(operation: Operation) -> Option<[bool; 4]> {
    match operation {
        Operation::Read => Some([true, true, true, false]),
        Operation::Write => Some([true, true, false, true]),
        _ => None,
    }
}

#[derive(Default)]
pub struct Qos {
    active: AtomicBool,
    limits: Mutex<Limits>,
    budgets: [AtomicU64; 4],
    left: [AtomicI64; 4],
    slice_began: AtomicU64,
}

impl Qos {
    pub fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub fn set(&self, limits: Limits) {
        let mut current = self.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *current = limits;
        for ((budget, left), value) in self.budgets.iter().zip(&self.left).zip(limits.budgets()) {
            budget.store(value, Relaxed);
            left.store(value as i64, Relaxed);
        }
        self.slice_began.store(ticks::now(), Relaxed);
        self.active.store(limits != Limits::default(), Relaxed);
    }

    #[inline(always)]
    pub(crate) fn active(&self) -> bool {
        self.active.load(Relaxed)
    }

    /// Takes what a request costs from the slice; `false`: nothing was taken, the slice is used up.
    pub(crate) fn take(&self, operation: Operation, length: u64) -> bool {
        let Some(applies) = applying(operation) else { return true };
        self.take_at(ticks::now(), applies, length)
    }

    fn take_at(&self, now: u64, applies: [bool; 4], length: u64) -> bool {
        self.refill(now);
        let limited = |index: usize| applies[index] && self.budgets[index].load(Relaxed) != 0;
        if (0..4).any(|index| limited(index) && self.left[index].load(Relaxed) <= 0) {
            return false;
        }
        for index in (0..4).filter(|&index| limited(index)) {
            let cost = if index == 0 { 1 } else { length as i64 };
            self.left[index].fetch_sub(cost, Relaxed);
        }
        true
    }

    /// Gives back what a request took that the device then had no room for.
    #[cold]
    pub(crate) fn give_back(&self, operation: Operation, length: u64) {
        let Some(applies) = applying(operation) else { return };
        for index in (0..4).filter(|&index| applies[index] && self.budgets[index].load(Relaxed) != 0) {
            self.left[index].fetch_add(if index == 0 { 1 } else { length as i64 }, Relaxed);
        }
    }

    fn refill(&self, now: u64) {
        let slice = ticks::of(Duration::from_secs(1)) / SLICES_A_SECOND;
        let began = self.slice_began.load(Relaxed);
        let elapsed = now.wrapping_sub(began);
        let slices = elapsed / slice.max(1);
        if slices == 0 || elapsed > u64::MAX / 2 {
            return; // within the slice, or another channel was faster
        }
        let next = began.wrapping_add(slices * slice);
        if self.slice_began.compare_exchange(began, next, Relaxed, Relaxed).is_err() {
            return;
        }
        for (budget, left) in self.budgets.iter().zip(&self.left) {
            let budget = budget.load(Relaxed) as i64;
            let due = budget.saturating_mul(slices.min(1 << 20) as i64);
            let most = budget.saturating_mul(MOST_SLICES);
            left.store(left.load(Relaxed).saturating_add(due).min(most), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes in a second of a clock that advances by 10 microseconds each time.
    fn passed(limits: Limits, operation: Operation, length: u64) -> u64 {
        let qos = Qos::default();
        qos.set(limits);
        let (start, step) = (qos.slice_began.load(Relaxed), ticks::of(Duration::from_micros(10)));
        let applies = applying(operation).unwrap();
        (0..100_000).map(|turn| u64::from(qos.take_at(start + turn * step, applies, length))).sum()
    }

    #[test]
    fn a_rate_is_kept() {
        let limits = Limits { rw_ios_per_sec: 20_000, ..Limits::default() };
        let count = passed(limits, Operation::Read, 4096);
        assert!((19_900..=20_100).contains(&count), "{count} of 20000");
        let limits = Limits { w_mbytes_per_sec: 100, ..Limits::default() };
        let count = passed(limits, Operation::Write, 1 << 20);
        assert!((99..=101).contains(&count), "{count} of 100, each larger than a slice");
        assert_eq!(passed(limits, Operation::Read, 1 << 20), 100_000, "reads are not limited");
    }

    #[test]
    fn what_was_not_used_is_no_burst() {
        let qos = Qos::default();
        qos.set(Limits { rw_ios_per_sec: 10_000, ..Limits::default() });
        let later = qos.slice_began.load(Relaxed) + ticks::rate();
        let applies = applying(Operation::Write).unwrap();
        let count = (0..1000).filter(|_| qos.take_at(later, applies, 512)).count();
        assert_eq!(count, 10 * MOST_SLICES as usize);
    }

    #[test]
    fn no_limit_is_no_limit() {
        let qos = Qos::default();
        assert!(!qos.active());
        qos.set(Limits { rw_ios_per_sec: 1000, ..Limits::default() });
        assert!(qos.active());
        qos.set(Limits::default());
        assert!(!qos.active());
    }
}
