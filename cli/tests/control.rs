//! A running agent asked locally, over its socket.
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
    io::{Read, Write},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    thread,
    time::Duration,
};
use support::{DEVICE, Done, Running, World, image, run, text, twinflash};

/// Asks the agent of this world.
fn ask(world: &World, order: &str) -> Done {
    let config = world.path("twinflash.toml");
    run(&["device", "--json", "--config", text(&config), order])
}

fn status(world: &World) -> Value {
    let done = ask(world, "status");
    assert_eq!(done.status, Some(0), "{done:?}");
    done.json().remove(0)
}

fn until(world: &World, what: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..200 {
        let status = status(world);
        if what(&status) {
            return status;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("it never came: {}", status(world));
}

/// What people read.
fn shown(world: &World, order: &str) -> Done {
    let config = world.path("twinflash.toml");
    run(&["device", "--config", text(&config), order])
}

fn started(world: &World, path: &str) -> Running {
    let update = Running::start(world.back_end(&["update", DEVICE, &world.url(path)]));
    until(world, |status| status["bytes"].as_u64() > Some(0));
    update
}

/// Sends these bytes and reads to the end.
fn talk(socket: &Path, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.write_all(bytes).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn paused_killed_resumed_cancelled() {
    let world = World::new();
    let configuration = "current_version = \"1.0.0\"";
    let device = world.device(configuration, "");
    let idle = status(&world);
    assert_eq!(
        (&idle["phase"], &idle["runningVersion"]),
        (&Value::Null, &json!("1.0.0"))
    );
    for order in ["confirm", "cancel", "pause", "resume"] {
        let done = ask(&world, order);
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(done.err.contains("error: no "), "{done:?}");
    }

    let update = started(&world, "/slow");
    let done = shown(&world, "pause");
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(done.out.contains("paused"), "{done:?}");
    let paused = until(&world, |status| status["paused"] == true);
    assert_eq!(paused["phase"], "downloading");

    // Killed: the socket is left over, and nobody answers there.
    let socket = world.path("state/control");
    device.signal("KILL");
    assert_eq!(device.wait().status, None);
    assert!(socket.exists());
    let done = ask(&world, "status");
    assert_eq!(done.status, Some(1));
    assert!(
        done.err.contains("no agent runs with the state directory"),
        "{done:?}"
    );
    let device = world.device(configuration, "");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let people = shown(&world, "status");
    for part in [
        "downloading, paused",
        "runs",
        "1.0.0",
        " %, ",
        "KiB of 292.97 KiB",
    ] {
        assert!(people.out.contains(part), "{part}: {people:?}");
    }
    let asked = world.firmware.asked().len();
    assert_eq!(ask(&world, "resume").status, Some(0));
    until(&world, |status| {
        status["paused"] == false && world.firmware.asked().len() > asked
    });
    let done = ask(&world, "cancel");
    let reply = &done.json()[0];
    assert_eq!(
        (done.status, &reply["done"], &reply["status"]["outcome"]),
        (Some(0), &json!(true), &json!("cancelled")),
        "{done:?}"
    );
    let ended = update.wait();
    assert_eq!(ended.status, Some(1));
    assert_eq!(ended.json().pop().unwrap()["code"], "cancelled");
    assert!(shown(&world, "status").out.contains("cancelled"));
    assert_eq!(device.stop("TERM").status, Some(0));
    assert!(!socket.exists());
    assert_eq!(world.installed(), b"1.0.0\n");
}

/// What the twin has no word for.
#[test]
fn what_is_waited_for_is_shown() {
    let world = World::new();
    let device = world.device("", "");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let url = format!("https://localhost:{port}/image?sig=SECRET");
    let _update = Running::start(world.back_end(&["update", DEVICE, &url]));
    let status = until(&world, |status| status["retry"].is_object());
    assert_eq!(status["retry"]["code"], "network", "{status}");
    let people = shown(&world, "status");
    for part in ["downloading", "next attempt", "failed so far", "/image"] {
        assert!(people.out.contains(part), "{part}: {people:?}");
    }
    assert!(!people.out.contains("SECRET"), "{people:?}");
    drop(device);
}

/// Whoever talks to the socket cannot hang the agent, and is told what is wrong.
#[test]
fn clients_that_keep_no_promise() {
    let world = World::new();
    let _device = world.device("", "");
    let socket = world.path("state/control");
    let silent: Vec<_> = (0..3)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    let mut half = UnixStream::connect(&socket).unwrap();
    half.write_all(b"{\"command\"").unwrap();
    assert_eq!(status(&world)["phase"], Value::Null);

    let unknown = talk(&socket, b"{\"command\":\"explode\"}\n");
    assert!(unknown.contains("`status`"), "{unknown}");
    let garbage = talk(&socket, b"\xff\xff\n");
    assert!(garbage.contains("cannot be understood"), "{garbage}");
    let mut endless = UnixStream::connect(&socket).unwrap();
    while endless.write_all(&[b' '; 1000]).is_ok() {}
    // What a later version may add is ignored.
    let reply = talk(&socket, b"{\"command\":\"status\",\"later\":[1]}\nmore");
    let reply: Value = serde_json::from_str(&reply).unwrap();
    assert_eq!(reply["done"], true);
    // Without an end of line, but at the end.
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream.write_all(b"{\"command\":\"status\"}").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("{\"done\":true"), "{reply}");
    // The silent ones are let go.
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
}

/// A second agent is told who holds the state directory, and leaves the first one's socket alone.
#[test]
fn a_second_agent() {
    let world = World::new();
    let device = world.device("", "");
    let second = Running::start(world.device_command("", "")).wait();
    assert_eq!(second.status, Some(1));
    let holder = format!("is in use by process {}", device.pid());
    assert!(second.err.contains(&holder), "{second:?}");
    assert_eq!(status(&world)["phase"], Value::Null);
}

#[test]
fn a_state_directory_with_a_long_path() {
    let world = World::new();
    let long = "d".repeat(100);
    fs::create_dir(world.path(&long)).unwrap();
    let mut device = {
        let mut command = world.device_command("", "");
        let file = world.path("twinflash.toml");
        let configuration = fs::read_to_string(&file).unwrap();
        let configuration = configuration.replace("\"state\"", &format!("\"{long}/state\""));
        fs::write(&file, configuration).unwrap();
        command.env("LANG", "C");
        Running::start(command)
    };
    device.line_with("\"connected\"");
    assert_eq!(status(&world)["phase"], Value::Null);
    let socket = world.path(&long).join("state/control");
    let mode = fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// With confirm = "call" the new version stays once somebody says that it is good.
#[test]
fn confirmed_locally() {
    let world = World::new();
    let mut command = world.device_command("current_version = \"1.0.0\"", "");
    let file = world.path("twinflash.toml");
    let configuration = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        format!("{configuration}\n[policy]\nconfirm = \"call\"\n"),
    )
    .unwrap();
    command.env("LANG", "C");
    let mut device = Running::start(command);
    device.line_with("\"connected\"");
    let update = Running::start(world.back_end(&["update", DEVICE, &world.url("/image")]));
    until(&world, |status| status["phase"] == "confirming");
    // Too late for that.
    let done = ask(&world, "cancel");
    assert_eq!(done.status, Some(1));
    assert!(done.err.contains("can no longer be cancelled"), "{done:?}");
    let done = ask(&world, "confirm");
    assert_eq!(done.status, Some(0), "{done:?}");
    assert_eq!(done.json()[0]["status"]["outcome"], "completed");
    assert_eq!(update.wait().status, Some(0));
    assert_eq!(world.installed(), image());
    let none = ask(&world, "confirm");
    assert_eq!(none.status, Some(1));
    assert!(
        none.err.contains("no new version waits to be confirmed"),
        "{none:?}"
    );
}

#[test]
fn nobody_to_ask() {
    let world = World::new();
    drop(world.device_command("", ""));
    for order in ["status", "cancel"] {
        let done = ask(&world, order);
        assert_eq!((done.status, done.err.lines().count()), (Some(1), 1));
        assert!(done.err.contains("start one with"), "{done:?}");
    }
    let config = world.path("twinflash.toml");
    let done = twinflash(&["device", "--config", text(&config), "explode"])
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    assert!(error.contains("explode"), "{error}");
    let help = run(&["device", "--help"]);
    for order in ["status", "resume", "approve", "defer", "install"] {
        assert!(help.out.contains(&format!("  {order} ")), "{help:?}");
    }
}

#[test]
fn a_file_is_installed() {
    let world = World::new();
    let _device = world.device("current_version = \"1.0.0\"", "");
    let config = world.path("twinflash.toml");
    let order = |words: &[&str]| run(&[&["device", "--config", text(&config)], words].concat());
    for words in [["approve", ""], ["defer", "5"]] {
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        let done = order(&words);
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(done.err.contains("no update "), "{done:?}");
    }
    let stick = world.path("stick.bin");
    let done = order(&["install", text(&stick)]);
    assert_eq!(done.status, Some(1), "{done:?}");
    assert!(done.err.contains("stick.bin: No such file"), "{done:?}");
    fs::write(&stick, vec![7; 100_000]).unwrap();
    let done = order(&["install", text(&stick), "--version", "2.0.0"]);
    assert_eq!(done.status, Some(0), "{done:?}");
    let status = until(&world, |status| status["outcome"] == "completed");
    assert_eq!(status["version"], "2.0.0");
    assert_eq!(fs::read(world.path("app.bin")).unwrap(), vec![7; 100_000]);
}

/// Where the owner's keys are configured, whoever has a stick needs more than that.
#[test]
fn a_file_is_installed_only_if_it_is_signed() {
    let world = World::new();
    let at = |name: &str| text(&world.path(name)).to_owned();
    for key in ["owner.pem", "other.pem"] {
        assert_eq!(run(&["key", "new", &at(key)]).status, Some(0));
    }
    let trust = format!("[trust]\nkeys = [{:?}]", at("owner.pub.pem"));
    let _device = world.device("current_version = \"1.0.0\"", &trust);
    let stick = at("stick.bin");
    fs::write(&stick, vec![7; 100_000]).unwrap();
    let sign = |key: &str, version: &str, to: &str| {
        let (key, to) = (at(key), at(to));
        let done = run(&[
            "image",
            "sign",
            &stick,
            "--key",
            &key,
            "--version",
            version,
            "--output",
            &to,
        ]);
        assert_eq!(done.status, Some(0), "{done:?}");
    };
    let install = |options: &[&str]| {
        let config = at("twinflash.toml");
        let words = ["device", "--config", &config, "install", &stick];
        run(&[&words[..], options].concat())
    };
    let refused = |options: &[&str], why: &str| {
        let done = install(options);
        assert_eq!((done.status, &*done.out), (Some(1), ""), "{done:?}");
        assert_eq!(done.err.lines().count(), 1, "{done:?}");
        assert!(done.err.contains(why), "{done:?}");
        assert_eq!(world.installed(), b"1.0.0\n");
    };
    refused(&[], "nothing signed vouches for ");
    refused(&["--version", "9.0.0"], "stick.bin.jws: No such file");
    refused(&["--manifest", &at("nowhere.jws")], "nowhere.jws");
    sign("other.pem", "2.0.0", "stick.bin.jws");
    refused(&[], "is not trusted");
    sign("owner.pem", "2.0.0", "elsewhere");
    let elsewhere = ["--manifest", &at("elsewhere")];
    refused(
        &[&elsewhere[..], &["--version", "9.0.0"]].concat(),
        "the request is for version 9.0.0",
    );
    let completed = |version: &str| {
        let status = until(&world, |status| status["outcome"] == "completed");
        assert_eq!(status["version"], version, "{status}");
        assert_eq!(world.installed(), vec![7; 100_000]);
    };
    let done = install(&elsewhere);
    assert_eq!(done.status, Some(0), "{done:?}");
    completed("2.0.0");
    sign("owner.pem", "3.0.0", "beside");
    fs::rename(at("beside"), at("stick.bin.jws")).unwrap();
    let done = install(&[]);
    assert_eq!(done.status, Some(0), "{done:?}");
    until(&world, |status| status["version"] == "3.0.0");
    completed("3.0.0");
}
