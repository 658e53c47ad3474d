//! `twinflash config` and `twinflash watch --config`, with a hub and a device of their own process.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::{Value, json};
use std::{
    fs,
    process::{Command, Stdio},
};
use support::{DEVICE, Done, Running, World, image, text};

fn assert_fails(done: &Done, expected: &str) {
    assert_eq!(done.status, Some(1), "{done:?}");
    assert!(done.err.contains(expected), "{expected}: {done:?}");
}

fn assert_done(done: &Done) {
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
}

fn create(world: &World, id: &str, file: &str, contract: &str, more: &[&str]) -> Done {
    let (url, file) = (
        format!("{}?sig=SECRET", world.url("/image")),
        world.path(file),
    );
    let asked = [
        "config",
        "create",
        id,
        "--image",
        &url,
        "--from",
        text(&file),
    ];
    let by = ["--version", "1.0.1", "--contract", contract];
    world.ask(&[&asked[..], &by, more].concat())
}

/// Runs a command on a terminal of its own.
fn on_terminal(world: &World, arguments: &[&str]) -> Done {
    let command = world.people(arguments);
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut script = Command::new("script");
    script.args([
        "--quiet",
        "--return",
        "--command",
        &words.join(" "),
        "/dev/null",
    ]);
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.env("TERM", "xterm").stdin(Stdio::null());
    Running::start(script).wait()
}

fn metrics(world: &World, id: &str) -> Value {
    let shown = world.ask(&["config", "show", id]);
    assert_done(&shown);
    shown.json()[0]["metrics"]["results"].clone()
}

