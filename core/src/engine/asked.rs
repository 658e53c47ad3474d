//! What the engine is asked: methods, desired properties, and what the application says.

use super::{After, Engine, Event, Output, PendingAnswer, Work};
use crate::contract::Verdict;
use crate::twin;
use crate::update::{
    Code, Failure, Key, LocalImage, Origin, Outcome, Phase, Request, Stage, Update, redact,
};
use alloc::{
    format,
    string::{String, ToString},
};
use core::time::Duration;
use serde_json::Value;

/// A twin that was asked for and did not come is asked for again after this; doubled up to
/// [`READ_AGAIN_LONGEST`].
const READ_AGAIN: Duration = Duration::from_secs(60);
const READ_AGAIN_LONGEST: Duration = Duration::from_secs(3600);
/// One that was refused is asked for again sooner: after this, doubled each time up to [`READ_AGAIN`].
const READ_REFUSED: Duration = Duration::from_secs(1);

impl Engine {
    pub(super) fn connected(&mut self) {
        self.link.connected = true;
        self.link.version = None;
        self.link.newest = None;
        self.reporter.connected(self.now.monotonic);
        self.report_state();
        self.link.read_pause = Duration::ZERO;
        self.read_twin();
    }

    /// Asks for the twin, and later again if it does not come.
    pub(super) fn read_twin(&mut self) {
        let pause = (self.link.read_pause * 2).clamp(READ_AGAIN, READ_AGAIN_LONGEST);
        self.link.read_pause = pause;
        self.link.read_again = Some(self.now.monotonic + pause);
        self.output(Output::ReadTwin);
    }

    /// The twin could not be read, or what came is none.
    pub(super) fn twin_failed(&mut self) {
        if self.link.read_again.is_none() {
            return;
        }
        let pause = READ_REFUSED.saturating_mul(1 << self.link.refused.min(6));
        self.link.refused += 1;
        let pause = self.jittered(pause.min(READ_AGAIN));
        self.link.read_again = Some(self.now.monotonic.saturating_add(pause));
    }

    pub(super) fn disconnected(&mut self) {
        self.link.connected = false;
        self.link.version = None;
        self.link.read_again = None;
        self.reporter.disconnected();
    }

    /// A method or a twin can only come over a connection: a transport that did not say so is
    /// connected all the same.
    fn is_connected(&mut self) {
        if !self.link.connected {
            self.connected();
        }
    }

    pub(super) fn report_done(&mut self, id: u64, status: u16) {
        match self.reporter.done(id, status, self.now.monotonic) {
            twin::Reported::Accepted => self.confirming.reached = true,
            twin::Reported::Rejected => {
                self.event(Event::Warning(format!(
                    "the hub refused a report with status {status}; it is not sent again"
                )));
            }
            twin::Reported::Again | twin::Reported::Unknown => {}
        }
    }

    pub(super) fn method(&mut self, id: u64, name: &str, payload: &[u8]) {
        if !self.takes_method(name) {
            let failure = Failure::new(
                Code::InvalidRequest,
                format!("there is no method {name:?} here"),
            );
            return self.refuse_method(id, 404, &failure);
        }
        self.is_connected();
        if !self.config.contract.takes_method(name) {
            return self.control(id, name, payload);
        }
        let members = match self.config.contract.members_of(payload) {
            Ok(members) => members,
            Err(failure) => return self.refuse_method(id, 400, &failure),
        };
        if let Some(running) = self.record.running() {
            let key = Key::of(self.config.contract.name(), &members);
            if running.request.key == key {
                let payload = self.config.contract.started().to_string();
                return self.output(Output::Answer {
                    id,
                    status: 200,
                    payload,
                });
            }
        }
        let running = self.running_version.as_deref();
        let policy = &self.config.policy;
        let verdict = self
            .config
            .contract
            .judge(&members, Origin::Method, running, policy);
        let verdict = self.vouched_for(verdict);
        let failure = match verdict {
            Verdict::Start(request) | Verdict::UpToDate(request) => match self.busy() {
                Some(busy) => return self.refuse_method(id, 409, &busy),
                None => return self.accept_method(id, request),
            },
            Verdict::Refuse(_, failure) => failure,
            Verdict::Ignore => Failure::new(Code::InvalidRequest, "the request is incomplete"),
        };
        self.refuse_method(id, 400, &failure);
    }

    /// Whether this file may be installed now.
    ///
    /// # Errors
    /// Why not: [`Code::Busy`] where an update runs, or what contract, policy or keys do not let in.
    pub fn can_install(&self, image: &LocalImage) -> Result<(), Failure> {
        self.local_request(image).map(drop)
    }

