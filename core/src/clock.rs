//! The two clocks, as the device runtime and the downloader read them.

mod watch;

use std::time::{Instant, SystemTime};
pub(crate) use watch::Watch;

/// The monotonic clock.
pub(crate) fn monotonic() -> Instant {
    #[cfg(test)]
    if let Some((monotonic, _)) = virtual_clock::now() {
        return monotonic;
    }
    Instant::now()
}

/// The wall clock.
pub(crate) fn wall() -> SystemTime {
    #[cfg(test)]
    if let Some((_, wall)) = virtual_clock::now() {
        return wall;
    }
    SystemTime::now()
}

/// Clocks that a test sets, for its own thread.
#[cfg(test)]
pub(crate) mod virtual_clock {
    use std::{
        cell::Cell,
        time::{Instant, SystemTime},
    };

    thread_local!(static NOW: Cell<Option<(Instant, SystemTime)>> = const { Cell::new(None) });

    pub(super) fn now() -> Option<(Instant, SystemTime)> {
        NOW.get()
    }

    /// Sets this thread's clocks; `None` gives it the real ones back.
    pub(crate) fn set(now: Option<(Instant, SystemTime)>) {
        NOW.set(now);
    }
}
