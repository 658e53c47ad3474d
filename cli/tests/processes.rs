//! Hub, device and back end, each a process of its own.
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
    fs::{self, File},
    net::TcpListener,
};
use support::{DEVICE, Done, Running, World, image, run, text, twinflash};

const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn result(done: &Done) -> Value {
    done.json().pop().unwrap()
}

fn events<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

#[test]
fn the_ready_line_is_what_scripts_rely_on() {
    let world = World::new();
    let ready = &world.ready;
    let mut members: Vec<_> = ready
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    members.sort_unstable();
    assert_eq!(
        members,
        [
            "ca",
            "devices",
            "event",
            "hostName",
            "httpsPort",
            "mqttPort",
            "policies",
            "serviceConnectionString"
        ]
    );
    assert_eq!(
        (&ready["event"], &ready["hostName"]),
        (&json!("ready"), &json!("localhost"))
    );
    let ports = (
        ready["mqttPort"].as_u64().unwrap(),
        ready["httpsPort"].as_u64().unwrap(),
    );
    let device = format!(
        "HostName=localhost:{};DeviceId={DEVICE};SharedAccessKey=",
        ports.0
    );
    assert!(world.connection().starts_with(&device));
    let service = ready["serviceConnectionString"].as_str().unwrap();
    assert!(service.starts_with(&format!(
        "HostName=localhost:{};SharedAccessKeyName=",
        ports.1
    )));
    let ca = ready["ca"].as_str().unwrap().to_owned();
    assert!(
        fs::read_to_string(&ca)
            .unwrap()
            .starts_with("-----BEGIN CERTIFICATE-----")
    );

    let World { hub, .. } = world;
    let done = hub.stop("TERM");
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""));
    assert!(!fs::exists(ca).unwrap());
}

/// One device's life under a contract of methods: what goes well, and what does not.
#[test]
fn updates_by_a_method() {
    let mut world = World::new();
    let device = world.device("current_version = \"1.0.0\"", "");
    let url = format!("{}?sig=SECRET", world.url("/image"));

    // Nothing is started, and the answer says why.
    for (url, reason) in [
        (
            "http://localhost:1/image?sig=SECRET",
            "\"http://localhost:1/image\" is not https",
        ),
        ("/image", "\"/image\" is not the URL of an image"),
    ] {
        let done = world.ask(&["update", DEVICE, url]);
        assert_eq!(done.status, Some(1));
        let end = result(&done);
        assert_eq!(
            (&end["outcome"], &end["code"]),
            (&json!("failed"), &json!("refused"))
        );
        assert!(
            end["message"].as_str().unwrap().starts_with(reason),
            "{end}"
        );
    }

    for (arguments, code) in [
        (vec![world.url("/nothing")], "http-status"),
        (
            vec![url.clone(), "--check".into(), "0001".into()],
            "crc-mismatch",
        ),
        (
            vec![url.clone(), "--check".into(), SHA256_OF_NOTHING.into()],
            "hash-mismatch",
        ),
        (
            vec![url.clone(), "--size".into(), "5".into()],
            "size-mismatch",
        ),
        (
            vec![url.clone(), "--check".into(), "123456abcde".into()],
            "refused",
        ),
    ] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let done = world.ask(&[&["update", DEVICE], &arguments[..]].concat());
        let end = result(&done);
        assert_eq!(done.status, Some(1), "{done:?}");
        assert_eq!(
            (&end["outcome"], &end["code"]),
            (&json!("failed"), &json!(code))
        );
        assert_eq!(world.installed(), b"1.0.0\n");
    }

    let done = world.ask(&["update", DEVICE, &url]);
    assert_eq!(done.status, Some(0), "{done:?}");
    let lines = done.json();
    assert_eq!(
        lines[0]["payload"],
        json!({"fwPackageUri": world.shown("/image")})
    );
    assert_eq!(lines[1]["payload"], "FirmwareUpdate started.");
    assert_eq!(
        events(&lines, "status").last().unwrap()["status"],
        "applyComplete"
    );
    let end = result(&done);
    assert_eq!(
        (&end["outcome"], &end["contract"]),
        (&json!("completed"), &json!("iothub-dm"))
    );
    assert_eq!(world.installed(), image());

    // Who comes later sees how it ended.
    let done = world.ask(&["watch", DEVICE]);
    assert_eq!(
        (done.status, &result(&done)["outcome"]),
        (Some(0), &json!("completed"))
    );

    world.hub.line_with("applyComplete");
    let device = device.stop("INT");
    assert_eq!(
        (device.status, device.err.as_str()),
        (Some(0), ""),
        "{device:?}"
    );
    assert_eq!(device.json().last().unwrap()["event"], "stopped");
    let hub = world.hub.stop("INT");
    assert_eq!(hub.status, Some(0));
    for text in [&done.out, &device.out, &device.err, &hub.out, &hub.err] {
        assert!(!text.contains("SECRET"), "{text}");
    }
}

