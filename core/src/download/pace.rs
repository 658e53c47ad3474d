//! How fast bytes are taken.

use std::time::{Duration, Instant};

/// No more bytes a second than the owner allows. What was not used of it is not made up for.
pub(super) struct Pace {
    rate: Option<u64>,
    /// Until then nothing more is taken.
    free_at: Option<Instant>,
}

impl Pace {
    pub(super) fn new(rate: Option<u64>) -> Self {
        Self {
            rate: rate.filter(|rate| *rate > 0),
            free_at: None,
        }
    }

    /// So many bytes were taken.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) {
        let Some(rate) = self.rate else { return };
        #[expect(
            clippy::cast_precision_loss,
            reason = "far more exact than any network"
        )]
        let time = Duration::try_from_secs_f64(bytes as f64 / rate as f64);
        let from = self.free_at.map_or(now, |at| at.max(now));
        self.free_at = time
            .ok()
            .and_then(|time| from.checked_add(time))
            .or(self.free_at);
    }

    /// How long is still to be waited.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.free_at
            .map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }

    /// The longest buffer worth having: a quarter of a second's bytes, so that a slow download is not one of
    /// long silences.
    pub(super) fn longest(&self) -> usize {
        let quarter = self.rate.map(|rate| usize::try_from(rate / 4));
        quarter.map_or(usize::MAX, |bytes| bytes.unwrap_or(usize::MAX).max(1024))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_is_not_made_up_for() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(Some(1000));
        pace.took(500, at(0));
        pace.took(500, at(100));
        assert_eq!(pace.left(at(100)), Duration::from_millis(900));
        assert_eq!(pace.left(at(2000)), Duration::ZERO);
        pace.took(500, at(5000));
        assert_eq!(pace.left(at(5000)), Duration::from_millis(500));
        let mut free = Pace::new(None);
        free.took(usize::MAX, at(0));
        assert_eq!(free.left(at(0)), Duration::ZERO);
        // No overflow, whatever the rate.
        let mut slow = Pace::new(Some(1));
        slow.took(usize::MAX, at(0));
        slow.took(usize::MAX, at(0));
    }
}
