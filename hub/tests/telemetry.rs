//! Device-to-cloud messages and last wills, as a back end reads them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Connect, Fixture, packet, start, string, tls};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};

/// A reader of the messages, whose own TLS stream shows each line as it comes.
struct Reader(Box<dyn BufRead>);

impl Reader {
    /// Reads what follows the head once the hub has begun.
    fn open(fixture: &Fixture, parameters: &str) -> Self {
        let mut stream = tls(fixture.info(), fixture.info().https_port);
        let token = common::token(
            "localhost",
            &fixture.owner_key(),
            common::unix() + 60,
            Some("iothubowner"),
        );
        write!(
            stream,
            "GET /twinflash/telemetry?api-version=2021-04-12{parameters} HTTP/1.1\r\n\
             Host: localhost\r\nAuthorization: {token}\r\n\r\n"
        )
        .unwrap();
        let mut reader = Self(Box::new(BufReader::new(stream)));
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            reader.0.read_line(&mut head).unwrap();
        }
        let head = head.to_lowercase();
        assert!(
            head.starts_with("http/1.1 200")
                && head.contains("application/x-ndjson")
                && head.contains("chunked"),
            "{head}"
        );
        // The first line is empty, and says that nothing is missed from here on.
        assert_eq!(reader.chunk(), Some("\n".into()));
        reader
    }

    /// One chunk is one line; `None` is the end.
    fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.0.read_line(&mut size).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        (size > 0).then(|| String::from_utf8(chunk).unwrap())
    }

    fn message(&mut self) -> Value {
        serde_json::from_str(&self.chunk().unwrap()).unwrap()
    }
}

#[test]
fn messages_come_with_their_properties() {
    let fixture = start();
    let (mut all, mut own) = (
        Reader::open(&fixture, ""),
        Reader::open(&fixture, "&device=d%32"),
    );
    let mut first = fixture.device("d1");
    first.publish(
        1,
        "devices/d1/messages/events/a=b%20c&%24.ct=application%2Fjson",
        br#"{"t":21}"#,
    );
    let message = all.message();
    assert_eq!(message["deviceId"], "d1");
    assert_eq!(message["properties"], json!({"a": "b c"}));
    assert_eq!(
        message["systemProperties"],
        json!({"content-type": "application/json"})
    );
    assert_eq!(message["body"], "eyJ0IjoyMX0=");
    assert!(message["enqueuedTime"].as_str().unwrap().ends_with('Z'));
    // RETAIN is told of, not obeyed.
    let mut second = fixture.device("d2");
    let body = [string("devices/d2/messages/events/"), vec![0xff]].concat();
    second.write(&packet(0x31, &body));
    for reader in [&mut all, &mut own] {
        let message = reader.message();
        assert_eq!(message["deviceId"], "d2");
        assert_eq!(message["properties"], json!({"mqtt-retain": "true"}));
        assert_eq!(message["body"], "/w==");
    }
    fixture.hub.stop();
    assert_eq!((all.chunk(), own.chunk()), (None, None));
}

/// CONNECT with a last will.
fn with_will(hello: &Connect, topic: &str, body: &[u8]) -> Vec<u8> {
    let [user, password] =
        [&hello.user, &hello.password].map(|text| string(text.as_ref().unwrap()));
    let mut connect = [string("MQTT"), vec![4, 0xc6, 0, 60]].concat();
    connect.extend(string(&hello.client_id));
    connect.extend(string(topic));
    connect.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    connect.extend(body);
    packet(0x10, &[connect, user, password].concat())
}

#[test]
fn a_last_will_is_a_message_unless_the_device_says_good_bye() {
    let fixture = start();
    let mut reader = Reader::open(&fixture, "");
    let connect = |topic: &str| {
        let mut device = common::Device::open(fixture.info());
        device.write(&with_will(&fixture.hello("d1"), topic, b"gone"));
        assert_eq!(device.until(0x20), [0, 0]);
        device
    };
    let events = "devices/d1/messages/events/";
    // Not to a place where messages go, and not after a DISCONNECT.
    drop(connect("devices/d2/messages/events/"));
    fixture.disconnected_because("lost");
    let mut device = connect(events);
    device.write(&packet(0xe0, &[]));
    device.is_closed();
    let device = connect("devices/d1/messages/events/why=crash");
    drop(device);
    let message = reader.message();
    assert_eq!(message["deviceId"], "d1");
    assert_eq!(
        message["properties"],
        json!({"why": "crash", "iothub-MessageType": "Will"})
    );
    assert_eq!(message["body"], "Z29uZQ==");
    // Neither a message that breaks a rule nor another's connection is a good-bye.
    let mut device = connect(events);
    device.publish(0, "elsewhere", b"x");
    assert_eq!(reader.message()["properties"]["iothub-MessageType"], "Will");
    let _first = connect(events);
    let _second = fixture.device("d1");
    assert_eq!(reader.message()["properties"]["iothub-MessageType"], "Will");
}

#[test]
fn who_may_read_and_what() {
    let fixture = start();
    let key = common::field(
        &fixture.info().policies["registryReadWrite"],
        "SharedAccessKey",
    );
    let policy = Some("registryReadWrite");
    let token = common::token("localhost", &key, common::unix() + 60, policy);
    let path = "/twinflash/telemetry";
    let other = fixture.with_token(Some(token));
    other.get(path).refused(401, "IotHubUnauthorized");
    let owner = fixture.owner();
    owner
        .get(&format!("{path}?device=nobody"))
        .refused(404, "DeviceNotFound");
    owner
        .get(&format!("{path}?device=%ff"))
        .refused(400, "ArgumentInvalid");
    let readers: Vec<_> = (0..16).map(|_| Reader::open(&fixture, "")).collect();
    owner.get(path).refused(429, "ThrottlingException");
    drop(readers);
}
