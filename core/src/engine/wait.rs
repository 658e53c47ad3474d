//! What may hold up an update that could go on: its user, its owner's calendar, the device itself.
//!
//! Each stage, the download and what follows it, begins when nothing holds it up at one and the same
//! moment. All of it is looked at anew whenever something happens; what only time changes says when.

use super::calendar::Always;
use super::{
    Ask, Calendar, Engine, Event, Now, Opening, Output, Question, Reply, Wait, Waiting, Work,
};
use crate::update::{Code, Failure, Origin, Phase, Ready, Request, Stage, Timer, Update};
use alloc::{boxed::Box, format, string::ToString};
use core::time::Duration;

/// How often it is looked whether the clock can be believed by now.
const CLOCK_PAUSE: Duration = Duration::from_secs(10);
/// Nothing is put off for longer at a time, in milliseconds: a year.
const LONGEST: u64 = 366 * 24 * 3_600_000;

/// What an update waits for.
#[derive(Debug)]
pub(super) struct Waits {
    calendar: Box<dyn Calendar>,
    /// What it waits for, as was last told.
    waiting: Option<(Wait, Stage)>,
    /// Then it is looked at again.
    pub(super) at: Option<Duration>,
    /// When the user has been left alone for long enough, and when the start is no longer delayed.
    deferred: Clock,
    delayed: Clock,
    /// When the consent command, and who knows whether the device is ready, are asked again.
    consent_at: Duration,
    ready_at: Duration,
    /// The device was ready for this stage at this moment.
    ready: Option<(Stage, Duration)>,
    /// The last question's number.
    asked: u64,
    /// A running download is looked at again when its window closes.
    pub(super) closes_at: Option<Duration>,
}

/// A [`Timer`] that runs.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    at: Option<Duration>,
    /// How much of it had passed before this start is not known yet.
    unsure: bool,
}

impl Default for Waits {
    fn default() -> Self {
        Self {
            calendar: Box::new(Always),
            waiting: None,
            at: None,
            deferred: Clock::default(),
            delayed: Clock::default(),
            consent_at: Duration::ZERO,
            ready_at: Duration::ZERO,
            ready: None,
            asked: 0,
            closes_at: None,
        }
    }
}

/// What holds a stage up.
struct Hold {
    on: Wait,
    /// Until then, on the monotonic clock; `None` is until something happens.
    at: Option<Duration>,
}

impl Engine {
    /// From now on nothing is downloaded or applied but when this says so.
    pub fn set_calendar(&mut self, calendar: impl Calendar + 'static) {
        self.waits.calendar = Box::new(calendar);
    }

    /// Another update, or none: nothing is waited for.
    pub(super) fn reset_waits(&mut self) {
        let old = core::mem::take(&mut self.waits);
        self.waits.calendar = old.calendar;
        // An answer to a question of before is none to the next.
        self.waits.asked = old.asked;
    }

    /// Draws the time after which a request's download begins.
    pub(super) fn draw_delay(&mut self, request: &Request) -> Option<Timer> {
        let longest = self.config.policy.start_delay.as_millis();
        let longest = u64::try_from(longest).unwrap_or(u64::MAX).min(LONGEST);
        if longest == 0 || request.origin == Origin::Local {
            return None;
        }
        let millis = self.random() % (longest + 1);
        Some(self.timer(millis))
    }

    fn timer(&self, millis: u64) -> Timer {
        let wall = self.wall_time(self.now);
        Timer {
            millis,
            until: wall.map(|wall| wall.saturating_add(millis)),
        }
    }

    /// When a timer is over; none runs longer than the whole of it after a start.
    fn run(&self, timer: Option<Timer>, clock: Clock) -> Clock {
        let Some(timer) = timer else {
            return Clock::default();
        };
        if clock.at.is_some() && !clock.unsure {
            return clock;
        }
        let wall = self.wall_time(self.now);
        let whole = timer.millis.min(LONGEST);
        let left = match (timer.until, wall) {
            (Some(until), Some(wall)) => until.saturating_sub(wall).min(whole),
            _ => whole,
        };
        let at = self
            .now
            .monotonic
            .saturating_add(Duration::from_millis(left));
        Clock {
            at: Some(clock.at.map_or(at, |before| before.min(at))),
            unsure: timer.until.is_some() && wall.is_none(),
        }
    }

    /// Whether the running update's download, its manifest's included, is still delayed.
    pub(super) fn is_start_delayed(&mut self) -> bool {
        let timer = self.record.running().and_then(|update| update.start_delay);
        self.waits.delayed = self.run(timer, self.waits.delayed);
        let left = self.waits.delayed.at.filter(|at| self.now.monotonic < *at);
        if let Some(at) = left {
            let (on, at) = (Wait::StartDelay, Some(at));
            return self.hold(Stage::Download, Some(Hold { on, at }));
        }
        if self.waits.waiting == Some((Wait::StartDelay, Stage::Download)) {
            self.hold(Stage::Download, None);
        }
        false
    }

