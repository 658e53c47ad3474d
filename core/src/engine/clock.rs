//! When the wall clock is believed.

use super::{Engine, Now};
use core::time::Duration;

/// The earliest wall time that is believed: when this version was made (2026-11-01).
const MADE: u64 = 1_793_491_200_000;
/// So far may a wall clock lie before the last save and still be believed: clocks are set back a
/// little when they are corrected.
const SLACK: u64 = 600_000;

/// After so much time a wall clock is believed that lies before the last save: it was that save's
/// clock that was wrong. Otherwise one day in a wrong far future would keep a device from its hub for
/// ever.
const PATIENCE: Duration = Duration::from_secs(3600);

impl Engine {
    /// The wall time in milliseconds since 1970, where the clock can be believed: where it is past
    /// the time this version was made, the record was last saved and the last confirmed manifest was
    /// issued. A device without a
    /// battery-backed clock starts in 1970.
    pub fn wall_time(&self, now: Now) -> Option<u64> {
        let saved = match now.monotonic < PATIENCE {
            true => self.record.saved,
            false => 0,
        };
        let issued = self.record.manifest_issued.saturating_mul(1000);
        let floor = saved.max(MADE).max(issued).saturating_sub(SLACK);
        now.wall.filter(|wall| *wall >= floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Contract;
    use crate::engine::{Config, Input, Stored};
    use crate::update::{ImageState, Policy, Record, Restart};
    use alloc::string::String;

    #[test]
    fn a_wall_clock_is_believed_when_it_can_be() {
        let mut engine = Engine::new(Config {
            contract: Contract::built_in("iothub-dm").unwrap(),
            policy: Policy::default(),
            current_version: None,
            restart: Restart::None,
            boot_id: String::new(),
            installer: None,
            seed: 0,
        });
        let record = Record {
            saved: MADE + 10 * SLACK,
            ..Record::default()
        };
        let boot = Input::Boot {
            stored: Stored::Record(record.to_json()),
            image: ImageState::Old,
        };
        engine.handle(boot, Now::default());
        let at = |seconds, wall| {
            engine.wall_time(Now {
                monotonic: Duration::from_secs(seconds),
                wall,
            })
        };
        assert_eq!(at(0, None), None);
        assert_eq!(at(0, Some(0)), None, "1970");
        assert_eq!(at(0, Some(MADE)), None, "before the last save");
        let corrected = Some(MADE + 9 * SLACK);
        assert_eq!(at(0, corrected), corrected);
        // It was the last save's clock that was wrong.
        assert_eq!(at(3600, Some(MADE)), Some(MADE));
        assert_eq!(at(3600, Some(0)), None);
        // It is later than the newest manifest was issued, whatever the clock says.
        engine.record.manifest_issued = (MADE + 5 * SLACK) / 1000;
        let wall = |wall| {
            engine.wall_time(Now {
                monotonic: Duration::from_secs(3600),
                wall: Some(wall),
            })
        };
        assert_eq!(wall(MADE + 3 * SLACK), None);
        assert!(wall(MADE + 4 * SLACK).is_some());
    }
}
