//! The simulated world: a journal, an installer, a server, a hub and a back end, and a clock.

use serde_json::{Value, json};
use std::{collections::VecDeque, sync::LazyLock, time::Duration};
use twinflash::{
    contract::Contract,
    engine::{
        Ask, CANCEL_METHOD, Calendar, Config, Engine, Input, Now, Opening, Output, Question, Reply,
        Step, Stored, Wait,
    },
    twin,
    update::{
        Checkpoint, Checks, Code, Confirm, Ended, Failure, ImageState, Job, Outcome, Phase, Policy,
        Progress, Ready, Record, Restart, Retry, Stage,
    },
};

mod judge;
mod perform;

const IMAGE: &[u8] = b"the new image, of which a half is not enough";
const WALL: u64 = 1_800_000_000_000;
/// The id of the method that cancels.
const CANCEL: u64 = 9;
const HOUR: u64 = 3_600_000;

/// What the world does to an update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Course {
    Good,
    /// The image is not what was announced.
    WrongImage,
    NotFound,
    /// The first attempts break off.
    Cut,
    /// Nobody confirms the new version.
    NeverConfirmed,
    FinishFails,
    ActivateFails,
    /// It is not confirmed, and the old image cannot be brought back.
    RollbackFails,
    /// Cancelled in the middle of the download.
    Cancelled,
    /// Delayed, put off by its user, agreed to, and kept for a window, before each stage.
    Held,
    /// The user and the device are asked before each stage, and say later at first.
    Asked,
    /// The user is asked, and does not agree to its being applied.
    Declined,
    /// Nothing is to be installed.
    DryRun,
}

/// Of two hours the first is closed.
#[derive(Debug)]
struct EvenHours;

impl Calendar for EvenHours {
    fn at(&self, _: Stage, wall: Option<u64>) -> Opening {
        let Some(wall) = wall else {
            return Opening::Closed { until: None };
        };
        let until = Some((wall / HOUR + 1) * HOUR);
        match (wall / HOUR).is_multiple_of(2) {
            true => Opening::Closed { until },
            false => Opening::Open { until },
        }
    }
}

pub(super) const COURSES: [Course; 13] = [
    Course::Good,
    Course::WrongImage,
    Course::NotFound,
    Course::Cut,
    Course::NeverConfirmed,
    Course::FinishFails,
    Course::ActivateFails,
    Course::RollbackFails,
    Course::Cancelled,
    Course::Held,
    Course::Asked,
    Course::Declined,
    Course::DryRun,
];

/// How the course of things is cut short, in place of one output.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Blow {
    /// The process ends. Its supervisor starts it again.
    Crash,
    /// The device restarts.
    PowerCut,
    /// The output is a save, and fails.
    SaveFails,
}

#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) contract: &'static str,
    pub(super) restart: Restart,
    pub(super) confirm: Confirm,
    pub(super) course: Course,
    /// At which outputs, counted from the start of the world.
    pub(super) blows: Vec<(usize, Blow)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Image {
    Old,
    New,
}

pub(super) struct World {
    case: Case,
    engine: Engine,
    inputs: VecDeque<Owned>,
    outputs: VecDeque<Output>,
    pub(super) performed: usize,
    clock: Duration,
    boots: u32,
    // What survives.
    record: Option<Record>,
    target: Image,
    /// What the program that uses the image runs with.
    running: Image,
    /// Bytes written of the new image; whole and finished.
    part: Option<usize>,
    staged: bool,
    old_kept: bool,
    // The hub.
    reported: Value,
    desired: Value,
    version: u64,
    connected: bool,
    answered: bool,
    cuts: u32,
    /// The user has put it off, before this stage.
    deferred: Option<Stage>,
    /// What the user has agreed to.
    approved: Option<Stage>,
    asked: u32,
    /// A cancel was answered: nothing may come of the update any more.
    cancelled: bool,
    /// Outputs at which a save was performed.
    pub(super) saves: Vec<usize>,
    trace: Option<Vec<String>>,
}

/// An input that is to come.
#[derive(Debug)]
enum Owned {
    Twin,
    ReportDone(u64),
    Transfer(Progress),
    Ended(Ended),
    Done(Step, Result<(), Failure>),
    SaveFailed,
    Restarting,
    Restarted,
    Cancel,
    Reply(Ask),
}

