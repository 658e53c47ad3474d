//! The course of an update up to its activation.

use super::vouch::not_fetched;
use super::{After, Engine, Event, Output, Step, Verified, Work};
use crate::contract::Moment;
use crate::update::{
    Check, Checkpoint, Checks, Code, Digests, Ended, Failure, ImageInfo, Job, Origin, Outcome,
    Phase, Progress, Retry, Stage,
};
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
};
use core::time::Duration;

/// An attempt that brought so many bytes shows that the server works: the next one starts at once.
const GOOD_ATTEMPT: u64 = 64 << 10;
/// A retry budget's smallest size: a small image may be fetched more often than
/// [`RetryPolicy::sizes`](crate::update::RetryPolicy::sizes) says.
const SMALL: u64 = 16 << 20;

impl Engine {
    /// Whether nothing but time stands in the download's way. Nothing is started before the caller
    /// has its answer.
    pub(super) fn may_download(&self) -> bool {
        let paused = self.record.running().is_none_or(|update| update.paused);
        self.work.is_none() && self.answers.is_empty() && !paused
    }

    /// Starts, or goes on with, the download when its time has come.
    pub(super) fn advance_download(&mut self) {
        if self.work == Some(Work::Transfer) && self.after.is_none() && self.has_window_closed() {
            return self.stop_transfer(After::Window);
        }
        let due = self
            .transfer
            .retry_at
            .is_none_or(|at| self.now.monotonic >= at);
        if !due || !self.may_download() {
            return;
        }
        self.transfer.retry_at = None;
        if self.is_start_delayed() || !self.is_vouched_for() || self.is_being_compared() {
            return;
        }
        if self.is_held_up(Stage::Download) {
            // What waits uses up no budget.
            return self.stop_counting();
        }
        if self.phase() == Some(Phase::Waiting) {
            self.begin_download();
        }
        self.download();
    }

    /// Whether it is looked first if the image is there already: then no download is needed.
    fn is_being_compared(&mut self) -> bool {
        if self.phase() != Some(Phase::Waiting) {
            return false;
        }
        let wanted = self.request().and_then(|request| request.sha256());
        let installed = &self.record.confirmed_sha256;
        if wanted.is_some_and(|wanted| Some(base16ct::lower::encode_string(&wanted)) == *installed)
        {
            // It was installed; whether it still is there only the installer knows.
            self.compared = self.request().map(|request| request.key);
            self.start_step(Step::Compare);
            return true;
        }
        false
    }

    /// From Waiting to Downloading.
    fn begin_download(&mut self) {
        let now = self.wall_time(self.now);
        self.change(|update| update.times.downloading = now);
        self.enter(Phase::Downloading);
        self.save();
        self.report(Moment::Downloading);
    }

    /// The active image is the one asked for, or is not.
    pub(super) fn compared(&mut self, result: Result<(), Failure>) {
        let key = self.request().map(|request| request.key);
        if self.compared.take() != key || self.phase() != Some(Phase::Waiting) {
            return;
        }
        match result {
            Ok(()) => self.completed(),
            Err(_) => self.record.confirmed_sha256 = None,
        }
    }

    fn download(&mut self) {
        let Some(update) = &self.record.update else {
            return;
        };
        let (request, policy) = (&update.request, &self.config.policy);
        let content = request.content();
        let job = Job {
            uri: request.uri.clone(),
            resume: update
                .checkpoint
                .clone()
                .filter(|checkpoint| checkpoint.content == content),
            size: request.size,
            max_size: policy.max_size,
            hash_judges: request.has_hash(),
            content,
            compression: request.signed.as_ref().and_then(|s| s.compression),
            encryption: request.signed.as_ref().and_then(|s| s.encryption),
            file_size: request.signed.as_ref().and_then(|s| s.file_size),
            local: request.origin == Origin::Local,
            https_only: !policy.allow_http,
            max_redirects: policy.max_redirects,
            checkpoint_interval: policy.checkpoint_interval,
            checkpoint_bytes: policy.checkpoint_bytes,
            stall_time: policy.stall_time,
            stall_bytes: policy.stall_bytes,
            // What is here already takes no traffic.
            bandwidth: (policy.bandwidth).filter(|_| request.origin != Origin::Local),
            dry_run: policy.dry_run,
        };
        let image = ImageInfo {
            size: request.size,
            version: request.version.clone(),
        };
        self.transfer.offset = job.resume.as_ref().map_or(0, |resume| resume.offset);
        self.transfer.received = self.transfer.offset;
        self.transfer.since.get_or_insert(self.now.monotonic);
        self.work = Some(Work::Transfer);
        self.output(Output::Download(Box::new(job), image));
    }

