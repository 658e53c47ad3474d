//! The course of an update from its activation to its end: restart, confirmation, rollback.

use super::{Confirming, Engine, Event, Output, Step, Work};
use crate::contract::Moment;
use crate::seconds::Seconds;
use crate::update::{Code, Confirm, Failure, Outcome, Phase, Restart};
use alloc::{format, string::ToString};
use core::time::Duration;

/// Reports may take so long before a restart.
const REPORT_TIME: Duration = Duration::from_secs(5);
/// A step that failed and may be tried again is tried again after this.
const STEP_PAUSE: Duration = Duration::from_secs(5);
/// A restart that was asked for, and of which nothing came, is asked for again after this. (A command
/// that restarts says itself when it has ended.)
const RESTART_TIME: Duration = Duration::from_secs(600);
/// A restart that was not possible is tried again after this.
const RESTART_PAUSE: Duration = Duration::from_secs(60);
/// A command that restarts is run so often without being known to have been started: each time this
/// process ended before that was saved.
pub(super) const RESTART_ATTEMPTS: u32 = 3;
/// Rolling back is tried so often in one start, and so often followed by a restart.
pub(super) const ROLLBACK_ATTEMPTS: u32 = 3;

impl Engine {
    /// A step of the installation has ended.
    pub(super) fn done(&mut self, step: Step, result: Result<(), Failure>) {
        if self.work != Some(Work::Step(step)) {
            return;
        }
        self.work = None;
        match (step, result) {
            (Step::Finish, Ok(())) => self.start_step(Step::Activate),
            (Step::Finish, Err(failure)) => self.not_applied(failure),
            (Step::Activate, Ok(())) => self.activated(),
            (Step::Activate, Err(failure)) => self.make_sure_of_the_old(failure),
            (Step::Confirm, Ok(())) => self.completed(),
            (Step::CheckHealth, Ok(())) => self.confirming.said = true,
            (Step::Confirm | Step::CheckHealth, Err(failure)) => {
                let again = self.now.monotonic + STEP_PAUSE;
                self.confirming.again_at = Some(again);
                self.event(Event::Warning(format!("not confirmed yet: {failure}")));
            }
            (Step::Compare, result) => self.compared(result),
            (Step::Rollback, Ok(())) => self.rolled_back(),
            (Step::Rollback, Err(failure)) => self.rollback_failed(failure),
            (Step::Abort, result) => {
                if let Err(failure) = result {
                    let text = format!("the new image could not be removed: {failure}");
                    self.event(Event::Warning(text));
                }
                self.consider_desired();
            }
        }
    }

    /// The new image is the active one.
    pub(super) fn activated(&mut self) {
        self.report(Moment::Applied);
        if self.config.restart == Restart::None {
            return self.confirm_from_now(0);
        }
        let now = self.wall_time(self.now);
        let boot_id = self.config.boot_id.clone();
        let allowed = self.config.policy.confirm_attempts;
        self.change(|update| {
            update.starts_allowed = allowed;
            update.times.rebooting = now;
            update.boot_id = Some(boot_id);
            update.restart_asked = false;
            update.restart_attempts = 0;
        });
        self.record.core.attempts = 0;
        self.enter(Phase::Rebooting);
        self.save();
        self.report(Moment::Rebooting);
        self.restart_soon();
    }

    /// The restart waits for what is still to be reported, but not for long.
    pub(super) fn restart_soon(&mut self) {
        self.restart_asked = false;
        self.restart_wait = false;
        self.restart_by = Some(self.now.monotonic + REPORT_TIME);
    }

    pub(super) fn advance_restart(&mut self) {
        let Some(by) = self.restart_by else { return };
        let reported = !self.restart_wait && (self.reporter.is_idle() || !self.link.connected);
        let due = self.now.monotonic >= by;
        if due || (reported && !self.restart_asked) {
            if due && self.restart_asked {
                let text = "the restart was asked for and did not come; it is asked for again";
                self.event(Event::Warning(text.to_string()));
            }
            self.restart_asked = true;
            self.restart_by = Some(self.now.monotonic + RESTART_TIME);
            // A command may restart this process, or another one and leave no trace of it: that it was
            // started is saved once it was. One that ends this process sooner is run again, but not for ever.
            if matches!(self.config.restart, Restart::Command(_)) {
                self.restart_by = None;
                self.change(|update| {
                    update.restart_attempts = update.restart_attempts.saturating_add(1)
                });
                self.save();
            }
            self.output(Output::Restart);
        }
    }

