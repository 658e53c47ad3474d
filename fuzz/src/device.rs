//! An engine and the world around it, as simple as they can be. What goes wrong in it, and what else
//! is free, the input's first bytes choose.

use serde_json::{Value, json};
use std::{collections::VecDeque, time::Duration};
use twinflash::{
    contract::Contract,
    engine::{Ask, Config, Engine, Event, Input, Now, Output, Reply, Step, Stored},
    twin::{
        self,
        limits::{Section, check_patch},
    },
    update::{
        Checkpoint, Checks, Code, Confirm, Ended, Failure, ImageState, Outcome, Policy, Progress,
        Ready, Record, Restart, Retry, Stage,
    },
};

/// The image the server has, unless the choice is another one.
pub(crate) const IMAGE: &[u8] = b"the new image";
/// More than any course of events has; what has more does not end.
const MOST_OUTPUTS: u32 = 20_000;
/// So many attempts fail; then none does.
const MOST_FAILURES: u32 = 12;
/// The downloader asks for no longer wait.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// 2027-01-15
const WALL: u64 = 1_800_000_000_000;

/// Bytes to choose by, round and round.
#[derive(Clone)]
pub(crate) struct Choices(Vec<u8>, usize);

impl Choices {
    /// The input's first line; the rest is the second.
    pub(crate) fn split(data: &[u8]) -> (Self, &[u8]) {
        let end = data.iter().position(|byte| *byte == b'\n');
        let (line, rest) = data.split_at(end.unwrap_or(data.len()));
        (Self(line.to_vec(), 0), rest.get(1..).unwrap_or_default())
    }

    /// A number below `limit`. `0` to `9` choose as they read.
    pub(crate) fn below(&mut self, limit: u8) -> u8 {
        if self.0.is_empty() {
            return 0;
        }
        let byte = self.0[self.1 % self.0.len()];
        self.1 += 1;
        byte.wrapping_sub(b'0') % limit
    }
}

enum Later {
    ReportDone(u64),
    Transfer(Progress),
    Ended(Ended),
    Done(Step, Result<(), Failure>),
    Restarted(Result<(), Failure>),
    Twin,
    Reply(u64, Reply),
}

/// A device.
pub(crate) struct Device {
    config: Config,
    engine: Engine,
    choices: Choices,
    monotonic: Duration,
    starts: u32,
    failures: u32,
    outputs: u32,
    later: VecDeque<Later>,
    saved: Option<Record>,
    asked: u64,
    /// Each answered method, with its status.
    answered: Vec<(u64, u16)>,
    /// What is asked of this device next is known to be good.
    pub(crate) calm: bool,
    /// The twin the hub has.
    pub(crate) twin: Value,
    /// Everything that leaves the device for people and back ends.
    pub(crate) told: String,
    pub(crate) accepted: u32,
    /// Outcomes told.
    pub(crate) ended: Vec<Outcome>,
    image: ImageState,
    /// A contract of ours keeps the twin's limits whatever is asked of it.
    pub(crate) limits: bool,
}