    pub(super) fn progress(&mut self, progress: Progress) {
        if self.work != Some(Work::Transfer) {
            return;
        }
        match progress {
            Progress::StartingOver => {
                if self
                    .record
                    .update
                    .as_ref()
                    .is_some_and(|u| u.checkpoint.is_some())
                {
                    self.change(|update| update.checkpoint = None);
                    self.save();
                }
            }
            Progress::Started { offset, total } => {
                self.transfer.offset = offset;
                self.transfer.received = offset;
                self.transfer.total = total.or(self.request().and_then(|request| request.size));
            }
            Progress::Received(bytes) => self.received(bytes),
            Progress::Durable(checkpoint) => self.durable(checkpoint),
        }
    }

    /// Counts what has come since the last time.
    fn count_bytes(&mut self, bytes: u64) {
        let fetched = bytes.saturating_sub(self.transfer.received);
        if fetched > 0 {
            self.transfer.failure = None;
        }
        self.change(|update| update.spent.bytes = update.spent.bytes.saturating_add(fetched));
        self.transfer.received = bytes;
    }

    fn received(&mut self, bytes: u64) {
        self.count_bytes(bytes);
        self.event(Event::Progress {
            bytes,
            total: self.transfer.total,
        });
        let policy = &self.config.policy;
        let (Some(percent), step) = (self.percent(), policy.progress_step) else {
            return;
        };
        let Some(reached) = percent.checked_div(step) else {
            return;
        };
        let since = *self.transfer.reported_at.get_or_insert(self.now.monotonic);
        let rested = self.now.monotonic.saturating_sub(since) >= policy.progress_interval;
        if percent < 100 && reached > self.transfer.step_reported && rested {
            self.transfer.step_reported = reached;
            self.transfer.reported_at = Some(self.now.monotonic);
            self.report(Moment::Progress);
        }
    }

    fn durable(&mut self, checkpoint: Checkpoint) {
        // Bytes have come since progress was last told; they are no event of their own.
        if checkpoint.offset > self.transfer.received {
            self.count_bytes(checkpoint.offset);
        }
        self.count_time();
        self.change(|update| update.checkpoint = Some(checkpoint));
        self.save_as(true);
    }

    /// Time no longer counts, until the next attempt.
    pub(super) fn stop_counting(&mut self) {
        if self.transfer.since.is_some() {
            self.count_time();
        }
        self.transfer.since = None;
    }

    /// Adds the time since the last count to what the download has used of its budget.
    fn count_time(&mut self) {
        let now = self.now.monotonic;
        if let Some(since) = self.transfer.since.replace(now) {
            let millis = now.saturating_sub(since).as_millis();
            let millis = u64::try_from(millis).unwrap_or(u64::MAX);
            self.change(|update| update.spent.millis = update.spent.millis.saturating_add(millis));
        }
    }

    pub(super) fn transfer_ended(&mut self, ended: Ended) {
        if self.work != Some(Work::Transfer) {
            return;
        }
        self.work = None;
        self.count_time();
        match (self.after.take(), ended) {
            (Some(After::Desired), _) => {
                // Looked at anew: it may have changed again since.
                self.consider_desired();
            }
            (after, Ended::Manifest(text)) => {
                if after.is_some() {
                    self.transfer.since = None;
                }
                self.manifest_fetched(text);
            }
            (Some(After::Pause | After::Window), Ended::Stopped | Ended::Failed(..)) => {
                self.transfer.since = None;
            }
            // A pause that came with the last byte is none.
            (_, Ended::Complete { bytes, digests }) => self.downloaded(bytes, &digests),
            (None, Ended::Failed(failure, retry)) => {
                let (failure, retry) = match self.is_fetching_manifest() {
                    true => not_fetched(failure, retry),
                    false => (failure, retry),
                };
                self.attempt_failed(failure, retry);
            }
            // The driver is closing.
            (None, Ended::Stopped) => {}
        }
    }

    fn attempt_failed(&mut self, failure: Failure, retry: Retry) {
        let pause = match retry {
            Retry::Never => return self.failed(failure),
            Retry::FromZero => {
                self.change(|update| update.checkpoint = None);
                None
            }
            Retry::Resume(pause) => pause,
        };
        self.change(|update| update.spent.attempts = update.spent.attempts.saturating_add(1));
        if let Some(failure) = self.budget_spent(&failure) {
            return self.failed(failure);
        }
        let after = self.next_pause().max(pause.unwrap_or_default());
        self.transfer.retry_at = Some(self.now.monotonic.saturating_add(after));
        self.transfer.failure = Some(failure.clone());
        self.save_as(true);
        self.event(Event::Retry { failure, after });
    }