fn contract(name: &str) -> Contract {
    static CONTRACTS: LazyLock<[Contract; 2]> =
        LazyLock::new(|| ["iothub-dm", "configuration"].map(|n| Contract::built_in(n).unwrap()));
    let mut contracts = CONTRACTS.iter();
    contracts
        .find(|contract| contract.name() == name)
        .unwrap()
        .clone()
}

fn broken() -> Failure {
    Failure::new(Code::Storage, "it is broken")
}

impl World {
    pub(super) fn new(case: Case) -> Self {
        let engine = Self::engine(&case, Image::Old, 0);
        let members = json!({
            "fwPackageUri": "https://host/new", "fwPackageURI": "https://host/new", "fwVersion": "1.0.1",
            "fwPackageCheckValue": Self::check(case.course),
        });
        let desired = match case.contract {
            "configuration" => json!({ "firmware": members }),
            _ => json!({ "method": members }),
        };
        Self {
            case,
            engine,
            inputs: VecDeque::new(),
            outputs: VecDeque::new(),
            performed: 0,
            clock: Duration::from_secs(1),
            boots: 0,
            record: None,
            target: Image::Old,
            running: Image::Old,
            part: None,
            staged: false,
            old_kept: false,
            reported: json!({}),
            desired,
            version: 1,
            connected: false,
            answered: false,
            cuts: 0,
            deferred: None,
            approved: None,
            asked: 0,
            cancelled: false,
            saves: Vec::new(),
            trace: None,
        }
    }

    fn check(course: Course) -> String {
        let mut crc = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(IMAGE);
        if course == Course::WrongImage {
            crc ^= 1;
        }
        format!("{crc:x}")
    }

    fn engine(case: &Case, running: Image, boots: u32) -> Engine {
        let mut policy = Policy::default();
        policy.confirm = case.confirm.clone();
        policy.confirm_time = Duration::from_secs(60);
        match case.course {
            Course::Held => {
                policy.consent = vec![Stage::Download, Stage::Apply];
                policy.start_delay = Duration::from_secs(3000);
            }
            Course::Asked | Course::Declined => {
                policy.consent = vec![Stage::Download, Stage::Apply];
                policy.consent_command = vec!["ask".into()];
                policy.ready = Ready::Call;
            }
            Course::DryRun => policy.dry_run = true,
            _ => {}
        }
        let own_version = matches!(case.restart, Restart::Exit | Restart::System);
        let mut engine = Engine::new(Config {
            contract: contract(case.contract),
            policy,
            current_version: own_version.then(|| match running {
                Image::Old => "1.0.0".into(),
                Image::New => "1.0.1".into(),
            }),
            boot_id: boots.to_string(),
            restart: case.restart.clone(),
            installer: None,
            seed: 7,
        });
        if case.course == Course::Held {
            engine.set_calendar(EvenHours);
        }
        engine
    }

    fn now(&self) -> Now {
        Now {
            monotonic: self.clock,
            wall: Some(WALL + self.clock.as_millis() as u64),
        }
    }

    fn give(&mut self, input: Input<'_>) {
        self.clock += Duration::from_millis(10);
        self.note(|| format!("{input:?}"));
        let now = self.now();
        self.engine.handle(input, now);
        while let Some(output) = self.engine.poll() {
            self.outputs.push_back(output);
        }
    }

    fn inspect(&self) -> ImageState {
        match (self.part, self.staged) {
            (Some(_), _) => ImageState::Partial,
            (None, true) => ImageState::Old,
            (None, false) if self.old_kept && self.target == Image::New => ImageState::New,
            (None, false) => ImageState::Old,
        }
    }

    /// The process starts.
    fn boot(&mut self) {
        // The boot id is the system's where the system restarts, else the process's own.
        self.engine = Self::engine(&self.case, self.running, self.boots);
        self.outputs.clear();
        self.inputs.clear();
        self.connected = false;
        let stored = match &self.record {
            None => Stored::Empty,
            Some(record) => Stored::Record(record.to_json()),
        };
        let image = self.inspect();
        self.give(Input::Boot { stored, image });
        self.connected = true;
        self.give(Input::Connected);
    }

    fn crash(&mut self, power: bool) {
        self.note(|| format!("--- crash, power cut: {power}"));
        if power || self.case.restart != Restart::System {
            self.boots += 1;
        }
        // What the program that uses the image runs with, once it is started again.
        let again = match self.case.restart {
            Restart::Exit => true,
            Restart::None => false,
            _ => power,
        };
        if again {
            self.running = self.target;
        }
        self.boot();
    }

