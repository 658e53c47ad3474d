//! Who and what holds an update up: its user, its owner's calendar, the device, its clock.

use super::super::case::Held;
use super::{Message, Outside};
use crate::engine::Reply;
use crate::update::Stage;
use crate::windows::{Window, Windows};
use std::{cell::Cell, time::Duration};

thread_local!(static OFF: Cell<i64> = const { Cell::new(0) });

/// How far this thread's wall clock is set off, in seconds.
pub(in super::super) fn set_off(seconds: i64) {
    OFF.set(seconds);
}

/// The wall clock's time since 1970.
pub(in super::super) fn wall(now: Duration) -> Duration {
    Duration::from_secs(1_800_000_000_u64.saturating_add_signed(OFF.get())) + now
}

/// The minutes of the day when each stage may begin; the first update is asked for at 8:00.
const DOWNLOAD: [u64; 2] = [8 * 60 + 30, 9 * 60];
const APPLY: [u64; 2] = [9 * 60 + 30, 10 * 60];

pub(in super::super) fn windows() -> Windows {
    let time = |minute: u64| format!("{:02}:{:02}", minute / 60, minute % 60);
    let window = |[from, to]: [u64; 2]| {
        vec![Window::new::<&str>(&[], &time(from), &time(to), "UTC").unwrap()]
    };
    Windows {
        download: window(DOWNLOAD),
        apply: window(APPLY),
    }
}

#[derive(Default)]
pub(in super::super) struct Holds {
    /// What the user has agreed to.
    agreed: Vec<(Stage, String)>,
    deferred: bool,
    /// How often it was asked whether the device is ready, and when that was so last.
    asked: u32,
    ready: Option<Duration>,
    /// When the clock was set last.
    set: Option<Duration>,
}

impl Outside {
    pub(super) fn set_clock(&mut self, by: i64) {
        set_off(OFF.get() + by);
        self.holds.set = Some(self.clock);
        super::super::device::set_clocks(self.clock);
        self.inbox.push_back(Message::ClockSet);
    }

    /// What its user says when asked: `None` agrees, or puts it off for so long.
    pub(in super::super) fn consents(
        &mut self,
        stage: Stage,
        version: Option<String>,
    ) -> Option<Duration> {
        if !std::mem::replace(&mut self.holds.deferred, true) {
            return Some(Duration::from_secs(600));
        }
        self.holds.agreed.push((stage, version.unwrap_or_default()));
        None
    }

    pub(in super::super) fn is_ready(&mut self) -> Reply {
        self.holds.asked += 1;
        match self.holds.asked % 3 {
            1 => Reply::Later(Some(Duration::from_secs(30))),
            2 => Reply::No,
            _ => {
                self.holds.ready = Some(self.clock);
                Reply::Yes
            }
        }
    }

    /// A stage begins: nothing may have been there to hold it up.
    pub(in super::super) fn begins(&mut self, stage: Stage, version: &str) {
        let minute = wall(self.clock).as_secs() / 60 % (24 * 60);
        let [from, to] = match stage {
            Stage::Download => DOWNLOAD,
            Stage::Apply => APPLY,
        };
        let agreed = |(of, to): &(Stage, String)| *of >= stage && to == version;
        let fits = match self.case.held {
            Some(Held::Consent) => self.holds.agreed.iter().any(agreed),
            // Who has just decided to begin may not know yet.
            Some(Held::Window) => {
                (from..to).contains(&minute) || self.holds.set == Some(self.clock)
            }
            Some(Held::Unready) => self.holds.ready == Some(self.clock),
            Some(Held::Delay) | None => true,
        };
        if !fits {
            let held = self.case.held;
            self.complain(format!("{stage} of {version} begins at {minute}: {held:?}"));
        }
    }
}
