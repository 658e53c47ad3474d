//! One simulated device: a real engine, and what stands around it.

use super::images::Fetched;
use std::{sync::Arc, time::Duration};
use twinflash::{
    contract::Contract,
    engine::{Ask, Config, Engine, Event, Input, Now, Output, Reply, Step, Stored},
    install::{ImageState, Restart},
    iothub::{Client, ConnectionString, MethodRequest},
    update::{
        Code, Ended, Failure, ImageInfo, Job, Outcome, Phase, Policy, Progress, Record, Retry,
    },
};

/// What all devices have in common.
pub(super) struct Kind {
    pub(super) contract: Contract,
    pub(super) policy: Policy,
    pub(super) version: String,
    /// A new version runs after a restart that takes so long; else at once.
    pub(super) reboot: Option<Duration>,
}

pub(super) struct Device {
    pub(super) connection: ConnectionString,
    engine: Engine,
    pub(super) client: Option<Client>,
    pub(super) connected: bool,
    /// Its first attempt to connect has ended.
    pub(super) tried: bool,
    /// It was connected at least once.
    pub(super) came: bool,
    /// When its timer is set to ring.
    pub(super) wake: Option<Duration>,
    /// What it gets of images is damaged.
    pub(super) fails: bool,
    pub(super) phase: Option<Phase>,
    /// An update has ended, and the hub does not know yet.
    pub(super) ended: Option<Outcome>,
    pub(super) outcome: Option<Outcome>,
    methods: Vec<(u64, MethodRequest)>,
    /// Numbers methods and downloads.
    next: u64,
    download: Option<u64>,
    disk: Disk,
}

/// What outlives a restart.
#[derive(Default)]
struct Disk {
    /// The journal, where there are restarts.
    record: Option<Box<Record>>,
    boots: u32,
    /// The image that runs, and the one before it.
    active: Image,
    previous: Image,
    /// The active one is new, and not confirmed.
    trial: bool,
}

#[derive(Default, Clone)]
struct Image {
    version: Option<String>,
    sha256: Option<[u8; 32]>,
}

/// What a device wants of the world around it.
pub(super) enum Wish {
    Download(u64, Box<Job>, ImageInfo),
    /// It goes away, and comes back by [`Device::boot`].
    Reboot,
    Tell(Event),
}

impl Device {
    pub(super) fn new(kind: &Kind, connection: ConnectionString, seed: u64, fails: bool) -> Self {
        let disk = Disk {
            active: Image {
                version: Some(kind.version.clone()),
                sha256: None,
            },
            ..Disk::default()
        };
        Self {
            connection,
            engine: engine(kind, &disk, seed),
            client: None,
            connected: false,
            tried: false,
            came: false,
            wake: None,
            fails,
            phase: None,
            ended: None,
            outcome: None,
            methods: Vec::new(),
            next: 0,
            download: None,
            disk,
        }
    }

    /// The device starts, for the first time or again.
    pub(super) fn boot(&mut self, kind: &Kind, seed: u64, now: Now) -> Vec<Wish> {
        let stored = match self.disk.record.take() {
            Some(record) => Stored::Record(record.to_json()),
            None => Stored::Empty,
        };
        let image = match self.disk.trial {
            true => ImageState::New,
            false => ImageState::Old,
        };
        self.disk.boots += 1;
        self.engine = engine(kind, &self.disk, seed);
        self.feed(Input::Boot { stored, image }, kind, now)
    }

    /// How often it was started.
    pub(super) fn starts(&self) -> u32 {
        self.disk.boots
    }

    /// A back end calls a method.
    pub(super) fn method(
        &mut self,
        name: &str,
        payload: &[u8],
        request: MethodRequest,
        kind: &Kind,
        now: Now,
    ) -> Vec<Wish> {
        if !self.engine.takes_method(name) {
            let text = serde_json::Value::from(format!("There is no method {name:?}."));
            self.answer(&request, 404, text.to_string());
            return Vec::new();
        }
        self.next += 1;
        let id = self.next;
        self.methods.push((id, request));
        self.feed(Input::Method { id, name, payload }, kind, now)
    }

    /// An attempt at a download has ended.
    pub(super) fn fetched(
        &mut self,
        attempt: u64,
        fetched: &Arc<Fetched>,
        kind: &Kind,
        now: Now,
    ) -> Vec<Wish> {
        if self.download != Some(attempt) {
            return Vec::new();
        }
        self.download = None;
        let mut wishes = Vec::new();
        let mut ended = fetched.ended.clone();
        if let Ended::Complete { bytes, digests } = &mut ended {
            if self.fails {
                *digests = fetched.damaged;
            }
            for progress in [
                Progress::Started {
                    offset: 0,
                    total: Some(*bytes),
                },
                Progress::Received(*bytes),
            ] {
                wishes.extend(self.feed(Input::Transfer(progress), kind, now));
            }
        }
        wishes.extend(self.feed(Input::TransferEnded(ended), kind, now));
        wishes
    }

