//! What the driver's thread, the pipeline's thread and the callers share: the engine behind a lock.

use super::driver::OutboundHandler;
use super::{Answer, Event, Outbound};
use crate::clock;
use crate::command;
use crate::download::Offers;
use crate::engine::{Engine, Input, Now, Output, Status};
use crate::update::{Code, Ended, Failure};
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Events a reader may be behind.
const EVENTS: usize = 1000;
/// So long closing may take.
const CLOSE_TIME: Duration = Duration::from_millis(900);

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
    pub(super) work: Condvar,
    /// Something changed that a caller may wait for.
    pub(super) changed: Condvar,
    started: Instant,
    /// Where the application brings the bytes.
    pub(super) offers: Offers,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

pub(super) struct State {
    pub(super) engine: Engine,
    /// What nobody has fetched yet.
    pub(super) outbound: VecDeque<Outbound>,
    /// What the driver is to perform.
    pub(super) outputs: VecDeque<Output>,
    /// The driver is at work on an output.
    pub(super) performing: bool,
    pub(super) closing: bool,
    close_by: Option<Instant>,
    pub(super) closed: bool,
    pub(super) methods: HashMap<u64, Slot>,
    pub(super) readers: Vec<mpsc::SyncSender<Event>>,
    pub(super) new_outbound_handler: Option<OutboundHandler>,
    next_method: u64,
}

impl State {
    /// Everything the engine decided is done: saved, sent off, removed.
    pub(super) fn is_settled(&self) -> bool {
        self.outputs.is_empty() && !self.performing && !self.engine.is_at_work()
    }
}

impl Shared {
    pub(super) fn new(engine: Engine, offers: Offers) -> Self {
        Self {
            state: Mutex::new(State {
                engine,
                outbound: VecDeque::new(),
                outputs: VecDeque::new(),
                performing: false,
                closing: false,
                close_by: None,
                closed: false,
                methods: HashMap::new(),
                readers: Vec::new(),
                new_outbound_handler: None,
                next_method: 0,
            }),
            work: Condvar::new(),
            changed: Condvar::new(),
            started: clock::monotonic(),
            offers,
        }
    }

    /// From now on an event says that something else is wanted of the application.
    pub(super) fn tell_what_is_wanted(self: &Arc<Self>) {
        let shared = Arc::downgrade(self);
        self.offers.on_wanted(move || {
            if let Some(shared) = shared.upgrade() {
                shared.tell(Event::Wanted);
            }
        });
    }

    /// What commands that fail on this thread print becomes warnings from now on.
    pub(super) fn warn_of_commands(self: &Arc<Self>) {
        let shared = Arc::downgrade(self);
        command::listen(move |line| {
            if let Some(shared) = shared.upgrade() {
                shared.tell(Event::Warning(line));
            }
        });
    }