    /// The failure to end with, once the budget of time or bytes is used up.
    fn budget_spent(&self, failure: &Failure) -> Option<Failure> {
        let update = self.record.running()?;
        let (spent, retry) = (update.spent, &self.config.policy.retry);
        let size = self
            .transfer
            .total
            .or(update.request.size)
            .unwrap_or_default();
        let bytes = size.max(SMALL).saturating_mul(u64::from(retry.sizes));
        let time = Duration::from_millis(spent.millis);
        (spent.bytes >= bytes || time >= retry.time).then(|| {
            Failure::new(
                failure.code,
                format!(
                    "{}; gave up after {} attempts, {} bytes and {} s",
                    failure.message,
                    spent.attempts,
                    spent.bytes,
                    time.as_secs()
                ),
            )
        })
    }

    /// Exponential backoff; half of each pause is jitter.
    fn next_pause(&mut self) -> Duration {
        let retry = self.config.policy.retry;
        let brought = self.transfer.received.saturating_sub(self.transfer.offset);
        if brought >= GOOD_ATTEMPT {
            self.transfer.pause = Duration::ZERO;
            return Duration::ZERO;
        }
        let doubled = self.transfer.pause.saturating_mul(2);
        self.transfer.pause = doubled.max(retry.first).min(retry.longest);
        self.jittered(self.transfer.pause)
    }

    /// Half of the pause, and of the other half a random part.
    pub(super) fn jittered(&mut self, pause: Duration) -> Duration {
        let half = pause / 2;
        let millis = u64::try_from(half.as_millis()).unwrap_or(u64::MAX);
        half.saturating_add(Duration::from_millis(
            self.random() % millis.saturating_add(1),
        ))
    }

    /// Every byte is there: compare the checks, then install.
    fn downloaded(&mut self, bytes: u64, digests: &Digests) {
        let sha256 = base16ct::lower::encode_string(&digests.sha256);
        self.transfer.received = bytes;
        self.transfer.total = Some(bytes);
        self.change(|update| {
            update.paused = false;
            update.bytes = Some(bytes);
            update.sha256 = Some(sha256.clone());
        });
        let mismatch = self.mismatch(bytes, digests);
        if let Some(failure) = mismatch.clone().filter(|_| self.transfer.offset > 0) {
            // The rest may not belong to the beginning, whatever a validator said: from zero it may be
            // right.
            return self.attempt_failed(failure, Retry::FromZero);
        }
        self.report(Moment::Downloaded);
        self.enter(Phase::Verifying);
        self.report(Moment::Verifying);
        if let Some(failure) = mismatch {
            return self.failed(failure);
        }
        let unchecked = self
            .request()
            .is_none_or(|request| request.checks.is_empty());
        let by = if self.config.policy.require_manifest {
            Verified::Signature
        } else if unchecked {
            self.event(Event::Warning(String::from(
                "only how it came (by https, or as a file of this device) vouches for the image: the request carried no check value",
            )));
            Verified::Transport
        } else {
            Verified::Checks
        };
        self.event(Event::Verified { by, bytes, sha256 });
        let now = self.wall_time(self.now);
        self.change(|update| update.times.downloaded = now);
        self.report(Moment::Verified);
        match self.may_have_to_wait() {
            // It goes on from here after a restart.
            true => self.save(),
            false => self.go_on_to_apply(),
        }
    }

    /// Whether an image that is there and verified waits for nothing but what may hold it up.
    pub(super) fn may_apply_next(&self) -> bool {
        self.phase() == Some(Phase::Verifying) && self.work.is_none()
    }

    /// Applies the image once nothing holds that up.
    pub(super) fn advance_apply(&mut self) {
        if !self.may_apply_next() || self.is_held_up(Stage::Apply) {
            return;
        }
        // It may have waited for long.
        match self.is_still_vouched_for() {
            Ok(()) => self.go_on_to_apply(),
            Err(failure) => self.failed(failure),
        }
    }

    fn go_on_to_apply(&mut self) {
        if !self.config.policy.dry_run {
            return self.apply();
        }
        let (bytes, sha256) = (self.record.update.as_ref()).map_or((0, ""), |update| {
            let sha256 = update.sha256.as_deref();
            (update.bytes.unwrap_or_default(), sha256.unwrap_or_default())
        });
        let failure = Failure::new(
            Code::DryRun,
            format!(
                "a dry run: the image is good and would be installed ({bytes} bytes, sha256 {sha256})"
            ),
        );
        self.failed(failure);
    }

    /// What of the request's checks the image does not pass.
    fn mismatch(&self, bytes: u64, digests: &Digests) -> Option<Failure> {
        let request = self.request()?;
        if let Some(size) = request.size.filter(|size| *size != bytes) {
            return Some(Failure::new(
                Code::SizeMismatch,
                format!("the image has {bytes} bytes; {size} were announced"),
            ));
        }
        let check = request
            .checks
            .iter()
            .find(|check| !check.matches(digests))?;
        let (code, found) = match check {
            Check::Crc16(_) => (Code::CrcMismatch, Check::Crc16(digests.crc16)),
            Check::Crc32(_) => (Code::CrcMismatch, Check::Crc32(digests.crc32)),
            Check::Sha256(_) => (Code::HashMismatch, Check::Sha256(digests.sha256)),
        };
        Some(Failure::new(
            code,
            format!("the image is {found}; {check} was announced"),
        ))
    }

