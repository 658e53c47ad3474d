//! Last wills, which Azure hands on as device-to-cloud messages. See "Communicate with an IoT hub using the MQTT protocol".

use super::{shortened, topic::Published};
use crate::{event::Event, state::Shared, telemetry::Message};
use mqtt_protocol_core::mqtt::packet::v3_1_1;

/// What is told of a device whose connection ends without DISCONNECT.
pub(super) struct Will {
    topic: String,
    body: Vec<u8>,
    retain: bool,
}

impl Will {
    pub(super) fn of(connect: &v3_1_1::Connect) -> Option<Self> {
        Some(Self {
            topic: connect.will_topic()?.to_owned(),
            body: connect.will_payload()?.to_vec(),
            retain: connect.will_retain(),
        })
    }

    /// A last will is a device-to-cloud message; to another topic it is none.
    pub(super) fn tell(&self, hub: &Shared, id: &str) {
        let Some(Published::Telemetry { properties }) = Published::parse(id, &self.topic) else {
            let topic = shortened(&self.topic);
            log::warn!(target: "twinflash_hub", "the last will of {id} is not kept: it is to {topic:?}, not to devices/{id}/messages/events/");
            return;
        };
        hub.telemetry.tell(&Message {
            device: id,
            properties,
            retain: self.retain,
            will: true,
            body: &self.body,
        });
        hub.tell(&Event::Telemetry {
            device: id.into(),
            bytes: self.body.len(),
        });
    }
}
