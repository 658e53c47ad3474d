//! Brings the reported properties to what they should be: one patch in flight, the difference
//! between what is wanted and what the hub holds.
//!
//! One exception: where the thread that would bring an answer waits for a report to be handed over, that
//! report waits for no answer, and says the whole.

use super::diff;
use alloc::{
    collections::VecDeque,
    string::{String, ToString},
};
use core::time::Duration;
use serde_json::Value;

/// How long the first GET after a connect may take before a report goes out without it.
const TWIN_WAIT: Duration = Duration::from_secs(10);
/// A report with no answer after this long counts as lost.
const LOST: Duration = Duration::from_secs(60);
/// The first pause after a hub's refusal that may pass (429, 5xx, lost); doubled up to
/// [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Brings the reported properties to what they should be.
///
/// What is wanted is queued, each entry the whole of what is to be reported; what goes out is the
/// difference to what the hub is known to hold. Lost reports, reconnects, restarts and throttling
/// need no cases of their own.
#[derive(Debug, Default)]
pub struct Reporter {
    connected: bool,
    /// What the hub holds of what we report; `None` where that is not known.
    held: Option<Value>,
    queue: VecDeque<Entry>,
    in_flight: Option<InFlight>,
    next_id: u64,
    pushed: u64,
    settled: u64,
    sent: u64,
    /// Up to this place nothing waits for the answer to what was handed over before it.
    urgent: u64,
    wait_for_twin: Option<Duration>,
    pause: Duration,
    paused_until: Option<Duration>,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    /// An entry of the same tag that follows takes its place.
    tag: Option<u8>,
    wanted: Value,
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    entry: Entry,
    sent_at: Duration,
}

/// A patch of the reported properties, to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Comes back with its result.
    pub id: u64,
    /// The patch, as JSON.
    pub patch: String,
}

/// What a report's result means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reported {
    /// The hub has it.
    Accepted,
    /// It will be sent again.
    Again,
    /// The hub will never take it.
    Rejected,
    /// There is no such report in flight: an answer that came too late.
    Unknown,
}

impl Reporter {
    /// Queues what is to be reported. The answer is its place: see [`settled`](Self::settled).
    ///
    /// An entry with a tag takes the place of a queued one with the same tag.
    pub fn push(&mut self, wanted: Value, tag: Option<u8>) -> u64 {
        self.pushed += 1;
        if tag.is_some() && self.queue.back().is_some_and(|last| last.tag == tag) {
            self.queue.pop_back();
        }
        self.queue.push_back(Entry {
            sequence: self.pushed,
            tag,
            wanted,
        });
        self.pushed
    }

    /// Whether everything up to this place has been accepted by the hub, was nothing new, or was
    /// rejected for good.
    pub fn settled(&self, place: u64) -> bool {
        self.settled >= place
    }

    /// Whether everything up to this place has been handed over.
    pub fn handed_over(&self, place: u64) -> bool {
        self.sent >= place || self.settled(place)
    }