    /// The size and the SHA-256 of the image, where its checkpoint is the one at its last byte.
    pub(super) fn whole(&self) -> Option<(u64, String)> {
        let update = self.record.running()?;
        let (request, checkpoint) = (&update.request, update.checkpoint.as_ref()?);
        let checks = Checks::restore(&checkpoint.checks)?;
        let (bytes, digests) = (checks.bytes(), checks.finish());
        let as_it_comes = checkpoint.packed.is_none() && checkpoint.sealed.is_none();
        let total = checkpoint.total.filter(|_| as_it_comes);
        let is_last = request.has_hash() || request.size.or(total) == Some(bytes);
        let fits = checkpoint.content == request.content() && checkpoint.offset == bytes;
        let whole = is_last && fits && self.mismatch(bytes, &digests).is_none();
        whole.then(|| (bytes, base16ct::lower::encode_string(&digests.sha256)))
    }

    /// Starts applying; after a crash, starts it again.
    pub(super) fn apply(&mut self) {
        if let Err(failure) = self.may_apply() {
            return self.not_applied(failure);
        }
        let now = self.wall_time(self.now);
        let allowed = self.config.policy.confirm_attempts;
        self.change(|update| {
            update.apply_attempts = update.apply_attempts.saturating_add(1);
            // For the guard, should nothing be saved any more once the image is active.
            update.starts_allowed = allowed;
            update.times.applying = update.times.applying.or(now);
        });
        self.enter(Phase::Applying);
        self.save();
        self.report(Moment::Applying);
        self.start_step(Step::Finish);
    }

    /// Failed while it was being applied, with nothing activated as far as is known.
    pub(super) fn not_applied(&mut self, failure: Failure) {
        match self.unsure {
            true => self.make_sure_of_the_old(failure),
            false => self.failed(failure),
        }
    }

    /// The new image may have got half-way to being active: the update fails once the old one is.
    pub(super) fn make_sure_of_the_old(&mut self, failure: Failure) {
        self.change(|update| update.reason = Some(failure));
        self.save();
        self.start_step(Step::Rollback);
    }

    /// Failed before anything was activated.
    pub(super) fn failed(&mut self, failure: Failure) {
        let Some(phase) = self.phase() else { return };
        // What a server or a network broke can be gone on with by the next request.
        let checkpoint = self.record.update.as_ref().map(|u| u.checkpoint.is_some());
        let keep = checkpoint == Some(true)
            && matches!(
                failure.code,
                Code::Network | Code::Stalled | Code::HttpStatus | Code::Tls
            );
        if keep {
            self.ended(Outcome::Failed { phase, failure });
            self.consider_desired();
        } else {
            self.ended_for_good(Outcome::Failed { phase, failure });
        }
    }

    /// Ended, and what is there of the new image goes. The record says so first: what a crash leaves
    /// over is removed at the next start.
    pub(super) fn ended_for_good(&mut self, outcome: Outcome) {
        self.change(|update| update.checkpoint = None);
        self.ended(outcome);
        self.discard();
    }

    /// What is there of the new image goes.
    pub(super) fn discard(&mut self) {
        self.change(|update| update.checkpoint = None);
        self.start_step(Step::Abort);
    }

    /// The update has ended; the next one can start.
    pub(super) fn ended(&mut self, outcome: Outcome) {
        self.has_ended(outcome.clone());
        self.save();
        self.report_state();
        self.event(Event::Ended(outcome));
    }

    pub(super) fn has_ended(&mut self, outcome: Outcome) {
        self.record.core.last_outcome = Some(outcome.as_str().to_string());
        self.change(|update| update.outcome = Some(outcome));
        self.after = None;
        self.unsure = false;
        self.reset_waits();
        self.restart_by = None;
        self.transfer.retry_at = None;
        self.transfer.failure = None;
        self.transfer.since = None;
    }

    /// Whether something of a new image may still be there that nothing goes on with. Not where the
    /// old image could not be brought back: what is left of it may be needed by hand.
    pub(super) fn has_remains(&self) -> bool {
        let Some(update) = &self.record.update else {
            return false;
        };
        let failed = match &update.outcome {
            Some(Outcome::Failed { failure, .. }) => failure.code != Code::RollbackFailed,
            Some(outcome) => !outcome.is_success(),
            None => false,
        };
        failed && update.checkpoint.is_none()
    }
}
