//! `twinflash job`, with a hub and a device of their own process.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::{Value, json};
use support::{DEVICE, Done, Running, World, image};

fn assert_fails(done: &Done, expected: &str) {
    assert_eq!(done.status, Some(1), "{done:?}");
    assert!(done.err.contains(expected), "{expected}: {done:?}");
}

fn assert_done(done: &Done) {
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
}

fn device_lines(done: &Done) -> Vec<Value> {
    let mut lines = done.json();
    lines.retain(|line| line["event"] == "device");
    lines
}

#[test]
fn a_method_for_several_devices() {
    let world = World::new();
    let device = world.device("current_version = \"1.0.0\"", "");
    assert_done(&world.ask(&["devices", "create", "away"]));
    let payload = |url: &str| json!({ "fwPackageUri": url }).to_string();
    let good = payload(&world.url("/image"));
    let start = ["job", "start", "--method", "firmwareUpdate", "--follow"];

    let one = format!("deviceId = '{DEVICE}'");
    let by_id = ["--where", &one, "--id", "j1", "--payload", &good];
    let done = world.ask(&[&start[..], &by_id].concat());
    assert_done(&done);
    let devices = device_lines(&done);
    assert_eq!(devices.len(), 1, "{done:?}");
    assert_eq!(
        (&devices[0]["device"], &devices[0]["answer"]),
        (
            &json!(DEVICE),
            &json!({"status": 200, "payload": "FirmwareUpdate started."})
        )
    );
    let mut hub = world.hub;
    hub.line_with("applyComplete");
    let world = World { hub, ..world };
    assert_eq!(world.installed(), image());

    // Who is not there fails, and so does who refuses, though that is an answer to the hub.
    let done = world.ask(&[&start[..], &["--where", "*", "--payload", &good]].concat());
    assert_eq!((done.status, done.err.as_str()), (Some(1), ""), "{done:?}");
    let devices = device_lines(&done);
    let away = devices
        .iter()
        .find(|line| line["device"] == "away")
        .unwrap();
    assert_eq!(away["status"], "failed");
    assert!(away["error"]["description"].is_string(), "{away}");
    let end = done.json().pop().unwrap();
    assert_eq!(
        (&end["outcome"], &end["done"], &end["failed"]),
        (&json!("failed"), &json!(1), &json!(1))
    );
    let bad = payload("http://localhost/image");
    let done = world.ask(&[&start[..], &["--where", &one, "--payload", &bad]].concat());
    assert_eq!(done.status, Some(1), "{done:?}");
    assert_eq!(device_lines(&done)[0]["answer"]["status"], 400);
    let done = world.show(&[&start[..], &["--where", "deviceId = 'x'"]].concat());
    assert_eq!(done.status, Some(1), "{done:?}");
    assert!(
        done.out
            .contains("completed: no device fulfilled its condition\n"),
        "{done:?}"
    );

    let shown = world.show(&["job", "show", "j1"]);
    assert!(
        shown.out.contains("method     firmwareUpdate\n"),
        "{shown:?}"
    );
    assert!(
        shown.out.contains("  200 \"FirmwareUpdate started.\"\n"),
        "{shown:?}"
    );
    assert_eq!(world.ask(&["job", "list"]).json().len(), 4);
    assert_eq!(world.ask(&["job", "list", "--status", "running"]).out, "");
    drop(device);
}

#[test]
fn a_change_of_twins_later_or_never() {
    let world = World::new();
    assert_done(&world.ask(&["devices", "create", "d1", "d2"]));
    let by = [
        "--where",
        "STARTSWITH(deviceId, 'd')",
        "--tags",
        r#"{"site": "north"}"#,
    ];
    let done = world.ask(
        &[
            &["job", "start", "--follow", "--desired", r#"{"a": 1}"#][..],
            &by,
        ]
        .concat(),
    );
    assert_done(&done);
    assert_eq!(device_lines(&done).len(), 3);
    let found = world.ask(&[
        "query",
        "SELECT deviceId FROM devices WHERE tags.site = 'north' AND properties.desired.a = 1",
    ]);
    assert_eq!(found.json().len(), 3);

    let later = [
        "job",
        "start",
        "--id",
        "later",
        "--at",
        "2099-01-31T12:00:00Z",
    ];
    let made = world.ask(&[&later[..], &by].concat());
    assert_done(&made);
    assert_eq!(made.json()[0]["status"], "scheduled");
    assert_fails(
        &world.ask(&[&later[..], &by].concat()),
        "has job \"later\" already",
    );
    let listed = world.show(&["job", "list", "--status", "scheduled"]);
    assert!(
        listed
            .out
            .contains("\nlater  scheduleUpdateTwin  scheduled  2099-01-31 12:00:00"),
        "{listed:?}"
    );
    let follow = Running::start(world.back_end(&["job", "follow", "later"]));
    assert_done(&world.ask(&["job", "cancel", "later"]));
    let done = follow.wait();
    assert_eq!(done.status, Some(1), "{done:?}");
    assert_eq!(done.json().pop().unwrap()["status"], "cancelled");

    for (arguments, expected) in [
        (&["job", "show", "none"][..], "has no job \"none\""),
        (&["job", "follow", "none"], "has no job \"none\""),
        (&["job", "cancel", "none"], "has no job \"none\""),
        (
            &["job", "start", "--where", "*"],
            "nothing to do: give --method",
        ),
        (
            &["job", "start", "--where", "a ==", "--method", "m"],
            "(line 1, column 4)",
        ),
        (
            &[
                "job",
                "start",
                "--where",
                "*",
                "--method",
                "m",
                "--payload",
                "{",
            ],
            "--payload is not JSON",
        ),
        (
            &[
                "job", "start", "--where", "*", "--method", "m", "--at", "soon",
            ],
            "startTime should be",
        ),
        (
            &["job", "list", "--status", "odd"],
            "jobStatus should be one of",
        ),
    ] {
        assert_fails(&world.ask(arguments), expected);
    }
    let both = [
        "job", "start", "--where", "*", "--method", "m", "--tags", "{}",
    ];
    assert_eq!(world.ask(&both).status, Some(2));
    let done = world.ask_as("registryReadWrite", &["job", "list"]);
    assert_fails(&done, "one with \"service connect\" is needed");
}
