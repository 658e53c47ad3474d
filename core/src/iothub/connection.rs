//! What is known of one connection: its state, its open requests, its timers.

use super::{Options, retry::random_fraction, topic};
use rumqttc::{
    AsyncClient, Publish, PublishOptions, QoS, SubAck, SubscribeFilter, SubscribeReasonCode,
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long a good-bye may take.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the hub may take to stop sending method calls, and we to answer the last of them, before
/// the token is renewed all the same.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls that the hub has sent before it acknowledged the end of the subscription may still be on
/// their way for this long.
const LINGER: Duration = Duration::from_millis(100);
/// As good as never: when a connection without a token would be renewed.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
/// As good as never: a time to look at timers when none is set.
const IDLE: Duration = Duration::from_secs(3600);

/// What is known of one connection.
pub(super) struct Connection {
    client: AsyncClient,
    pub(super) phase: Phase,
    /// When the hub had accepted everything.
    pub(super) online: Option<Instant>,
    /// Requests about the twin, by their id.
    pub(super) requests: HashMap<String, Request>,
    /// Messages that came before the subscriptions were acknowledged.
    pub(super) early: Vec<Publish>,
    /// When the last packet came.
    pub(super) heard: Instant,
    /// How far the token's renewal has come.
    renewal: Renewal,
    /// Here we leave to renew it in any case.
    renew_by: Instant,
}

/// A token is renewed by connecting again. A method called in between would be lost, and its caller
/// would wait in vain: so no more calls are asked for first, which the hub then refuses at once or
/// holds back until we are there again, and the last ones are answered.
enum Renewal {
    /// Begins at this time, once nobody waits for anything.
    From(Instant),
    /// Waits for the acknowledgement that no calls come any more.
    Unsubscribing,
    /// It has come; we leave at this time, once nobody waits for anything.
    Leave(Instant),
}

/// How far it has come.
pub(super) enum Phase {
    Connecting,
    Subscribing { until: Instant },
    Online,
    Leaving { until: Instant, renewal: bool },
}

/// A request about the twin that waits for its answer.
pub(super) struct Request {
    pub(super) what: What,
    pub(super) sent: Instant,
}

/// What was asked.
pub(super) enum What {
    ReadTwin,
    Report(u64),
}

impl Connection {
    /// One that starts now, with a token good for `lifetime`, or with none.
    pub(super) fn new(client: AsyncClient, lifetime: Option<Duration>) -> Self {
        let now = Instant::now();
        let lifetime = lifetime.unwrap_or(NEVER);
        Self {
            client,
            phase: Phase::Connecting,
            online: None,
            requests: HashMap::new(),
            early: Vec::new(),
            heard: now,
            renewal: Renewal::From(now + lifetime.mul_f64(0.80 + 0.05 * random_fraction())),
            renew_by: now + lifetime.mul_f64(0.95),
        }
    }

    /// The hub has accepted the device.
    pub(super) fn subscribe(&mut self, timeout: Duration) {
        self.phase = Phase::Subscribing {
            until: Instant::now() + timeout,
        };
        let filters =
            topic::SUBSCRIPTIONS.map(|filter| SubscribeFilter::new(filter.into(), QoS::AtMostOnce));
        // Cannot fail: the queue has no bound and the filters are valid.
        let _ = self.client.try_subscribe_many(filters);
    }

    /// Quality of service 0: a twin's answer, or the method's caller, tells more than MQTT's
    /// acknowledgement, and a packet is lost only with its connection.
    pub(super) fn publish(&self, topic: String, payload: Vec<u8>) {
        // Cannot fail: the queue has no bound and the topics are valid.
        let _ = self
            .client
            .try_publish(topic, payload, PublishOptions::at_most_once());
    }

    /// A request has been sent: its answer is to come.
    pub(super) fn expect(&mut self, id: String, what: What) {
        self.requests.insert(
            id,
            Request {
                what,
                sent: Instant::now(),
            },
        );
    }

    /// Says good-bye after what is queued has left.
    pub(super) fn leave(&mut self, renewal: bool) {
        self.phase = Phase::Leaving {
            until: Instant::now() + LEAVE_TIMEOUT,
            renewal,
        };
        let _ = self.client.try_disconnect_with_timeout(LEAVE_TIMEOUT);
    }

    /// Does what is due for the token's renewal. `quiet`: no back end waits for a method.
    pub(super) fn renew(&mut self, now: Instant, quiet: bool) {
        if now < self.renewal_due(quiet) {
            return;
        }
        if matches!(self.renewal, Renewal::From(_)) && now < self.renew_by {
            self.renewal = Renewal::Unsubscribing;
            self.renew_by = self.renew_by.min(now + DRAIN_TIMEOUT);
            let _ = self.client.try_unsubscribe(topic::METHODS);
        } else {
            self.leave(true);
        }
    }

    /// The hub sends no more method calls.
    pub(super) fn unsubscribed(&mut self) {
        self.renewal = Renewal::Leave(Instant::now() + LINGER);
    }

    fn renewal_due(&self, quiet: bool) -> Instant {
        match self.renewal {
            Renewal::From(time) | Renewal::Leave(time) if quiet && self.requests.is_empty() => {
                time.min(self.renew_by)
            }
            _ => self.renew_by,
        }
    }

    /// When timers have to be looked at next.
    pub(super) fn deadline(&self, options: &Options, quiet: bool) -> Instant {
        let phase = match self.phase {
            // The MQTT library has a time limit of its own.
            Phase::Connecting => Instant::now() + IDLE,
            Phase::Subscribing { until } | Phase::Leaving { until, .. } => until,
            Phase::Online => self.renewal_due(quiet),
        };
        let sent = self.requests.values().map(|request| request.sent).min();
        sent.map_or(phase, |sent| phase.min(sent + options.answer_timeout))
    }
}

/// The first filter the hub does not grant.
pub(super) fn refused_subscription(answer: &SubAck) -> Option<&'static str> {
    let codes = answer.return_codes.iter();
    topic::SUBSCRIPTIONS
        .into_iter()
        .zip(codes)
        .find_map(|(filter, code)| matches!(code, SubscribeReasonCode::Failure).then_some(filter))
}
