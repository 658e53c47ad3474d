//! The start: what the record says is gone on with.

use super::finish::{RESTART_ATTEMPTS, ROLLBACK_ATTEMPTS};
use super::{Engine, Event, Step, Stored};
use crate::update::{Code, Failure, ImageState, Outcome, Phase, Record, Restart};
use alloc::{format, string::String};

impl Engine {
    pub(super) fn boot(&mut self, stored: Stored, image: ImageState) {
        self.booted = true;
        self.record = match stored {
            Stored::Empty => Record::default(),
            Stored::Record(json) => Record::from_json(&json).unwrap_or_else(|| self.lost()),
            Stored::Lost => self.lost(),
        };
        self.take_kept_keys();
        self.started = self.wall_time(self.now);
        self.record.installer = self.config.installer.clone();
        let confirmed = self.record.confirmed_version.clone();
        self.running_version = self.config.current_version.clone().or(confirmed);
        match self.phase() {
            Some(phase) => self.go_on(phase, image),
            // A failed or cancelled update whose remains were not removed in time.
            None if image != ImageState::New && self.has_remains() => self.discard(),
            None => self.check_newer(),
        }
        self.report_state();
    }

    fn lost(&mut self) -> Record {
        self.event(Event::Warning(String::from(
            "the journal could not be read: what was known of updates is lost",
        )));
        Record {
            lost: true,
            ..Record::default()
        }
    }

    /// A record of a newer layout with an update that has not ended: this older version runs again,
    /// so it was rolled back.
    fn check_newer(&mut self) {
        let core = &mut self.record.core;
        if self.record.update.is_none() && core.last_key.is_some() && core.last_outcome.is_none() {
            core.last_outcome = Some("rolled-back".into());
            self.event(Event::Warning(String::from(
                "a newer version's update had not ended when this version was started: it was rolled back",
            )));
            self.save();
        }
    }

    fn go_on(&mut self, phase: Phase, image: ImageState) {
        self.event(Event::Phase(phase));
        let same_boot =
            self.record.update.as_ref().is_some_and(|update| {
                update.boot_id.as_deref() == Some(self.config.boot_id.as_str())
            });
        let not_asked = matches!(self.config.restart, Restart::Command(_))
            && (self.record.update.as_ref()).is_some_and(|update| {
                !update.restart_asked && update.restart_attempts < RESTART_ATTEMPTS
            });
        let verified = (self.record.update.as_ref()).is_some_and(|update| update.bytes.is_some());
        // It was activated, by a record that cannot be read any more: this is the one before it. Since its
        // download began, no image of an earlier update is the new one.
        if phase == Phase::Downloading
            && image == ImageState::New
            && let Some((bytes, sha256)) = self.whole()
        {
            self.change(|update| {
                update.paused = false;
                update.bytes = Some(bytes);
                update.sha256 = Some(sha256);
            });
            return self.activated();
        }
        match phase {
            Phase::Waiting => {}
            // As much, where it had been held up before it was applied.
            Phase::Verifying if verified && image == ImageState::New => self.activated(),
            // Verified, and held up before it is applied.
            Phase::Verifying if verified => {}
            Phase::Downloading | Phase::Verifying => {
                self.change(|update| update.phase = Phase::Downloading);
                // For the status: where it is paused, or has still to start.
                if let Some(update) = &self.record.update
                    && let Some(checkpoint) = &update.checkpoint
                {
                    self.transfer.offset = checkpoint.offset;
                    self.transfer.received = checkpoint.offset;
                    self.transfer.total = checkpoint.total;
                }
            }
            // Activating failed, and the old image is being made sure of.
            Phase::Applying
                if self
                    .record
                    .update
                    .as_ref()
                    .is_some_and(|u| u.reason.is_some()) =>
            {
                self.start_step(Step::Rollback);
            }
            Phase::Applying => match image {
                ImageState::New => self.activated(),
                ImageState::Old | ImageState::Partial => self.apply_again(),
                ImageState::Unknown => {
                    self.unsure = true;
                    self.apply_again();
                }
            },
            // The process restarted, not the device; or the command was not run yet.
            Phase::Rebooting if same_boot || not_asked => self.restart_soon(),
            Phase::Rebooting => match image {
                ImageState::Old | ImageState::Partial => self.boot_failed(),
                ImageState::New | ImageState::Unknown => self.start_counts(),
            },
            Phase::Confirming => match image {
                ImageState::Old | ImageState::Partial if self.config.restart != Restart::None => {
                    self.boot_failed();
                }
                _ => self.start_counts(),
            },
            Phase::RollingBack => match image {
                ImageState::Old | ImageState::Partial if same_boot || not_asked => {
                    self.restart_soon();
                }
                ImageState::Old | ImageState::Partial => self.is_rolled_back(),
                _ if self.rollbacks() >= ROLLBACK_ATTEMPTS => {
                    self.not_rolled_back(&format!(
                        "the new one still runs after {ROLLBACK_ATTEMPTS} rollbacks"
                    ));
                }
                ImageState::New | ImageState::Unknown => {
                    let reason = self.record.update.as_ref().and_then(|u| u.reason.clone());
                    self.roll_back(reason.unwrap_or_else(too_many_starts));
                }
            },
        }
    }