    /// The request, and whether its manifest was found to be good.
    fn local_request(&self, image: &LocalImage) -> Result<(Request, bool), Failure> {
        if let Some(busy) = self.busy() {
            return Err(busy);
        }
        let (running, policy) = (self.running_version.as_deref(), &self.config.policy);
        let mut request = self.config.contract.judge_local(image, running, policy)?;
        let examined =
            policy.require_manifest && request.manifest.is_some() && self.examine(&mut request)?;
        Ok((request, examined))
    }

    /// Who brings a file agrees to its being installed.
    pub(super) fn install_local(&mut self, image: &LocalImage) {
        if let Ok((request, examined)) = self.local_request(image) {
            self.examined = examined.then_some(request.key);
            self.accept(request);
        }
    }

    fn busy(&self) -> Option<Failure> {
        let running = self.record.running()?;
        let what = match &running.request.version {
            Some(version) => format!("an update to version {version}"),
            None => format!("an update from {}", redact(&running.request.uri)),
        };
        Some(Failure::new(
            Code::Busy,
            format!(
                "{what} is running ({}); try again when it has ended",
                running.phase
            ),
        ))
    }

    fn refuse_method(&mut self, id: u64, status: u16, failure: &Failure) {
        let payload = self.config.contract.refused(failure).to_string();
        self.event(Event::Refused(failure.clone()));
        self.output(Output::Answer {
            id,
            status,
            payload,
        });
    }

    fn accept_method(&mut self, id: u64, request: Request) {
        self.reporter.hurry();
        let place = self.accept(request);
        let payload = self.config.contract.started().to_string();
        let wait = match self.config.policy.answer_wait {
            wait if wait.is_zero() => {
                // Whoever calls serves the network, too: till then no answer to a report comes.
                self.reporter.hand_over(place);
                // Handing over may need another turn of the caller's loop.
                Duration::from_secs(2)
            }
            wait => wait,
        };
        self.answers.push(PendingAnswer {
            id,
            payload,
            place,
            by: self.now.monotonic.saturating_add(wait),
        });
    }

    /// A new update begins. The answer is its first report's place.
    fn accept(&mut self, request: Request) -> u64 {
        self.event(Event::Accepted {
            uri: redact(&request.uri),
            version: request.version.clone(),
        });
        let delay = self.draw_delay(&request);
        let mut update = Update::new(request);
        update.start_delay = delay;
        if update.request.origin == Origin::Local {
            update.approved = Some(Stage::Apply);
        }
        update.times.waiting = self.wall_time(self.now);
        // Bytes that are there already are used where they are of the same content.
        update.checkpoint = self
            .record
            .update
            .take()
            .and_then(|last| last.checkpoint)
            .filter(|checkpoint| checkpoint.content == update.request.content())
            // With no check to judge it by, what is whole must at least be asked for once more.
            .filter(|checkpoint| {
                !update.request.checks.is_empty() || checkpoint.total != Some(checkpoint.offset)
            });
        self.begin(update)
    }

    /// A request that ends at once: refused, or nothing to do.
    fn conclude(&mut self, request: Request, outcome: Outcome) {
        let last = self.record.update.take();
        // Bytes of the update whose place it takes.
        let bytes = last
            .as_ref()
            .is_some_and(|last| last.outcome.is_none() || last.checkpoint.is_some());
        let mut update = Update::new(request);
        update.times = last.map(|last| last.times).unwrap_or_default();
        update.outcome = Some(outcome.clone());
        self.begin(update);
        self.event(Event::Ended(outcome));
        if bytes {
            self.discard();
        }
    }

    fn begin(&mut self, update: Update) -> u64 {
        self.transfer = Default::default();
        self.restart_asked = false;
        self.rollback_attempts = 0;
        self.vouched = self
            .examined
            .take()
            .filter(|key| *key == update.request.key);
        self.reset_waits();
        self.record.desired = match update.request.origin {
            Origin::Local => self.record.desired.or(self.record.core.last_key),
            Origin::Method | Origin::Desired => None,
        };
        self.record.core.last_key = Some(update.request.key);
        self.record.core.last_outcome = update.outcome.as_ref().map(|o| o.as_str().to_string());
        self.record.core.attempts = 0;
        self.record.not_started = None;
        let runs = update.outcome.is_none();
        self.record.update = Some(update);
        self.save();
        if runs {
            self.event(Event::Phase(Phase::Waiting));
        }
        self.report_state()
    }

