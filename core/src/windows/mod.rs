//! Maintenance windows: when an update may be downloaded, and when it may be applied, by the wall clock
//! of some place.

#[cfg(feature = "windows")]
mod window;
#[cfg(not(feature = "windows"))]
#[path = "no_window.rs"]
mod window;

pub use window::Window;

use crate::engine::{Calendar, Opening};
use crate::update::Stage;

/// The windows of both stages. Without one of its own a stage may begin at any time.
#[derive(Debug, Clone, Default)]
pub struct Windows {
    /// When images may be downloaded. A download that runs when its window closes stops, and goes on when
    /// one opens.
    pub download: Vec<Window>,
    /// When images may be applied. What has begun is not stopped when a window closes.
    pub apply: Vec<Window>,
}

impl Windows {
    fn of(&self, stage: Stage) -> &[Window] {
        match stage {
            Stage::Download => &self.download,
            Stage::Apply => &self.apply,
        }
    }
}

impl Calendar for Windows {
    fn at(&self, stage: Stage, wall: Option<u64>) -> Opening {
        let windows = self.of(stage);
        if windows.is_empty() {
            return Opening::Open { until: None };
        }
        let Some(wall) = wall else {
            return Opening::Closed { until: None };
        };
        let mut openings: Vec<_> = windows
            .iter()
            .flat_map(|window| window.openings(wall))
            .collect();
        openings.sort_unstable();
        // Windows that touch are one.
        let mut end = wall;
        for (from, to) in &openings {
            if *from > end {
                break;
            }
            end = end.max(*to);
        }
        match end > wall {
            true => Opening::Open { until: Some(end) },
            false => Opening::Closed {
                until: openings.first().map(|(from, _)| *from),
            },
        }
    }
}

#[cfg(all(test, feature = "windows"))]
mod tests {
    use super::*;
    use crate::update::Code;
    use jiff::Timestamp;

    fn ms(text: &str) -> u64 {
        let at: Timestamp = text.parse().unwrap();
        at.as_millisecond() as u64
    }

    fn windows(list: &[(&[&str], &str, &str, &str)]) -> Windows {
        Windows {
            apply: list
                .iter()
                .map(|(days, from, to, zone)| Window::new(days, from, to, zone).unwrap())
                .collect(),
            ..Windows::default()
        }
    }

    /// `(now, open, until)` of each.
    fn check(windows: &Windows, times: &[(&str, bool, &str)]) {
        for (now, open, until) in times {
            let until = Some(ms(until));
            let expected = match open {
                true => Opening::Open { until },
                false => Opening::Closed { until },
            };
            assert_eq!(windows.at(Stage::Apply, Some(ms(now))), expected, "{now}");
        }
    }

    #[test]
    fn without_windows_it_is_always_open_and_without_a_clock_never() {
        let none = Windows::default();
        assert_eq!(none.at(Stage::Apply, None), Opening::Open { until: None });
        let some = windows(&[(&[], "02:00", "04:00", "UTC")]);
        assert_eq!(some.at(Stage::Apply, None), Opening::Closed { until: None });
        let open = Opening::Open { until: None };
        assert_eq!(some.at(Stage::Download, None), open, "it has none");
        // A clock at its end, or before it.
        assert_eq!(
            some.at(Stage::Apply, Some(u64::MAX)),
            Opening::Closed { until: None }
        );
        assert!(matches!(
            some.at(Stage::Apply, Some(0)),
            Opening::Closed { until: Some(_) }
        ));
    }

    #[test]
    fn days_midnight_and_neighbours() {
        // 2026-11-28 is a Saturday.
        check(
            &windows(&[(&["fri"], "22:00", "04:00", "UTC")]),
            &[
                ("2026-11-27T21:59:59.999Z", false, "2026-11-27T22:00:00Z"),
                ("2026-11-27T22:00:00Z", true, "2026-11-28T04:00:00Z"),
                ("2026-11-28T03:59:59Z", true, "2026-11-28T04:00:00Z"),
                ("2026-11-28T04:00:00Z", false, "2026-12-04T22:00:00Z"),
                ("2026-11-28T22:30:00Z", false, "2026-12-04T22:00:00Z"),
            ],
        );
        let two = windows(&[
            (&[], "01:00", "02:00", "UTC"),
            (&[], "02:00", "24:00", "UTC"),
            (&["sat"], "00:00", "00:30", "UTC"),
        ]);
        check(
            &two,
            &[
                ("2026-11-26T01:30:00Z", true, "2026-11-27T00:00:00Z"),
                ("2026-11-27T00:30:00Z", false, "2026-11-27T01:00:00Z"),
                ("2026-11-27T23:30:00Z", true, "2026-11-28T00:30:00Z"),
            ],
        );
        // A whole day, each day: it never closes in sight.
        let always = windows(&[(&[], "00:00", "00:00", "UTC")]);
        let opening = always.at(Stage::Apply, Some(ms("2026-11-26T01:30:00Z")));
        assert!(
            matches!(opening, Opening::Open { until: Some(until) } if until > ms("2026-12-05T00:00:00Z"))
        );
    }

