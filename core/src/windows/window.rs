//! One maintenance window.

use crate::update::{Code, Failure};
use jiff::{
    Timestamp,
    civil::{Date, Time, Weekday},
    tz::TimeZone,
};
use std::fmt;

/// Every window opens within a week, and one that the clocks skip on that day in the week after.
const DAYS_AHEAD: i64 = 15;
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// A time that comes again each week.
///
/// Where the clocks are set forward, a time they skip is as much later as they are set; where they are set
/// back, a time that comes twice is the first.
#[derive(Clone)]
pub struct Window {
    days: Vec<Weekday>,
    from: Time,
    to: Time,
    zone: TimeZone,
}

impl Window {
    /// A window that opens on `days` (`mon` … `sun`; none is every day) at `from` and closes at `to`, which
    /// is on the next day where it is not later than `from`. Times are `HH:MM`, and `24:00` for the end of
    /// a day. `zone` is `UTC`, an IANA zone such as `Europe/Berlin`, of which the system must have a
    /// description (Debian's package `tzdata`), or a zone as POSIX writes it, such as
    /// `CET-1CEST,M3.5.0,M10.5.0/3`.
    ///
    /// ```
    /// use twinflash::windows::Window;
    /// assert!(Window::new(&["sat", "sun"], "22:00", "04:30", "UTC").is_ok());
    /// let failure = Window::new(&["saturday"], "22:00", "04:30", "UTC").unwrap_err();
    /// assert!(failure.message.contains("\"saturday\" is no day"), "{failure}");
    /// ```
    ///
    /// # Errors
    /// [`Code::InvalidConfig`], naming what is no day, no time or no zone.
    pub fn new<S: AsRef<str>>(
        days: &[S],
        from: &str,
        to: &str,
        zone: &str,
    ) -> Result<Self, Failure> {
        let days: Result<Vec<_>, _> = days.iter().map(|name| day(name.as_ref())).collect();
        Ok(Self {
            days: days?,
            from: match from {
                "24:00" => {
                    return Err(wrong(
                        &"a window cannot open at 24:00: that is 00:00 of the next day",
                    ));
                }
                from => time(from)?,
            },
            to: match to {
                "24:00" => Time::midnight(),
                to => time(to)?,
            },
            zone: time_zone(zone)?,
        })
    }

    /// The window that opens on this day, in milliseconds since 1970; none where it does not open then.
    fn on(&self, day: Date) -> Option<(u64, u64)> {
        if !self.days.is_empty() && !self.days.contains(&day.weekday()) {
            return None;
        }
        let last = match self.to > self.from {
            true => day,
            false => day.tomorrow().ok()?,
        };
        let wall = |day: Date, time| {
            let at = self.zone.to_ambiguous_timestamp(day.to_datetime(time));
            u64::try_from(at.compatible().ok()?.as_millisecond()).ok()
        };
        let (from, to) = (wall(day, self.from)?, wall(last, self.to)?);
        (from < to).then_some((from, to))
    }

    /// Every time it is open from this one on, and for a while.
    pub(super) fn openings(&self, wall: u64) -> impl Iterator<Item = (u64, u64)> {
        let now = i64::try_from(wall)
            .ok()
            .and_then(|wall| Timestamp::from_millisecond(wall).ok());
        let today = now.map(|now| self.zone.to_datetime(now).date());
        (-1..=DAYS_AHEAD).filter_map(move |days| {
            let day = today?.checked_add(jiff::Span::new().days(days)).ok()?;
            self.on(day).filter(|(_, to)| *to > wall)
        })
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            days,
            from,
            to,
            zone,
        } = self;
        write!(
            f,
            "{days:?} {from}-{to} {}",
            zone.iana_name().unwrap_or("?")
        )
    }
}

fn wrong(message: &dyn fmt::Display) -> Failure {
    Failure::new(Code::InvalidConfig, message)
}

fn day(name: &str) -> Result<Weekday, Failure> {
    let known = DAYS.iter().find(|(known, _)| *known == name);
    known.map(|(_, day)| *day).ok_or_else(|| {
        wrong(&format_args!(
            "\"{name}\" is no day; there are mon, tue, wed, thu, fri, sat and sun"
        ))
    })
}

fn time(text: &str) -> Result<Time, Failure> {
    let parts = text.split_once(':').and_then(|(hours, minutes)| {
        let two = |digits: &str| match digits.len() {
            2 if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            _ => None,
        };
        Time::new(two(hours)?, two(minutes)?, 0, 0).ok()
    });
    parts.ok_or_else(|| wrong(&format_args!("\"{text}\" is no time such as 02:30")))
}

fn time_zone(name: &str) -> Result<TimeZone, Failure> {
    if name == "UTC" {
        return Ok(TimeZone::UTC);
    }
    TimeZone::get(name).or_else(|_| TimeZone::posix(name)).map_err(|_| {
        wrong(&format_args!(
            "\"{name}\" is no time zone that this system knows: an IANA zone such as Europe/Berlin needs the system's zone files (tzdata); UTC and a POSIX zone such as CET-1CEST,M3.5.0,M10.5.0/3 do not"
        ))
    })
}