    pub(super) fn twin(&mut self, complete: bool, json: &[u8]) {
        self.is_connected();
        let document: Value = match serde_json::from_slice(json) {
            Ok(document @ Value::Object(_)) => document,
            Ok(_) => return self.bad_twin(complete, "it is no object"),
            Err(error) => return self.bad_twin(complete, &error.to_string()),
        };
        if complete {
            self.twin_read(document);
        } else {
            self.twin_patched(&document);
        }
    }

    fn bad_twin(&mut self, complete: bool, why: &str) {
        if complete {
            self.twin_failed();
        }
        self.event(Event::Warning(format!("a twin was ignored: {why}")));
    }

    fn twin_read(&mut self, mut document: Value) {
        let Some(desired) = document.get_mut("desired").map(Value::take) else {
            return self.bad_twin(true, "a complete twin has \"desired\" and \"reported\"");
        };
        let version = version_of(&desired);
        if version < self.link.version {
            return;
        }
        self.link.version = version;
        self.link.desired = desired;
        self.link.desired_known = true;
        self.link.read_again = None;
        self.link.read_pause = Duration::ZERO;
        self.link.refused = 0;
        self.confirming.reached = true;
        if version < self.link.newest.take() {
            // It was on its way when a later patch overtook it.
            self.read_twin();
        }
        let reported = document.get("reported").unwrap_or(&Value::Null);
        let held = self.config.contract.owned(reported);
        self.reporter.twin_read(held);
        self.consider_desired();
    }

    fn twin_patched(&mut self, patch: &Value) {
        match (version_of(patch), self.link.version) {
            // A stale notification.
            (Some(new), Some(known)) if new <= known => return,
            // Something was missed, or the twin has not been read yet.
            (Some(new), known) if known != new.checked_sub(1) => {
                self.link.newest = self.link.newest.max(Some(new));
                if known.is_some() {
                    self.read_twin();
                }
                return;
            }
            _ => {}
        }
        twin::merge(&mut self.link.desired, patch);
        self.link.version = version_of(&self.link.desired);
        self.consider_desired();
    }

    /// Looks at what is desired, and starts, replaces or cancels an update.
    pub(super) fn consider_desired(&mut self) {
        if self.config.contract.desired_path().is_none() || !self.link.desired_known {
            return;
        }
        let Some(members) = self.config.contract.desired(&self.link.desired).cloned() else {
            if core::mem::take(&mut self.record.lost) {
                // Whatever is desired from now on is new.
                self.save();
            }
            let running = self.record.running();
            if running.is_some_and(|update| update.request.origin == Origin::Desired) {
                self.cancel();
            }
            return;
        };
        let key = Key::of(self.config.contract.name(), &members);
        let record = &self.record;
        if [record.core.last_key, record.not_started, record.desired].contains(&Some(key)) {
            return;
        }
        if (record.running()).is_some_and(|update| update.request.origin == Origin::Local) {
            // Who stands at the device goes before; this one waits for the end.
            return;
        }
        if self.record.lost {
            // What is desired may have been tried before and failed: nobody knows.
            self.record.lost = false;
            self.record.not_started = Some(key);
            self.event(Event::Warning(String::from(
                "the journal was lost: what is desired now is not started until it changes",
            )));
            return self.save();
        }
        let running = self.running_version.as_deref();
        let verdict =
            self.config
                .contract
                .judge(&members, Origin::Desired, running, &self.config.policy);
        let verdict = self.vouched_for(verdict);
        if verdict == Verdict::Ignore {
            return;
        }
        match self.phase() {
            // From Applying on it waits for the end.
            Some(phase) if phase > Phase::Verifying => return,
            Some(_) if self.work == Some(Work::Transfer) => {
                return self.stop_transfer(After::Desired);
            }
            Some(_) => self.event(Event::Ended(Outcome::Superseded)),
            None => {}
        }
        match verdict {
            Verdict::Start(request) => {
                self.accept(request);
            }
            Verdict::UpToDate(request) => self.conclude(request, Outcome::UpToDate),
            Verdict::Refuse(request, failure) => {
                self.event(Event::Refused(failure.clone()));
                let phase = Phase::Waiting;
                self.conclude(request, Outcome::Failed { phase, failure });
            }
            Verdict::Ignore => {}
        }
    }
}

fn version_of(section: &Value) -> Option<u64> {
    section.get("$version").and_then(Value::as_u64)
}