#[test]
fn updates_by_desired_properties() {
    let world = World::new();
    let device = world.device(
        "contract = \"configuration\"\ncurrent_version = \"1.0.0\"",
        "",
    );
    let url = world.url("/image");
    let update = |version: &str, url: &str, check: &str| {
        let asked = ["update", DEVICE, url, "--contract", "configuration"];
        world.ask(&[&asked[..], &["--version", version, "--check", check]].concat())
    };
    let sha256 = "sha256:1e8ddd5a4d21d0d1cbe0ea8b6bbd1a9b9ec2c8e0a5f80a2c9a6a0ca34ba97bd6";

    let done = world.ask(&["update", DEVICE, &url, "--contract", "configuration"]);
    assert_eq!(done.status, Some(1));
    assert!(
        done.err.contains("contract configuration needs --version"),
        "{done:?}"
    );

    // The same request again is asked for again: it does not show the last one's end.
    for attempt in 1..=2 {
        let done = update("1.0.1", &url, sha256);
        let lines = done.json();
        assert_eq!(done.status, Some(1), "{done:?}");
        let statuses = events(&lines, "status");
        assert_eq!(world.firmware.asked().len(), attempt, "{done:?}");
        assert_eq!(statuses.last().unwrap()["status"], "error");
        let message = result(&done)["message"].as_str().unwrap().to_owned();
        assert!(message.contains("was announced"), "{done:?}");
        assert_eq!(world.installed(), b"1.0.0\n");
    }
    let crc16 = run(&[
        "image",
        "info",
        "--json",
        text(&{
            world.write("copy", "");
            fs::write(world.path("copy"), image()).unwrap();
            world.path("copy")
        }),
    ]);
    let crc16 = crc16.json()[0]["fwPackageCheckValue"]
        .as_str()
        .unwrap()
        .to_owned();
    let done = update("1.0.1", &url, &crc16);
    assert_eq!(
        (done.status, &result(&done)["outcome"]),
        (Some(0), &json!("completed")),
        "{done:?}"
    );
    assert_eq!(world.installed(), image());
    // What is done is done, and nothing is asked for.
    let done = update("1.0.1", &url, &crc16);
    assert_eq!(
        (done.status, events(&done.json(), "status").len()),
        (Some(0), 1),
        "{done:?}"
    );
    let done = world.ask(&["watch", DEVICE, "--contract", "configuration"]);
    assert_eq!(done.status, Some(0), "{done:?}");
    // The next one is not taken for done before it is.
    let done = update("1.0.2", &url, &crc16);
    assert_eq!(done.status, Some(0), "{done:?}");
    drop(device);
}

/// Nobody confirms the new version: who follows it is told that the old one is back, and not only of
/// trouble.
#[test]
fn a_rollback_is_followed_to_its_end() {
    let world = World::new();
    let lines = "contract = \"configuration\"\ncurrent_version = \"1.0.0\"\npolicy = { confirm = \"call\", confirm_time = 1 }";
    let _device = world.device(lines, "");
    fs::write(world.path("copy"), image()).unwrap();
    let info = run(&["image", "info", "--json", text(&world.path("copy"))]).json();
    let check = info[0]["sha256"].as_str().unwrap();
    let url = world.url("/image");
    let asked = ["update", DEVICE, &url, "--contract", "configuration"];
    let done = world.ask(&[&asked[..], &["--version", "1.0.1", "--check", check]].concat());
    let lines = done.json();
    let last = *events(&lines, "status").last().unwrap();
    assert_eq!(last["status"], "rolledback", "{done:?}");
    let end = result(&done)["message"].as_str().unwrap().to_owned();
    assert!(end.starts_with("Rolled back to: 1.0.0; "), "{end}");
    assert_eq!(world.installed(), b"1.0.0\n");
}

