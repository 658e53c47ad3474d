//! The engine with a board around it: performs what can be performed by the board's functions, and leaves
//! the rest to the application.

use crate::board::Board;
use crate::fetch::{Abort, Fetch, Said};
use crate::output::{Output as Out, terminated, twinflash_sansio_kind as Kind};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;
use twinflash::engine::{Config, Engine, Input, Now, Output, Reply, Step};
use twinflash::update::trust::Trust;
use twinflash::update::{Code, Ended, Failure, ImageInfo, Job, Progress, Retry, answer::Head};

/// A timer that nothing comes of is looked at again after this.
const REST: Duration = Duration::from_millis(50);

/// What waits to be done, in order.
enum Item {
    /// By the application.
    Out(Out),
    /// By the board.
    Step(Step),
    /// A download is to begin.
    Fetch(Box<Job>, ImageInfo),
}

pub(crate) struct Driven {
    engine: Engine,
    board: Board,
    items: VecDeque<Item>,
    fetch: Option<Fetch>,
    /// Methods that have no answer yet.
    methods: Vec<u64>,
    /// What the application was given last.
    given: Option<Out>,
    rest_until: Duration,
}

impl Driven {
    pub(crate) fn start(config: Config, trust: Option<Trust>, mut board: Board, now: Now) -> Self {
        let (stored, image) = (board.load(), board.inspect());
        let mut driven = Self {
            engine: Engine::new(config),
            board,
            items: VecDeque::new(),
            fetch: None,
            methods: Vec::new(),
            given: None,
            rest_until: Duration::ZERO,
        };
        if let Some(trust) = trust {
            driven.engine.set_trust(trust);
        }
        driven.input(Input::Boot { stored, image }, now);
        driven
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn input(&mut self, input: Input<'_>, now: Now) {
        if let Input::Method { id, .. } = input {
            self.methods.push(id);
        }
        self.engine.handle(input, now);
        self.pump(now);
    }

    /// Saves what is to be saved, and puts the rest in line.
    fn pump(&mut self, now: Now) {
        while let Some(output) = self.engine.poll() {
            match output {
                Output::Save { record, checkpoint } => {
                    if let Err(failure) = self.board.save(&record.to_json()) {
                        self.not_saved(failure, checkpoint, now);
                    }
                }
                Output::Answer {
                    id,
                    status,
                    payload,
                } => self.answer(id, status, &payload),
                Output::Report(report) => self.put(Out {
                    id: report.id,
                    ..Out::new(Kind::Report, &report.patch)
                }),
                Output::ReadTwin => self.put(Out::new(Kind::ReadTwin, "")),
                Output::Download(job, image) => self.items.push_back(Item::Fetch(job, image)),
                Output::StopDownload => self.stop(now),
                Output::FetchManifest(_) => {
                    let why = "the manifest has to be in the request: this library fetches none";
                    let failure = Failure::new(Code::ManifestRequired, why);
                    let ended = Ended::Failed(failure, Retry::Never);
                    self.engine.handle(Input::TransferEnded(ended), now);
                }
                // A board's configuration has nobody to be asked; were there somebody, silence is no consent.
                Output::Ask(ask) => {
                    let (id, reply) = (ask.id, Reply::No);
                    self.engine.handle(Input::Reply { id, reply }, now);
                }
                Output::Install(step) => self.items.push_back(Item::Step(step)),
                Output::Restart => self.put(Out::new(Kind::Restart, "")),
                Output::Event(event) => {
                    if let Some(out) = Out::event(event) {
                        self.put(out);
                    }
                }
            }
        }
    }

    fn put(&mut self, out: Out) {
        self.items.push_back(Item::Out(out));
    }

    fn answer(&mut self, id: u64, status: u16, payload: &str) {
        self.methods.retain(|waiting| *waiting != id);
        self.put(Out {
            id,
            status: status.into(),
            ..Out::new(Kind::Answer, payload)
        });
    }

    fn not_saved(&mut self, failure: Failure, checkpoint: bool, now: Now) {
        if checkpoint {
            // The last one still holds: only more would be fetched again.
            return self.put(Out::new(Kind::Warning, "a checkpoint could not be saved"));
        }
        // What was to come after the save must not happen. Whoever waits is told.
        while let Some(output) = self.engine.poll() {
            if let Output::Event(event) = output
                && let Some(out) = Out::event(event)
            {
                self.put(out);
            }
        }
        let waiting = core::mem::take(&mut self.methods);
        self.engine.handle(Input::SaveFailed(failure), now);
        for id in waiting {
            self.answer(id, 500, "\"the state could not be saved\"");
        }
    }

    /// The running download, or one in line, is not wanted any more.
    fn stop(&mut self, now: Now) {
        self.items.retain(|item| !matches!(item, Item::Fetch(..)));
        if let Some(mut fetch) = self.fetch.take() {
            let mut said = Said::new();
            fetch.keep(&self.board, now.monotonic, &mut said);
            self.say(said, now);
            self.put(Out::new(Kind::StopFetch, ""));
        }
        self.engine
            .handle(Input::TransferEnded(Ended::Stopped), now);
    }

    fn say(&mut self, said: Said, now: Now) {
        for progress in said {
            self.engine.handle(Input::Transfer(progress), now);
        }
    }

    /// The next thing the application has to do.
    pub(crate) fn poll(&mut self, now: Now) -> Option<&Out> {
        self.tick(now);
        self.given = None;
        while let Some(item) = self.items.pop_front() {
            match item {
                Item::Out(out) => return Some(self.given.insert(out)),
                Item::Step(step) => {
                    let result = self.step(step);
                    self.input(Input::Done(step, result), now);
                }
                Item::Fetch(job, image) => {
                    if let Some(out) = self.begin(job, image, now) {
                        return Some(self.given.insert(out));
                    }
                }
            }
        }
        None
    }

    fn tick(&mut self, now: Now) {
        let time = now.monotonic;
        if let Some(fetch) = self.fetch.as_ref().filter(|f| f.stalls_at() <= time) {
            let stalled = fetch.stalled();
            self.put(Out::new(Kind::StopFetch, ""));
            self.end(Err(stalled), now);
        }
        if self.engine.wake_at().is_some_and(|at| at <= time) {
            let before = (self.engine.wake_at(), self.items.len());
            self.input(Input::Tick, now);
            if before == (self.engine.wake_at(), self.items.len()) {
                self.rest_until = time.saturating_add(REST);
            }
        }
    }

    pub(crate) fn wake_at(&self) -> Option<Duration> {
        if !self.items.is_empty() {
            return Some(Duration::ZERO);
        }
        let engine = self.engine.wake_at().map(|at| at.max(self.rest_until));
        let stall = self.fetch.as_ref().map(Fetch::stalls_at);
        engine.into_iter().chain(stall).min()
    }

    fn step(&mut self, step: Step) -> Result<(), Failure> {
        match step {
            Step::Finish => self.board.finish(self.engine.image()),
            Step::Activate => self.board.activate(),
            Step::Confirm => self.board.confirm(),
            Step::Rollback => self.board.rollback(),
            Step::Abort => self.board.abort(),
            Step::Compare => self.board.holds(self.engine.wanted_sha256()),
            Step::CheckHealth => Ok(()),
        }
    }

    fn begin(&mut self, job: Box<Job>, image: ImageInfo, now: Now) -> Option<Out> {
        let mut said = Said::new();
        let started = Fetch::start(job, image, &self.board, now.monotonic, &mut said);
        self.say(said, now);
        let ended = match started {
            Err(abort) => Err(abort),
            Ok((_, Some(ended))) => Ok(ended),
            Ok((fetch, None)) => {
                let (offset, validator) = fetch.range();
                let out = Out {
                    offset,
                    validator: validator.map(terminated),
                    https_only: fetch.https_only(),
                    ..Out::new(Kind::Fetch, fetch.uri())
                };
                self.fetch = Some(fetch);
                self.pump(now);
                return Some(out);
            }
        };
        self.end(ended, now);
        None
    }

    /// The attempt has ended.
    fn end(&mut self, ended: Result<Ended, Abort>, now: Now) {
        let mut said = Said::new();
        let ended = ended.unwrap_or_else(|(failure, retry)| {
            if let (Some(fetch), Retry::Resume(_)) = (&mut self.fetch, retry) {
                fetch.keep(&self.board, now.monotonic, &mut said);
            }
            Ended::Failed(failure, retry)
        });
        self.fetch = None;
        self.say(said, now);
        self.input(Input::TransferEnded(ended), now);
    }

    /// Runs a step of the attempt; `false` where there is none, or no longer.
    fn fetching(
        &mut self,
        now: Now,
        step: impl FnOnce(&mut Fetch, &Board, Duration, &mut Said) -> Result<Option<Ended>, Abort>,
    ) -> bool {
        let mut said = Said::new();
        let Some(fetch) = &mut self.fetch else {
            return false;
        };
        let result = step(fetch, &self.board, now.monotonic, &mut said);
        self.say(said, now);
        match result {
            Ok(None) => self.pump(now),
            Ok(Some(ended)) => self.end(Ok(ended), now),
            Err(abort) => self.end(Err(abort), now),
        }
        self.fetch.is_some()
    }

    pub(crate) fn answered(&mut self, head: &Head<'_>, now: Now) -> bool {
        let going_on = self.fetching(now, |fetch, _, time, said| {
            if fetch.answered(head, time)? {
                // Else a power cut would leave the checkpoint beside bytes that are not its own.
                said.push_back(Progress::StartingOver);
            }
            Ok(None)
        });
        going_on
            && self.fetching(now, |fetch, board, _, said| {
                fetch.begin(board, said).map(|()| None)
            })
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8], now: Now) -> bool {
        self.fetching(now, |fetch, board, time, said| {
            fetch.bytes(bytes, board, time, said).map(|()| None)
        })
    }

    /// The body's end; `false` where nothing was fetched.
    pub(crate) fn ended(&mut self, now: Now) -> bool {
        let was = self.fetch.is_some();
        self.fetching(now, |fetch, board, time, said| {
            fetch.ended(board, time, said).map(Some)
        });
        was
    }

    /// The transport failed; `false` where nothing was fetched.
    pub(crate) fn broken(&mut self, code: Code, why: &str, now: Now) -> bool {
        let was = self.fetch.is_some();
        self.fetching(now, |fetch, _, _, _| Err(fetch.broken(code, why)));
        was
    }
}
