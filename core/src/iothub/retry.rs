//! How long to wait before connecting again: exponential backoff with full jitter, as in "Exponential
//! Backoff And Jitter" of the AWS Architecture Blog.

use ring::rand::{SecureRandom, SystemRandom};
use std::time::Duration;

/// A connection that held this long ends a row of failures. A shorter one does not, or two devices
/// under one id would throw each other out as fast as they can.
const STABLE: Duration = Duration::from_secs(60);

pub(super) struct Retry {
    min: Duration,
    max: Duration,
    failures: u32,
}

impl Retry {
    pub(super) fn new(min: Duration, max: Duration) -> Self {
        Self {
            min,
            max,
            failures: 0,
        }
    }

    /// The wait after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random_fraction())
    }

    /// A connection has ended that held for `time`.
    pub(super) fn was_up(&mut self, time: Duration) {
        if time >= STABLE {
            self.failures = 0;
        }
    }

    fn bound(&self) -> Duration {
        let factor = 2_u32.checked_pow(self.failures).unwrap_or(u32::MAX);
        self.min.saturating_mul(factor).min(self.max)
    }
}

/// Any number; 0 if the system has none to give.
pub(super) fn random() -> u64 {
    let mut bytes = [0; 8];
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// From 0 to 1.
pub(super) fn random_fraction() -> f64 {
    // The upper 53 bits are what an f64 holds exactly.
    (random() >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let mut retry = Retry::new(Duration::from_secs(1), Duration::from_secs(300));
        let mut bounds = Vec::new();
        for _ in 0..100 {
            let bound = retry.bound();
            assert!(retry.next() <= bound);
            bounds.push(bound.as_secs());
        }
        assert_eq!(bounds[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(bounds[10..].iter().all(|bound| *bound == 300));

        retry.was_up(Duration::from_secs(59));
        assert_eq!(retry.bound(), Duration::from_secs(300));
        retry.was_up(STABLE);
        assert_eq!(retry.bound(), Duration::from_secs(1));
    }

    #[test]
    fn waits_are_spread_over_the_whole_range() {
        let mut low = 0;
        for _ in 0..1000 {
            let fraction = random_fraction();
            assert!((0.0..1.0).contains(&fraction));
            low += usize::from(fraction < 0.5);
        }
        // Outside by chance: once in 10^23 runs.
        assert!((350..650).contains(&low), "{low} of 1000 below the middle");
    }
}