#[test]
fn a_rollout_fails_and_the_next_one_succeeds() {
    let world = World::new();
    let device = world.device("contract = \"devkit\"\ncurrent_version = \"1.0.0\"", "");
    assert_done(&world.ask(&["twin", "set", DEVICE, "--tags", r#"{"kind": "board"}"#]));
    fs::write(world.path("image"), image()).unwrap();
    world.write("other", "another image");

    // The wrong file: each device finds another size.
    let target = ["--target", "tags.kind = 'board'"];
    let made = create(&world, "bad", "other", "devkit", &target);
    assert_done(&made);
    let made = &made.json()[0];
    assert_eq!(made["systemMetrics"]["results"]["targetedCount"], 1);
    assert_eq!(made["metrics"]["queries"].as_object().unwrap().len(), 5);
    let desired = &made["content"]["deviceContent"]["properties.desired.firmware"];
    assert_eq!(desired["fwVersion"], "1.0.1");
    let done = world.ask(&["watch", "--config", "bad"]);
    assert_eq!((done.status, done.err.as_str()), (Some(1), ""), "{done:?}");
    let lines = done.json();
    let failed = lines
        .iter()
        .find(|line| line["event"] == "deviceFailed")
        .unwrap();
    assert_eq!(
        (&failed["device"], &failed["status"], &failed["detail"]),
        (&json!(DEVICE), &json!("Error"), &json!("FileSizeNotMatch"))
    );
    let end = lines.last().unwrap();
    assert_eq!(
        (&end["outcome"], &end["failed"]),
        (&json!("failed"), &json!(1))
    );
    assert_eq!(metrics(&world, "bad")["Error"], 1);
    let terminal = on_terminal(&world, &["watch", "--config", "bad"]);
    let bar = format!("failed         {}      1", "━".repeat(30));
    assert!(terminal.out.contains(&bar), "{terminal:?}");
    assert!(
        terminal
            .out
            .contains(&format!("{DEVICE}: Error: FileSizeNotMatch")),
        "{terminal:?}"
    );
    assert_eq!(terminal.status, Some(1));
    assert_eq!(world.installed(), b"1.0.0\n");

    // The failure before is not the next one's.
    let next = [&target[..], &["--priority", "1"]].concat();
    assert_done(&create(&world, "good", "image", "devkit", &next));
    let done = world.show(&["watch", "--config", "good"]);
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
    assert!(done.out.contains("1 done of 1\n"), "{done:?}");
    assert!(
        done.out
            .contains("completed: 1 of 1 devices are up to date"),
        "{done:?}"
    );
    assert!(!done.out.contains("failed"), "{done:?}");
    assert_eq!(world.installed(), image());
    let counted = metrics(&world, "good");
    assert_eq!(
        (&counted["Current"], &counted["Error"]),
        (&json!(1), &json!(0))
    );

    let listed = world.show(&["config", "list"]);
    assert!(
        listed
            .out
            .starts_with("id    priority  targeted  applied  created"),
        "{listed:?}"
    );
    assert_eq!(world.ask(&["config", "list"]).json().len(), 2);
    let shown = world.show(&["config", "show", "good"]);
    assert!(shown.out.contains("Current"), "{shown:?}");
    assert!(
        shown.out.contains("/image\"") && !shown.out.contains("SECRET"),
        "{shown:?}"
    );
    assert_done(&world.ask(&["config", "delete", "good"]));
    for arguments in [
        ["config", "show", "good"],
        ["config", "delete", "good"],
        ["watch", "--config", "good"],
    ] {
        assert_fails(
            &world.ask(&arguments),
            "localhost has no configuration \"good\"",
        );
    }
    drop(device);
}

#[test]
fn the_node_samples_configuration_counts_its_devices() {
    let world = World::new();
    fs::write(world.path("image"), image()).unwrap();
    let target = [
        "--target",
        "tags.devicetype = 'chiller'",
        "--priority",
        "20",
    ];
    assert_done(&create(
        &world,
        "firmware285",
        "image",
        "configuration",
        &target,
    ));
    // It waits for devices to come.
    let mut watch = Running::start(world.back_end(&["watch", "--config", "firmware285"]));
    assert_eq!(watch.json_with("rollout")["targeted"], 0);
    let device = world.device(
        "contract = \"configuration\"\ncurrent_version = \"1.0.0\"",
        "",
    );
    assert_done(&world.ask(&[
        "twin",
        "set",
        DEVICE,
        "--tags",
        r#"{"devicetype": "chiller"}"#,
    ]));
    let done = watch.wait();
    assert_eq!(done.status, Some(0), "{done:?}");
    assert_eq!(done.err, "no device fulfils its condition yet; waiting\n");
    assert_eq!(done.json().last().unwrap()["done"], 1);
    let counted = metrics(&world, "firmware285");
    assert_eq!(
        counted,
        json!({"Current": 1, "Applying": 0, "Rebooting": 0, "Error": 0, "RolledBack": 0})
    );
    drop(device);
}

#[test]
fn wrong_configurations_are_not_created() {
    let world = World::new();
    fs::write(world.path("image"), image()).unwrap();
    let all = ["--target", "*"];
    for (id, contract, more, expected) in [
        (
            "c",
            "devkit",
            &["--target", "tags.kind == 1"][..],
            "--target is refused: The target condition is wrong: ",
        ),
        (
            "c",
            "devkit",
            &["--target", "status = 'enabled'"],
            "status is not deviceId",
        ),
        ("C", "devkit", &all, "is no id of a configuration"),
        (
            "c",
            "iothub-dm",
            &all,
            "contract iothub-dm is asked by a method",
        ),
        (
            "c]]",
            "configuration",
            &all,
            "metric \"Applying\" is refused: ",
        ),
        ("c", "nothing", &all, "nothing"),
    ] {
        assert_fails(&create(&world, id, "image", contract, more), expected);
    }
    assert_fails(
        &create(&world, "c", "nowhere", "devkit", &all),
        "cannot read ",
    );
    assert_eq!(world.ask(&["config", "list"]).out, "");

    // What every device would refuse is said.
    let file = world.path("image");
    let asked = [
        "config",
        "create",
        "http",
        "--target",
        "tags.x = 1",
        "--version",
        "1",
    ];
    let done = world.ask(
        &[
            &asked[..],
            &["--image", "http://h/i?sig=SECRET", "--from", text(&file)],
        ]
        .concat(),
    );
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(
        done.err.starts_with("devices refuse this unless"),
        "{done:?}"
    );
    assert!(
        done.err.contains("http://h/i") && !done.err.contains("SECRET"),
        "{done:?}"
    );

    // The place is marked.
    let image = world.path("image");
    let done = world.show(&[
        "config",
        "create",
        "c",
        "--image",
        "https://h/i",
        "--from",
        text(&image),
        "--version",
        "1",
        "--target",
        "tags.kind == 1",
    ]);
    assert!(
        done.err
            .starts_with(&format!("tags.kind == 1\n{:>12}\nerror: ", "^")),
        "{done:?}"
    );

    assert_done(&create(&world, "c", "image", "devkit", &all));
    assert_fails(
        &create(&world, "c", "image", "devkit", &all),
        "has configuration \"c\" already",
    );
    assert_fails(
        &world.ask(&["watch", "--config", "c", "--contract", "iothub-dm"]),
        "is asked by a method",
    );
    let done = world.ask_as("service", &["config", "delete", "c"]);
    assert_fails(
        &done,
        "the policy \"service\" of localhost does not allow this: one with \"registry write\"",
    );
    // Neither or both.
    for arguments in [&["watch"][..], &["watch", "d", "--config", "c"]] {
        assert_eq!(world.ask(arguments).status, Some(2));
    }
}
