//! Interrupt coalescing, as SPDK's vhost has it: above a rate, calls of the guest are spaced out.
//!
//! The delay is `delay_us * (rate - threshold) / threshold`, from the request rate of the last 10 ms window. Requests are
//! always published at once; only the interrupt waits, and never while the reactor sleeps.

/// What `vhost_controller_set_coalescing` sets; `delay_us` 0: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coalescing {
    pub delay_us: u32,
    /// Requests a second.
    pub threshold: u32,
}

impl Default for Coalescing {
    fn default() -> Self {
        // SPDK's defaults, SPDK_VHOST_COALESCING_DELAY_BASE_US and SPDK_VHOST_VQ_IOPS_COALESCING_THRESHOLD.
        Coalescing { delay_us: 0, threshold: 60_000 }
    }
}

const WINDOWS_PER_SECOND: u64 = 100;

/// The coalescer of one queue.
pub struct Coalescer {
    base: u64,
    threshold: u64,
    window: u64,
    /// Requests in the present window.
    count: u64,
    window_end: u64,
    delay: u64,
    next_call: u64,
    owed: bool,
}

impl Coalescer {
    pub fn new(settings: Coalescing, tick_rate: u64) -> Self {
        Self {
            base: u64::from(settings.delay_us).saturating_mul(tick_rate) / 1_000_000,
            threshold: u64::from(settings.threshold) / WINDOWS_PER_SECOND,
            window: tick_rate / WINDOWS_PER_SECOND,
            count: 0,
            window_end: 0,
            delay: 0,
            next_call: 0,
            owed: false,
        }
    }

    #[inline]
    pub fn is_off(&self) -> bool {
        self.base == 0
    }

    /// The guest wants to be called for `requests` that were published. True: now.
    pub fn wanted(&mut self, requests: u64, now: u64) -> bool {
        self.count += requests;
        if now >= self.window_end {
            let above = self.count.saturating_sub(self.threshold);
            self.delay = self.base.saturating_mul(above).checked_div(self.threshold).unwrap_or(self.base);
            self.count = 0;
            self.window_end = now + self.window;
        }
        self.owed = true;
        self.due(now)
    }

    /// Whether a call that was put off is due.
    pub fn due(&mut self, now: u64) -> bool {
        if !self.owed || now < self.next_call {
            return false;
        }
        self.owed = false;
        self.next_call = now + self.delay;
        true
    }

    pub fn owes(&self) -> bool {
        self.owed
    }

    /// A call that is owed is taken out, to be made now: nothing is put off into a sleep.
    pub fn settle(&mut self) -> bool {
        std::mem::take(&mut self.owed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 1_000_000; // a tick is a microsecond

    #[test]
    fn below_the_threshold_every_call_is_made() {
        let mut coalescer = Coalescer::new(Coalescing { delay_us: 10, threshold: 60_000 }, RATE);
        for now in (0..1_000_000).step_by(100) {
            assert!(coalescer.wanted(1, now), "at {now}");
        }
    }

    #[test]
    fn at_twice_the_threshold_calls_are_a_delay_apart_and_none_is_lost() {
        let mut coalescer = Coalescer::new(Coalescing { delay_us: 50, threshold: 100_000 }, RATE);
        let mut calls = Vec::new();
        for now in 0..100_000 {
            // One request every 5 µs: 200,000 a second.
            let call = if now % 5 == 0 { coalescer.wanted(1, now) } else { coalescer.due(now) };
            if call {
                calls.push(now);
            }
        }
        let late: Vec<_> = calls.iter().filter(|&&at| at > 20_000).collect();
        for pair in late.windows(2) {
            assert!((50..=55).contains(&(pair[1] - pair[0])), "{pair:?}");
        }
        assert!(late.len() > 1_400);
        coalescer.wanted(1, 100_000);
        let owed = coalescer.owes();
        assert_eq!(coalescer.settle(), owed);
        assert!(!coalescer.owes());
    }

    #[test]
    fn off_by_default() {
        assert!(Coalescer::new(Coalescing::default(), RATE).is_off());
    }
}