    /// The command that restarts has been started.
    pub(super) fn restarting(&mut self) {
        if self.restart_asked && matches!(self.config.restart, Restart::Command(_)) {
            self.change(|update| update.restart_asked = true);
            self.save();
        }
    }

    /// The restart is done and this engine is still there, or it was not possible.
    pub(super) fn restarted(&mut self, result: Result<(), Failure>) {
        if !core::mem::take(&mut self.restart_asked) {
            return;
        }
        if let Err(failure) = result {
            self.event(Event::Warning(format!("the restart failed: {failure}")));
            self.change(|update| {
                update.restart_asked = false;
                update.restart_attempts = 0;
            });
            self.save();
            self.restart_by = Some(self.now.monotonic + RESTART_PAUSE);
            self.restart_wait = true;
            return;
        }
        self.restart_by = None;
        match self.phase() {
            Some(Phase::Rebooting) => self.confirm_from_now(1),
            Some(Phase::RollingBack) => self.is_rolled_back(),
            _ => {}
        }
    }

    /// The new version runs and has to prove itself; so many starts of it have been counted.
    pub(super) fn confirm_from_now(&mut self, starts: u32) {
        self.record.core.attempts = starts;
        let allowed = self.config.policy.confirm_attempts;
        self.change(|update| {
            update.starts_allowed = allowed;
            update.start_counted = false;
        });
        self.confirming = Confirming {
            since: self.now.monotonic,
            ..Confirming::default()
        };
        self.enter(Phase::Confirming);
        self.save();
        self.report(Moment::Rebooted);
        if self.link.connected && self.config.policy.confirm == Confirm::Connected {
            self.read_twin();
        }
    }

    pub(super) fn advance_confirming(&mut self) {
        if self.work.is_some() {
            return;
        }
        let now = self.now.monotonic;
        let policy = &self.config.policy;
        if now.saturating_sub(self.confirming.since) >= policy.confirm_time {
            let seconds = Seconds(policy.confirm_time);
            let how = match &policy.confirm {
                Confirm::Connected => "did not reach its hub",
                Confirm::Health(_) => "did not pass its health check",
                Confirm::Call => "was not confirmed by its application",
                Confirm::None => "could not be confirmed",
            };
            let text = format!("the new version {how} within {seconds} s");
            return self.roll_back(Failure::new(Code::NotConfirmed, text));
        }
        if self.confirming.again_at.is_some_and(|at| now < at) {
            return;
        }
        self.confirming.again_at = None;
        let proved = self.confirming.said
            || match policy.confirm {
                Confirm::None => true,
                Confirm::Connected => self.confirming.reached,
                Confirm::Call | Confirm::Health(_) => false,
            };
        if proved {
            self.start_step(Step::Confirm);
        } else if matches!(policy.confirm, Confirm::Health(_)) {
            self.start_step(Step::CheckHealth);
        }
    }

    pub(super) fn completed(&mut self) {
        let now = self.wall_time(self.now);
        let Some(update) = &mut self.record.update else {
            return;
        };
        update.times.completed = now;
        update.checkpoint = None;
        let hash = update.request.sha256();
        let asked = hash.map(|hash| base16ct::lower::encode_string(&hash));
        self.record.confirmed_sha256 = update.sha256.clone().or(asked);
        if let Some(version) = &update.request.version {
            self.record.confirmed_version = Some(version.clone());
            self.running_version = Some(version.clone());
        }
        self.signed_is_confirmed();
        self.record.core.attempts = 0;
        self.ended(Outcome::Completed);
        self.consider_desired();
    }