    /// Whether nothing is queued or in flight.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.in_flight.is_none()
    }

    /// The connection is there; a twin is about to be read.
    pub fn connected(&mut self, now: Duration) {
        self.disconnected();
        self.connected = true;
        self.wait_for_twin = Some(now + TWIN_WAIT);
        self.pause = Duration::ZERO;
        self.paused_until = None;
    }

    /// The connection is gone: what was in flight may or may not have arrived, and of what is queued
    /// only the last still matters.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.held = None;
        self.wait_for_twin = None;
        let last = self
            .queue
            .pop_back()
            .or(self.in_flight.take().map(|lost| lost.entry));
        self.queue.clear();
        self.in_flight = None;
        self.queue.extend(last);
    }

    /// What is wanted cannot wait for the twin to be read.
    pub fn hurry(&mut self) {
        self.wait_for_twin = None;
    }

    /// Up to this place nothing waits for the answer to a report that is in flight either: the answer
    /// may not come before this has been handed over.
    pub fn hand_over(&mut self, place: u64) {
        self.urgent = place;
    }

    /// A twin was read: this is what the hub holds of what we report.
    pub fn twin_read(&mut self, held: Value) {
        self.wait_for_twin = None;
        // What is in flight may be in this answer or not. Its own answer tells. And an answer that
        // was long on its way knows less than the reports acknowledged since.
        if self.in_flight.is_none() && self.held.is_none() {
            self.held = Some(held);
        }
    }

    /// A report's result: the hub's status, or 0 for a report that was lost.
    pub fn done(&mut self, id: u64, status: u16, now: Duration) -> Reported {
        let Some(sent) = self.in_flight.take_if(|sent| sent.id == id) else {
            return Reported::Unknown;
        };
        match status {
            200..=299 => {
                self.held = Some(sent.entry.wanted);
                self.settled = sent.entry.sequence;
                self.pause = Duration::ZERO;
                self.paused_until = None;
                Reported::Accepted
            }
            0 | 408 | 429 | 500..=599 => {
                self.again(sent, now);
                Reported::Again
            }
            _ => {
                self.settled = sent.entry.sequence;
                Reported::Rejected
            }
        }
    }

    /// What was handed over last may never have been sent: it is handed over again.
    pub fn not_sent(&mut self) {
        if let Some(sent) = self.in_flight.take() {
            self.held = None;
            self.queue.push_front(sent.entry);
        }
    }

    fn again(&mut self, lost: InFlight, now: Duration) {
        self.held = None;
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.paused_until = Some(now + self.pause);
        // A newer progress takes an older one's place here, too.
        let replaced = lost.entry.tag.is_some()
            && self
                .queue
                .front()
                .is_some_and(|next| next.tag == lost.entry.tag);
        if !replaced {
            self.queue.push_front(lost.entry);
        }
    }

    /// The next report, if one is to be sent now. `whole` makes a patch that needs no knowledge of
    /// what the hub holds.
    pub fn poll(&mut self, now: Duration, whole: impl Fn(&Value) -> Value) -> Option<Report> {
        if let Some(lost) = self
            .in_flight
            .take_if(|sent| now.saturating_sub(sent.sent_at) >= LOST)
        {
            self.again(lost, now);
        }
        let urgent = self
            .queue
            .front()
            .is_some_and(|next| next.sequence <= self.urgent);
        if !self.connected
            || (self.in_flight.is_some() && !urgent)
            || self.wait_for_twin.is_some_and(|until| now < until)
            || self.paused_until.is_some_and(|until| now < until)
        {
            return None;
        }
        self.paused_until = None;
        self.wait_for_twin = None;
        if self.in_flight.take().is_some() {
            // What comes of it will not be known.
            self.held = None;
        }
        while let Some(entry) = self.queue.pop_front() {
            let patch = match &self.held {
                Some(held) => diff(held, &entry.wanted),
                None => Some(whole(&entry.wanted)),
            };
            self.sent = entry.sequence;
            let Some(patch) = patch else {
                self.settled = entry.sequence;
                continue;
            };
            self.next_id += 1;
            let id = self.next_id;
            self.in_flight = Some(InFlight {
                id,
                entry,
                sent_at: now,
            });
            return Some(Report {
                id,
                patch: patch.to_string(),
            });
        }
        None
    }

    /// When [`poll`](Self::poll) is to be called again at the latest.
    pub fn wake_at(&self) -> Option<Duration> {
        if !self.connected {
            return None;
        }
        if let Some(sent) = &self.in_flight {
            return Some(sent.sent_at + LOST);
        }
        if self.queue.is_empty() {
            return None;
        }
        self.wait_for_twin.max(self.paused_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn whole(wanted: &Value) -> Value {
        wanted.clone()
    }

    #[test]
    fn one_in_flight_and_only_the_difference() {
        let mut reporter = Reporter::default();
        reporter.push(json!({"a": 1}), None);
        assert_eq!(reporter.poll(at(0), whole), None, "not connected");
        reporter.connected(at(0));
        assert_eq!(reporter.poll(at(0), whole), None, "the twin is read first");
        reporter.twin_read(json!({"a": 1, "b": 2}));
        let first = reporter.poll(at(0), whole).unwrap();
        assert_eq!(first.patch, r#"{"b":null}"#);
        let place = reporter.push(json!({"a": 2}), None);
        assert_eq!(reporter.poll(at(0), whole), None, "one is in flight");
        assert_eq!(reporter.done(first.id, 204, at(1)), Reported::Accepted);
        let second = reporter.poll(at(1), whole).unwrap();
        assert_eq!(second.patch, r#"{"a":2}"#);
        assert!(!reporter.settled(place));
        reporter.done(second.id, 204, at(1));
        assert!(reporter.settled(place));
        assert!(reporter.is_idle());
    }

    #[test]
    fn what_is_urgent_waits_for_no_answer_and_says_the_whole() {
        let mut reporter = Reporter::default();
        reporter.connected(at(0));
        reporter.twin_read(json!({"s": 1}));
        reporter.push(json!({"s": 2}), None);
        let first = reporter.poll(at(0), whole).unwrap();
        // Which is what the hub held before.
        reporter.push(json!({"s": 1, "t": 1}), None);
        let place = reporter.push(json!({"s": 1, "t": 2}), None);
        reporter.push(json!({"s": 1, "t": 3}), None);
        assert_eq!(reporter.poll(at(0), whole), None);
        reporter.hand_over(place);
        let second = reporter.poll(at(0), whole).unwrap();
        assert_eq!(second.patch, r#"{"s":1,"t":1}"#, "in order");
        assert!(!reporter.handed_over(place));
        let third = reporter.poll(at(0), whole).unwrap();
        assert_eq!(third.patch, r#"{"s":1,"t":2}"#);
        assert!(reporter.handed_over(place));
        assert_eq!(reporter.poll(at(0), whole), None, "the rest is not urgent");
        for before in [first.id, second.id] {
            assert_eq!(reporter.done(before, 204, at(1)), Reported::Unknown);
        }
        assert!(!reporter.settled(place));
        assert_eq!(reporter.done(third.id, 204, at(1)), Reported::Accepted);
        assert_eq!(reporter.poll(at(1), whole).unwrap().patch, r#"{"t":3}"#);
    }

    #[test]
    fn a_hub_that_is_too_busy_is_given_its_pause_whatever_is_urgent() {
        let mut reporter = Reporter::default();
        reporter.connected(at(0));
        reporter.twin_read(json!({}));
        reporter.push(json!({"s": 1}), None);
        let report = reporter.poll(at(0), whole).unwrap();
        reporter.done(report.id, 429, at(0));
        let place = reporter.push(json!({"s": 2}), None);
        reporter.hand_over(place);
        assert_eq!(reporter.poll(at(1), whole), None);
        assert_eq!(reporter.poll(at(2), whole).unwrap().patch, r#"{"s":1}"#);
        assert_eq!(reporter.poll(at(2), whole).unwrap().patch, r#"{"s":2}"#);
    }

    #[test]
    fn a_lost_connection_keeps_the_last_only() {
        let mut reporter = Reporter::default();
        reporter.connected(at(0));
        reporter.twin_read(json!({}));
        reporter.push(json!({"s": 1}), None);
        let lost = reporter.poll(at(0), whole).unwrap();
        reporter.push(json!({"s": 2}), None);
        reporter.push(json!({"s": 3}), None);
        reporter.disconnected();
        assert_eq!(reporter.done(lost.id, 204, at(1)), Reported::Unknown);
        reporter.connected(at(2));
        reporter.twin_read(json!({"s": 1}));
        assert_eq!(reporter.poll(at(2), whole).unwrap().patch, r#"{"s":3}"#);
    }

    #[test]
    fn what_was_in_flight_alone_is_not_forgotten() {
        let mut reporter = Reporter::default();
        reporter.connected(at(0));
        reporter.twin_read(json!({}));
        reporter.push(json!({"s": 1}), None);
        reporter.poll(at(0), whole).unwrap();
        reporter.disconnected();
        reporter.connected(at(1));
        reporter.twin_read(json!({}));
        assert_eq!(reporter.poll(at(1), whole).unwrap().patch, r#"{"s":1}"#);
    }

    #[test]
    fn throttled_is_sent_again_later_and_rejected_never() {
        let mut reporter = Reporter::default();
        reporter.connected(at(0));
        reporter.twin_read(json!({}));
        reporter.push(json!({"s": 1}), None);
        let report = reporter.poll(at(0), whole).unwrap();
        assert_eq!(reporter.done(report.id, 429, at(0)), Reported::Again);
        assert_eq!(reporter.poll(at(1), whole), None);
        assert_eq!(reporter.wake_at(), Some(at(2)));
        let again = reporter.poll(at(2), whole).unwrap();
        assert_eq!(reporter.done(again.id, 429, at(2)), Reported::Again);
        assert_eq!(reporter.wake_at(), Some(at(6)));
        let last = reporter.poll(at(6), whole).unwrap();
        assert_eq!(reporter.done(last.id, 400, at(6)), Reported::Rejected);
        assert_eq!(reporter.poll(at(1000), whole), None);
    }

    #[test]
    fn an_answer_that_never_comes_is_lost_after_a_minute() {
        let mut reporter = Reporter::default();
        reporter.connected(at(0));
        reporter.twin_read(json!({}));
        reporter.push(json!({"s": 1}), None);
        reporter.poll(at(0), whole).unwrap();
        assert_eq!(reporter.wake_at(), Some(at(60)));
        assert_eq!(reporter.poll(at(60), whole), None);
        assert!(reporter.poll(at(62), whole).is_some());
    }

    #[test]
    fn progress_takes_its_own_place() {
        let mut reporter = Reporter::default();
        reporter.push(json!({"p": 10}), Some(1));
        reporter.push(json!({"p": 20}), Some(1));
        reporter.push(json!({"s": 1}), None);
        assert_eq!(reporter.queue.len(), 2);
    }

    #[test]
    fn without_a_twin_the_whole_is_sent_after_a_while() {
        let mut reporter = Reporter::default();
        reporter.push(json!({"s": 1}), None);
        reporter.connected(at(0));
        assert_eq!(reporter.wake_at(), Some(at(10)));
        let report = reporter.poll(at(10), |_| json!({"whole": true})).unwrap();
        assert_eq!(report.patch, r#"{"whole":true}"#);
    }
}