    /// The download waits until the clock can be believed; `true` where it has not before.
    pub(super) fn wait_for_clock(&mut self) -> bool {
        let (on, at) = (Wait::Clock, self.now.monotonic.saturating_add(CLOCK_PAUSE));
        let first = self.waits.waiting != Some((on, Stage::Download));
        self.hold(Stage::Download, Some(Hold { on, at: Some(at) }));
        first
    }

    /// Whether something holds this stage up. What that is is told, and when it is looked at again known;
    /// who is to be asked is asked.
    pub(super) fn is_held_up(&mut self, stage: Stage) -> bool {
        let hold = self.held_up(stage);
        self.hold(stage, hold)
    }

    fn hold(&mut self, before: Stage, hold: Option<Hold>) -> bool {
        let Some(Hold { on, at }) = hold else {
            self.waits.at = None;
            self.waits.waiting = None;
            return false;
        };
        self.waits.at = at;
        let told = self.waits.waiting.replace((on, before));
        if told != Some((on, before))
            && let Some(waiting) = self.waiting(self.now)
        {
            self.event(Event::Waiting(waiting));
        }
        true
    }

    fn held_up(&mut self, stage: Stage) -> Option<Hold> {
        let now = self.now.monotonic;
        let hold = |on, at| Some(Hold { on, at });
        let update = self.record.running()?;
        let (timer, local) = (update.deferred, update.request.origin == Origin::Local);
        let agreed = update.approved >= Some(stage);
        self.waits.deferred = self.run(timer, self.waits.deferred);
        if let Some(at) = self.waits.deferred.at.filter(|at| now < *at) {
            return hold(Wait::Deferral, Some(at));
        }
        if !agreed && self.config.policy.consent.contains(&stage) {
            if self.config.policy.consent_command.is_empty() {
                return hold(Wait::Consent, None);
            }
            if now < self.waits.consent_at {
                return hold(Wait::Consent, Some(self.waits.consent_at));
            }
            self.ask(Question::Consent, stage);
            return hold(Wait::Consent, None);
        }
        // What is on this device already takes no traffic.
        if local && stage == Stage::Download {
            return None;
        }
        self.waits.closes_at = None;
        let wall = self.wall_time(self.now);
        match (self.waits.calendar.at(stage, wall), wall) {
            (Opening::Closed { until: Some(until) }, Some(wall)) => {
                return hold(
                    Wait::Window,
                    Some(self.in_millis(until.saturating_sub(wall))),
                );
            }
            (Opening::Closed { .. }, _) => {
                return hold(Wait::Clock, Some(now.saturating_add(CLOCK_PAUSE)));
            }
            (Opening::Open { until: Some(until) }, Some(wall)) => {
                self.waits.closes_at = Some(self.in_millis(until.saturating_sub(wall)));
            }
            (Opening::Open { .. }, _) => {}
        }
        if self.config.policy.ready == Ready::Always || self.waits.ready == Some((stage, now)) {
            return None;
        }
        if now < self.waits.ready_at {
            return hold(Wait::Ready, Some(self.waits.ready_at));
        }
        self.ask(Question::Ready, stage);
        hold(Wait::Ready, None)
    }

    fn in_millis(&self, millis: u64) -> Duration {
        self.now
            .monotonic
            .saturating_add(Duration::from_millis(millis))
    }

    fn ask(&mut self, question: Question, stage: Stage) {
        self.waits.asked += 1;
        let id = self.waits.asked;
        self.work = Some(Work::Ask {
            id,
            question,
            stage,
        });
        let request = self.request();
        self.output(Output::Ask(Ask {
            id,
            question,
            stage,
            version: request.and_then(|request| request.version.clone()),
            size: request.and_then(|request| request.size),
        }));
    }

    /// Somebody who was asked has answered.
    pub(super) fn replied(&mut self, id: u64, reply: Reply) {
        let (question, stage) = match self.work {
            Some(Work::Ask {
                id: of,
                question,
                stage,
            }) if of == id => (question, stage),
            _ => return,
        };
        self.work = None;
        let policy = &self.config.policy;
        let now = self.now.monotonic;
        let again =
            |after: Option<Duration>, interval| now.saturating_add(after.unwrap_or(interval));
        match (question, reply) {
            (Question::Consent, Reply::Yes) => self.agree(stage),
            (Question::Consent, Reply::Later(after)) => {
                self.waits.consent_at = again(after, policy.consent_interval);
            }
            (Question::Consent, Reply::No) => {
                let text = "the user does not agree to the update";
                self.event(Event::Warning(text.to_string()));
                self.cancel();
            }
            (Question::Ready, Reply::Yes) => self.waits.ready = Some((stage, now)),
            (Question::Ready, Reply::Later(after)) => {
                self.waits.ready_at = again(after, policy.ready_interval);
            }
            (Question::Ready, Reply::No) => {
                self.waits.ready_at = again(None, policy.ready_interval);
            }
        }
    }

