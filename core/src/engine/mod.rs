//! Decides. One [`Input`] in, [`Output`]s out: no I/O, no clock, no threads, no `std`.
//!
//! ```text
//! engine.handle(Input, now);
//! while let Some(output) = engine.poll() { … }   // perform each, in order
//! // then wait until engine.wake_at(), or for the next input
//! ```
//!
//! [`Output::Save`] must be durable before what comes after it is performed. That is what makes
//! every crash recoverable: the next start reads the last record and goes on from there.

mod asked;
mod calendar;
mod control;
mod course;
mod finish;
mod io;
mod start;
mod vouch;
mod wait;

pub use calendar::{Calendar, Opening};
pub use control::{APPROVE_METHOD, CANCEL_METHOD, DEFER_METHOD, STATUS_METHOD};
pub use io::{
    Ask, Event, Input, Now, Output, Question, Reply, Retrying, Status, Step, Stored, Verified,
    Wait, Waiting,
};
pub use start::{Guard, guard};

use crate::contract::{Contract, Moment, View};
use crate::twin::Reporter;
use crate::update::{
    Failure, Key, Outcome, Phase, Policy, Record, Request, Restart, Stage, Update, trust::Trust,
};
use alloc::{collections::VecDeque, string::String, vec::Vec};
use core::time::Duration;
use serde_json::Value;
use wait::Waits;

/// The earliest wall time that is believed: when this version was made (2026-11-01).
const MADE: u64 = 1_793_491_200_000;
/// So far may a wall clock lie before the last save and still be believed: clocks are set back a
/// little when they are corrected.
const SLACK: u64 = 600_000;

/// After so much time a wall clock is believed that lies before the last save: it was that save's
/// clock that was wrong. Otherwise one day in a wrong far future would keep a device from its hub for
/// ever.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What an engine is made with.
#[derive(Debug, Clone)]
pub struct Config {
    /// How it is asked and what it reports.
    pub contract: Contract,
    /// What the device's owner allows.
    pub policy: Policy,
    /// The version that runs now, if that is known without the record.
    pub current_version: Option<String>,
    /// What makes an activated image run.
    pub restart: Restart,
    /// Another one at each start that counts as a restart: the system's boot id, or one of the
    /// process where only the process restarts.
    pub boot_id: String,
    /// The installer's description, see [`Record::installer`].
    pub installer: Option<Value>,
    /// Any number; makes the jitter of this device's pauses differ from others'.
    pub seed: u64,
}

/// The engine. See the [module](self).
#[derive(Debug)]
pub struct Engine {
    config: Config,
    record: Record,
    reporter: Reporter,
    outputs: VecDeque<Output>,
    now: Now,
    booted: bool,
    running_version: Option<String>,
    /// Wall time of the start.
    started: Option<u64>,
    link: Link,
    work: Option<Work>,
    /// The installer could not tell at the start which image is active, of an update that was being
    /// applied: before that update fails, the old image is made sure of.
    unsure: bool,
    /// The request whose image is compared with the installed one.
    compared: Option<Key>,
    /// What is done once the running download has stopped.
    after: Option<After>,
    transfer: Transfer,
    answers: Vec<PendingAnswer>,
    confirming: Confirming,
    /// Reports may take until then before a restart.
    restart_by: Option<Duration>,
    restart_asked: bool,
    /// The last restart was not possible: the whole time is waited.
    restart_wait: bool,
    rollback_attempts: u32,
    save_again: Option<Duration>,
    save_failure: Option<Failure>,
    trust: Option<Trust>,
    /// The request whose manifest was found to be good just now.
    examined: Option<Key>,
    /// The running update's request, once its manifest was found to be good since this start.
    vouched: Option<Key>,
    /// Then it is looked again whether the clock can be believed.
    clock_at: Option<Duration>,
    clock_awaited: bool,
    waits: Waits,
    random: u64,
}

