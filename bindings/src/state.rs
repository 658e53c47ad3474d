//! Where an update stands, and how it ended.

use crate::{
    boundary::{drop_text, raw_text},
    status::{of_code, twinflash_status},
};
use engine::{
    engine::{Status, Wait, Waiting},
    update::{Outcome, Phase, Stage},
};
use std::ffi::c_char;

/// Where a running update stands.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_phase {
    /// None runs.
    None = 0,
    /// Accepted; the policy has not let it start yet.
    Waiting = 1,
    /// The image is being fetched, checked as it streams, and written.
    Downloading = 2,
    /// Every byte is there; the checks are compared.
    Verifying = 3,
    /// The image is being installed and activated. From here on it can not be cancelled.
    Applying = 4,
    /// Activated; it runs after a restart.
    Rebooting = 5,
    /// It runs, and has to prove itself.
    Confirming = 6,
    /// It failed after it was activated; the old image is being brought back.
    RollingBack = 7,
}

/// How an update ended. However it did, the next one can start.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_outcome {
    /// None has ended yet, or one runs.
    None = 0,
    /// The new image runs and has proved itself.
    Completed = 1,
    /// The version asked for was running already; nothing was fetched.
    UpToDate = 2,
    /// It failed; the old image is what it was.
    Failed = 3,
    /// The new image was activated and did not prove itself; the old one is back.
    RolledBack = 4,
    /// It was cancelled.
    Cancelled = 5,
    /// A newer request took its place.
    Superseded = 6,
    /// In a way this version of the interface has no number for.
    Other = 7,
}

pub(crate) fn phase_of(phase: Option<Phase>) -> twinflash_phase {
    match phase {
        None => twinflash_phase::None,
        Some(Phase::Waiting) => twinflash_phase::Waiting,
        Some(Phase::Downloading) => twinflash_phase::Downloading,
        Some(Phase::Verifying) => twinflash_phase::Verifying,
        Some(Phase::Applying) => twinflash_phase::Applying,
        Some(Phase::Rebooting) => twinflash_phase::Rebooting,
        Some(Phase::Confirming) => twinflash_phase::Confirming,
        Some(Phase::RollingBack) => twinflash_phase::RollingBack,
    }
}

pub(crate) fn outcome_of(outcome: Option<&Outcome>) -> twinflash_outcome {
    match outcome {
        None => twinflash_outcome::None,
        Some(Outcome::Completed) => twinflash_outcome::Completed,
        Some(Outcome::UpToDate) => twinflash_outcome::UpToDate,
        Some(Outcome::Failed { .. }) => twinflash_outcome::Failed,
        Some(Outcome::RolledBack(_)) => twinflash_outcome::RolledBack,
        Some(Outcome::Cancelled(_)) => twinflash_outcome::Cancelled,
        Some(Outcome::Superseded) => twinflash_outcome::Superseded,
        Some(_) => twinflash_outcome::Other,
    }
}

/// What an update waits for. More may come: an unknown one is to be taken as TWINFLASH_WAIT_OTHER.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(dead_code)] // What this version has no number for is C's.
pub enum twinflash_wait {
    /// For nothing of these.
    None = 0,
    /// The user has to agree: twinflash_updater_approve ("policy.consent").
    Consent = 1,
    /// The user has put it off: twinflash_updater_defer.
    Deferral = 2,
    /// A maintenance window ("policy.download_windows", "policy.apply_windows").
    Window = 3,
    /// The device is not ready ("policy.ready").
    Ready = 4,
    /// Its start is delayed ("policy.start_delay").
    StartDelay = 5,
    /// The clock cannot be believed yet, and a window or a manifest wants to know the time.
    Clock = 6,
    /// Something that has no number yet in this version.
    Other = 7,
}

/// What cannot begin while an update waits.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum twinflash_stage {
    /// It waits for nothing.
    None = 0,
    /// The download.
    Download = 1,
    /// What follows once the image is there and verified.
    Apply = 2,
}

/// What is waited for, what that holds up, and for how many seconds more: negative where that is not known.
pub(crate) fn waiting_of(waiting: Option<&Waiting>) -> (twinflash_wait, twinflash_stage, f64) {
    let Some(waiting) = waiting else {
        return (twinflash_wait::None, twinflash_stage::None, -1.0);
    };
    let on = match waiting.on {
        Wait::Consent => twinflash_wait::Consent,
        Wait::Deferral => twinflash_wait::Deferral,
        Wait::Window => twinflash_wait::Window,
        Wait::Ready => twinflash_wait::Ready,
        Wait::StartDelay => twinflash_wait::StartDelay,
        Wait::Clock => twinflash_wait::Clock,
    };
    let before = match waiting.before {
        Stage::Download => twinflash_stage::Download,
        Stage::Apply => twinflash_stage::Apply,
    };
    (
        on,
        before,
        waiting.after.map_or(-1.0, |after| after.as_secs_f64()),
    )
}

