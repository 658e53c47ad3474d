//! The driver: performs the engine's outputs in order, on a thread of its own.

use super::pipeline::{Pipeline, Task};
use super::{Answer, Builder, Event, Outbound, restart};
use crate::download::{Downloader, Stop};
use crate::engine::{Config, Engine, Input, Now, Output, Status, Stored};
use crate::install::{ImageState, Restart};
use crate::journal::{Journal, Loaded};
use crate::update::{Code, Confirm, Failure, Record};
use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Events a reader may be behind.
const EVENTS: usize = 1000;
/// Things to send that nobody takes; the reporter has one report in flight.
const OUTBOUND: usize = 16;

type OutboundHandler = Box<dyn FnMut(Outbound) + Send>;
type RestartHandler = Box<dyn FnMut(&Restart) -> Result<(), Failure> + Send>;

/// What the application has handed over to be called on the driver's thread.
#[derive(Default)]
pub(super) struct Handlers {
    pub(super) event: Option<Box<dyn FnMut(&Event) + Send>>,
    pub(super) outbound: Option<OutboundHandler>,
    pub(super) restart: Option<RestartHandler>,
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handlers").finish_non_exhaustive()
    }
}

/// Who waits for a method's answer.
pub(super) enum Slot {
    /// A thread, in [`Shared::method`].
    Waiting,
    /// It is there; the thread has not taken it yet.
    Ready(Answer),
    /// A function.
    Then(Box<dyn FnOnce(Answer) + Send>),
}

/// What the driver's thread, the pipeline's thread and the callers share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is something for the driver.
    work: Condvar,
    /// Something changed that a caller may wait for.
    changed: Condvar,
    started: Instant,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

pub(super) struct State {
    pub(super) engine: Engine,
    pub(super) outbound: VecDeque<Outbound>,
    outputs: VecDeque<Output>,
    performing: bool,
    closing: bool,
    closed: bool,
    methods: HashMap<u64, Slot>,
    next_method: u64,
    readers: Vec<mpsc::SyncSender<Event>>,
    new_outbound_handler: Option<OutboundHandler>,
    has_outbound_handler: bool,
}

