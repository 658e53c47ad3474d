//! The back end's side: `twinflash query`, `devices` and `twin`, against a hub of their own process.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod support;

use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt, process::Command};
use support::{DEVICE, Done, Running, World, text};

/// It failed, with this in its error, and a program is told the same.
fn assert_fails(done: &Done, expected: &str) {
    assert_eq!(done.status, Some(1), "{done:?}");
    assert!(done.err.contains(expected), "{expected}: {done:?}");
    let last = done.json().pop().unwrap();
    assert_eq!(last["event"], "error");
    assert!(last["message"].as_str().unwrap().contains(expected));
}

fn assert_done(done: &Done) {
    assert_eq!((done.status, done.err.as_str()), (Some(0), ""), "{done:?}");
}

#[test]
fn devices_from_birth_to_death() {
    let world = World::new();
    let port = world.ready["mqttPort"].to_string();
    let made = world.ask(&["devices", "create", "d 1", "d2", "--mqtt-port", &port]);
    // A device's id has no blank: nothing is registered.
    assert_fails(&made, "d 1");
    assert_eq!(made.json().len(), 1);

    let made = world.ask(&["devices", "create", "d1", "d2", "--mqtt-port", &port]);
    assert_done(&made);
    let made = made.json();
    assert_eq!(
        (&made[0]["device"], &made[1]["device"]),
        (&json!("d1"), &json!("d2"))
    );
    let connection = made[0]["connectionString"].as_str().unwrap();
    assert!(connection.starts_with(&format!(
        "HostName=localhost:{port};DeviceId=d1;SharedAccessKey="
    )));
    assert_fails(
        &world.ask(&["devices", "create", "d1"]),
        "has device \"d1\" already",
    );

    // A device can connect with what was printed.
    let command = world.device_command("current_version = \"1.0.0\"", "");
    world.write("device", connection);
    let mut device = support::Running::start(command);
    device.line_with("\"connected\"");
    let shown = world.ask(&["devices", "show", "d1"]);
    assert_done(&shown);
    let shown = &shown.json()[0];
    assert_eq!(
        (&shown["connectionState"], &shown["authentication"]["type"]),
        (&json!("Connected"), &json!("sas"))
    );
    assert!(shown["authentication"].get("symmetricKey").is_none());
    let key = connection.split_once("SharedAccessKey=").unwrap().1;
    assert!(!world.show(&["devices", "show", "d1"]).out.contains(key));
    let shown = world.show(&["devices", "show", "d1", "--keys", "--mqtt-port", &port]);
    assert!(
        shown
            .out
            .contains(&format!("connection string  {connection}\n")),
        "{shown:?}"
    );
    drop(device);

    let listed = world.ask(&["devices", "list"]);
    assert_done(&listed);
    let ids: Vec<_> = listed
        .json()
        .iter()
        .map(|device| device["deviceId"].clone())
        .collect();
    assert_eq!(ids, [json!("d1"), json!("d2"), json!(DEVICE)]);
    let listed = world.show(&["devices", "list", "--where", "deviceId = 'd2'"]);
    let lines: Vec<_> = listed.out.lines().collect();
    assert_eq!(lines.len(), 2, "{listed:?}");
    assert!(lines[0].starts_with("deviceId  status   connectionState  "));
    assert!(lines[1].starts_with("d2        enabled  Disconnected "));

    assert_done(&world.ask(&["devices", "delete", "d1", "d2"]));
    for arguments in [["devices", "show", "d1"], ["devices", "delete", "d2"]] {
        let done = world.ask(&arguments);
        assert_fails(&done, "localhost has no device \"");
        assert!(done.err.contains("twinflash devices create"));
    }
    let done = world.ask(&["devices", "list", "--where", "deviceId =="]);
    assert_fails(&done, "column ");
}

