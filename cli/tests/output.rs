//! Who reads what a command prints, stops reading it, or never did: the work goes on.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::Value;
use std::{
    io::{PipeReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use support::{DEVICE, Unread, World, image, twinflash};

/// A command whose output nobody takes after its first line, which this returns: not even another byte fits in. A terminal
/// that is paused is such, a pager, a pipe to what hangs.
fn stalled(mut command: Command) -> (Unread, PipeReader, Value) {
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    command.stdout(writer.try_clone().unwrap());
    let running = Unread(command.stderr(Stdio::null()).spawn().unwrap());
    let mut first = Vec::new();
    while !first.ends_with(b"\n") {
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        first.extend(byte);
    }
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    thread::spawn(move || {
        while writer.write_all(&[b' '; 4096]).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    while before == 0 || before != written.load(Ordering::Relaxed) {
        before = written.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(100));
    }
    (running, reader, serde_json::from_slice(&first).unwrap())
}

/// It ends as it is told to.
fn assert_ends(mut running: Unread) {
    let pid = running.0.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(told.unwrap().success());
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = running.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "it does not end");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_hub_whose_output_nobody_takes_goes_on_and_ends() {
    let command = twinflash(&["hub", "--json", "--mqtt-port", "0", "--https-port", "0"]);
    let (hub, _reader, ready) = stalled(command);
    let port = u16::try_from(ready["mqttPort"].as_u64().unwrap()).unwrap();
    // Each is a line that finds no room.
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _ = stream.write_all(b"nothing that a hub knows");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_ends(hub);
}

#[test]
fn an_agent_whose_output_nobody_takes_updates_and_ends() {
    let world = World::new();
    let (device, _reader, _) = stalled(world.device_command("", ""));
    let done = world.ask(&["update", DEVICE, &world.url("/image")]);
    assert_eq!(done.status, Some(0), "{done:?}");
    assert_eq!(world.installed(), image());
    assert_ends(device);
}

/// A reader that goes away is no reason to stop, or to panic.
#[test]
fn nobody_reads() {
    let world = World::new();
    let mut device = Unread::start(world.device_command("", ""));
    let done = world.ask(&["update", DEVICE, &world.url("/nothing")]);
    assert_eq!(
        done.json().pop().unwrap()["code"],
        "http-status",
        "{done:?}"
    );
    assert_eq!(device.0.try_wait().unwrap(), None);
    let mut demo = Unread::start(twinflash(&["demo"]));
    assert_eq!(demo.0.wait().unwrap().code(), Some(0));
}