/// What is known of the connection and of the twin.
#[derive(Debug, Default)]
struct Link {
    connected: bool,
    desired: Value,
    /// The version of `desired`; `None` until the twin was read on this connection.
    version: Option<u64>,
    /// The newest version a patch had that could not be merged.
    newest: Option<u64>,
    /// A twin was read at least once since the start.
    desired_known: bool,
    /// The twin is asked for again at this time, if it has not come.
    read_again: Option<Duration>,
    read_pause: Duration,
    /// Times it could not be read, one after another.
    refused: u32,
}

/// What the pipeline is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Transfer,
    Step(Step),
    /// Somebody was asked [`Output::Ask`].
    Ask {
        id: u64,
        question: Question,
        stage: Stage,
    },
}

#[derive(Debug)]
enum After {
    Pause,
    /// Its window has closed.
    Window,
    /// Another desired request, or none, has taken the place of the running one.
    Desired,
}

/// The running attempt at a download, and the pauses between attempts.
#[derive(Debug, Default)]
struct Transfer {
    /// Where this attempt began.
    offset: u64,
    /// Bytes that are there.
    received: u64,
    total: Option<u64>,
    pause: Duration,
    retry_at: Option<Duration>,
    /// Why the last attempt failed, until another one has brought bytes.
    failure: Option<Failure>,
    /// Time of trying is counted from here.
    since: Option<Duration>,
    step_reported: u8,
    reported_at: Option<Duration>,
}

#[derive(Debug)]
struct PendingAnswer {
    id: u64,
    payload: String,
    /// The answer waits for the report at this place.
    place: u64,
    by: Duration,
}

#[derive(Debug, Default)]
struct Confirming {
    /// Confirmation is due within the policy's time from here.
    since: Duration,
    /// The hub was reached since the new version runs.
    reached: bool,
    /// The application said so, or the health command did.
    said: bool,
    /// The next try of the health command, or of the installer's confirm.
    again_at: Option<Duration>,
}

impl Engine {
    /// An engine that has not been started: it wants [`Input::Boot`] first.
    pub fn new(config: Config) -> Self {
        Self {
            random: config.seed,
            config,
            record: Record::default(),
            reporter: Reporter::default(),
            outputs: VecDeque::new(),
            now: Now::default(),
            booted: false,
            running_version: None,
            started: None,
            link: Link::default(),
            work: None,
            unsure: false,
            compared: None,
            after: None,
            transfer: Transfer::default(),
            answers: Vec::new(),
            confirming: Confirming::default(),
            restart_by: None,
            restart_asked: false,
            restart_wait: false,
            rollback_attempts: 0,
            save_again: None,
            save_failure: None,
            trust: None,
            examined: None,
            vouched: None,
            clock_at: None,
            clock_awaited: false,
            waits: Waits::default(),
        }
    }

    /// Takes an input. Afterwards [`poll`](Self::poll) is to be drained.
    pub fn handle(&mut self, input: Input<'_>, now: Now) {
        self.now = now;
        match input {
            Input::Boot { stored, image } => self.boot(stored, image),
            Input::Connected => self.connected(),
            Input::Disconnected => self.disconnected(),
            Input::Twin { complete, json } => self.twin(complete, json),
            Input::TwinFailed => self.twin_failed(),
            Input::Method { id, name, payload } => self.method(id, name, payload),
            Input::ReportDone { id, status } => self.report_done(id, status),
            Input::Transfer(progress) => self.progress(progress),
            Input::TransferEnded(ended) => self.transfer_ended(ended),
            Input::Done(step, result) => self.done(step, result),
            Input::Restarting => self.restarting(),
            Input::Restarted(result) => self.restarted(result),
            Input::SaveFailed(failure) => self.save_failed(failure),
            Input::Confirm => self.confirming.said = true,
            Input::Cancel => self.cancel(),
            Input::Pause => self.pause(),
            Input::Resume => self.resume(),
            Input::Approve => self.approve(),
            Input::Defer(time) => self.defer(time),
            Input::Reply { id, reply } => self.replied(id, reply),
            Input::ClockSet => self.clock_set(),
            Input::Tick => {}
        }
        if self.booted {
            self.advance();
        }
    }