    /// The new version runs and has failed: bring the old one back.
    pub(super) fn roll_back(&mut self, failure: Failure) {
        let restart = self.config.restart != Restart::None;
        let boot_id = restart.then(|| self.config.boot_id.clone());
        self.change(|update| {
            update.reason = Some(failure);
            update.boot_id = boot_id;
            update.restart_asked = false;
            update.restart_attempts = 0;
        });
        self.enter(Phase::RollingBack);
        self.save();
        self.report(Moment::RollingBack);
        self.start_step(Step::Rollback);
    }

    fn rolled_back(&mut self) {
        if self.phase() == Some(Phase::Applying) {
            let failure = self.reason();
            return self.failed(failure);
        }
        if self.config.restart == Restart::None {
            return self.is_rolled_back();
        }
        // Before the restart: one that does not bring the old image is not repeated for ever.
        self.change(|update| update.rollbacks = update.rollbacks.saturating_add(1));
        self.save();
        self.restart_soon();
    }

    /// The old version runs again.
    pub(super) fn is_rolled_back(&mut self) {
        let failure = self.reason();
        self.record.core.attempts = 0;
        self.ended_for_good(Outcome::RolledBack(failure));
    }

    fn rollback_failed(&mut self, failure: Failure) {
        self.rollback_attempts += 1;
        if self.rollback_attempts < ROLLBACK_ATTEMPTS {
            return self.start_step(Step::Rollback);
        }
        self.not_rolled_back(&failure.message);
    }

    /// Rolling back is given up; the new image stays.
    pub(super) fn not_rolled_back(&mut self, why: &str) {
        let Some(phase) = self.phase() else { return };
        let reason = self.reason();
        let text = format!(
            "{}; and the old image could not be brought back: {why}",
            reason.message
        );
        let failure = Failure::new(Code::RollbackFailed, text);
        if phase == Phase::RollingBack
            && let Some(version) = self.request().and_then(|request| request.version.clone())
        {
            // It is active, and what is told is what runs: also after the next start.
            self.record.confirmed_version = Some(version.clone());
            self.running_version = Some(version);
        }
        self.change(|update| update.checkpoint = None);
        self.ended(Outcome::Failed { phase, failure });
        self.consider_desired();
    }

    fn reason(&self) -> Failure {
        let update = self.record.update.as_ref();
        update
            .and_then(|update| update.reason.clone())
            .unwrap_or_else(|| {
                Failure::new(
                    Code::BootFailed,
                    "the boot loader went back to the old image".to_string(),
                )
            })
    }

    /// A save was not possible, and what was to come after it was not performed.
    pub(super) fn save_failed(&mut self, failure: Failure) {
        let transfer = self.work.take() == Some(Work::Transfer);
        self.restart_asked = false;
        self.reporter.not_sent();
        if self.link.version.is_none() {
            self.link.read_again = self.link.read_again.map(|_| self.now.monotonic);
        }
        self.save_again = Some(self.now.monotonic + STEP_PAUSE);
        self.save_failure = Some(failure.clone());
        self.event(Event::Warning(format!(
            "the journal cannot be written: {failure}"
        )));
        let update = self.record.running();
        let Some(phase) = update
            .filter(|update| update.phase <= Phase::Applying && update.reason.is_none())
            .map(|update| update.phase)
        else {
            // It has ended, and its bytes go after a download that is being stopped.
            if self.phase().is_none() && self.has_remains() {
                self.discard();
            }
            return;
        };
        if self.unsure {
            // Saved again in a while, and then the old image is made sure of.
            return self.change(|update| update.reason = Some(failure));
        }
        if transfer {
            self.output(Output::StopDownload);
        }
        self.answers.clear();
        let outcome = Outcome::Failed { phase, failure };
        self.has_ended(outcome.clone());
        self.report_state();
        self.event(Event::Ended(outcome));
        self.discard();
    }

    /// Saves again, and does what was to come after the save that failed.
    pub(super) fn save_and_go_on(&mut self) {
        self.save();
        match self.phase() {
            Some(Phase::Rebooting) => self.restart_soon(),
            Some(Phase::Applying | Phase::RollingBack) => self.start_step(Step::Rollback),
            None if self.has_remains() && self.work.is_none() => self.discard(),
            _ => {}
        }
    }
}
