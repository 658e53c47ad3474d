//! MQTT packets, as far as a proxy has to know them to spoil the right one.

use serde_json::{Value, json};

/// Who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum From {
    Device,
    Hub,
}

/// A packet, as it came, with its fixed header.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    bytes: Vec<u8>,
    /// Where the variable header begins.
    start: usize,
}

impl Packet {
    /// The first packet of these bytes, if all of it is there; it is taken out of them.
    pub(crate) fn take(bytes: &mut Vec<u8>) -> Option<Self> {
        let mut length = 0;
        for index in 0..4 {
            let byte = *bytes.get(1 + index)?;
            length |= usize::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                let start = 2 + index;
                let end = start + length;
                if bytes.len() < end {
                    return None;
                }
                let rest = bytes.split_off(end);
                let bytes = std::mem::replace(bytes, rest);
                return Some(Self { bytes, start });
            }
        }
        panic!("no MQTT: {bytes:?}");
    }

    /// A PUBLISH of quality of service 0.
    pub(crate) fn publish(topic: &str, payload: &[u8]) -> Self {
        let mut body = u16::try_from(topic.len()).unwrap().to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend_from_slice(payload);
        let mut bytes = vec![0x30];
        let mut length = body.len();
        loop {
            let byte = (length & 0x7f) as u8;
            length >>= 7;
            bytes.push(byte | if length > 0 { 0x80 } else { 0 });
            if length == 0 {
                break;
            }
        }
        let start = bytes.len();
        bytes.extend(body);
        Self { bytes, start }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Topic and payload of a PUBLISH.
    fn message(&self) -> Option<(&str, &[u8])> {
        let body = &self.bytes[self.start..];
        if self.bytes[0] >> 4 != 3 {
            return None;
        }
        let (length, rest) = body.split_at(2);
        let length = usize::from(u16::from_be_bytes(length.try_into().unwrap()));
        let (topic, rest) = rest.split_at(length);
        // A packet identifier, unless the quality of service is 0.
        let id = if self.bytes[0] & 6 == 0 { 0 } else { 2 };
        Some((std::str::from_utf8(topic).unwrap(), &rest[id..]))
    }

    /// What it is, in the words of IoT Hub.
    pub(crate) fn name(&self) -> String {
        let Some((topic, _)) = self.message() else {
            let names = [
                "?",
                "CONNECT",
                "CONNACK",
                "",
                "PUBACK",
                "PUBREC",
                "PUBREL",
                "PUBCOMP",
                "SUBSCRIBE",
                "SUBACK",
                "UNSUBSCRIBE",
                "UNSUBACK",
                "PINGREQ",
                "PINGRESP",
                "DISCONNECT",
                "?",
            ];
            return names[usize::from(self.bytes[0] >> 4)].into();
        };
        let names = [
            ("$iothub/methods/POST/", "method"),
            ("$iothub/methods/res/", "answer"),
            ("$iothub/twin/GET/", "GET"),
            ("$iothub/twin/PATCH/properties/reported/", "report"),
            ("$iothub/twin/PATCH/properties/desired/", "desired"),
            ("$iothub/twin/res/200/", "twin"),
            ("$iothub/twin/res/204/", "204"),
        ];
        let name = names.iter().find(|(start, _)| topic.starts_with(start));
        name.map_or_else(|| topic.to_owned(), |(_, name)| (*name).to_owned())
    }

    /// The hub's refusal of a request about the twin.
    pub(crate) fn refusal(&self, status: u16) -> Option<Self> {
        let (topic, _) = self.message()?;
        let (_, id) = topic.split_once("$rid=")?;
        let body = json!({"errorCode": u32::from(status) * 1000 + 1, "trackingId": "t", "message": "not now", "timestampUtc": "2026-11-21T00:00:00Z"});
        let topic = format!("$iothub/twin/res/{status}/?$rid={id}");
        Some(Self::publish(&topic, body.to_string().as_bytes()))
    }

    /// The same on the same topic, but no JSON any more.
    pub(crate) fn garbled(&self) -> Option<Self> {
        let (topic, payload) = self.message()?;
        Some(Self::publish(topic, &payload[..payload.len() / 2]))
    }

    /// A change of the desired properties, numbered as if others had been missed before it.
    pub(crate) fn later(&self) -> Option<Self> {
        let (_, payload) = self.message()?;
        let mut patch: Value = serde_json::from_slice(payload).ok()?;
        let version = patch["$version"].as_u64()? + 3;
        patch["$version"] = version.into();
        let topic = format!("$iothub/twin/PATCH/properties/desired/?$version={version}");
        Some(Self::publish(&topic, patch.to_string().as_bytes()))
    }
}