    /// An event that the engine knows nothing of.
    fn tell(&self, event: Event) {
        self.lock().outputs.push_back(Output::Event(event));
        self.work.notify_one();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let wall = clock::wall().duration_since(UNIX_EPOCH).ok();
        Now {
            monotonic: self.monotonic(),
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

    /// A task of the pipeline's ended. What fails while the updater is being closed is not judged: the
    /// next start goes on with it, as after a crash.
    pub(super) fn end_of_task(&self, end: Input<'_>) {
        let mut state = self.lock();
        let failed = matches!(
            end,
            Input::Done(_, Err(_)) | Input::TransferEnded(Ended::Failed(..))
        );
        match state.closing && failed {
            true => self.work.notify_one(),
            false if state.closed => {}
            false => self.feed(&mut state, end),
        }
    }

    pub(super) fn feed(&self, state: &mut State, input: Input<'_>) {
        self.give(state, input);
        // The time to wake up may have changed, too.
        self.work.notify_one();
        self.changed.notify_all();
    }

    /// As [`feed`](Self::feed), and wakes nobody.
    fn give(&self, state: &mut State, input: Input<'_>) {
        state.engine.handle(input, self.now());
        while let Some(output) = state.engine.poll() {
            state.outputs.push_back(output);
        }
    }

    /// The monotonic clock the engine is given.
    pub(super) fn monotonic(&self) -> Duration {
        clock::monotonic().saturating_duration_since(self.started)
    }

    pub(super) fn status(&self) -> Status {
        self.lock().engine.status_at(self.now())
    }

    /// The state of one that is not closed.
    pub(super) fn lock_open(&self) -> Result<MutexGuard<'_, State>, Failure> {
        let state = self.lock();
        match state.closing || state.closed {
            true => Err(Failure::new(Code::State, "the updater is closed")),
            false => Ok(state),
        }
    }

    /// Gives the engine an input, if this says that it may be given.
    pub(super) fn input_if<T>(
        &self,
        input: Input<'_>,
        check: impl FnOnce(&Engine) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut state = self.lock_open()?;
        let checked = check(&state.engine)?;
        self.feed(&mut state, input);
        Ok(checked)
    }

    pub(super) fn image(&self) -> Option<(u64, [u8; 32])> {
        self.lock().engine.image()
    }

    pub(super) fn wanted_sha256(&self) -> Option<[u8; 32]> {
        self.lock().engine.wanted_sha256()
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

    /// Waits until the driver has performed what there is; `false` where it has gone. Not on the driver's
    /// thread.
    pub(super) fn until_performed(&self) -> bool {
        #[cfg(test)]
        super::by_hand::perform_all();
        let mut state = self.lock();
        while !state.closed && (!state.outputs.is_empty() || state.performing) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        !state.closed
    }

    pub(super) fn method(&self, name: &str, payload: &[u8]) -> Option<Answer> {
        let (id, answer) = self.call(name, payload, Slot::Waiting)?;
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
        let Some((_, answer)) = self.call(name, payload, slot) else {
            return false;
        };
        if let Some((answer, Slot::Then(then))) = answer {
            then(answer);
        }
        true
    }

    /// Gives the engine a method. An answer that waits for nothing is taken out at once, so that a
    /// refusal or a repetition costs no change of threads.
    fn call(
        &self,
        name: &str,
        payload: &[u8],
        slot: Slot,
    ) -> Option<(u64, Option<(Answer, Slot)>)> {
        let mut state = self.lock();
        if !state.engine.takes_method(name) {
            return None;
        }
        state.next_method += 1;
        let id = state.next_method;
        // Closed without having been asked to: the driver's thread has ended by a callback's panic.
        if state.closing || state.closed {
            return Some((id, Some((closing(), slot))));
        }
        let idle = state.outputs.is_empty() && !state.performing;
        let wake_at = state.engine.wake_at();
        self.give(&mut state, Input::Method { id, name, payload });
        let place = state
            .outputs
            .iter()
            .position(|output| !matches!(output, Output::Event(_)));
        let answer = place
            .filter(|at| {
                let first = state.outputs.get(*at);
                idle && matches!(first, Some(Output::Answer { id: of, .. }) if *of == id)
            })
            .and_then(|at| state.outputs.remove(at));
        let Some(Output::Answer {
            status, payload, ..
        }) = answer
        else {
            state.methods.insert(id, slot);
            self.work.notify_one();
            self.changed.notify_all();
            return Some((id, None));
        };
        // Whoever was woken while the lock is held would only wait for it.
        let work = !state.outputs.is_empty() || state.engine.wake_at() != wake_at;
        drop(state);
        if work {
            self.work.notify_one();
        }
        Some((id, Some((Answer { status, payload }, slot))))
    }

    /// Begins to close, if that has not been done: until when that may take.
    pub(super) fn begin_close(&self) -> Instant {
        let mut state = self.lock();
        self.work.notify_one();
        state.closing = true;
        *state
            .close_by
            .get_or_insert_with(|| Instant::now() + CLOSE_TIME)
    }

    pub(super) fn close(&self) {
        let deadline = self.begin_close();
        let mut state = self.lock();
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

/// Ends the waiting of everybody; dropped by the driver's thread however it ends.
pub(super) struct End(pub(super) Arc<Shared>);

impl Drop for End {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.readers.clear();
        self.0.offers.close();
        let waiting: Vec<_> = state.methods.drain().collect();
        drop(state);
        self.0.changed.notify_all();
        for (_, slot) in waiting {
            if let Slot::Then(then) = slot {
                then(closing());
            }
        }
    }
}

fn closing() -> Answer {
    Answer {
        status: 503,
        payload: r#""The device is being stopped.""#.into(),
    }
}