    /// Gives the engine an input, and does what comes of it.
    pub(super) fn feed(&mut self, input: Input<'_>, kind: &Kind, now: Now) -> Vec<Wish> {
        let mut wishes = Vec::new();
        self.engine.handle(input, now);
        while let Some(output) = self.engine.poll() {
            match self.perform(output, kind) {
                Some(Done::Input(input)) => self.engine.handle(input, now),
                Some(Done::Wish(wish)) => wishes.push(wish),
                None => {}
            }
        }
        wishes
    }

    fn perform(&mut self, output: Output, kind: &Kind) -> Option<Done> {
        match output {
            Output::Save { record, .. } => {
                if kind.reboot.is_some() {
                    self.disk.record = Some(record);
                }
            }
            Output::Answer {
                id,
                status,
                payload,
            } => {
                let found = self.methods.iter().position(|(of, _)| *of == id);
                if let Some((_, request)) = found.map(|at| self.methods.swap_remove(at)) {
                    self.answer(&request, status, payload);
                }
            }
            Output::Report(report) => match &self.client {
                Some(client) => client.report(report.id, report.patch.into_bytes()),
                None => {
                    return Some(Done::Input(Input::ReportDone {
                        id: report.id,
                        status: 0,
                    }));
                }
            },
            Output::ReadTwin => {
                if let Some(client) = &self.client {
                    client.read_twin();
                }
            }
            Output::Download(job, image) => {
                self.next += 1;
                self.download = Some(self.next);
                return Some(Done::Wish(Wish::Download(self.next, job, image)));
            }
            // It asks for one only where it trusts keys, and these devices have none.
            Output::FetchManifest(_) => {
                let failure =
                    Failure::new(Code::ManifestRequired, "a simulated device has no keys");
                let ended = Ended::Failed(failure, Retry::Never);
                return Some(Done::Input(Input::TransferEnded(ended)));
            }
            Output::StopDownload => {
                self.download = None;
                return Some(Done::Input(Input::TransferEnded(Ended::Stopped)));
            }
            // Simulated devices are always ready.
            Output::Ask(Ask { id, .. }) => {
                let reply = Reply::Yes;
                return Some(Done::Input(Input::Reply { id, reply }));
            }
            Output::Install(step) => {
                return Some(Done::Input(Input::Done(step, self.install(step))));
            }
            Output::Restart => return Some(Done::Wish(Wish::Reboot)),
            Output::Event(event) => return Some(Done::Wish(Wish::Tell(event))),
        }
        None
    }

    /// A step of the installation, on a disk that only remembers which images it has.
    fn install(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Activate => {
                let status = self.engine.status();
                let image = Image {
                    version: status.version,
                    sha256: self.engine.image().map(|(_, sha256)| sha256),
                };
                self.disk.previous = std::mem::replace(&mut self.disk.active, image);
                self.disk.trial = true;
            }
            Step::Confirm => self.disk.trial = false,
            Step::Rollback if self.disk.trial => {
                self.disk.active = self.disk.previous.clone();
                self.disk.trial = false;
            }
            Step::Compare if self.disk.active.sha256 != self.engine.wanted_sha256() => {
                let text = "the active image is another one";
                return Err(Failure::new(Code::HashMismatch, text));
            }
            Step::Finish | Step::Rollback | Step::Abort | Step::Compare | Step::CheckHealth => {}
        }
        Ok(())
    }

    fn answer(&self, request: &MethodRequest, status: u16, payload: String) {
        if let Some(client) = &self.client {
            // Larger than a hub takes it cannot be: it is a contract's.
            let _ = client.answer_method(request, status, payload.into_bytes());
        }
    }

    /// When it wants [`Input::Tick`].
    pub(super) fn wake_at(&self) -> Option<Duration> {
        self.engine.wake_at()
    }

    /// The hub knows all there is to know.
    pub(super) fn is_reported(&self) -> bool {
        self.connected && self.engine.is_reported()
    }
}

/// What an output leads to.
enum Done {
    Input(Input<'static>),
    Wish(Wish),
}

fn engine(kind: &Kind, disk: &Disk, seed: u64) -> Engine {
    Engine::new(Config {
        contract: kind.contract.clone(),
        policy: kind.policy.clone(),
        current_version: disk.active.version.clone(),
        restart: match kind.reboot {
            Some(_) => Restart::System,
            None => Restart::None,
        },
        boot_id: disk.boots.to_string(),
        installer: None,
        seed,
    })
}
