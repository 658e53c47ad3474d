//! The driver: performs the engine's outputs in order, on a thread of its own.

use super::pipeline::{Asked, Pipeline, Task, Worker};
use super::shared::{End, Shared, Slot};
use super::{Answer, Builder, Event, Outbound, restart};
use crate::clock::Watch;
use crate::download::{Downloader, Offers, Stop};
use crate::engine::{Config, Engine, Input, Output, Stored};
use crate::install::{ImageState, Restart};
use crate::journal::{Journal, Loaded};
use crate::update::{Code, Confirm, Failure, Ready, Record};
use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::BuildHasher,
    io,
    sync::{Arc, PoisonError, mpsc},
    thread,
    time::Duration,
};

/// Things to send that nobody takes; the reporter has one report in flight, or a few before a method's answer.
const OUTBOUND: usize = 16;

type EventHandler = Box<dyn FnMut(&Event) + Send>;
pub(super) type OutboundHandler = Box<dyn FnMut(Outbound) + Send>;
type RestartHandler = Box<dyn FnMut(&Restart) -> Result<(), Failure> + Send>;

/// What the application has handed over to be called on the driver's thread.
#[derive(Default)]
pub(super) struct Handlers {
    pub(super) event: Option<EventHandler>,
    pub(super) outbound: Option<OutboundHandler>,
    pub(super) restart: Option<RestartHandler>,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}

pub(super) fn start(builder: Builder) -> Result<Arc<Shared>, Failure> {
    let seed = RandomState::new().hash_one(std::process::id());
    let boot_id = restart::boot_id(&builder.installer.restart(), seed);
    let (mut driver, worker) = Driver::new(builder, seed, boot_id)?;
    let shared = Arc::clone(&driver.shared);
    worker.start(&mut driver.pipeline)?;
    driver.save_first();
    thread::Builder::new()
        .name("twinflash".into())
        .spawn(move || driver.run())
        .map_err(|error| Failure::new(Code::State, format!("cannot start a thread: {error}")))?;
    Ok(shared)
}

pub(super) struct Driver {
    shared: Arc<Shared>,
    journal: Journal,
    pipeline: Pipeline,
    handlers: Handlers,
    restart: Restart,
    /// Stops the running download.
    stop: Option<Stop>,
    /// Tells the engine that the wall clock was set, from when that first matters on.
    clock: Option<io::Result<Watch>>,
}