    /// The record that a side effect needs to be durable before it.
    fn save_has_failed(&self) -> bool {
        self.case
            .blows
            .iter()
            .any(|(_, blow)| *blow == Blow::SaveFails)
    }

    /// What happened so far. A world is played again for it: writing all down takes far longer
    /// than playing.
    fn told(&self) -> String {
        if self.trace.is_none() {
            let mut again = Self::new(self.case.clone());
            again.trace = Some(Vec::new());
            again.prove();
        }
        let trace = self.trace.iter().flatten();
        let lines: Vec<String> = trace.map(|line| line.chars().take(160).collect()).collect();
        format!("{:?}\n{}", self.case, lines.join("\n"))
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(line());
        }
    }

    fn take(&mut self, input: Owned) {
        match input {
            Owned::Twin => {
                let mut desired = self.desired.clone();
                desired["$version"] = self.version.into();
                let document = json!({"desired": desired, "reported": self.reported});
                let json = document.to_string();
                self.give(Input::Twin {
                    complete: true,
                    json: json.as_bytes(),
                });
            }
            Owned::ReportDone(id) => self.give(Input::ReportDone { id, status: 204 }),
            Owned::Transfer(progress) => self.give(Input::Transfer(progress)),
            Owned::Ended(ended) => self.give(Input::TransferEnded(ended)),
            Owned::Done(step, result) => self.give(Input::Done(step, result)),
            Owned::SaveFailed => {
                self.give(Input::SaveFailed(Failure::new(Code::State, "disk full")));
            }
            Owned::Restarting => self.give(Input::Restarting),
            Owned::Restarted => self.give(Input::Restarted(Ok(()))),
            Owned::Cancel => self.give(Input::Method {
                id: CANCEL,
                name: CANCEL_METHOD,
                payload: b"null",
            }),
            Owned::Reply(ask) => {
                self.asked += 1;
                let reply = match (ask.question, self.asked % 3) {
                    (Question::Consent, _)
                        if self.case.course == Course::Declined && ask.stage == Stage::Apply =>
                    {
                        Reply::No
                    }
                    (_, 0) => Reply::Later(None),
                    (_, 1) => Reply::Later(Some(Duration::from_secs(7))),
                    _ => Reply::Yes,
                };
                if (ask.question, reply) == (Question::Consent, Reply::Yes) {
                    self.approved = self.approved.max(Some(ask.stage));
                }
                self.give(Input::Reply { id: ask.id, reply });
            }
        }
    }

    /// Until nothing moves any more; the outcome.
    fn run(&mut self) -> Outcome {
        self.boot();
        loop {
            assert!(self.performed < 5000, "no end\n{}", self.told());
            if let Some(output) = self.outputs.pop_front() {
                self.perform(output);
                continue;
            }
            if let Some(input) = self.inputs.pop_front() {
                self.take(input);
                continue;
            }
            let status = self.engine.status();
            let by_method = self.case.contract == "iothub-dm";
            if by_method && !self.answered && status.phase.is_none() && status.outcome.is_none() {
                // The back end asks, and asks again while it has no answer.
                let payload = self.desired["method"].to_string();
                self.give(Input::Method {
                    id: 1,
                    name: "firmwareUpdate",
                    payload: payload.as_bytes(),
                });
                continue;
            }
            let good = !matches!(
                self.case.course,
                Course::NeverConfirmed | Course::RollbackFails
            );
            if good && self.case.confirm == Confirm::Call && status.phase == Some(Phase::Confirming)
            {
                self.give(Input::Confirm);
                if !self.outputs.is_empty() {
                    continue;
                }
            }
            if let Some(waiting) = status.waiting
                && waiting.on == Wait::Consent
                && self.case.course == Course::Held
            {
                // The first time is a bad one.
                if self.deferred < Some(waiting.before) {
                    self.deferred = Some(waiting.before);
                    self.give(Input::Defer(Duration::from_secs(5000)));
                } else {
                    self.approved = Some(waiting.before);
                    self.give(Input::Approve);
                }
                continue;
            }
            match self.engine.wake_at() {
                Some(at) => {
                    self.clock = self.clock.max(at);
                    self.give(Input::Tick);
                }
                None => break,
            }
        }
        let status = self.engine.status();
        assert_eq!(status.phase, None, "stuck\n{}", self.told());
        status
            .outcome
            .unwrap_or_else(|| panic!("no outcome\n{}", self.told()))
    }
}
