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
    /// From here on the token is renewed, as soon as nobody waits for anything.
    pub(super) renew_at: Instant,
    /// Here it is renewed in any case.
    pub(super) renew_by: Instant,
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
    /// One that starts now, with a token good for `lifetime`.
    pub(super) fn new(client: AsyncClient, lifetime: Duration) -> Self {
        let now = Instant::now();
        Self {
            client,
            phase: Phase::Connecting,
            online: None,
            requests: HashMap::new(),
            early: Vec::new(),
            heard: now,
            renew_at: now + lifetime.mul_f64(0.80 + 0.05 * random_fraction()),
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

    /// When [`Line::timers`] has to look next. `quiet`: no back end waits for a method.
    pub(super) fn deadline(&self, options: &Options, quiet: bool) -> Instant {
        let phase = match self.phase {
            Phase::Subscribing { until } | Phase::Leaving { until, .. } => Some(until),
            Phase::Online if quiet && self.requests.is_empty() => Some(self.renew_at),
            Phase::Online => Some(self.renew_by),
            // The MQTT library has a time limit of its own.
            Phase::Connecting => None,
        };
        let sent = self.requests.values().map(|request| request.sent).min();
        let answer = sent.map(|sent| sent + options.answer_timeout);
        phase
            .into_iter()
            .chain(answer)
            .min()
            .unwrap_or(self.renew_by)
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
