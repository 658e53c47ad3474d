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
mod clock;
mod control;
mod course;
mod finish;
mod io;
mod report;
mod start;
mod vouch;
mod wait;

pub use calendar::{Calendar, Opening};
pub use control::{APPROVE_METHOD, CANCEL_METHOD, DEFER_METHOD, METHODS, STATUS_METHOD};
pub use io::{
    Ask, Event, Input, Now, Output, Question, Reply, Retrying, Status, Step, Stored, Verified,
    Wait, Waiting,
};
pub use start::{Guard, guard};

use crate::contract::Contract;
use crate::twin::Reporter;
use crate::update::{
    Failure, Key, Phase, Policy, Record, Request, Restart, Stage, Update, trust::Trust,
};
use alloc::{collections::VecDeque, string::String, vec::Vec};
use core::time::Duration;
use serde_json::Value;
use wait::Waits;

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
            Input::Install(image) => self.install_local(image),
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

    /// Size in bytes and SHA-256 of the image whose checks have passed, as they were saved.
    pub fn image(&self) -> Option<(u64, [u8; 32])> {
        let update = self.record.update.as_ref()?;
        let sha256 = base16ct::lower::decode_vec(update.sha256.as_ref()?);
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
}
