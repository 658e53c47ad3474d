//! Device-to-cloud messages, for those who look at them as they come.
//!
//! Azure hands them out at the hub's Event Hubs endpoint, by AMQP. This hub keeps none; `GET /twinflash/telemetry`, which
//! is its own, streams those that come from then on. A reader that is too slow loses messages, never the devices' time.

use crate::{clock, sas::decode};
use axum::body::{Bytes, HttpBody};
use base64ct::{Base64, Encoding as _};
use hyper::body::Frame;
use serde_json::{Map, Value, json};
use std::{
    borrow::Cow,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Interval, MissedTickBehavior, interval},
};

/// How many may read at once.
const MAX_READERS: usize = 16;
/// How many messages may wait for a reader, and how many bytes.
const MAX_WAITING: usize = 4096;
const MAX_WAITING_BYTES: usize = 8 * 1024 * 1024;
/// How often an empty line is sent, so that a reader that is gone is noticed.
const PULSE: Duration = Duration::from_secs(15);

/// A device-to-cloud message.
pub(crate) struct Message<'a> {
    pub(crate) device: &'a str,
    /// The properties as they stand in the topic: `name=value&…`, percent-encoded.
    pub(crate) properties: &'a str,
    /// Whether MQTT's RETAIN is set.
    pub(crate) retain: bool,
    /// Whether it is the last will of a connection that broke.
    pub(crate) will: bool,
    pub(crate) body: &'a [u8],
}

/// The system properties that the SDKs put into topics, and what Azure calls them where messages are read. See "Communicate
/// with an IoT hub using the MQTT protocol" and "Create and read IoT Hub messages".
const SYSTEM: [(&str, &str); 10] = [
    ("$.mid", "message-id"),
    ("$.cid", "correlation-id"),
    ("$.uid", "user-id"),
    ("$.to", "to"),
    ("$.ct", "content-type"),
    ("$.ce", "content-encoding"),
    ("$.exp", "absolute-expiry-time"),
    ("$.ctime", "iothub-creation-time-utc"),
    ("$.sub", "dt-subject"),
    ("$.ifid", "iothub-interface-id"),
];

impl Message<'_> {
    fn line(&self) -> Bytes {
        let mut system = Map::new();
        let mut own = Map::new();
        for field in self.properties.split('&').filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let text = |raw| decode(raw).unwrap_or(Cow::Borrowed(raw)).into_owned();
            let (name, value) = (text(name), text(value).into());
            match SYSTEM.iter().find(|(short, _)| *short == name) {
                Some((_, long)) => system.insert((*long).into(), value),
                None => own.insert(name, value),
            };
        }
        if self.retain {
            own.insert("mqtt-retain".into(), "true".into());
        }
        if self.will {
            own.insert("iothub-MessageType".into(), "Will".into());
        }
        let line = json!({
            "deviceId": self.device,
            "enqueuedTime": clock::now(),
            "properties": own,
            "systemProperties": system,
            "body": Base64::encode_string(self.body),
        });
        line_of(&line)
    }
}

fn line_of(value: &Value) -> Bytes {
    format!("{value}\n").into()
}

struct Reader {
    /// Whose messages are wanted; `None`: all.
    device: Option<String>,
    lines: mpsc::Sender<(Bytes, OwnedSemaphorePermit)>,
    /// As many permits as bytes may wait.
    room: Arc<Semaphore>,
    lost: Arc<AtomicU64>,
}

impl Reader {
    /// Hands a line over if there is room for it; false when nobody reads any more.
    fn send(&self, line: &Bytes) -> bool {
        let bytes = u32::try_from(line.len()).unwrap_or(u32::MAX);
        let sent = match self.room.clone().try_acquire_many_owned(bytes) {
            Ok(permit) => self.lines.try_send((line.clone(), permit)).is_ok(),
            Err(_) => false,
        };
        if !sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        !self.lines.is_closed()
    }
}

/// Those who read.
#[derive(Default)]
pub(crate) struct Telemetry(Mutex<Vec<Reader>>);

impl Telemetry {
    /// Hands a message to those who want it.
    pub(crate) fn tell(&self, message: &Message<'_>) {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut line = None;
        readers.retain(|reader| {
            let wanted = reader.device.as_deref();
            if wanted.is_some_and(|wanted| wanted != message.device) {
                return !reader.lines.is_closed();
            }
            reader.send(line.get_or_insert_with(|| message.line()))
        });
    }

