//! The devices that are connected, what they subscribed to, and what is sent to them.

use super::Shared;
use crate::{
    clock,
    error::Refusal,
    event::DisconnectReason,
    identity::Activity,
    mqtt::topic,
    store::{Device, Subscriptions},
};
use tokio::sync::{mpsc, oneshot};

/// How many messages may wait for a device that does not read.
const MAX_WAITING: usize = 64;

/// A message on its way to a device.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
}

/// The connection's ends that its task holds.
pub(crate) struct Attached {
    pub(crate) connection: u64,
    pub(crate) session_present: bool,
    pub(crate) outgoing: mpsc::Receiver<Outgoing>,
    pub(crate) closed: oneshot::Receiver<DisconnectReason>,
}

/// The connection's ends that the hub holds.
pub(super) struct Live {
    connection: u64,
    clean: bool,
    subscriptions: Subscriptions,
    outgoing: mpsc::Sender<Outgoing>,
    close: Option<oneshot::Sender<DisconnectReason>>,
}

impl Live {
    pub(super) fn close(&mut self, reason: DisconnectReason) {
        if let Some(close) = self.close.take() {
            // The task may be gone already.
            let _ = close.send(reason);
        }
    }

    pub(super) fn subscribed_to(&self, topic: &str) -> bool {
        self.subscriptions
            .keys()
            .any(|filter| topic::matches(filter, topic))
    }

    pub(super) fn send(&mut self, topic: String, payload: Vec<u8>) -> bool {
        let sent = self.outgoing.try_send(Outgoing { topic, payload }).is_ok();
        if !sent {
            self.close(DisconnectReason::TooSlow);
        }
        sent
    }
}

impl Shared {
    /// Takes a device's new connection. An older one is closed.
    pub(crate) fn attach(&self, id: &str, clean: bool) -> Result<Attached, Refusal> {
        let mut state = self.lock();
        let connection = state.next_connection;
        state.next_connection += 1;
        let entry = state.entry(id)?;
        let stored = entry.device.subscriptions.clone();
        let session_present = !clean && stored.is_some();
        // A session begins with its first connection, and ends with a clean one.
        if clean == stored.is_some() {
            let device = Device {
                subscriptions: (!clean).then(Subscriptions::new),
                ..entry.device.clone()
            };
            state.save(device)?;
        }
        let (outgoing, outgoing_end) = mpsc::channel(MAX_WAITING);
        let (close, closed) = oneshot::channel();
        let entry = state.entry_mut(id)?;
        let live = Live {
            connection,
            clean,
            subscriptions: stored.filter(|_| !clean).unwrap_or_default(),
            outgoing,
            close: Some(close),
        };
        if let Some(mut old) = entry.live.replace(live) {
            old.close(DisconnectReason::Replaced);
        }
        let now = clock::now();
        entry.activity = Activity {
            connected: true,
            since: now.clone(),
            last: now,
        };
        drop(state);
        self.reachable.notify_waiters();
        Ok(Attached {
            connection,
            session_present,
            outgoing: outgoing_end,
            closed,
        })
    }

    /// Takes note that a connection ended.
    pub(crate) fn detach(&self, id: &str, connection: u64) {
        let mut state = self.lock();
        if let Some(entry) = state.entries.get_mut(id)
            && entry
                .live
                .as_ref()
                .is_some_and(|live| live.connection == connection)
        {
            entry.live = None;
            let now = clock::now();
            entry.activity = Activity {
                connected: false,
                since: now.clone(),
                last: now,
            };
        }
    }

    /// Adds to or takes from a connection's subscriptions; what CleanSession=0 keeps is kept.
    pub(crate) fn subscriptions(
        &self,
        id: &str,
        connection: u64,
        change: impl FnOnce(&mut Subscriptions),
    ) -> Result<(), Refusal> {
        let mut state = self.lock();
        let entry = state.entry_mut(id)?;
        let Some(live) = entry
            .live
            .as_mut()
            .filter(|live| live.connection == connection)
        else {
            return Ok(()); // replaced in the meantime; its task hears of it
        };
        let mut changed = live.subscriptions.clone();
        change(&mut changed);
        let keep = !live.clean && entry.device.subscriptions.as_ref() != Some(&changed);
        live.subscriptions.clone_from(&changed);
        if keep {
            let device = Device {
                subscriptions: Some(changed),
                ..entry.device.clone()
            };
            state.save(device)?;
        }
        drop(state);
        self.reachable.notify_waiters();
        Ok(())
    }

    /// Whether the connection is subscribed to a topic.
    pub(crate) fn is_subscribed(&self, id: &str, connection: u64, topic: &str) -> bool {
        let state = self.lock();
        let live = state.entries.get(id).and_then(|entry| entry.live.as_ref());
        live.is_some_and(|live| live.connection == connection && live.subscribed_to(topic))
    }

    /// Sends a message to a device if it is connected and subscribed to the topic.
    pub(crate) fn send(&self, id: &str, topic: String, payload: Vec<u8>) -> Result<bool, Refusal> {
        let mut state = self.lock();
        let entry = state.entry_mut(id)?;
        Ok(match &mut entry.live {
            Some(live) if live.subscribed_to(&topic) => {
                entry.activity.last = clock::now();
                live.send(topic, payload)
            }
            _ => false,
        })
    }

    /// Takes note that a device sent a message.
    pub(crate) fn heard_of(&self, id: &str) {
        if let Some(entry) = self.lock().entries.get_mut(id) {
            entry.activity.last = clock::now();
        }
    }

    /// Closes a device's connection; false when it has none.
    pub(crate) fn disconnect(&self, id: &str, reason: DisconnectReason) -> bool {
        let mut state = self.lock();
        let live = state
            .entries
            .get_mut(id)
            .and_then(|entry| entry.live.as_mut());
        live.map(|live| live.close(reason)).is_some()
    }
}
