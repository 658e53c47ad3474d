//! MQTT over WebSockets, on the port of the REST interface.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Device, Fixture, Stream, start, tls};
use serde_json::json;
use std::{
    io::{self, Read, Write},
    time::{Duration, Instant},
};

/// A WebSocket client, as RFC 6455 has it; what is written becomes binary frames.
struct WebSocket<S> {
    stream: S,
    left: usize,
}

fn upgrade(fixture: &Fixture) -> WebSocket<impl Stream + use<>> {
    let mut stream = tls(fixture.info(), fixture.info().https_port);
    stream
        .write_all(
            b"GET /$iothub/websocket?iothub-no-client-cert=true HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
            Sec-WebSocket-Protocol: mqtt\r\n\r\n",
        )
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(
        head.starts_with("http/1.1 101") && head.contains("sec-websocket-protocol: mqtt"),
        "{head}"
    );
    WebSocket { stream, left: 0 }
}

impl<S: Stream> WebSocket<S> {
    fn frame(&mut self, kind: u8, payload: &[u8]) -> io::Result<()> {
        // The mask is zero, so the payload stays as it is.
        let mut frame = vec![0x80 | kind, 0x80 | 127];
        frame.extend((payload.len() as u64).to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame)
    }
}

impl<S: Stream> Write for WebSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // In pieces: frames and packets have nothing to do with each other.
        let piece = &bytes[..bytes.len().min(50_000)];
        self.frame(2, piece)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

impl<S: Stream> Read for WebSocket<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let mut head = [0; 2];
            self.stream.read_exact(&mut head)?;
            let mut length = usize::from(head[1]);
            if length >= 126 {
                let mut long = [0; 8];
                let bytes = if length == 126 { 2 } else { 8 };
                self.stream.read_exact(&mut long[8 - bytes..])?;
                length = usize::try_from(u64::from_be_bytes(long)).unwrap();
            }
            if head[0] & 0x0f == 8 {
                return Ok(0);
            }
            self.left = length;
        }
        let most = buffer.len().min(self.left);
        let count = self.stream.read(&mut buffer[..most])?;
        self.left -= count;
        Ok(count)
    }
}

#[test]
fn a_device_works_over_websockets() {
    let fixture = start();
    let mut device = fixture
        .connect_over(Device::over(upgrade(&fixture)), &fixture.hello("d1"))
        .unwrap();
    device.subscribe_all();
    let text = "x".repeat(120_000);
    let owner = fixture.owner();
    let call = json!({"methodName": "m", "payload": text});
    let answered = std::thread::spawn(move || owner.invoke("d1", &call));
    assert_eq!(
        device.answer(200, &format!("\"{text}\"")).payload.len(),
        text.len() + 2
    );
    assert_eq!(answered.join().unwrap().body["payload"], text);
    assert!(device.report(r#"{"a":1}"#).topic.contains("/204/"));

    let mut refused = fixture.hello("d2");
    refused.password = Some("nothing".into());
    assert_eq!(
        fixture
            .connect_over(Device::over(upgrade(&fixture)), &refused)
            .err(),
        Some(5)
    );

    let begun = Instant::now();
    fixture.hub.stop();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    device.is_closed();
}

#[test]
fn bad_frames_end_one_connection_only() {
    let fixture = start();
    let mut socket = upgrade(&fixture);
    socket.frame(1, b"text").unwrap();
    assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0);
    let mut socket = upgrade(&fixture);
    // Larger than any packet.
    let _ = socket.frame(2, &vec![0; 500 * 1024]);
    assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0);
    fixture.device("d1");
}