#[test]
fn a_twin_is_shown_and_changed() {
    let world = World::new();
    let shown = world.ask(&["twin", "show", DEVICE]);
    assert_done(&shown);
    let before = &shown.json()[0];
    assert_eq!(before["deviceId"], DEVICE);

    fs::write(world.path("tags"), r#"{"building": "43", "floor": 2}"#).unwrap();
    let tags = format!("@{}", text(&world.path("tags")));
    let etag = before["etag"].as_str().unwrap();
    let set = [
        "twin",
        "set",
        DEVICE,
        "--desired",
        r#"{"a": {"b": 1}}"#,
        "--tags",
        &tags,
    ];
    let changed = world.ask(&[&set[..], &["--if-match", etag]].concat());
    assert_done(&changed);
    let twin = &changed.json()[0];
    assert_eq!(twin["tags"], json!({"building": "43", "floor": 2}));
    assert_eq!(twin["properties"]["desired"]["a"], json!({"b": 1}));

    // The same etag again, with and without its quotes; none of it is done.
    let quoted = format!("\"{etag}\"");
    for etag in [etag, &quoted] {
        let set = [
            "twin",
            "set",
            DEVICE,
            "--tags",
            r#"{"floor": 9}"#,
            "--if-match",
            etag,
        ];
        assert_fails(&world.ask(&set), "its etag is another one by now");
    }
    let done = world.ask(&[
        "twin",
        "set",
        DEVICE,
        "--tags",
        r#"{"floor": null}"#,
        "--if-match",
        "*",
    ]);
    assert_done(&done);
    assert_eq!(done.json()[0]["tags"], json!({"building": "43"}));
    let done = world.show(&["twin", "set", DEVICE, "--desired", r#"{"a": null}"#]);
    assert!(
        done.out.contains("version 3 of the desired properties"),
        "{done:?}"
    );
    let shown = world.show(&["twin", "show", DEVICE]);
    assert!(
        shown
            .out
            .contains("\n  \"tags\": {\n    \"building\": \"43\"\n"),
        "{shown:?}"
    );

    for (arguments, expected) in [
        (&["twin", "set", DEVICE][..], "nothing to change"),
        (
            &["twin", "set", DEVICE, "--tags", "{floor"],
            "--tags is not JSON: ",
        ),
        (
            &["twin", "set", DEVICE, "--desired", "7"],
            "--desired is 7; it has to be an object",
        ),
        (
            &["twin", "set", DEVICE, "--desired", "@/nowhere"],
            "cannot read /nowhere: ",
        ),
        (
            &["twin", "set", "nobody", "--tags", "{\"a\":1}"],
            "no device \"nobody\"",
        ),
        (
            &["twin", "set", DEVICE, "--tags", r#"{"a.b": 1}"#],
            "localhost refuses device \"device#1\": ",
        ),
        (&["twin", "show", "nobody"], "no device \"nobody\""),
    ] {
        assert_fails(&world.ask(arguments), expected);
    }
}

#[test]
fn queries_come_whole_and_errors_with_their_place() {
    let world = World::new();
    // More than one page.
    let ids: Vec<_> = (0..1003).map(|n| format!("n{n:04}")).collect();
    let mut create = vec!["devices", "create"];
    create.extend(ids.iter().map(String::as_str));
    assert_done(&world.ask(&create));
    assert_done(&world.ask(&["twin", "set", "n0007", "--tags", r#"{"site": "north"}"#]));

    let done = world.ask(&[
        "query",
        "SELECT deviceId FROM devices WHERE STARTSWITH(deviceId, 'n')",
    ]);
    assert_done(&done);
    let rows: Vec<_> = done
        .json()
        .iter()
        .map(|row| row["deviceId"].clone())
        .collect();
    assert_eq!(rows, ids);
    let done = world.ask(&["query", "SELECT COUNT() AS n FROM devices"]);
    assert_eq!(done.json(), [json!({"n": 1004})]);

    let by_tag = "SELECT tags.site AS site, deviceId FROM devices WHERE tags.site = 'north'";
    assert_eq!(
        world.show(&["query", by_tag]).out,
        "deviceId  site\nn0007     north\n"
    );
    let whole = world.show(&["query", "SELECT * FROM devices WHERE IS_DEFINED(tags.site)"]);
    assert!(whole.out.ends_with("{\"site\":\"north\"}\n"), "{whole:?}");
    let none = "SELECT deviceId FROM devices WHERE tags.site = 'south'";
    assert_eq!(world.show(&["query", none]).out, "no rows\n");
    assert_eq!(world.ask(&["query", none]).out, "");

    let wrong = "SELECT *\nFROM devices WHERE tags.site == 1";
    assert_fails(&world.ask(&["query", wrong]), "(line 2, column 31)");
    let done = world.show(&["query", wrong]);
    let place = format!("FROM devices WHERE tags.site == 1\n{:>31}\nerror: ", "^");
    assert!(done.err.starts_with(&place), "{done:?}");
}

#[test]
fn a_policy_may_do_what_it_may() {
    let world = World::new();
    for (policy, arguments, right) in [
        (
            "registryRead",
            &["query", "SELECT * FROM devices"][..],
            "\"service connect\" is needed",
        ),
        (
            "registryRead",
            &["twin", "show", DEVICE],
            "\"service connect\" is needed",
        ),
        (
            "registryRead",
            &["devices", "create", "new"],
            "one with \"registry write\"",
        ),
        (
            "service",
            &["devices", "delete", DEVICE],
            "one with \"registry write\"",
        ),
        ("service", &["devices", "show", DEVICE], "\"registry read\""),
    ] {
        let done = world.ask_as(policy, arguments);
        assert_fails(
            &done,
            &format!("the policy \"{policy}\" of localhost does not allow this"),
        );
        assert!(done.err.contains(right), "{done:?}");
    }
    assert_done(&world.ask_as("registryRead", &["devices", "show", DEVICE]));
    assert_done(&world.ask_as("service", &["query", "SELECT * FROM devices"]));

    let done = support::run(&["query", "SELECT * FROM devices"]);
    assert_eq!(done.status, Some(2));
    assert!(done.err.contains("--service <CONNECTION_STRING>"));
}

#[test]
fn a_hub_that_is_asked_too_often_is_asked_again() {
    // Azure's S1 takes 100 operations of the registry a minute, and 20 queries.
    let world = World::with_hub(&["--throttle"]);
    let ids: Vec<_> = (0..103).map(|n| format!("n{n:03}")).collect();
    let mut create = vec!["devices", "create"];
    create.extend(ids.iter().map(String::as_str));
    let done = world.ask(&create);
    assert_done(&done);
    assert_eq!(done.json().len(), 103);
    let mut hub = world.hub;
    let refused = hub.line_with("429");
    assert!(refused.contains("/devices/n1"), "{refused}");
}

#[test]
fn devices_with_certificates_are_registered() {
    let thumbprint = "a9".repeat(20);
    let device = format!("c1={thumbprint}");
    let world = World::with_hub(&["--x509-device", &device]);
    let made = world.ask(&["devices", "create", "c2", "--thumbprint", &thumbprint]);
    assert_done(&made);
    let connection = made.json()[0]["connectionString"].clone();
    assert_eq!(connection, "HostName=localhost;DeviceId=c2;x509=true");
    for device in ["c1", "c2"] {
        let shown = world.ask(&["devices", "show", device]);
        assert_done(&shown);
        let authentication = &shown.json()[0]["authentication"];
        assert_eq!(authentication["type"], "selfSigned");
        let shown = authentication["x509Thumbprint"]["primaryThumbprint"].as_str();
        assert!(shown.unwrap().eq_ignore_ascii_case(&thumbprint));
    }
    assert_done(&world.ask(&["devices", "create", "c3", "--ca-signed"]));
    let shown = world.ask(&["devices", "show", "c3"]);
    assert_eq!(
        shown.json()[0]["authentication"]["type"],
        "certificateAuthority"
    );
    let wrong = ["devices", "create", "c4", "--thumbprint", "xyz"];
    assert_fails(&world.ask(&wrong), "localhost refuses device \"c4\": ");
}

/// The whole way of docs/certificates.md.
#[test]
fn a_device_with_a_certificate_is_updated() {
    let world = World::new();
    let openssl = |arguments: &str| {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split(' ')).current_dir(&world.dir);
        let output = openssl.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365 -subj /CN=d1 -keyout d1.key -out d1.pem",
    );
    let thumbprint = openssl("x509 -in d1.pem -noout -fingerprint -sha256");
    let thumbprint = thumbprint
        .trim()
        .split_once('=')
        .unwrap()
        .1
        .replace(':', "");
    let port = world.ready["mqttPort"].to_string();
    let create = ["devices", "create", "d1", "--mqtt-port", &port];
    let made = world.ask(&[&create[..], &["--thumbprint", &thumbprint]].concat());
    assert_done(&made);
    world.write(
        "device",
        made.json()[0]["connectionString"].as_str().unwrap(),
    );

    let mut device = Running::start(world.device_command("", ""));
    let missing = device.line_with("client_certificate and client_key");
    assert!(missing.contains("x509=true"), "{missing}");
    assert_eq!(device.wait().status, Some(1));

    let lines = "client_certificate = \"d1.pem\"\nclient_key = \"d1.key\"";
    let device = world.device(lines, "");
    let done = world.ask(&["update", "d1", &world.url("/image")]);
    assert_eq!(done.status, Some(0), "{done:?}");
    assert_eq!(world.installed(), support::image());
    let stopped = device.stop("TERM");
    let key = fs::read_to_string(world.path("d1.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for printed in [&stopped.out, &stopped.err] {
        assert!(!printed.contains(secret), "{stopped:?}");
    }

    // Everybody's secrets are warned of; what a group may read is as its owner wants it.
    world.write("api.key", "letmein");
    for (mode, expected) in [
        (
            0o644,
            &["connection_string", "client_key", "http.headers"][..],
        ),
        (0o440, &[]),
    ] {
        for name in ["device", "d1.key", "api.key"] {
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(world.path(name), mode).unwrap();
        }
        let command = world.device_command(lines, "");
        let file = world.path("twinflash.toml");
        let config =
            fs::read_to_string(&file).unwrap() + "headers = { X-Api-Key = \"@api.key\" }\n";
        fs::write(file, config).unwrap();
        let mut device = Running::start(command);
        device.line_with("\"connected\"");
        let done = device.stop("TERM");
        let warnings = done.json().into_iter();
        let warnings = warnings.filter(|line| line["event"] == "warning");
        let warned: Vec<_> = warnings
            .filter_map(|line| Some(line["message"].as_str()?.to_owned()))
            .filter(|line| line.contains("everybody on this device may read"))
            .collect();
        let keys = warned.iter().filter_map(|line| line.split(':').next());
        assert_eq!(keys.collect::<Vec<_>>(), expected, "{done:?}");
        assert!(!done.out.contains("letmein"), "{done:?}");
    }
}

#[test]
fn a_connection_string_is_the_one_the_hub_prints() {
    for options in [&[][..], &["--host-name", "fw.azure-devices.net"]] {
        let world = World::with_hub(options);
        let port = world.ready["mqttPort"].to_string();
        let shown = world.show(&["devices", "show", DEVICE, "--keys", "--mqtt-port", &port]);
        assert_eq!(shown.status, Some(0), "{shown:?}");
        assert!(
            shown.out.contains(&format!("  {}\n", world.connection())),
            "{shown:?}"
        );
    }
}
