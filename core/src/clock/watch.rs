//! Notices that the system's wall clock was set: what waits for a time of day must not sleep by what the
//! clock said before.

use std::{io, thread};

/// Watches the wall clock until it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    _end: system::End,
}

impl Watch {
    /// `was_set` is called, on a thread of its own, whenever the wall clock was set or the system has slept.
    pub(crate) fn start(was_set: impl Fn() + Send + 'static) -> io::Result<Self> {
        let (mut clock, end) = system::start()?;
        thread::Builder::new()
            .name("twinflash-clock".into())
            .spawn(move || {
                while clock.is_set() {
                    was_set();
                }
            })?;
        Ok(Self { _end: end })
    }
}

/// The kernel tells: a timer that never comes is cancelled when its clock is set.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use rustix::{
        fd::OwnedFd,
        io::{Errno, read},
        time::{
            Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
            timerfd_settime,
        },
    };
    use std::{io, sync::Arc};

    #[derive(Debug)]
    pub(super) struct Clock(Arc<OwnedFd>);

    /// The timer comes when this is dropped.
    #[derive(Debug)]
    pub(super) struct End(Arc<OwnedFd>);

    /// In the year 2242.
    const NEVER: i64 = 1 << 33;

    fn at(tv_sec: i64, tv_nsec: i64) -> Itimerspec {
        let zero = Timespec::default();
        Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: tv_sec as _,
                tv_nsec: tv_nsec as _,
            },
        }
    }

    pub(super) fn start() -> io::Result<(Clock, End)> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)?;
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(&timer, flags, &at(NEVER, 0))?;
        let timer = Arc::new(timer);
        Ok((Clock(Arc::clone(&timer)), End(timer)))
    }

    impl Clock {
        /// Waits until the clock is set; `false` where nobody wants to know any more.
        pub(super) fn is_set(&mut self) -> bool {
            loop {
                match read(&*self.0, &mut [0; 8]) {
                    Err(Errno::CANCELED) => return true,
                    Err(Errno::INTR) => {}
                    _ => return false,
                }
            }
        }
    }

    impl Drop for End {
        fn drop(&mut self) {
            let _ = timerfd_settime(&*self.0, TimerfdTimerFlags::empty(), &at(0, 1));
        }
    }
}

/// Nobody tells: it is looked at from time to time whether the two clocks have gone apart.
#[cfg(any(test, not(any(target_os = "linux", target_os = "android"))))]
mod looked_at {
    use crate::clock;
    use std::{
        io,
        sync::mpsc::{self, RecvTimeoutError},
        time::{Duration, Instant, SystemTime},
    };

    const EVERY: Duration = Duration::from_secs(10);
    /// What correcting a clock little by little comes to meanwhile, and more.
    const SLACK: Duration = Duration::from_secs(1);

    #[derive(Debug)]
    pub(super) struct Clock {
        ended: mpsc::Receiver<()>,
        pub(super) every: Duration,
        last: (Instant, SystemTime),
    }

    #[derive(Debug)]
    pub(super) struct End {
        _end: mpsc::Sender<()>,
    }

    fn now() -> (Instant, SystemTime) {
        (clock::monotonic(), clock::wall())
    }

    #[cfg_attr(test, expect(clippy::unnecessary_wraps))]
    pub(super) fn start() -> io::Result<(Clock, End)> {
        let (end, ended) = mpsc::channel();
        let clock = Clock {
            ended,
            every: EVERY,
            last: now(),
        };
        Ok((clock, End { _end: end }))
    }

    impl Clock {
        /// As the other one's.
        pub(super) fn is_set(&mut self) -> bool {
            while self.ended.recv_timeout(self.every) == Err(RecvTimeoutError::Timeout) {
                let (before, now) = (self.last, now());
                self.last = now;
                let right = before.1 + now.0.duration_since(before.0);
                let off = now.1.duration_since(right).unwrap_or_else(|e| e.duration());
                if off > SLACK {
                    return true;
                }
            }
            false
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use looked_at as system;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::virtual_clock;
    use std::{
        sync::mpsc,
        time::{Duration, Instant, SystemTime},
    };

    #[test]
    fn clocks_that_go_apart() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let later = |seconds| Duration::from_secs(seconds);
        virtual_clock::set(Some((start, wall)));
        let (mut clock, end) = looked_at::start().unwrap();
        clock.every = Duration::from_millis(1);
        for wall in [wall + later(3600), wall - later(3600)] {
            virtual_clock::set(Some((start + later(10), wall)));
            assert!(clock.is_set());
        }
        virtual_clock::set(Some((start + later(20), wall - later(3590))));
        drop(end);
        assert!(!clock.is_set());
        virtual_clock::set(None);
    }

    /// The kernel's part needs a clock that is set: it is, to what it says, where the full tests are
    /// asked for and this is allowed.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_clock_that_is_set() {
        use rustix::time::{ClockId, clock_gettime, clock_settime};
        let (told, hears) = mpsc::channel();
        let watch = Watch::start(move || told.send(()).unwrap()).unwrap();
        let set = || {
            let now = clock_gettime(ClockId::Realtime);
            clock_settime(ClockId::Realtime, now).is_ok()
        };
        let may = std::env::var_os("TWINFLASH_FULL").is_some();
        if may && set() {
            let long = Duration::from_secs(60);
            hears.recv_timeout(long).unwrap();
            // And again.
            assert!(set());
            hears.recv_timeout(long).unwrap();
        }
        // Its thread ends, and with it the sender.
        drop(watch);
        hears.iter().for_each(drop);
    }
}