    /// The next output to perform.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When the engine wants [`Input::Tick`] at the latest, on the monotonic clock.
    pub fn wake_at(&self) -> Option<Duration> {
        let waiting = self.phase() == Some(Phase::Confirming) && self.work.is_none();
        let may_download = self.may_download();
        [
            self.reporter
                .wake_at()
                .filter(|_| !self.is_unsaved_success()),
            self.answers.iter().map(|answer| answer.by).min(),
            self.transfer.retry_at.filter(|_| may_download),
            self.clock_at.filter(|_| may_download),
            self.waits
                .at
                .filter(|_| may_download || self.may_apply_next()),
            (self.waits.closes_at).filter(|_| self.work == Some(Work::Transfer)),
            self.restart_by,
            self.confirming.again_at.filter(|_| waiting),
            waiting
                .then(|| (self.confirming.since).saturating_add(self.config.policy.confirm_time)),
            self.save_again,
            self.link.read_again,
        ]
        .into_iter()
        .flatten()
        .min()
    }

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

    /// Size in bytes and SHA-256 of the image whose checks have passed, as they were saved.
    pub fn image(&self) -> Option<(u64, [u8; 32])> {
        let update = self.record.update.as_ref()?;
        let sha256 = data_encoding::HEXLOWER.decode(update.sha256.as_ref()?.as_bytes());
        Some((update.bytes?, sha256.ok()?.try_into().ok()?))
    }

    /// Where everything stood at the last input.
    pub fn status(&self) -> Status {
        self.status_at(self.now)
    }

    /// Where everything stands.
    pub fn status_at(&self, now: Now) -> Status {
        let update = self.record.update.as_ref();
        Status {
            phase: self.phase(),
            version: update.and_then(|update| update.request.version.clone()),
            bytes: match self.phase() {
                Some(Phase::Waiting | Phase::Downloading) => self.transfer.received,
                _ => update.and_then(|update| update.bytes).unwrap_or_default(),
            },
            size: self
                .transfer
                .total
                .or(update.and_then(|update| update.bytes.or(update.request.size))),
            outcome: update.and_then(|update| update.outcome.clone()),
            running_version: self.running_version.clone(),
            paused: self.record.running().is_some_and(|update| update.paused),
            waiting: self.waiting(now),
            retry: self.transfer.failure.clone().map(|failure| Retrying {
                failure,
                attempts: update.map_or(0, |update| update.spent.attempts),
                after: (self.transfer.retry_at)
                    .filter(|_| self.work.is_none())
                    .map(|at| at.saturating_sub(now.monotonic)),
            }),
        }
    }

    /// Whether the hub has everything there is to report, or cannot be told now.
    pub fn is_reported(&self) -> bool {
        !self.link.connected || self.reporter.is_idle()
    }

    /// Why the last save failed, until it is made again.
    pub fn save_failure(&self) -> Option<Failure> {
        let failure = self.save_failure.clone();
        failure.filter(|_| self.save_again.is_some())
    }

    /// Whether a download or a step of the installation is under way.
    pub fn is_at_work(&self) -> bool {
        self.work.is_some()
    }

    /// The SHA-256 the running or last request names.
    pub fn wanted_sha256(&self) -> Option<[u8; 32]> {
        self.request().and_then(Request::sha256)
    }

    /// The phase of the update that runs.
    fn phase(&self) -> Option<Phase> {
        self.record.running().map(|update| update.phase)
    }

    fn request(&self) -> Option<&Request> {
        self.record.update.as_ref().map(|update| &update.request)
    }

    /// Changes the update, if there is one.
    fn change(&mut self, change: impl FnOnce(&mut Update)) {
        if let Some(update) = &mut self.record.update {
            change(update);
        }
    }