    /// The messages from now on, until `end`; `None` when too many read already.
    pub(crate) fn read(
        &self,
        device: Option<String>,
        end: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Stream> {
        let mut readers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|reader| !reader.lines.is_closed());
        if readers.len() >= MAX_READERS {
            return None;
        }
        let (sender, lines) = mpsc::channel(MAX_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        readers.push(Reader {
            device,
            lines: sender,
            room: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
            lost: lost.clone(),
        });
        // The first comes at once: whoever reads it knows that nothing from now on is missed.
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Some(Stream {
            lines,
            lost,
            pulse,
            end: Box::pin(end),
        })
    }
}

/// Lines of JSON, one a message: the body of a response. `{"lost": n}` stands where so many are missing.
pub(crate) struct Stream {
    lines: mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>,
    lost: Arc<AtomicU64>,
    pulse: Interval,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let line = match self.lines.poll_recv(context) {
            Poll::Ready(Some((line, _))) => line,
            Poll::Ready(None) => return Poll::Ready(None),
            // Told when the reader has caught up.
            Poll::Pending => match self.lost.swap(0, Ordering::Relaxed) {
                0 => {
                    ready!(self.pulse.poll_tick(context));
                    Bytes::from_static(b"\n")
                }
                lost => line_of(&json!({"lost": lost})),
            },
        };
        Poll::Ready(Some(Ok(Frame::data(line))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    fn message<'a>(properties: &'a str, body: &'a [u8]) -> Message<'a> {
        Message {
            device: "d",
            properties,
            retain: false,
            will: false,
            body,
        }
    }

    /// The lines that are there.
    fn read(stream: &mut Stream) -> Vec<String> {
        let mut context = Context::from_waker(Waker::noop());
        let mut lines = Vec::new();
        while let Poll::Ready(Some(Ok(frame))) = Pin::new(&mut *stream).poll_frame(&mut context) {
            let line = frame.into_data().unwrap();
            lines.push(String::from_utf8(line.to_vec()).unwrap().trim().to_owned());
        }
        lines.retain(|line| !line.is_empty());
        lines
    }

    #[test]
    fn properties_are_of_the_system_or_the_device_s_own() {
        let mut message = message(
            "a%20b=c%26d&%24.ct=application%2Fjson&$.mid=7&flag&bad=%zz&",
            b"\x00",
        );
        (message.retain, message.will) = (true, true);
        let shown: Value = serde_json::from_slice(&message.line()).unwrap();
        let own = json!({
            "a b": "c&d", "flag": "", "bad": "%zz", "mqtt-retain": "true", "iothub-MessageType": "Will",
        });
        assert_eq!(shown["properties"], own);
        let system = json!({"content-type": "application/json", "message-id": "7"});
        assert_eq!(shown["systemProperties"], system);
        assert_eq!(
            (&shown["deviceId"], &shown["body"]),
            (&json!("d"), &json!("AA=="))
        );
    }

    /// Outside of it, polls are not counted.
    fn runtime() -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_time().build().unwrap()
    }

    #[test]
    fn a_slow_reader_loses_messages_and_is_told_how_many() {
        let runtime = runtime();
        let _inside = runtime.enter();
        let telemetry = Telemetry::default();
        let mut all = telemetry.read(None, std::future::pending()).unwrap();
        let mut other = telemetry
            .read(Some("other".into()), std::future::pending())
            .unwrap();
        for _ in 0..MAX_WAITING + 3 {
            telemetry.tell(&message("", b"x"));
        }
        let lines = read(&mut all);
        assert_eq!(lines.len(), MAX_WAITING + 1);
        assert_eq!(lines.last().unwrap(), r#"{"lost":3}"#);
        assert_eq!(read(&mut other), [""; 0]);
        // Few large ones fill it too.
        let large = vec![0; 256 * 1024];
        for _ in 0..100 {
            telemetry.tell(&message("", &large));
        }
        let lines = read(&mut all);
        assert!((15..30).contains(&lines.len()), "{}", lines.len());
        assert_eq!(
            lines.last().unwrap(),
            &format!(r#"{{"lost":{}}}"#, 101 - lines.len())
        );
        // And then there is room again.
        telemetry.tell(&message("", b"x"));
        assert_eq!(read(&mut all).len(), 1);
    }

    #[test]
    fn readers_are_few_and_those_who_left_make_room() {
        let runtime = runtime();
        let _inside = runtime.enter();
        let telemetry = Telemetry::default();
        let read = || telemetry.read(None, std::future::pending());
        let mut readers: Vec<_> = (0..MAX_READERS).map(|_| read().unwrap()).collect();
        assert!(read().is_none());
        readers.pop();
        assert!(read().is_some());
        let mut ended = Telemetry::default()
            .read(None, std::future::ready(()))
            .unwrap();
        let mut context = Context::from_waker(Waker::noop());
        assert!(matches!(
            Pin::new(&mut ended).poll_frame(&mut context),
            Poll::Ready(None)
        ));
    }
}
