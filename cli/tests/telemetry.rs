//! `twinflash watch --telemetry`: who may read, and where. What it shows of messages is tested with the SDKs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use support::{DEVICE, Done, Running, World, run};

const WATCH: [&str; 2] = ["watch", "--telemetry"];

fn assert_fails(done: &Done, status: i32, expected: &str) {
    assert_eq!(done.status, Some(status), "{done:?}");
    assert!(done.err.contains(expected), "{done:?}");
}

#[test]
fn who_reads_what_and_where() {
    let world = World::new();
    let done = world.ask(&["watch", "--telemetry", "nobody"]);
    assert_fails(&done, 1, "localhost has no device \"nobody\"");
    let done = world.ask_as("registryRead", &WATCH);
    assert_fails(&done, 1, "\"service connect\" is needed");
    for other in [&["--forever"][..], &["--config", "c"]] {
        let done = run(&[&WATCH[..], other].concat());
        assert_fails(&done, 2, "cannot be used with");
    }
    // An Azure hub is not even asked.
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let azure = format!(
        "HostName=fleet.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey={key}"
    );
    let done = run(&["watch", "--telemetry", "d1", "--service", &azure]);
    let instead = "az iot hub monitor-events --hub-name fleet --device-id d1";
    assert_fails(&done, 1, instead);
    assert!(done.err.contains("local hub"), "{done:?}");
    assert!(!done.err.contains(key), "{done:?}");
}

#[test]
fn it_reads_until_it_is_ended_and_waits_for_a_hub_that_went() {
    let world = World::new();
    let mut one = Running::start(world.back_end(&["watch", "--telemetry", DEVICE]));
    let reading = one.json_with("\"reading\"");
    assert_eq!(reading["device"], DEVICE);
    assert_eq!(one.stop("INT").status, Some(130));
    let mut all = Running::start(world.people(&WATCH));
    all.line_with("the messages of all devices from now on");
    world.hub.stop("TERM");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let done = all.stop("TERM");
    assert_eq!(done.status, Some(143));
    assert!(
        done.err.contains("the hub has ended; trying again"),
        "{done:?}"
    );
}
