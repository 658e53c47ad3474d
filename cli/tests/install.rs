//! The agent with other installers than a file.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::{Value, json};
use std::fs;
use support::{DEVICE, Done, Running, World, image};

/// A device that is connected, with these lines as its `[install]`.
fn device(world: &World, install: &str) -> Running {
    let command = world.device_command("", "");
    let text = fs::read_to_string(world.path("twinflash.toml")).unwrap();
    let file = "file = \"app.bin\"";
    assert!(text.contains(file));
    world.write("twinflash.toml", &text.replace(file, install));
    let mut device = Running::start(command);
    device.line_with("\"connected\"");
    device
}

fn result(done: &Done) -> Value {
    done.json().pop().unwrap()
}

#[test]
fn two_slots_and_a_link() {
    let world = World::new();
    world.write("a.img", "1.0.0\n");
    std::os::unix::fs::symlink("a.img", world.path("current")).unwrap();
    let install = "slots = { A = \"a.img\", B = \"b.img\" }\nswitch = { link = \"current\" }\n\
                   verify = \"read-back\"\nrestart = \"none\"";
    let device = device(&world, install);
    let done = world.ask(&["update", DEVICE, &world.url("/image")]);
    assert_eq!(result(&done)["outcome"], "completed", "{done:?}");
    assert_eq!(fs::read(world.path("current")).unwrap(), image());
    assert_eq!(fs::read(world.path("a.img")).unwrap(), b"1.0.0\n");
    device.stop("TERM");
}

#[test]
fn a_command_and_what_it_prints() {
    let world = World::new();
    world.write(
        "install.sh",
        "test ! -e fail || { echo no room in the shed >&2; exit 9; }\ncat \"$1\" > installed\n",
    );
    let path = |name: &str| world.path(name).display().to_string();
    world.write(
        "run.sh",
        &format!(
            "cd {} && . {}",
            world.dir.path().display(),
            path("install.sh")
        ),
    );
    let install = format!("command = [\"sh\", {:?}, \"{{image}}\"]", path("run.sh"));
    let mut device = device(&world, &install);
    let url = world.url("/image");
    let done = world.ask(&["update", DEVICE, &url]);
    assert_eq!(result(&done)["outcome"], "completed", "{done:?}");
    assert_eq!(fs::read(world.path("installed")).unwrap(), image());
    assert!(!world.path("state/image").exists());

    // For who looks at the device, and not for the cloud.
    world.write("fail", "");
    let done = world.ask(&["update", DEVICE, &url]);
    let end = result(&done);
    assert_eq!(end["code"], "install-failed", "{end}");
    assert_eq!(end["message"], "sh ended with exit status: 9");
    assert!(!done.out.contains("shed"), "{}", done.out);
    let line = device.json_with("shed");
    assert_eq!(line["event"], json!("warning"));
    assert_eq!(line["message"], "sh errors: no room in the shed");
    device.stop("TERM");
}