/// Where everything stands. Texts are UTF-8 and live as long as the structure. Members may be added at
/// the end in later versions: do not copy the structure, and do not make one.
#[repr(C)]
pub struct twinflash_state {
    /// The running update's phase.
    pub phase: twinflash_phase,
    /// How the last update ended.
    pub outcome: twinflash_outcome,
    /// The phase in which it failed or was cancelled.
    pub ended_in: twinflash_phase,
    /// Why it did, where it failed or was rolled back.
    pub status: twinflash_status,
    /// The download is paused.
    pub paused: bool,
    /// Bytes of the image that are there.
    pub bytes: u64,
    /// The image's size in bytes; 0 where it is not known.
    pub size: u64,
    /// The failure in words; NULL where there is none.
    pub message: *const c_char,
    /// The version the running or last update asked for; NULL where it named none.
    pub version: *const c_char,
    /// The version that runs now; NULL where it is not known.
    pub running_version: *const c_char,
    /// Why the last attempt at the download failed; TWINFLASH_STATUS_OK where none did, or bytes have
    /// come since.
    pub retry_status: twinflash_status,
    /// Attempts that have failed.
    pub retry_attempts: u32,
    /// The next attempt is made after so many seconds; negative while one is being made, and while the
    /// download is paused.
    pub retry_after_seconds: f64,
    /// That failure in words; NULL where there is none.
    pub retry_message: *const c_char,
    /// What the update waits for; docs/policy.md says how that is asked for.
    pub waiting_on: twinflash_wait,
    /// What cannot begin until then.
    pub waiting_before: twinflash_stage,
    /// It is over, or somebody is asked again, after so many seconds; negative where nobody knows.
    pub waiting_after_seconds: f64,
    /// When that is, in milliseconds since 1970; 0 where nobody knows, and while the clock cannot be
    /// believed.
    pub waiting_until: u64,
}

impl From<Status> for twinflash_state {
    fn from(status: Status) -> Self {
        let failure = status.outcome.as_ref().and_then(Outcome::failure);
        let ended_in = match &status.outcome {
            Some(Outcome::Failed { phase, .. } | Outcome::Cancelled(phase)) => Some(*phase),
            _ => None,
        };
        let retry = status.retry.as_ref();
        let after = retry.and_then(|retry| retry.after);
        let (waiting_on, waiting_before, waiting_after_seconds) =
            waiting_of(status.waiting.as_ref());
        let until = status.waiting.and_then(|waiting| waiting.until);
        Self {
            phase: phase_of(status.phase),
            outcome: outcome_of(status.outcome.as_ref()),
            ended_in: phase_of(ended_in),
            status: failure.map_or(twinflash_status::Ok, |failure| of_code(failure.code)),
            paused: status.paused,
            bytes: status.bytes,
            size: status.size.unwrap_or_default(),
            message: raw_text(failure.map(|failure| failure.message.as_str())),
            version: raw_text(status.version.as_deref()),
            running_version: raw_text(status.running_version.as_deref()),
            retry_status: retry.map_or(twinflash_status::Ok, |retry| of_code(retry.failure.code)),
            retry_attempts: retry.map_or(0, |retry| retry.attempts),
            retry_after_seconds: after.map_or(-1.0, |after| after.as_secs_f64()),
            retry_message: raw_text(retry.map(|retry| retry.failure.message.as_str())),
            waiting_on,
            waiting_before,
            waiting_after_seconds,
            waiting_until: until.unwrap_or_default(),
        }
    }
}

impl Drop for twinflash_state {
    fn drop(&mut self) {
        for text in [
            self.message,
            self.version,
            self.running_version,
            self.retry_message,
        ] {
            // SAFETY: made by `raw_text`, or null.
            unsafe { drop_text(text.cast_mut()) };
        }
    }
}

/// Frees a state from twinflash_updater_state. NULL is fine. Any thread.
///
/// # Safety
/// `state` is null or from twinflash_updater_state, and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn twinflash_state_free(state: *mut twinflash_state) {
    if !state.is_null() {
        // SAFETY: made by `Box::into_raw`.
        drop(unsafe { Box::from_raw(state) });
    }
}
