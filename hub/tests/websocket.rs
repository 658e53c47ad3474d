//! MQTT over WebSockets, on the port of the REST interface.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{
    Device, Fixture, Stream, start, tls,
    websocket::{WebSocket, upgrade},
};
use serde_json::json;
use std::{
    io::Read,
    time::{Duration, Instant},
};

fn open(fixture: &Fixture) -> WebSocket<impl Stream + use<>> {
    upgrade(tls(fixture.info(), fixture.info().https_port))
}

#[test]
fn a_device_works_over_websockets() {
    let fixture = start();
    let mut device = fixture
        .connect_over(Device::over(open(&fixture)), &fixture.hello("d1"))
        .unwrap();
    device.subscribe_all();
    let text = "x".repeat(120_000);
    let answered = fixture.invoke("d1", json!({"methodName": "m", "payload": text}));
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
            .connect_over(Device::over(open(&fixture)), &refused)
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

/// Frames are put together in memory, which is not for whoever comes along.
#[test]
fn who_has_not_said_who_it_is_may_not_send_much() {
    let fixture = start();
    let mut socket = open(&fixture);
    let _ = socket.begin(300_000, &[0x10; 40_000]);
    assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0);
    // At once, not when the time for CONNECT is over.
    fixture.refused_because("lost");
}

#[test]
fn bad_frames_end_one_connection_only() {
    let fixture = start();
    let mut socket = open(&fixture);
    socket.frame(1, b"text").unwrap();
    assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0);
    let mut socket = open(&fixture);
    // Larger than any packet.
    let _ = socket.frame(2, &vec![0; 500 * 1024]);
    assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0);
    fixture.device("d1");
}