/// The agent is what is updated: it ends, and the new version is started by its supervisor.
#[test]
fn an_update_over_a_restart() {
    let world = World::new();
    let lines = "contract = \"configuration\"\nversion_from = { file = \"app.bin\" }";
    let device = world.device(lines, "restart = \"exit\"");
    let url = world.url("/image");
    fs::write(world.path("copy"), image()).unwrap();
    let info = run(&["image", "info", "--json", text(&world.path("copy"))]).json();
    let sha256 = info[0]["sha256"].as_str().unwrap();
    let asked = [
        "update",
        DEVICE,
        &url,
        "--contract",
        "configuration",
        "--version",
        "1.0.1",
    ];
    let update = Running::start(world.back_end(&[&asked[..], &["--check", sha256]].concat()));

    let done = device.wait();
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
    assert_eq!(done.json().last().unwrap()["event"], "restarting");
    assert_eq!(world.installed(), image());
    let state = world.path("state");
    let guard = run(&["guard", "--json", "--state", text(&state)]);
    assert_eq!(guard.status, Some(0));
    assert_eq!(guard.json()[0]["event"], "counted", "{guard:?}");
    assert_eq!(
        (&guard.json()[0]["starts"], &guard.json()[0]["allowed"]),
        (&json!(1), &json!(3))
    );

    let mut device = world.device(lines, "restart = \"exit\"");
    assert_eq!(device.json_with("\"ended\"")["outcome"], "completed");
    let done = update.wait();
    assert_eq!(
        (done.status, &result(&done)["outcome"]),
        (Some(0), &json!("completed")),
        "{done:?}"
    );
    device.stop("TERM");
    let guard = run(&["guard", "--json", "--state", text(&state)]);
    assert_eq!(guard.json()[0]["event"], "nothing", "{guard:?}");
}

/// A version that never proves itself: the guard counts its starts and brings the old one back.
#[test]
fn the_guard_rolls_back() {
    let world = World::new();
    let lines = "current_version = \"1.0.0\"";
    let device = world.device(lines, "restart = \"exit\"");
    let done = world.back_end(&["update", DEVICE, &world.url("/image")]);
    let update = Running::start(done);
    device.wait();
    assert_eq!(world.installed(), image());
    let state = world.path("state");
    let guard = || {
        let done = run(&["guard", "--json", "--state", text(&state)]);
        assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
        done.json()[0]["event"].as_str().unwrap().to_owned()
    };
    let mut said = vec![guard()];
    while said.last().unwrap() == "counted" && said.len() < 10 {
        said.push(guard());
    }
    assert_eq!(said, ["counted", "counted", "counted", "rolledBack"]);
    assert_eq!(world.installed(), b"1.0.0\n");
    let _device = world.device(lines, "restart = \"exit\"");
    let done = update.wait();
    assert_eq!(done.status, Some(1));
    assert_eq!(result(&done)["code"], "not-confirmed", "{done:?}");
}

