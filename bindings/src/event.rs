//! Events, and the lines of the log they make.

use crate::{
    boundary::{c_text, drop_text, raw_text},
    state::{
        outcome_of, phase_of, twinflash_outcome, twinflash_phase, twinflash_stage, twinflash_wait,
        waiting_of,
    },
    status::{of_code, twinflash_status},
};
#[cfg(feature = "mqtt")]
use engine::device::DeviceEvent;
use engine::{engine::Event, update::Failure};
use std::{ffi::c_char, fmt::Write, time::Duration};

/// What an event says. More kinds may come: ignore those you do not know.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "mqtt"), expect(dead_code))]
pub enum twinflash_event_kind {
    /// Something that has no kind yet in this version; `text` says it.
    Other = 0,
    /// A request was accepted: `uri` (without its query), `version`.
    Accepted = 1,
    /// The update has come to a phase: `phase`.
    Phase = 2,
    /// So much of the image is there: `bytes` of `total`. At most ten a second, and one as an attempt ends.
    Progress = 3,
    /// An attempt failed and is repeated: `status`, `message`, `after_seconds`.
    Retry = 4,
    /// The image passed its checks: `bytes`, `sha256`; `message` says what vouches for it, "signature",
    /// "checks" or "transport".
    Verified = 5,
    /// The update ended: `outcome`; where it failed, `status` and `message`.
    Ended = 6,
    /// A request was refused: `status`, `message`.
    Refused = 7,
    /// Something a person should look at, such as a line of what a command printed that failed: `message`.
    Warning = 8,
    /// The application is to fetch something else, or nothing any more: twinflash_updater_next_wanted.
    Wanted = 9,
    /// The update waits for something else than before: `waiting_on` and, in a word, `message`;
    /// `waiting_before`; `after_seconds`, until it is over or somebody is asked again, negative where nobody
    /// knows.
    Waiting = 10,
    /// Other keys are trusted from now on: `version`, the new key set's.
    KeysRotated = 11,
    /// twinflash_device is connected to its hub: `message` names the server.
    Connected = 20,
    /// It is not: `message`; it tries again after `after_seconds`.
    Disconnected = 21,
    /// The wall time is not known, and connecting waits for it.
    WaitingForClock = 22,
    /// The hub did not do what it was asked for: `message`.
    HubRefused = 23,
}

/// How much a line of the log matters. A greater number matters less.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum twinflash_level {
    /// An update failed.
    Error = 1,
    /// A person should look at it; a retry; a refusal; a lost connection.
    Warning = 2,
    /// The course of an update.
    Info = 3,
    /// Progress.
    Debug = 4,
}

/// Something that happened. Members that an event's kind does not name are NULL, 0, or as
/// TWINFLASH_PHASE_NONE. All texts are UTF-8 and live as long as the event. Members may be added at the
/// end in later versions: do not copy the structure, and do not make one.
#[repr(C)]
pub struct twinflash_event {
    /// What it says.
    pub kind: twinflash_event_kind,
    /// How much it matters.
    pub level: twinflash_level,
    /// The phase the update has come to.
    pub phase: twinflash_phase,
    /// How the update ended.
    pub outcome: twinflash_outcome,
    /// Why something failed.
    pub status: twinflash_status,
    /// Bytes of the image that are there.
    pub bytes: u64,
    /// The image's size in bytes; 0 where it is not known.
    pub total: u64,
    /// So long until the next attempt, in seconds.
    pub after_seconds: f64,
    /// The event as one line for people. Never NULL.
    pub text: *const c_char,
    /// See the kinds.
    pub message: *const c_char,
    /// The image's address, without user name and query.
    pub uri: *const c_char,
    /// The version asked for.
    pub version: *const c_char,
    /// The image's SHA-256 in lower-case hexadecimal.
    pub sha256: *const c_char,
    /// What the update waits for.
    pub waiting_on: twinflash_wait,
    /// What cannot begin until then.
    pub waiting_before: twinflash_stage,
}

// SAFETY: its texts are its own.
unsafe impl Send for twinflash_event {}

impl Drop for twinflash_event {
    fn drop(&mut self) {
        for text in [self.text, self.message, self.uri, self.version, self.sha256] {
            // SAFETY: made by `raw_text`, or null.
            unsafe { drop_text(text.cast_mut()) };
        }
    }
}

/// Frees an event from twinflash_updater_next_event. NULL is fine. Any thread.
///
/// # Safety
/// `event` is null or from twinflash_updater_next_event, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_event_free(event: *mut twinflash_event) {
    if !event.is_null() {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(event) });
    }
}

use twinflash_event_kind as Kind;
use twinflash_level as Level;

impl twinflash_event {
    fn new(kind: Kind, level: Level, text: &str) -> Self {
        Self {
            kind,
            level,
            phase: twinflash_phase::None,
            outcome: twinflash_outcome::None,
            status: twinflash_status::Ok,
            bytes: 0,
            total: 0,
            after_seconds: 0.0,
            text: c_text(text).into_raw(),
            message: std::ptr::null(),
            uri: std::ptr::null(),
            version: std::ptr::null(),
            sha256: std::ptr::null(),
            waiting_on: twinflash_wait::None,
            waiting_before: twinflash_stage::None,
        }
    }

