//! What can be asked of the update that runs, whatever its contract is: by a direct method, or by the
//! application.

use super::{After, Engine, Output, Status, Work};
use crate::contract::iso;
use crate::update::{Code, ConsentBy, Failure, Outcome, Phase};
use alloc::{format, string::ToString};
use core::time::Duration;
use serde_json::{Value, json};

/// The direct method that cancels the update that runs, in every contract that has no other use for
/// its name. Its payload is not looked at.
///
/// | answer | |
/// |---|---|
/// | 200 `{"cancelled":true}` | it is cancelled, and that is durable |
/// | 200 `{"cancelled":false}` | no update runs |
/// | 409 `{"cancelled":false,"message":"…"}` | the image is being applied, or has been |
pub const CANCEL_METHOD: &str = "cancelFirmwareUpdate";

/// The direct method that answers where everything stands, in every contract that has no other use
/// for its name: 200 and [`Status::to_json`]. Its payload is not looked at.
pub const STATUS_METHOD: &str = "getFirmwareUpdateStatus";

/// The direct method by which the user agrees to the update that waits for that, in every contract that
/// has no other use for its name. Its payload is not looked at. It is answered 200
/// `{"approved":true}`, durably, or `{"approved":false}` where nobody is asked; 403 where
/// [`ConsentBy::Local`](crate::update::ConsentBy::Local) keeps that to the device.
pub const APPROVE_METHOD: &str = "approveFirmwareUpdate";

/// The direct method by which the user puts an update off for `{"seconds":…}`, in every contract that has
/// no other use for its name.
///
/// | answer | |
/// |---|---|
/// | 200 `{"deferred":true}` | it is put off, and that is durable |
/// | 200 `{"deferred":false}` | no update runs |
/// | 400 `{"deferred":false,"message":"…"}` | the payload has no number of seconds |
/// | 409 `{"deferred":false,"message":"…"}` | the image is being applied, or has been |
pub const DEFER_METHOD: &str = "deferFirmwareUpdate";

/// The direct methods that every contract has.
pub const METHODS: [&str; 4] = [STATUS_METHOD, CANCEL_METHOD, APPROVE_METHOD, DEFER_METHOD];

impl Engine {
    /// Whether a direct method of this name is this engine's: one of its contract's, or one that every
    /// contract has ([`STATUS_METHOD`], [`CANCEL_METHOD`], [`APPROVE_METHOD`], [`DEFER_METHOD`]).
    pub fn takes_method(&self, name: &str) -> bool {
        self.config.contract.takes_method(name) || METHODS.contains(&name)
    }

    /// A direct method that every contract has.
    pub(super) fn control(&mut self, id: u64, name: &str, payload: &[u8]) {
        let (status, payload) = match name {
            CANCEL_METHOD => match self.can_cancel() {
                Ok(cancelled) => {
                    self.cancel();
                    (200, json!({ "cancelled": cancelled }))
                }
                Err(failure) => (409, json!({"cancelled": false, "message": failure.message})),
            },
            APPROVE_METHOD if self.config.policy.consent_by == ConsentBy::Local => {
                let message =
                    "this device's owner lets only somebody at the device agree to updates";
                (403, json!({"approved": false, "message": message}))
            }
            APPROVE_METHOD => {
                let approved = self.asks_consent().is_some();
                self.approve();
                (200, json!({ "approved": approved }))
            }
            DEFER_METHOD => match (seconds_of(payload), self.can_defer()) {
                (Err(message), _) => (400, json!({"deferred": false, "message": message})),
                (_, Err(failure)) => (409, json!({"deferred": false, "message": failure.message})),
                (Ok(time), Ok(deferred)) => {
                    self.defer(time);
                    (200, json!({ "deferred": deferred }))
                }
            },
            _ => (200, self.status().to_json()),
        };
        // After the save, if there is one: what is answered is durable.
        self.output(Output::Answer {
            id,
            status,
            payload: payload.to_string(),
        });
    }

    /// Whether there is an update that can be cancelled; `false` where none runs.
    ///
    /// # Errors
    /// [`Code::Busy`]: its image is being applied, or has been.
    pub fn can_cancel(&self) -> Result<bool, Failure> {
        match self.phase() {
            None => Ok(false),
            Some(phase) if phase <= Phase::Verifying => Ok(true),
            Some(phase) => {
                let text = format!("the update can no longer be cancelled: it is {phase}");
                Err(Failure::new(Code::Busy, text))
            }
        }
    }