    #[test]
    fn summer_time_comes_and_goes() {
        // In Berlin the clocks go from 02:00 to 03:00 on 2026-03-29 and from 03:00 to 02:00 on 2026-10-25.
        for zone in ["Europe/Berlin", "CET-1CEST,M3.5.0,M10.5.0/3"] {
            check(
                &windows(&[(&[], "01:30", "04:00", zone)]),
                &[
                    ("2026-03-28T00:30:00Z", true, "2026-03-28T03:00:00Z"),
                    // An hour and a half long.
                    ("2026-03-29T00:30:00Z", true, "2026-03-29T02:00:00Z"),
                    ("2026-03-30T00:00:00Z", true, "2026-03-30T02:00:00Z"),
                    // Three and a half.
                    ("2026-10-24T23:30:00Z", true, "2026-10-25T03:00:00Z"),
                    ("2026-10-25T03:00:00Z", false, "2026-10-26T00:30:00Z"),
                ],
            );
            // What opens in the hour that is skipped opens an hour later…
            check(
                &windows(&[(&[], "02:30", "05:00", zone)]),
                &[("2026-03-29T00:45:00Z", false, "2026-03-29T01:30:00Z")],
            );
            // …and what lies in it whole is not shorter for it.
            check(
                &windows(&[(&["sun"], "02:00", "02:30", zone)]),
                &[
                    ("2026-03-28T00:00:00Z", false, "2026-03-29T01:00:00Z"),
                    ("2026-03-29T01:00:00Z", true, "2026-03-29T01:30:00Z"),
                ],
            );
            // The last hour of it is gone: nothing opens on that day.
            check(
                &windows(&[(&["sun"], "02:00", "03:00", zone)]),
                &[("2026-03-28T00:00:00Z", false, "2026-04-05T00:00:00Z")],
            );
            // The hour that comes twice: from the first time on.
            check(
                &windows(&[(&[], "02:30", "02:45", zone)]),
                &[
                    ("2026-10-25T00:30:00Z", true, "2026-10-25T00:45:00Z"),
                    ("2026-10-25T01:30:00Z", false, "2026-10-26T01:30:00Z"),
                ],
            );
        }
    }

    #[test]
    fn zones_away_from_utc() {
        // Another day there, and a zone that is not whole hours away.
        check(
            &windows(&[(&["mon"], "00:15", "01:00", "Pacific/Auckland")]),
            &[("2026-11-28T00:00:00Z", false, "2026-11-29T11:15:00Z")],
        );
        check(
            &windows(&[(&["sat"], "00:00", "01:00", "Asia/Kathmandu")]),
            &[("2026-11-27T18:15:00Z", true, "2026-11-27T19:15:00Z")],
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (days, from, to, zone, named) in [
            (["Mon"], "02:00", "03:00", "UTC", "\"Mon\" is no day"),
            (["mon"], "2:00", "03:00", "UTC", "\"2:00\" is no time"),
            (["mon"], "02:00", "24:01", "UTC", "\"24:01\" is no time"),
            (["mon"], "02:00", "+3:00", "UTC", "\"+3:00\" is no time"),
            (["mon"], "24:00", "03:00", "UTC", "24:00"),
            (
                ["mon"],
                "02:00",
                "03:00",
                "Mars/Base",
                "\"Mars/Base\" is no time zone",
            ),
            (
                ["mon"],
                "02:00",
                "03:00",
                "../../etc/passwd",
                "is no time zone",
            ),
        ] {
            let failure = Window::new(&days, from, to, zone).unwrap_err();
            assert_eq!(failure.code, Code::InvalidConfig);
            assert!(failure.message.contains(named), "{failure}");
        }
    }

    /// Minute by minute through both changes of a year: what it says is true a minute before and at the
    /// time it names.
    #[test]
    fn what_is_announced_comes() {
        let windows = windows(&[
            (&["sat", "sun"], "23:10", "02:40", "Europe/Berlin"),
            (&["sun"], "02:20", "03:05", "Europe/Berlin"),
            (&["wed"], "12:00", "12:01", "America/New_York"),
        ]);
        let is_open = |wall| matches!(windows.at(Stage::Apply, Some(wall)), Opening::Open { .. });
        for (first, last) in [
            ("2026-03-26T00:00:00Z", "2026-04-02T00:00:00Z"),
            ("2026-10-22T00:00:00Z", "2026-10-30T00:00:00Z"),
        ] {
            for wall in (ms(first)..ms(last)).step_by(60_000) {
                let (open, until) = match windows.at(Stage::Apply, Some(wall)) {
                    Opening::Open { until } => (true, until.unwrap()),
                    Opening::Closed { until } => (false, until.unwrap()),
                };
                assert!(until > wall);
                assert_eq!(is_open(until - 1), open, "{wall} {until}");
                assert_eq!(is_open(until), !open, "{wall} {until}");
            }
        }
    }
}
