//! `twinflash watch --telemetry`: devices' messages as they come, from the local hub.

use crate::{
    error::Error,
    screen::{Screen, Tone, parse_time},
    service::{About, Refused, Request, Service},
};
use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{thread, time::Duration};
use time::OffsetDateTime;

/// How long is waited before a hub that went away is asked again.
const PAUSE: Duration = Duration::from_secs(2);
/// How much of a body that is no text people are shown, in bytes.
const SHOWN: usize = 64;

/// From here on no message is missed.
#[derive(Serialize)]
#[serde(tag = "event", rename = "reading")]
struct Reading<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
}

/// A line of the hub's answer.
#[derive(Deserialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Line {
    Message {
        device_id: String,
        enqueued_time: String,
        properties: Map<String, Value>,
        system_properties: Map<String, Value>,
        body: String,
    },
    Lost {
        lost: u64,
    },
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "telemetry", rename_all = "camelCase")]
struct Message {
    device: String,
    properties: Map<String, Value>,
    system_properties: Map<String, Value>,
    #[serde(flatten)]
    body: Body,
}

/// What a message holds, as far as its bytes tell.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Body {
    Json(Value),
    Text(String),
    Hex(String),
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "lost")]
struct Lost {
    messages: u64,
}

/// Shows the messages of a device, or of all, for as long as the process lives.
pub(crate) fn watch(
    service: &Service,
    device: Option<&str>,
    screen: &Screen,
) -> Result<bool, Error> {
    let about = About::Messages(device);
    if service.hosts().1.contains(".azure-devices.") {
        return Err(service.only_local(about).into());
    }
    let path = ["twinflash", "telemetry"];
    let mut request = Request::new("GET", &path, about);
    if let Some(device) = device {
        request = request.parameter("device", device);
    }
    let mut reached = false;
    loop {
        let mut first = true;
        let ended = service.lines(request.clone(), &mut |line| {
            if first {
                (first, reached) = (false, true);
                let whose = device.map_or("all devices".into(), |id| format!("device \"{id}\""));
                let text = || format!("the messages of {whose} from now on");
                screen.event(&Reading { device }, "reading", Tone::Dim, text);
            }
            show(service, line, screen)
        });
        match ended {
            Ok(()) => screen.note("the hub has ended; trying again"),
            Err(refused) if refused.passing && reached => {
                if !first {
                    screen.note(&format!("{refused}; trying again"));
                }
            }
            Err(refused) => return Err(refused.into()),
        }
        thread::sleep(PAUSE);
    }
}

fn show(service: &Service, line: &[u8], screen: &Screen) -> Result<(), Refused> {
    if line.is_empty() {
        return Ok(());
    }
    let no_hub = || service.no_hub("a message is wrong");
    match serde_json::from_slice(line).map_err(|_| no_hub())? {
        Line::Message {
            device_id,
            enqueued_time,
            properties,
            system_properties,
            body,
        } => {
            let body = Base64::decode_vec(&body).map_err(|_| no_hub())?;
            let message = Message {
                device: device_id,
                properties,
                system_properties,
                body: Body::of(&body),
            };
            let at = parse_time(&enqueued_time).unwrap_or_else(OffsetDateTime::now_utc);
            let text = || message.text();
            screen.event_at(at, &message, "telemetry", Tone::Normal, text);
        }
        Line::Lost { lost } => {
            let text = || format!("{lost} messages: they came faster than they could be shown");
            screen.event(&Lost { messages: lost }, "lost", Tone::Warning, text);
        }
    }
    Ok(())
}

impl Message {
    /// For people: whose, what, and its properties if it has any.
    fn text(&self) -> String {
        let body = match &self.body {
            Body::Json(value) => value.to_string(),
            Body::Text(text) => text.clone(),
            Body::Hex(digits) => match digits.get(..SHOWN * 2) {
                Some(shown) => format!("{shown}… ({} bytes)", digits.len() / 2),
                None => digits.clone(),
            },
        };
        let all = self.system_properties.iter().chain(&self.properties);
        let properties = all.map(|(name, value)| match value {
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        });
        let properties = properties.collect::<Vec<_>>().join(", ");
        match properties.as_str() {
            "" => format!("{}: {body}", self.device),
            properties => format!("{}: {body}  [{properties}]", self.device),
        }
    }
}

impl Body {
    fn of(bytes: &[u8]) -> Self {
        if let Ok(value) = serde_json::from_slice(bytes) {
            return Self::Json(value);
        }
        let is_text = |text: &&str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
        match std::str::from_utf8(bytes).ok().filter(is_text) {
            Some(text) => Self::Text(text.into()),
            None => Self::Hex(base16ct::lower::encode_string(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_body_is_json_text_or_hexadecimal_digits() {
        assert_eq!(Body::of(br#"{"t":21}"#), Body::Json(json!({"t": 21})));
        assert_eq!(Body::of(b"too hot\n"), Body::Text("too hot\n".into()));
        assert_eq!(Body::of(b"\x1b[2J"), Body::Hex("1b5b324a".into()));
        assert_eq!(Body::of(b"\xff\x00"), Body::Hex("ff00".into()));
        assert_eq!(Body::of(b""), Body::Text(String::new()));
    }

    #[test]
    fn people_see_whose_it_is_what_it_says_and_its_properties() {
        let message = |body: &[u8]| Message {
            device: "d1".into(),
            properties: Map::from_iter([("a".into(), json!("b"))]),
            system_properties: Map::from_iter([("content-type".into(), json!("text/plain"))]),
            body: Body::of(body),
        };
        let text = message(b"hot").text();
        assert_eq!(text, "d1: hot  [content-type=text/plain, a=b]");
        let text = message(&[0xff; 65]).text();
        assert!(text.contains("ff… (65 bytes)  ["), "{text}");
    }
}