    /// The running update ends now, before its download has stopped: what that still brings is of no
    /// matter, and its bytes are removed after it, by the same pipeline.
    pub(super) fn cancel(&mut self) {
        let Some(phase) = self.phase().filter(|_| self.can_cancel() == Ok(true)) else {
            return;
        };
        if self.work == Some(Work::Transfer) && self.after.is_none() {
            self.output(Output::StopDownload);
        }
        self.ended_for_good(Outcome::Cancelled(phase));
    }

    /// Whether a download is being stopped, to be paused or for another request.
    pub fn is_stopping(&self) -> bool {
        self.after.is_some()
    }

    /// Whether there is a download that can be paused, or gone on with.
    fn can_pause(&self) -> bool {
        matches!(self.phase(), Some(Phase::Waiting | Phase::Downloading))
    }

    pub(super) fn pause(&mut self) {
        if !self.can_pause() {
            return;
        }
        self.change(|update| update.paused = true);
        self.transfer.retry_at = None;
        if self.work == Some(Work::Transfer) {
            self.save();
            self.stop_transfer(After::Pause);
        } else {
            // The pause between two attempts ends here; what is paused uses up no budget.
            self.stop_counting();
            self.save();
        }
    }

    pub(super) fn resume(&mut self) {
        if !self.can_pause() {
            return;
        }
        self.transfer.retry_at = None;
        if self.record.running().is_some_and(|update| update.paused) {
            self.change(|update| update.paused = false);
            self.save();
        }
    }

    pub(super) fn stop_transfer(&mut self, after: After) {
        if self.after.is_none() {
            self.output(Output::StopDownload);
        }
        // One that is to be replaced is not paused.
        if !matches!(self.after, Some(After::Desired)) {
            self.after = Some(after);
        }
    }
}

/// The time to be left alone for.
fn seconds_of(payload: &[u8]) -> Result<Duration, &'static str> {
    let payload: Value = serde_json::from_slice(payload).unwrap_or_default();
    let seconds = payload.get("seconds").and_then(Value::as_f64);
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or(r#"{"seconds": …} is needed: for how long, more than 0"#)
}

impl Status {
    /// As JSON. Every member is always there; `null` is none.
    ///
    /// ```json
    /// {"phase":"downloading","version":"1.0.1","bytes":1048576,"size":4194304,"outcome":null,"error":null,
    ///  "retry":{"code":"network","message":"…","attempts":3,"afterSeconds":7.5},"paused":false,"waiting":null,
    ///  "runningVersion":"1.0.0"}
    /// ```
    ///
    /// - `phase`: the running update's, such as `downloading` ([`Phase::as_str`]); `null` when none runs
    /// - `version`: asked for by the running or last update
    /// - `bytes`, `size`: of the image, there and in all
    /// - `outcome`: of the last update, such as `failed` ([`Outcome::as_str`]); `null` while one runs
    /// - `error`: `{code, message}` where the outcome has one
    /// - `retry`: see [`Retrying`](super::Retrying); `afterSeconds` is `null` while an attempt is being
    ///   made, or the download is paused
    /// - `paused`: the download is paused
    /// - `waiting`: see [`Waiting`](super::Waiting): `{for, before, afterSeconds, until}`, such as `window`,
    ///   `apply`, and the time as `2026-11-28T02:00:00.000Z`; `afterSeconds` is `null` where no time is known
    ///   to end it, and `until` also where the clock cannot be believed
    /// - `runningVersion`: the version that runs
    pub fn to_json(&self) -> Value {
        let error = self.outcome.as_ref().and_then(Outcome::failure);
        let retry = self.retry.as_ref().map(|retry| {
            json!({
                "code": retry.failure.code,
                "message": retry.failure.message,
                "attempts": retry.attempts,
                "afterSeconds": retry.after.map(|after| after.as_millis() as f64 / 1000.0),
            })
        });
        let seconds = |after: Duration| after.as_millis() as f64 / 1000.0;
        let waiting = self.waiting.map(|waiting| {
            json!({
                "for": waiting.on.as_str(),
                "before": waiting.before.as_str(),
                "afterSeconds": waiting.after.map(seconds),
                "until": waiting.until.and_then(iso),
            })
        });
        json!({
            "phase": self.phase.map(Phase::as_str),
            "version": self.version,
            "bytes": self.bytes,
            "size": self.size,
            "outcome": self.outcome.as_ref().map(Outcome::as_str),
            "error": error.map(|error| json!({"code": error.code, "message": error.message})),
            "retry": retry,
            "paused": self.paused,
            "waiting": waiting,
            "runningVersion": self.running_version,
        })
    }
}