impl Device {
    pub(crate) fn new(contract: Contract, mut choices: Choices, stored: Stored) -> Self {
        let mut policy = Policy::default();
        policy.allow_http = choices.below(2) == 1;
        policy.require_check = choices.below(4) == 1;
        policy.progress_interval = Duration::ZERO;
        policy.confirm = [Confirm::Connected, Confirm::None][usize::from(choices.below(2))].clone();
        let both = vec![Stage::Download, Stage::Apply];
        match choices.below(8) {
            1 => policy.consent = both,
            2 => policy.ready = Ready::Call,
            3 => {
                policy.consent = both;
                policy.consent_command = vec!["ask".into()];
                policy.start_delay = Duration::from_secs(600);
            }
            _ => {}
        }
        let restarts = [
            Restart::None,
            Restart::Exit,
            Restart::System,
            Restart::Command(vec!["restart".into()]),
        ];
        let config = Config {
            contract,
            policy,
            current_version: (choices.below(3) == 1).then(|| "1.0.0".into()),
            restart: restarts[usize::from(choices.below(4))].clone(),
            boot_id: "0".into(),
            installer: None,
            seed: 7,
        };
        let images = [
            ImageState::Old,
            ImageState::New,
            ImageState::Partial,
            ImageState::Unknown,
        ];
        let image = match stored {
            Stored::Empty => ImageState::Old,
            _ => images[usize::from(choices.below(4))],
        };
        let mut device = Self {
            engine: Engine::new(config.clone()),
            config,
            choices,
            monotonic: Duration::ZERO,
            starts: 0,
            failures: 0,
            outputs: 0,
            later: VecDeque::new(),
            saved: None,
            asked: 0,
            answered: Vec::new(),
            calm: false,
            twin: json!({"desired": {"$version": 1}, "reported": {}}),
            told: String::new(),
            accepted: 0,
            ended: Vec::new(),
            image,
            limits: true,
        };
        device.give(Input::Boot { stored, image });
        device
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Gives an input and performs what comes of it.
    pub(crate) fn give(&mut self, input: Input<'_>) {
        self.monotonic += Duration::from_millis(1);
        let now = Now {
            monotonic: self.monotonic,
            wall: Some(WALL + self.monotonic.as_millis() as u64),
        };
        self.engine.handle(input, now);
        while let Some(output) = self.engine.poll() {
            self.outputs += 1;
            assert!(self.outputs < MOST_OUTPUTS, "no end: {output:?}");
            self.perform(output);
        }
    }

    /// Calls a method; the status it is answered with, at once or after the first report.
    pub(crate) fn call(&mut self, name: &str, payload: &[u8]) -> u16 {
        let id = self.asked;
        self.asked += 1;
        self.give(Input::Method { id, name, payload });
        let mut patience = 0;
        loop {
            let mut answers = self.answered.iter().filter(|(of, _)| *of == id);
            if let Some((_, status)) = answers.next() {
                assert!(answers.next().is_none(), "answered twice");
                return *status;
            }
            patience += 1;
            assert!(patience < 100, "no answer");
            self.step();
        }
    }

    /// What the hub has of desired properties becomes this, or is patched by it, under the next
    /// version or the one it says.
    pub(crate) fn desire(&mut self, complete: bool, desired: &Value) {
        let held = &mut self.twin["desired"];
        let version = |of: &Value| of.get("$version").and_then(Value::as_u64);
        let next = version(held).map_or(1, |version| version.saturating_add(1));
        let next = version(desired).map_or(next, |version| version.max(next));
        match complete {
            true => *held = desired.clone(),
            false => twin::merge(held, desired),
        }
        if let Some(members) = held.as_object_mut() {
            members.insert("$version".into(), next.into());
        }
    }

    /// Until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        while self.step() {}
        let status = self.engine.status();
        assert!(
            status.phase.is_none() || status.paused,
            "it stays in {:?}",
            status.phase
        );
        let ids: Vec<u64> = self.answered.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids.len() as u64, self.asked, "answers: {ids:?}");
    }

    /// The next thing that happens; whether there is one.
    fn step(&mut self) -> bool {
        match self.later.pop_front() {
            Some(Later::ReportDone(id)) => {
                let status = match self.choice(8) {
                    1 => 500,
                    2 => 0,
                    _ => 204,
                };
                self.give(Input::ReportDone { id, status });
            }
            Some(Later::Transfer(progress)) => self.give(Input::Transfer(progress)),
            Some(Later::Ended(ended)) => self.give(Input::TransferEnded(ended)),
            Some(Later::Done(step, result)) => self.give(Input::Done(step, result)),
            Some(Later::Restarted(result)) => self.give(Input::Restarted(result)),
            Some(Later::Reply(id, reply)) => self.give(Input::Reply { id, reply }),
            Some(Later::Twin) => {
                let twin = self.twin.to_string();
                self.give(Input::Twin {
                    complete: true,
                    json: twin.as_bytes(),
                });
            }
            None if self.engine.asks_consent().is_some() && !self.has_command() => {
                match self.choice(3) {
                    1 => self.give(Input::Defer(Duration::from_secs(60))),
                    _ => self.give(Input::Approve),
                }
            }
            None => match self.engine.wake_at() {
                Some(at) => {
                    self.monotonic = self.monotonic.max(at);
                    self.give(Input::Tick);
                }
                None => return false,
            },
        }
        true
    }

    fn has_command(&self) -> bool {
        !self.config.policy.consent_command.is_empty()
    }

    /// What goes wrong; nothing, once it is calm or much has.
    fn choice(&mut self, of: u8) -> u8 {
        let choice = self.choices.below(of);
        if choice == 0 || self.calm || self.failures >= MOST_FAILURES {
            return 0;
        }
        self.failures += 1;
        choice
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Save { record, .. } => {
                let again = Record::from_json(&record.to_json());
                assert_eq!(again.as_ref(), Some(&*record), "a record is read as it was");
                self.saved = Some(*record);
            }
            Output::Answer {
                id,
                status,
                payload,
            } => {
                assert!([200, 400, 404, 409].contains(&status), "status {status}");
                let payload: Value = serde_json::from_str(&payload).expect("an answer is JSON");
                self.told += &payload.to_string();
                self.answered.push((id, status));
            }
            Output::Report(report) => {
                let patch: Value = serde_json::from_str(&report.patch).expect("a patch is JSON");
                assert!(patch.is_object(), "a patch is an object: {patch}");
                if self.limits {
                    check_patch(Section::Reported, &patch).expect("a patch the hub takes");
                }
                twin::merge(&mut self.twin["reported"], &patch);
                self.told += &report.patch;
                self.later.push_back(Later::ReportDone(report.id));
            }
            Output::ReadTwin => self.later.push_back(Later::Twin),
            Output::Download(job, _) => {
                let content = job.content.clone();
                self.download(content);
            }
            Output::FetchManifest(_) => {
                panic!("a manifest is asked for, and no keys are configured")
            }
            Output::StopDownload => {
                self.later
                    .retain(|later| !matches!(later, Later::Transfer(_) | Later::Ended(_)));
                self.later.push_back(Later::Ended(Ended::Stopped));
            }
            Output::Ask(Ask { id, .. }) => {
                let reply = match self.choice(4) {
                    1 => Reply::Later(None),
                    2 => Reply::Later(Some(Duration::from_secs(5))),
                    3 => Reply::No,
                    _ => Reply::Yes,
                };
                self.later.push_back(Later::Reply(id, reply));
            }
            Output::Install(step) => {
                let result = match self.choice(6) {
                    1 => Err(Failure::new(Code::InstallFailed, "it does not work")),
                    _ => Ok(()),
                };
                match (step, &result) {
                    (Step::Activate, Ok(())) => self.image = ImageState::New,
                    (Step::Rollback | Step::Abort, Ok(())) => self.image = ImageState::Old,
                    _ => {}
                }
                self.later.push_back(Later::Done(step, result));
            }
            Output::Restart => match self.choice(5) {
                1 => {
                    let failure = Failure::new(Code::InstallFailed, "it does not restart");
                    self.later.push_back(Later::Restarted(Err(failure)));
                }
                2 => self.later.push_back(Later::Restarted(Ok(()))),
                _ => self.start_again(),
            },
            Output::Event(event) => {
                match &event {
                    Event::Accepted { .. } => self.accepted += 1,
                    Event::Ended(outcome) => self.ended.push(outcome.clone()),
                    _ => {}
                }
                self.told += &format!("{event:?}");
            }
        }
    }

    fn download(&mut self, content: String) {
        let mut checks = Checks::new();
        checks.update(IMAGE);
        let (bytes, total) = (IMAGE.len() as u64, Some(IMAGE.len() as u64));
        let mut say = |progress| self.later.push_back(Later::Transfer(progress));
        say(Progress::Started { offset: 0, total });
        say(Progress::Received(bytes));
        say(Progress::Durable(Checkpoint {
            packed: None,
            sealed: None,
            content,
            validator: None,
            total,
            offset: bytes,
            checks: checks.save(),
        }));
        let failure = Failure::new(Code::Network, "it does not come");
        let ended = match self.choice(6) {
            1 => Ended::Failed(failure, Retry::Resume(None)),
            2 => Ended::Failed(failure, Retry::FromZero),
            3 => Ended::Failed(failure, Retry::Never),
            4 => Ended::Failed(failure, Retry::Resume(Some(DAY))),
            _ => Ended::Complete {
                bytes,
                digests: checks.finish(),
            },
        };
        self.later.push_back(Later::Ended(ended));
    }

    /// The device's next start.
    fn start_again(&mut self) {
        self.starts += 1;
        assert!(self.starts < 60, "it restarts for ever");
        self.config.boot_id = self.starts.to_string();
        self.engine = Engine::new(self.config.clone());
        self.later.clear();
        // Who waited for an answer has lost the line, and is not answered any more.
        let open = (0..self.asked).filter(|id| !self.answered.iter().any(|(of, _)| of == id));
        let open: Vec<u64> = open.collect();
        self.answered.extend(open.into_iter().map(|id| (id, 503)));
        let stored = match &self.saved {
            None => Stored::Empty,
            Some(record) => Stored::Record(record.to_json()),
        };
        let image = self.image;
        self.give(Input::Boot { stored, image });
        self.give(Input::Connected);
    }
}