    fn agree(&mut self, stage: Stage) {
        self.change(|update| {
            update.approved = update.approved.max(Some(stage));
            update.deferred = None;
        });
        self.save();
    }

    /// Whether something can hold the running update up before it is applied.
    pub(super) fn may_have_to_wait(&self) -> bool {
        let policy = &self.config.policy;
        let update = self.record.running();
        policy.consent.contains(&Stage::Apply)
            || policy.ready != Ready::Always
            || update.is_some_and(|update| update.deferred.is_some())
            || self.waits.calendar.at(Stage::Apply, None) != Opening::Open { until: None }
    }

    /// The stage the user has to agree to before the running update goes on.
    pub fn asks_consent(&self) -> Option<Stage> {
        let update = self.record.running()?;
        let stage = next_stage(update)?;
        let asked = self.config.policy.consent.contains(&stage);
        (asked && update.approved < Some(stage)).then_some(stage)
    }

    /// The user agrees to what is asked for; nothing happens where that is nothing.
    pub(super) fn approve(&mut self) {
        if let Some(stage) = self.asks_consent() {
            self.give_up_asking();
            self.agree(stage);
        }
    }

    /// A question that is still to be answered is of no matter any more.
    fn give_up_asking(&mut self) {
        if matches!(self.work, Some(Work::Ask { .. })) {
            self.work = None;
        }
    }

    /// Whether there is an update that can be put off; `false` where none runs.
    ///
    /// # Errors
    /// [`Code::Busy`]: its image is being applied, or has been.
    pub fn can_defer(&self) -> Result<bool, Failure> {
        match self.record.running() {
            None => Ok(false),
            Some(update) if next_stage(update).is_some() => Ok(true),
            Some(update) => {
                let text = format!(
                    "the update can no longer be deferred: it is {}",
                    update.phase
                );
                Err(Failure::new(Code::Busy, text))
            }
        }
    }

    /// Nothing new is begun, and nobody asked, for so long.
    pub(super) fn defer(&mut self, time: Duration) {
        if self.can_defer() != Ok(true) {
            return;
        }
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let timer = self.timer(millis.min(LONGEST));
        self.give_up_asking();
        self.waits.deferred = Clock::default();
        self.waits.consent_at = Duration::ZERO;
        self.change(|update| update.deferred = Some(timer));
        self.save();
    }

    /// What the running update waits for.
    pub(super) fn waiting(&self, now: Now) -> Option<Waiting> {
        let update = self.record.running().filter(|update| !update.paused)?;
        let (on, before) = self
            .waits
            .waiting
            .filter(|_| next_stage(update).is_some())?;
        // Nobody knows when a clock will be right.
        let at = self.waits.at.filter(|_| on != Wait::Clock);
        let after = at.map(|at| at.saturating_sub(now.monotonic));
        let millis = after.and_then(|after| u64::try_from(after.as_millis()).ok());
        Some(Waiting {
            on,
            before,
            after,
            until: (self.wall_time(now).zip(millis)).map(|(wall, left)| wall.saturating_add(left)),
        })
    }

    /// Whether something is waited for that [`Input::ClockSet`](super::Input::ClockSet) may change.
    pub fn goes_by_the_clock(&self) -> bool {
        let waits = &self.waits;
        waits.closes_at.is_some()
            || waits.deferred.unsure
            || waits.delayed.unsure
            || matches!(waits.waiting, Some((Wait::Window | Wait::Clock, _)))
    }

    /// The wall clock was set: what was reckoned from it is not true any more.
    pub(super) fn clock_set(&mut self) {
        if self.waits.closes_at.is_some() {
            self.waits.closes_at = Some(self.now.monotonic);
        }
    }

    /// Whether a download that runs is to stop, for its window has closed.
    pub(super) fn has_window_closed(&mut self) -> bool {
        if self
            .waits
            .closes_at
            .is_none_or(|at| self.now.monotonic < at)
        {
            return false;
        }
        let wall = self.wall_time(self.now);
        match (self.waits.calendar.at(Stage::Download, wall), wall) {
            (Opening::Open { until: Some(until) }, Some(wall)) => {
                self.waits.closes_at = Some(self.in_millis(until.saturating_sub(wall)));
                false
            }
            (Opening::Open { .. }, _) => {
                self.waits.closes_at = None;
                false
            }
            (Opening::Closed { .. }, _) => {
                self.waits.closes_at = None;
                true
            }
        }
    }
}

/// The stage an update comes to next, or is held up before; `None` from Applying on.
fn next_stage(update: &Update) -> Option<Stage> {
    match update.phase {
        Phase::Waiting | Phase::Downloading => Some(Stage::Download),
        Phase::Verifying => Some(Stage::Apply),
        _ => None,
    }
}
