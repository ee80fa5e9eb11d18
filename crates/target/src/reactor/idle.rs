//! When a reactor goes to sleep.
//!
//! Sleeping costs two system calls here and an exit of the guest for its kick, so a short gap is cheaper polled through.
//! How short is learnt: the reactor keeps polling for a few times the usual gap between work (an exponentially weighted
//! mean), within bounds. A guest whose requests come every 30 µs is polled for; one that has stopped costs the upper
//! bound once.

/// How long a reactor polls after the last work before it sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollPolicy {
    /// For a time learnt from the load, 20 to 200 µs.
    Adaptive,
    /// For ever: one core at 100 %, as SPDK does.
    Always,
}

const SHORTEST_US: u64 = 20;
const LONGEST_US: u64 = 200;
/// The window is this many mean gaps: random arrivals leave a gap longer than that once in fifty.
const GAPS: u64 = 4;
/// Weight of the newest gap: one eighth, as in TCP's round-trip time (RFC 6298).
const SHIFT: u32 = 3;

pub struct Idle {
    policy: PollPolicy,
    shortest: u64,
    longest: u64,
    mean_gap: u64,
    last_work: u64,
}

impl Idle {
    pub fn new(policy: PollPolicy, tick_rate: u64, now: u64) -> Self {
        let us = |n: u64| n.saturating_mul(tick_rate) / 1_000_000;
        Self {
            policy,
            shortest: us(SHORTEST_US),
            longest: us(LONGEST_US),
            mean_gap: us(SHORTEST_US),
            last_work: now,
        }
    }

    /// Work began after a gap without any.
    pub fn worked_after_gap(&mut self, now: u64) {
        // A gap beyond the window teaches nothing but that the window was too short for it: the longest counts.
        let gap = now.saturating_sub(self.last_work).min(self.longest);
        self.mean_gap = self.mean_gap - (self.mean_gap >> SHIFT) + (gap >> SHIFT);
        self.last_work = now;
    }

    /// Work was done until now.
    pub fn worked_until(&mut self, now: u64) {
        self.last_work = now;
    }

    pub fn window(&self) -> u64 {
        (self.mean_gap * GAPS).clamp(self.shortest, self.longest)
    }

    pub fn may_sleep(&self, now: u64) -> bool {
        self.policy == PollPolicy::Adaptive && now.saturating_sub(self.last_work) > self.window()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1_000_000_000; // a tick is a nanosecond

    #[test]
    fn always_never_sleeps() {
        let idle = Idle::new(PollPolicy::Always, RATE, 0);
        assert!(!idle.may_sleep(u64::MAX));
    }

    #[test]
    fn the_window_follows_the_load_within_its_bounds() {
        let mut idle = Idle::new(PollPolicy::Adaptive, RATE, 0);
        let mut now = 0;
        for _ in 0..100 {
            now += 1_000; // a gap of 1 µs
            idle.worked_after_gap(now);
        }
        assert_eq!(idle.window(), 20_000);
        for _ in 0..100 {
            now += 30_000;
            idle.worked_after_gap(now);
        }
        assert!((110_000..=120_000).contains(&idle.window()), "{}", idle.window());
        for _ in 0..100 {
            now += 10_000_000;
            idle.worked_after_gap(now);
        }
        assert_eq!(idle.window(), 200_000);
        assert!(!idle.may_sleep(now + 200_000));
        assert!(idle.may_sleep(now + 200_001));
    }
}
