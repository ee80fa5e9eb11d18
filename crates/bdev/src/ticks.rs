//! The clock of the path: a counter that costs some twenty cycles to read, as SPDK's ticks are.
//!
//! On x86-64 it is the time stamp counter, which every processor of the last fifteen years advances at one rate on all
//! cores (Intel SDM 3B, 18.17.1, invariant TSC). Elsewhere it is the monotonic clock in nanoseconds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The counter now.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: RDTSC has no preconditions; Linux leaves it enabled in user mode (CR4.TSD is set only by prctl(PR_SET_TSC)).
    unsafe { core::arch::x86_64::_rdtsc() }
}

#[cfg(not(target_arch = "x86_64"))]
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Ticks a second. The first call measures for ten milliseconds; make it at start.
pub fn rate() -> u64 {
    static RATE: OnceLock<u64> = OnceLock::new();
    *RATE.get_or_init(measure)
}

/// How many ticks a time is.
pub fn of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos() * u128::from(rate()) / 1_000_000_000).unwrap_or(u64::MAX)
}

fn measure() -> u64 {
    if cfg!(not(target_arch = "x86_64")) {
        return 1_000_000_000;
    }
    let (start, first) = (Instant::now(), now());
    while start.elapsed() < Duration::from_millis(10) {
        std::hint::spin_loop();
    }
    let (last, elapsed) = (now(), start.elapsed());
    let rate = u128::from(last.wrapping_sub(first)) * 1_000_000_000 / elapsed.as_nanos().max(1);
    // Rounded to 100 kHz, as the frequencies of crystals are.
    (u64::try_from(rate).unwrap_or(u64::MAX).saturating_add(50_000) / 100_000 * 100_000).max(100_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_the_clock() {
        let (start, first) = (Instant::now(), now());
        std::thread::sleep(Duration::from_millis(20));
        let (ticks, elapsed) = (now() - first, start.elapsed());
        let expected = of(elapsed);
        assert!(
            ticks.abs_diff(expected) < expected / 20,
            "{ticks} ticks in {elapsed:?}, expected {expected}"
        );
    }
}