impl Driver {
    /// Opens the journal and gives the engine its start. `boot_id` as in [`Config`].
    pub(super) fn new(
        builder: Builder,
        seed: u64,
        boot_id: String,
    ) -> Result<(Self, Worker), Failure> {
        let Builder {
            state_dir,
            contract,
            mut installer,
            current_version,
            mut policy,
            trust,
            #[cfg(feature = "encryption")]
            identities,
            #[cfg(feature = "http")]
            http,
            windows,
            ready,
            handlers,
        } = builder;
        match &ready {
            Some(_) => policy.ready = Ready::Call,
            None if policy.ready == Ready::Call => {
                let text = "the policy has the application asked whether the device is ready, and it has not said how";
                return Err(Failure::new(Code::InvalidConfig, text));
            }
            None => {}
        }
        let (journal, loaded) = Journal::open(&state_dir)?;
        let mut notes = Vec::new();
        let stored = match loaded {
            Loaded::Empty => Stored::Empty,
            Loaded::Record(json) => Stored::Record(json),
            Loaded::Lost { files } => {
                let names: Vec<_> = files.iter().map(|p| p.display().to_string()).collect();
                notes.push(format!(
                    "no copy of the journal can be read: {}; what is saved next puts them aside",
                    names.join(" and ")
                ));
                Stored::Lost
            }
        };
        let image = installer.inspect();
        let unsure = image.is_err();
        let image = image.unwrap_or_else(|failure| {
            notes.push(format!(
                "which image is installed cannot be told: {failure}"
            ));
            ImageState::Unknown
        });
        let restart = installer.restart();
        let asked = Asked {
            health: match &policy.confirm {
                Confirm::Health(command) => command.clone(),
                _ => Vec::new(),
            },
            consent: policy.consent_command.clone(),
            ready: match &policy.ready {
                Ready::Command(command) => command.clone(),
                _ => Vec::new(),
            },
            on_ready: ready,
        };
        let offers = Offers::default();
        #[cfg(feature = "http")]
        let downloader = match http {
            Some(http) => Downloader::new(http)?,
            None => Downloader::of_offers(offers.clone()),
        };
        #[cfg(not(feature = "http"))]
        let downloader = Downloader::of_offers(offers.clone());
        #[cfg(feature = "encryption")]
        let downloader = match identities {
            Some(identities) => downloader.decrypting(identities),
            None => downloader,
        };
        let mut engine = Engine::new(Config {
            contract,
            policy,
            current_version,
            boot_id,
            restart: restart.clone(),
            installer: installer.describe(),
            seed,
        });
        if let Some(trust) = trust {
            engine.set_trust(trust);
        }
        engine.set_calendar(windows);
        let shared = Arc::new(Shared::new(engine, offers));
        shared.tell_what_is_wanted();
        let notes = notes
            .into_iter()
            .map(|note| Output::Event(Event::Warning(note)));
        shared.lock().outputs.extend(notes);
        shared.input(Input::Boot { stored, image });
        let (pipeline, worker) =
            Pipeline::new(Arc::clone(&shared), installer, downloader, asked, unsure);
        let driver = Self {
            shared,
            journal,
            pipeline,
            handlers,
            restart,
            stop: None,
            clock: None,
        };
        Ok((driver, worker))
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Saves what the start has decided: a start of a new version is counted before its application
    /// comes to do anything.
    pub(super) fn save_first(&mut self) {
        loop {
            let mut state = self.shared.lock();
            let mut outputs = state.outputs.iter();
            let Some(at) = outputs.position(|output| !matches!(output, Output::Event(_))) else {
                return;
            };
            let Some(Output::Save { record, checkpoint }) = state.outputs.get(at).cloned() else {
                return;
            };
            state.outputs.remove(at);
            drop(state);
            self.save(&record, checkpoint);
        }
    }

    fn run(self) {
        // Dropped last: the state directory is given back before anybody is told that it is.
        let _end = End(Arc::clone(&self.shared));
        let mut driver = self;
        driver.shared.warn_of_commands();
        while let Some(output) = driver.next() {
            driver.perform(output);
        }
    }

    /// The next output; `None` when all is done and the updater is to be closed.
    fn next(&mut self) -> Option<Output> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if let Some(handler) = state.new_outbound_handler.take() {
                self.handlers.outbound = Some(handler);
                for outbound in core::mem::take(&mut state.outbound).into_iter().rev() {
                    state.outputs.push_front(match outbound {
                        Outbound::Report(report) => Output::Report(report),
                        Outbound::ReadTwin => Output::ReadTwin,
                    });
                }
            }
            if state.closing {
                if let Some(stop) = self.stop.take() {
                    stop.stop();
                }
                // What was received is still saved; nothing new is begun.
                state.outputs.retain(|output| {
                    matches!(
                        output,
                        Output::Save { .. } | Output::Answer { .. } | Output::Event(_)
                    )
                });
            }
            if let Some(output) = state.outputs.pop_front() {
                state.performing = true;
                return Some(output);
            }
            if core::mem::take(&mut state.performing) {
                shared.changed.notify_all();
            }
            if state.closing && self.pipeline.is_idle() {
                return None;
            }
            if self.clock.is_none() && state.engine.goes_by_the_clock() {
                drop(state);
                self.watch_the_clock();
                state = shared.lock();
                continue;
            }
            let wake_at = state.engine.wake_at().filter(|_| !state.closing);
            let Some(at) = wake_at else {
                state = shared
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = at.saturating_sub(shared.monotonic());
            if left.is_zero() {
                shared.feed(&mut state, Input::Tick);
                if state.outputs.is_empty() && state.engine.wake_at() == Some(at) {
                    // Never spin on a timer that nothing comes of.
                    state = shared
                        .work
                        .wait_timeout(state, Duration::from_millis(50))
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                }
                continue;
            }
            state = shared
                .work
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn watch_the_clock(&mut self) {
        let shared = Arc::downgrade(&self.shared);
        let watch = Watch::start(move || {
            if let Some(shared) = shared.upgrade() {
                shared.input(Input::ClockSet);
            }
        });
        if let Err(error) = &watch {
            let text = format!("a clock that is set will be noticed late: {error}");
            self.tell(Event::Warning(text));
        }
        self.clock = Some(watch);
    }

    pub(super) fn perform(&mut self, output: Output) {
        match output {
            Output::Save { record, checkpoint } => self.save(&record, checkpoint),
            Output::Answer {
                id,
                status,
                payload,
            } => self.answer(id, Answer { status, payload }),
            Output::Report(report) => self.send(Outbound::Report(report)),
            Output::ReadTwin => self.send(Outbound::ReadTwin),
            Output::Download(job, image) => {
                let stop = Stop::new();
                self.stop = Some(stop.clone());
                self.pipeline.run(Task::Download(job, image, stop));
            }
            Output::FetchManifest(job) => {
                let stop = Stop::new();
                self.stop = Some(stop.clone());
                self.pipeline.run(Task::Manifest(job, stop));
            }
            Output::StopDownload => {
                if let Some(stop) = self.stop.take() {
                    stop.stop();
                }
            }
            Output::Ask(ask) => self.pipeline.run(Task::Ask(ask)),
            Output::Install(step) => self.pipeline.run(Task::Step(step)),
            Output::Restart => self.restart(),
            Output::Event(event) => self.tell(event),
        }
    }

    fn save(&mut self, record: &Record, checkpoint: bool) {
        #[cfg(test)]
        super::by_hand::saving(Some(record));
        let Err(failure) = self.journal.save(&record.to_json()) else {
            #[cfg(test)]
            super::by_hand::saving(None);
            return;
        };
        if checkpoint {
            // The last one still holds: only more would be fetched again.
            let text = format!("a checkpoint could not be saved: {failure}");
            return self.tell(Event::Warning(text));
        }
        let mut state = self.shared.lock();
        // What was to come after the save must not happen. Whoever waits is told.
        let events = |output: &Output| matches!(output, Output::Event(_));
        state.outputs.retain(events);
        let waiting: Vec<u64> = state.methods.keys().copied().collect();
        self.shared
            .feed(&mut state, Input::SaveFailed(failure.clone()));
        drop(state);
        let payload = serde_json::Value::from(failure.message).to_string();
        for id in waiting {
            let payload = payload.clone();
            self.answer(
                id,
                Answer {
                    status: 500,
                    payload,
                },
            );
        }
    }

    fn answer(&mut self, id: u64, answer: Answer) {
        let mut state = self.shared.lock();
        match state.methods.remove(&id) {
            Some(Slot::Then(then)) => {
                drop(state);
                then(answer);
            }
            Some(Slot::Waiting | Slot::Ready(_)) => {
                state.methods.insert(id, Slot::Ready(answer));
                self.shared.changed.notify_all();
            }
            None => {}
        }
    }

    fn send(&mut self, outbound: Outbound) {
        if let Some(handler) = &mut self.handlers.outbound {
            return handler(outbound);
        }
        let mut state = self.shared.lock();
        if state.outbound.len() >= OUTBOUND {
            state.outbound.pop_front();
        }
        state.outbound.push_back(outbound);
        self.shared.changed.notify_all();
    }

    fn restart(&mut self) {
        let restart = self.restart.clone();
        let result = match self.handlers.restart.take() {
            Some(mut handler) => {
                self.restarting();
                let result = handler(&restart);
                self.handlers.restart = Some(handler);
                result
            }
            None => restart::perform(&restart, || self.restarting()),
        };
        // A reboot that was asked for comes in its own time.
        if result.is_err() || matches!(restart, Restart::Command(_)) {
            self.shared.input(Input::Restarted(result));
        }
    }

    /// The command that restarts has been started, and may end this process: saves that while it runs.
    fn restarting(&mut self) {
        self.shared.input(Input::Restarting);
        loop {
            let next = {
                let mut state = self.shared.lock();
                // One that is asked for again, as a save has failed, comes after this one.
                let again = matches!(state.outputs.front(), Some(Output::Restart));
                (!again).then(|| state.outputs.pop_front()).flatten()
            };
            let Some(output) = next else { return };
            self.perform(output);
        }
    }

    fn tell(&mut self, event: Event) {
        if let Some(handler) = &mut self.handlers.event {
            handler(&event);
        }
        let mut state = self.shared.lock();
        state.readers.retain(|reader| {
            !matches!(
                reader.try_send(event.clone()),
                Err(mpsc::TrySendError::Disconnected(_))
            )
        });
    }
}