    fn message(mut self, message: &str) -> Self {
        self.message = raw_text(Some(message));
        self
    }

    fn failure(mut self, failure: &Failure) -> Self {
        self.status = of_code(failure.code);
        self.message(&failure.message)
    }

    pub(crate) fn of_update(event: &Event) -> Self {
        match event {
            Event::Accepted { uri, version } => {
                let mut text = format!("accepted: {uri}");
                if let Some(version) = version {
                    let _ = write!(text, ", version {version}");
                }
                let mut made = Self::new(Kind::Accepted, Level::Info, &text);
                made.uri = raw_text(Some(uri));
                made.version = raw_text(version.as_deref());
                made
            }
            Event::Phase(phase) => {
                let mut made = Self::new(Kind::Phase, Level::Info, phase.as_str());
                made.phase = phase_of(Some(*phase));
                made
            }
            Event::Progress { bytes, total } => {
                let text = match total {
                    Some(total) => format!("{bytes} of {total} bytes"),
                    None => format!("{bytes} bytes"),
                };
                let mut made = Self::new(Kind::Progress, Level::Debug, &text);
                (made.bytes, made.total) = (*bytes, total.unwrap_or_default());
                made
            }
            Event::Wanted => Self::new(
                Kind::Wanted,
                Level::Debug,
                "something else is to be fetched",
            ),
            Event::Retry { failure, after } => {
                let text = format!("trying again in {}: {failure}", seconds(*after));
                let mut made = Self::new(Kind::Retry, Level::Warning, &text).failure(failure);
                made.after_seconds = after.as_secs_f64();
                made
            }
            Event::Waiting(waiting) => {
                let (on, before) = (waiting.on.as_str(), waiting.before.as_str());
                let text = format!("waiting for {on} before {before}");
                let mut made = Self::new(Kind::Waiting, Level::Info, &text).message(on);
                (made.waiting_on, made.waiting_before, made.after_seconds) =
                    waiting_of(Some(waiting));
                made
            }
            Event::Verified { by, bytes, sha256 } => {
                let by = by.as_str();
                let text = format!("verified by {by}: {bytes} bytes, sha256 {sha256}");
                let mut made = Self::new(Kind::Verified, Level::Info, &text).message(by);
                made.bytes = *bytes;
                made.sha256 = raw_text(Some(sha256));
                made
            }
            Event::Ended(outcome) => {
                let level = match outcome.is_success() {
                    true => Level::Info,
                    false => Level::Error,
                };
                let mut made = Self::new(Kind::Ended, level, &outcome.to_string());
                if let Some(failure) = outcome.failure() {
                    made = made.failure(failure);
                }
                made.outcome = outcome_of(Some(outcome));
                made
            }
            Event::Refused(failure) => {
                let text = format!("refused: {failure}");
                Self::new(Kind::Refused, Level::Warning, &text).failure(failure)
            }
            Event::Warning(message) => {
                Self::new(Kind::Warning, Level::Warning, message).message(message)
            }
            Event::KeysRotated { version } => {
                let version = version.to_string();
                let text = format!("other keys are trusted: version {version} of the key set");
                let mut made = Self::new(Kind::KeysRotated, Level::Info, &text);
                made.version = raw_text(Some(&version));
                made
            }
            other => Self::new(Kind::Other, Level::Info, &format!("{other:?}")),
        }
    }

    #[cfg(feature = "mqtt")]
    pub(crate) fn of_device(event: &DeviceEvent) -> Self {
        match event {
            DeviceEvent::Connected(session) => {
                let text = format!("connected to {}", session.server);
                Self::new(Kind::Connected, Level::Info, &text).message(&session.server)
            }
            DeviceEvent::Disconnected(why) => {
                let again = seconds(why.retry_in);
                let text = format!("disconnected: {}; next attempt in {again}", why.reason);
                let mut made =
                    Self::new(Kind::Disconnected, Level::Warning, &text).message(&why.reason);
                made.after_seconds = why.retry_in.as_secs_f64();
                made
            }
            DeviceEvent::WaitingForClock => Self::new(
                Kind::WaitingForClock,
                Level::Warning,
                "the wall time is not known yet; connecting waits for it",
            ),
            DeviceEvent::Refused(error) => {
                let error = error.to_string();
                let text = format!("refused by the hub: {error}");
                Self::new(Kind::HubRefused, Level::Warning, &text).message(&error)
            }
            other => Self::new(Kind::Other, Level::Info, &format!("{other:?}")),
        }
    }
}

fn seconds(duration: Duration) -> String {
    let tenths = duration.as_millis().saturating_add(50) / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_to_a_tenth() {
        for (millis, text) in [
            (0, "0.0 s"),
            (49, "0.0 s"),
            (50, "0.1 s"),
            (960, "1.0 s"),
            (61_249, "61.2 s"),
        ] {
            assert_eq!(seconds(Duration::from_millis(millis)), text);
        }
    }
}
