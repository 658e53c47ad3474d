//! `twinflash simulate`, with a hub of a process of its own.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::{Value, json};
use std::{fs, net::TcpStream, process::Command};
use support::{DEVICE, Done, Running, World, image, run, text, twinflash};

/// A shell that runs the command with such a limit of open files: `-n N`, or `-Sn N` for the soft one only.
fn limited(limit: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    let run = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    shell.args(["-c", &run]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

fn simulate(world: &World, arguments: &[&str]) -> Command {
    let port = world.ready["mqttPort"].to_string();
    let ca = world.path("firmware.pem");
    let by = ["simulate", "--mqtt-port", &port, "--image-ca", text(&ca)];
    world.back_end(&[&by, arguments].concat())
}

/// Waits until so many are connected.
fn connected(fleet: &mut Running, devices: usize) {
    fleet.line_with(&format!("\"connected\":{devices},"));
}

fn assert_fails(done: &Done, expected: &str) {
    assert_eq!(done.status, Some(1), "{done:?}");
    assert!(done.err.contains(expected), "{expected}: {done:?}");
}

fn end(done: &Done) -> Value {
    let lines = done.json();
    lines
        .into_iter()
        .find(|line| line["event"] == "ended")
        .unwrap()
}

#[test]
fn a_fleet_takes_a_rollout_and_the_share_that_is_to_fail_fails() {
    let world = World::new();
    fs::write(world.path("image"), image()).unwrap();
    let fleet = [
        "--devices",
        "200",
        "--tags",
        r#"{"fleet": "a"}"#,
        "--fail",
        "10",
        "--once",
        "--for",
        "60",
    ];
    // The limit is raised by itself where the hard one lets it.
    let mut fleet = Running::start(limited("-Sn 64", &simulate(&world, &fleet)));
    assert_eq!(
        fleet.json_with("ready")["registered"],
        200,
        "the devices are new"
    );
    connected(&mut fleet, 200);
    let (url, file) = (world.url("/image"), world.path("image"));
    let made = world.ask(&[
        "config",
        "create",
        "roll",
        "--image",
        &url,
        "--from",
        text(&file),
        "--version",
        "1.0.1",
        "--contract",
        "configuration",
        "--target",
        "tags.fleet = 'a'",
    ]);
    assert_eq!(made.status, Some(0), "{made:?}");
    let done = fleet.wait();
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
    let ended = end(&done);
    let expected = json!({"outcome": "completed", "devices": 200, "came": 200, "completed": 180, "failed": 20, "unplanned": 0});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(ended[name], *value, "{name}: {ended}");
    }
    let failed: Vec<_> = done
        .json()
        .into_iter()
        .filter(|line| line["event"] == "deviceFailed")
        .collect();
    assert_eq!(failed.len(), 20);
    for failed in &failed {
        assert_eq!(failed["code"], "hash-mismatch");
    }
    assert_eq!(failed[0]["outcome"], "failed");
    // One fetch for all.
    assert_eq!(world.firmware.asked().len(), 1);

    // The hub has it so, too.
    let shown = world.ask(&["config", "show", "roll"]).json().remove(0);
    assert_eq!(
        shown["systemMetrics"]["results"],
        json!({"targetedCount": 200, "appliedCount": 200})
    );
    let metrics = &shown["metrics"]["results"];
    assert_eq!(
        (&metrics["Current"], &metrics["Error"]),
        (&json!(180), &json!(20))
    );
    let query = "SELECT deviceId, properties.reported.firmware.currentFwVersion AS v FROM devices WHERE tags.fleet = 'a'";
    let rows = world.ask(&["query", query]).json();
    assert_eq!(rows.len(), 200);
    let new = rows.iter().filter(|row| row["v"] == "1.0.1").count();
    assert_eq!(new, 180);

    // They are known now, and are not removed; one that runs what it is asked for has nothing to do.
    let known = [
        "--devices",
        "3",
        "--current-version",
        "1.0.1",
        "--once",
        "--remove",
    ];
    let mut again = Running::start(simulate(&world, &known));
    assert_eq!(again.json_with("ready")["registered"], 0);
    let again = again.wait();
    assert_eq!(again.status, Some(0), "{again:?}");
    assert_eq!(end(&again)["completed"], 3);
    assert_eq!(world.ask(&["devices", "show", "sim-00003"]).status, Some(0));
}

#[test]
fn devices_reboot_into_what_a_method_asks_for_and_are_removed_at_the_end() {
    let world = World::new();
    let mut fleet = Running::start(simulate(
        &world,
        &[
            "--devices",
            "3",
            "--prefix",
            "m",
            "--contract",
            "iothub-dm",
            "--reboot",
            "1.5",
            "--fetch",
            "each",
            "--ramp",
            "0.3",
            "--remove",
        ],
    ));
    connected(&mut fleet, 3);
    let url = world.url("/image");
    let updated = world.ask(&["update", "m00002", &url, "--version", "1.0.1"]);
    assert_eq!(updated.status, Some(0), "{updated:?}");
    fleet.line_with("\"completed\":1");
    let done = fleet.stop("INT");
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
    // It was away for its reboot.
    assert!(
        done.out
            .contains(r#""connected":2,"phases":{"rebooting":1}"#),
        "{done:?}"
    );
    let ended = end(&done);
    assert_eq!(
        (&ended["outcome"], &ended["completed"]),
        (&json!("stopped"), &json!(1))
    );
    let rows = world.ask(&["query", "SELECT deviceId FROM devices"]).json();
    assert_eq!(rows, [json!({"deviceId": DEVICE})]);
}

#[test]
fn what_was_asked_for_and_did_not_happen_is_no_success() {
    let world = World::new();
    // Nothing but a check value tells a damaged image.
    let plan = [
        "--devices",
        "1",
        "--contract",
        "iothub-dm",
        "--fail",
        "100",
        "--once",
    ];
    let mut fleet = Running::start(simulate(&world, &plan));
    connected(&mut fleet, 1);
    let updated = world.ask(&[
        "update",
        "sim-00001",
        &world.url("/image"),
        "--version",
        "2",
    ]);
    assert_eq!(updated.status, Some(0), "{updated:?}");
    assert_fails(
        &fleet.wait(),
        "only a check value in the request tells a damaged image",
    );

    let late = Running::start(simulate(
        &world,
        &["--devices", "2", "--once", "--for", "0.5"],
    ))
    .wait();
    assert_fails(&late, "only 0 of 2 devices have finished an update");
    assert_eq!(end(&late)["outcome"], "failed");

    // The devices' own connection strings; a wrong key.
    let file = world.path("device");
    let own = ["--connections", text(&file), "--devices"];
    let done = Running::start(simulate(&world, &[&own[..], &["1", "--for", "1"]].concat())).wait();
    assert_eq!(done.status, Some(0), "{done:?}");
    let two = Running::start(simulate(&world, &[&own[..], &["2"]].concat())).wait();
    assert_fails(&two, "holds 1 connection strings, 2 devices were asked for");
    let wrong = world
        .connection()
        .replace("SharedAccessKey=", "SharedAccessKey=AAAA");
    world.write("device", &wrong);
    let done = Running::start(simulate(&world, &[&own[..], &["1", "--for", "1"]].concat())).wait();
    assert_fails(&done, "1 of 1 devices never got through to the hub");
    assert!(
        done.err.contains(&format!("device \"{DEVICE}\": ")),
        "{done:?}"
    );

    assert_fails(&run(&["simulate", "--devices", "1"]), "which hub?");
}

#[test]
fn too_few_open_files_are_said_with_the_number_needed() {
    let world = World::new();
    let many = simulate(&world, &["--devices", "1000"]);
    let done = Running::start(limited("-n 200", &many)).wait();
    assert_fails(
        &done,
        "1096 open files are needed, and this process may have 200: raise the limit (ulimit -n 1096",
    );
    assert_eq!(
        world.ask(&["devices", "list"]).json().len(),
        1,
        "nothing was begun"
    );

    let ports = ["--mqtt-port", "0", "--https-port", "0", "--json"];
    let asked = twinflash(&[&["hub", "--max-connections", "500"], &ports[..]].concat());
    let done = Running::start(limited("-n 200", &asked)).wait();
    assert_fails(
        &done,
        "564 open files are needed, and this process may have 200",
    );

    // Unasked it serves as many as it can, and says so when that is too few.
    let hub = twinflash(&[&["hub"], &ports[..]].concat());
    let mut hub = Running::start(limited("-n 100", &hub));
    let port = hub.json_with("ready")["mqttPort"].as_u64().unwrap();
    let open = || TcpStream::connect(("127.0.0.1", port.try_into().unwrap())).unwrap();
    let _open: Vec<_> = (0..40).map(|_| open()).collect();
    hub.line_with("the hub serves 36 connections, as many as its limit of 100 open files lets it");
}
