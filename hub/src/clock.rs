//! Wall time, in the forms the hub needs.

use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

/// What Azure writes for a time that never was.
pub(crate) const NEVER: &str = "0001-01-01T00:00:00Z";

/// Seconds since 1970.
pub(crate) fn unix() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// Now, as Azure writes times: UTC with seven digits of a second.
pub(crate) fn now() -> String {
    let now = OffsetDateTime::now_utc();
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:07}Z",
        now.year(),
        u8::from(now.month()),
        now.day(),
        now.hour(),
        now.minute(),
        now.second(),
        now.nanosecond() / 100
    )
}

/// Nanoseconds since 1970; never the same twice in practice.
pub(crate) fn unix_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| u64::try_from(elapsed.as_nanos()).ok())
        .unwrap_or(0)
}