pub(super) fn start(builder: Builder) -> Result<Arc<Shared>, Failure> {
    let Builder {
        state_dir,
        contract,
        mut installer,
        current_version,
        policy,
        http,
        handlers,
    } = builder;
    let (journal, loaded) = Journal::open(&state_dir)?;
    let mut notes = Vec::new();
    let stored = match loaded {
        Loaded::Empty => Stored::Empty,
        Loaded::Record(json) => Stored::Record(json),
        Loaded::Lost { set_aside } => {
            let names: Vec<_> = set_aside.iter().map(|p| p.display().to_string()).collect();
            notes.push(format!(
                "both copies of the journal are damaged; they were put aside as {}",
                names.join(" and ")
            ));
            Stored::Lost
        }
    };
    let image = installer.inspect().unwrap_or_else(|failure| {
        notes.push(format!(
            "which image is installed cannot be told: {failure}"
        ));
        ImageState::Unknown
    });
    let seed = RandomState::new().hash_one(std::process::id());
    let restart = installer.restart();
    let health = match &policy.confirm {
        Confirm::Health(command) => command.clone(),
        _ => Vec::new(),
    };
    let downloader = Downloader::new(http)?;
    let engine = Engine::new(Config {
        contract,
        policy,
        current_version,
        boot_id: restart::boot_id(&restart, seed),
        restart: restart.clone(),
        installer: installer.describe(),
        seed,
    });
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            engine,
            outbound: VecDeque::new(),
            outputs: notes
                .into_iter()
                .map(|n| Output::Event(Event::Warning(n)))
                .collect(),
            performing: false,
            closing: false,
            closed: false,
            methods: HashMap::new(),
            next_method: 0,
            readers: Vec::new(),
            new_outbound_handler: None,
            has_outbound_handler: handlers.outbound.is_some(),
        }),
        work: Condvar::new(),
        changed: Condvar::new(),
        started: Instant::now(),
    });
    shared.input(Input::Boot { stored, image });
    let pipeline = Pipeline::start(Arc::clone(&shared), installer, downloader, health)?;
    let driver = Driver {
        shared: Arc::clone(&shared),
        journal,
        pipeline,
        handlers,
        restart,
        stop: None,
    };
    thread::Builder::new()
        .name("twinflash".into())
        .spawn(move || driver.run())
        .map_err(|error| Failure::new(Code::State, format!("cannot start a thread: {error}")))?;
    Ok(shared)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        Now {
            monotonic: self.started.elapsed(),
            wall: wall.and_then(|wall| u64::try_from(wall.as_millis()).ok()),
        }
    }

    /// Gives the engine an input; the driver performs what comes of it.
    pub(super) fn input(&self, input: Input<'_>) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        self.feed(&mut state, input);
    }

    fn feed(&self, state: &mut State, input: Input<'_>) {
        state.engine.handle(input, self.now());
        while let Some(output) = state.engine.poll() {
            state.outputs.push_back(output);
        }
        // The time to wake up may have changed, too.
        self.work.notify_one();
        self.changed.notify_all();
    }

    pub(super) fn status(&self) -> Status {
        self.lock().engine.status()
    }

    pub(super) fn wall_time(&self) -> Option<SystemTime> {
        let wall = self.lock().engine.wall_time(self.now())?;
        Some(UNIX_EPOCH + Duration::from_millis(wall))
    }

    pub(super) fn subscribe(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::sync_channel(EVENTS);
        let mut state = self.lock();
        if !state.closed {
            state.readers.push(sender);
        }
        receiver
    }

    pub(super) fn set_outbound(&self, handler: OutboundHandler) {
        let mut state = self.lock();
        state.new_outbound_handler = Some(handler);
        state.has_outbound_handler = true;
        self.work.notify_one();
    }

    /// Waits until `find` finds something.
    pub(super) fn wait_for<T>(
        &self,
        timeout: Duration,
        mut find: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&mut state) {
                return Some(found);
            }
            if state.closed {
                return None;
            }
            let left = match deadline {
                Some(deadline) => deadline.checked_duration_since(Instant::now())?,
                None => timeout,
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    pub(super) fn method(&self, name: &str, payload: &[u8]) -> Option<Answer> {
        let (state, id, answer) = self.call(name, payload, Slot::Waiting)?;
        drop(state);
        if let Some((answer, _)) = answer {
            return Some(answer);
        }
        let ready = self.wait_for(Duration::MAX, |state| {
            match state.methods.remove(&id) {
                Some(Slot::Ready(answer)) => return Some(answer),
                Some(other) => state.methods.insert(id, other),
                None => None,
            };
            None
        });
        Some(ready.unwrap_or_else(closing))
    }

    pub(super) fn method_then(&self, name: &str, payload: &[u8], slot: Slot) -> bool {
        let Some((state, _, answer)) = self.call(name, payload, slot) else {
            return false;
        };
        drop(state);
        if let Some((answer, Slot::Then(then))) = answer {
            then(answer);
        }
        true
    }

    /// Gives the engine a method. An answer that waits for nothing is taken out at once, so that a
    /// refusal or a repetition costs no change of threads.
    #[expect(clippy::type_complexity)]
    fn call(
        &self,
        name: &str,
        payload: &[u8],
        slot: Slot,
    ) -> Option<(MutexGuard<'_, State>, u64, Option<(Answer, Slot)>)> {
        let mut state = self.lock();
        if !state.engine.takes_method(name) {
            return None;
        }
        state.next_method += 1;
        let id = state.next_method;
        if state.closing {
            return Some((state, id, Some((closing(), slot))));
        }
        let idle = state.outputs.is_empty() && !state.performing;
        self.feed(&mut state, Input::Method { id, name, payload });
        let place = state
            .outputs
            .iter()
            .position(|output| !matches!(output, Output::Event(_)));
        let at_once = idle && place.is_some_and(
            |at| matches!(state.outputs.get(at), Some(Output::Answer { id: of, .. }) if *of == id),
        );
        if at_once {
            if let Some(Output::Answer {
                status, payload, ..
            }) = place.and_then(|at| state.outputs.remove(at))
            {
                return Some((state, id, Some((Answer { status, payload }, slot))));
            }
        }
        state.methods.insert(id, slot);
        Some((state, id, None))
    }

    pub(super) fn close(&self, deadline: Instant) {
        let mut state = self.lock();
        state.closing = true;
        self.work.notify_one();
        while !state.closed {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return;
            };
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

fn closing() -> Answer {
    Answer {
        status: 503,
        payload: r#""The device is being stopped.""#.into(),
    }
}

struct Driver {
    shared: Arc<Shared>,
    journal: Journal,
    pipeline: Pipeline,
    handlers: Handlers,
    restart: Restart,
    /// Stops the running download.
    stop: Option<Stop>,
}

impl Driver {
    fn run(mut self) {
        while let Some(output) = self.next() {
            self.perform(output);
        }
        // Gives the state directory back before anybody is told that it is.
        let Self {
            shared, journal, ..
        } = self;
        drop(journal);
        let mut state = shared.lock();
        state.closed = true;
        state.readers.clear();
        let waiting: Vec<_> = state.methods.drain().collect();
        drop(state);
        for (_, slot) in waiting {
            if let Slot::Then(then) = slot {
                then(closing());
            }
        }
        shared.changed.notify_all();
    }

    /// The next output; `None` when all is done and the updater is to be closed.
    fn next(&mut self) -> Option<Output> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if let Some(handler) = state.new_outbound_handler.take() {
                self.handlers.outbound = Some(handler);
                for outbound in core::mem::take(&mut state.outbound) {
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
            state.performing = false;
            if state.closing && self.pipeline.is_idle() {
                return None;
            }
            let wake_at = state.engine.wake_at().filter(|_| !state.closing);
            let Some(at) = wake_at else {
                state = shared
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = at.saturating_sub(shared.started.elapsed());
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

    fn perform(&mut self, output: Output) {
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
            Output::StopDownload => {
                if let Some(stop) = self.stop.take() {
                    stop.stop();
                }
            }
            Output::Install(step) => self.pipeline.run(Task::Step(step)),
            Output::Restart => self.restart(),
            Output::Event(event) => self.tell(event),
        }
    }

    fn save(&mut self, record: &Record, checkpoint: bool) {
        let Err(failure) = self.journal.save(&record.to_json()) else {
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
        let result = match &mut self.handlers.restart {
            Some(handler) => handler(&self.restart),
            None => restart::perform(&self.restart),
        };
        // A reboot that was asked for comes in its own time.
        if result.is_err() || matches!(self.restart, Restart::Command(_)) {
            self.shared.input(Input::Restarted(result));
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