#[test]
fn a_back_end_is_told_what_is_wrong() {
    let world = World::new();
    let service = fs::read_to_string(world.path("service")).unwrap();
    let (host, _) = service.split_once(";SharedAccessKey=").unwrap();
    let wrong_key = format!("{host};SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
    let ca = world.ready["ca"].as_str().unwrap();
    let firmware = world.path("firmware.pem");
    let mqtt = world.ready["mqttPort"].to_string();
    let https = world.ready["httpsPort"].to_string();
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let at = |port: &str| service.replace(&https, port);
    for (device, service, ca, expected) in [
        ("nobody", &service, ca, "localhost has no device \"nobody\""),
        (DEVICE, &service, ca, "device \"device#1\" is not connected"),
        (
            DEVICE,
            &wrong_key,
            ca,
            "localhost does not accept the service's connection string (policy \"iothubowner\")",
        ),
        (
            DEVICE,
            &service,
            text(&firmware),
            "authority that is not trusted here",
        ),
        (DEVICE, &service, "/nowhere.pem", "cannot read /nowhere.pem"),
        (
            DEVICE,
            &at(&closed.to_string()),
            ca,
            "cannot reach localhost:",
        ),
        (DEVICE, &at(&mqtt), ca, "localhost:"),
        (
            DEVICE,
            &"@/nowhere/service".into(),
            ca,
            "cannot read the connection string from /nowhere/service",
        ),
        (
            DEVICE,
            &world.connection().into(),
            ca,
            "this is a device's connection string",
        ),
        (
            DEVICE,
            &"HostName=h;SharedAccessKeyName=p;SharedAccessKey=no".into(),
            ca,
            "SharedAccessKey is not base64",
        ),
    ] {
        let arguments = [
            "update",
            device,
            "https://h/x?sig=SECRET",
            "--service",
            service,
            "--ca",
            ca,
        ];
        let done = run(&arguments);
        assert_eq!(done.status, Some(1), "{done:?}");
        assert!(done.err.contains(expected), "{expected}: {done:?}");
        assert_eq!(done.err.lines().count(), 1, "{done:?}");
        for secret in [
            "SECRET",
            service.rsplit_once("SharedAccessKey=").map_or("@", |s| s.1),
        ] {
            assert!(
                secret == "no" || !format!("{done:?}").contains(secret) || secret == "@",
                "{done:?}"
            );
        }
    }
}

#[test]
fn a_device_is_told_what_is_wrong() {
    let world = World::new();
    let connection = world.connection().to_owned();
    let (host, _) = connection.split_once(";SharedAccessKey=").unwrap();
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for (connection, name) in [
        (format!("{host};SharedAccessKey={key}"), DEVICE),
        (connection.replace(DEVICE, "nobody"), "nobody"),
    ] {
        let mut command = world.device_command("", "");
        command.env("TWINFLASH_DEVICE", connection);
        let mut device = Running::start(command);
        let line = device.json_with("\"disconnected\"");
        let reason = line["reason"].as_str().unwrap();
        assert!(
            reason.contains(&format!("refuses device \"{name}\"")),
            "{line}"
        );
        let done = device.stop("TERM");
        assert_eq!(done.status, Some(0));
        assert!(!done.out.contains(key));
    }

    let device = world.device("", "");
    let done = Running::start(world.device_command("", "")).wait();
    assert_eq!(done.status, Some(1), "{done:?}");
    let holder = format!("is in use by process {} (twinflash)", device.pid());
    assert!(done.err.contains(&holder), "{done:?}");

    for (lines, install, expected) in [
        (
            "nonsense = 1",
            "",
            "twinflash.toml, line 4: unknown field `nonsense`",
        ),
        (
            "",
            "restart = \"perhaps\"",
            "install.restart is \"perhaps\"",
        ),
        ("contract = \"none\"", "", "built in are "),
        ("contract = \"./none.json\"", "", "cannot read the contract"),
        (
            "version_from = { file = \"none\" }",
            "",
            "version_from: cannot read",
        ),
    ] {
        let done = Running::start(world.device_command(lines, install)).wait();
        assert_eq!(
            (done.status, done.err.lines().count()),
            (Some(1), 1),
            "{done:?}"
        );
        assert!(done.err.contains(expected), "{expected}: {done:?}");
    }
    let done = run(&["device", "--config", "/nowhere/twinflash.toml"]);
    assert!(
        done.err.contains("cannot read /nowhere/twinflash.toml"),
        "{done:?}"
    );
    let guard = run(&["guard", "--state", text(&world.path("state"))]);
    assert_eq!(guard.status, Some(1));
    assert!(guard.err.contains(&holder), "{guard:?}");
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (taken, other, option) in [
        ("--mqtt-port", "--https-port", "--mqtt-port"),
        ("--https-port", "--mqtt-port", "--https-port"),
    ] {
        let done = run(&["hub", taken, &port, other, "0"]);
        assert_eq!(
            (done.status, done.err.lines().count()),
            (Some(1), 1),
            "{done:?}"
        );
        for part in [&format!("port {port}"), "in use", option] {
            assert!(done.err.contains(part), "{done:?}");
        }
    }
}

/// Ctrl-C ends the following, not the update.
#[test]
fn who_stops_following_leaves_the_device_working() {
    let world = World::new();
    let mut device = world.device("", "");
    // Nothing listens there: the device tries again and again.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let url = format!("https://localhost:{port}/image");
    for command in [&["update", DEVICE, &url][..], &["watch", DEVICE]] {
        let mut following = Running::start(world.back_end(command));
        following.line_with("\"downloading\"");
        let done = following.stop("INT");
        assert_eq!(done.status, Some(130), "{done:?}");
        assert!(done.err.contains("goes on by itself"), "{done:?}");
    }
    device.line_with("\"retry\"");
    let done = device.stop("TERM");
    assert_eq!(done.status, Some(0), "{done:?}");
    assert!(!done.out.contains("\"ended\""), "{done:?}");
}

#[test]
fn an_interrupted_demonstration_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (image, temporary) = (dir.path().join("image"), dir.path().join("tmp"));
    fs::create_dir(&temporary).unwrap();
    // Sparse: much to read and little to keep.
    File::create(&image).unwrap().set_len(1 << 30).unwrap();
    let mut command = twinflash(&["demo", "--json", "--image", text(&image)]);
    command.env("TMPDIR", &temporary);
    let mut demo = Running::start(command);
    demo.line_with("\"downloading\"");
    let done = demo.stop("INT");
    assert_eq!(done.status, Some(130), "{done:?}");
    assert_eq!(done.json().last().unwrap()["message"], "interrupted");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}