    fn apply_again(&mut self) {
        let attempts = self.record.update.as_ref().map_or(0, |u| u.apply_attempts);
        if attempts < self.config.policy.apply_attempts {
            return self.apply();
        }
        let text = format!("applying the image was started {attempts} times and never ended");
        self.not_applied(Failure::new(Code::InstallFailed, text));
    }

    /// How often rolling back was done and followed by a restart.
    fn rollbacks(&self) -> u32 {
        (self.record.update.as_ref()).map_or(0, |update| update.rollbacks)
    }

    fn boot_failed(&mut self) {
        let text = "the boot loader went back to the old image";
        let failure = Failure::new(Code::BootFailed, text);
        self.record.core.attempts = 0;
        self.ended_for_good(Outcome::RolledBack(failure));
    }

    /// A start of the new version, which has to prove itself.
    fn start_counts(&mut self) {
        // Where nothing has to be restarted, this start is not one of the new version.
        let counted = self.config.restart == Restart::None
            || self.record.update.as_ref().is_some_and(|u| u.start_counted);
        let starts = self
            .record
            .core
            .attempts
            .saturating_add(u32::from(!counted));
        if starts > self.config.policy.confirm_attempts {
            self.record.core.attempts = starts;
            return self.roll_back(too_many_starts());
        }
        self.confirm_from_now(starts);
    }
}

fn too_many_starts() -> Failure {
    let text = "the new version was started as often as it may be and did not prove itself";
    Failure::new(Code::NotConfirmed, text)
}

/// What [`guard`] decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guard {
    /// No new version has to prove itself.
    Nothing,
    /// This start was counted: save the record.
    Counted,
    /// The new version has used up its starts: save the record, then roll back.
    RollBack,
}

/// Counts a start of a new version before that version does anything, for one that may not come
/// to count it itself. `image` is what the installer's `inspect` answered.
pub fn guard(record: &mut Record, image: ImageState) -> Guard {
    let attempts = record.core.attempts;
    let Some(update) = record.update.as_mut().filter(|u| u.outcome.is_none()) else {
        return Guard::Nothing;
    };
    let new = matches!(image, ImageState::New | ImageState::Unknown);
    match update.phase {
        Phase::RollingBack if new => Guard::RollBack,
        Phase::Applying | Phase::Rebooting | Phase::Confirming if new => {
            if attempts >= update.starts_allowed.max(1) {
                update.phase = Phase::RollingBack;
                update.boot_id = None;
                update.reason = Some(too_many_starts());
                return Guard::RollBack;
            }
            record.core.attempts = attempts.saturating_add(1);
            update.start_counted = true;
            Guard::Counted
        }
        _ => Guard::Nothing,
    }
}