    fn output(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    fn event(&mut self, event: Event) {
        self.output(Output::Event(event));
    }

    fn save(&mut self) {
        self.save_as(false);
    }

    fn save_as(&mut self, checkpoint: bool) {
        if let Some(wall) = self.wall_time(self.now) {
            self.record.saved = wall;
        }
        self.save_again = None;
        self.output(Output::Save {
            record: self.record.clone().into(),
            checkpoint,
        });
    }

    /// The running update goes into a phase.
    fn enter(&mut self, phase: Phase) {
        self.change(|update| update.phase = phase);
        self.event(Event::Phase(phase));
    }

    /// Queues the state as it is now to be reported. The answer is its place in the reporter.
    fn report(&mut self, moment: Moment) -> u64 {
        let percent = self.percent();
        let view = View {
            running: self.running_version.as_deref(),
            update: self.record.update.as_ref(),
            percent,
            started: self.started,
        };
        let wanted = self.config.contract.render(moment, view);
        let tag = (moment == Moment::Progress).then_some(0);
        self.reporter.push(wanted, tag)
    }

    fn report_state(&mut self) -> u64 {
        self.report(Moment::of(self.record.update.as_ref()))
    }

    fn percent(&self) -> Option<u8> {
        let total = self.transfer.total.filter(|total| *total > 0)?;
        let percent = u128::from(self.transfer.received) * 100 / u128::from(total);
        u8::try_from(percent.min(100)).ok()
    }

    fn start_step(&mut self, step: Step) {
        self.work = Some(Work::Step(step));
        self.output(Output::Install(step));
    }

    /// A number for jitter (SplitMix64).
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Goes on with whatever can go on.
    fn advance(&mut self) {
        self.flush();
        if self.save_again.is_some_and(|at| self.now.monotonic >= at) {
            self.save_and_go_on();
        }
        if self
            .link
            .read_again
            .is_some_and(|at| self.now.monotonic >= at)
        {
            self.read_twin();
        }
        match self.phase() {
            // What comes next needs to be saved first.
            _ if self.save_again.is_some() => {}
            Some(Phase::Waiting | Phase::Downloading) => self.advance_download(),
            Some(Phase::Verifying) => self.advance_apply(),
            Some(Phase::Rebooting | Phase::RollingBack) => self.advance_restart(),
            Some(Phase::Confirming) => self.advance_confirming(),
            _ => {}
        }
        self.flush();
    }

    /// An update has succeeded and that could not be saved. It is not reported before it is: nobody
    /// looks again at a success, which a crash would take back. A failure is reported at once: it may
    /// be the last thing to be heard from a device whose disk can no longer be written, and a
    /// restart that goes on from an older record reports what comes of that.
    fn is_unsaved_success(&self) -> bool {
        let outcome = self.record.update.as_ref().and_then(|u| u.outcome.as_ref());
        self.save_again.is_some() && outcome.is_some_and(Outcome::is_success)
    }

    /// Hands over the next report, and the answers that waited for one.
    fn flush(&mut self) {
        let contract = &self.config.contract;
        if !self.is_unsaved_success()
            && let Some(report) = self
                .reporter
                .poll(self.now.monotonic, |wanted| contract.whole_patch(wanted))
        {
            self.output(Output::Report(report));
        }
        let (reporter, now) = (&self.reporter, self.now.monotonic);
        let handing_over = self.config.policy.answer_wait.is_zero();
        let mut ready = Vec::new();
        self.answers.retain_mut(|answer| {
            let done = reporter.settled(answer.place)
                || (handing_over && reporter.handed_over(answer.place))
                || now >= answer.by;
            if done {
                ready.push((answer.id, core::mem::take(&mut answer.payload)));
            }
            !done
        });
        for (id, payload) in ready {
            self.output(Output::Answer {
                id,
                status: 200,
                payload,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::ImageState;

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
