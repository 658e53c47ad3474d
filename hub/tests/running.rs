//! Starting and stopping.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{field, start, start_with};
use serde_json::{Value, json};
use std::{
    io::Read,
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};
use twinflash_hub::{Error, Hub, Options};

fn free() -> Options {
    Options {
        mqtt_port: 0,
        https_port: 0,
        ..Options::default()
    }
}

#[test]
fn a_port_in_use_says_which_and_how_to_choose_another() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = Hub::start(Options {
        mqtt_port: port,
        ..free()
    })
    .unwrap_err();
    assert!(matches!(error, Error::PortInUse { what: "MQTT", .. }));
    let text = error.to_string();
    assert!(
        text.contains(&port.to_string()) && text.contains("--mqtt-port"),
        "{text}"
    );
    let text = Hub::start(Options {
        https_port: port,
        ..free()
    })
    .unwrap_err()
    .to_string();
    assert!(
        text.contains(&port.to_string()) && text.contains("--https-port"),
        "{text}"
    );
}

#[test]
fn bad_names_are_refused() {
    for name in ["", "a b", "localhost:8443", "a..b", "-".repeat(64).as_str()] {
        let options = Options {
            host_name: name.into(),
            ..free()
        };
        assert!(matches!(Hub::start(options), Err(Error::Name(_))), "{name}");
    }
    let error = Hub::start(Options {
        devices: vec!["a/b".into()],
        ..free()
    })
    .unwrap_err();
    assert!(error.to_string().contains("a/b"), "{error}");
}

#[test]
fn a_realistic_name_is_reached_through_the_gateway() {
    let hub = Hub::start(Options {
        host_name: "myhub.azure-devices.net".into(),
        devices: vec!["d1".into()],
        ..free()
    })
    .unwrap();
    let info = hub.info();
    let string = &info.devices["d1"];
    assert_eq!(field(string, "HostName"), "myhub.azure-devices.net");
    assert_eq!(
        field(string, "GatewayHostName"),
        format!("localhost:{}", info.mqtt_port)
    );
    let key = field(&info.service_connection_string, "SharedAccessKey");
    let ready: Value = serde_json::to_value(info).unwrap();
    assert_eq!(
        ready["serviceConnectionString"],
        info.service_connection_string
    );
    assert!(!format!("{hub:?}").contains(&key));
}

#[test]
fn it_stops_within_a_second_whatever_is_open_and_frees_its_ports() {
    let fixture = start();
    let (mqtt, https) = (fixture.info().mqtt_port, fixture.info().https_port);
    let ca = fixture.info().ca.clone();
    let mut device = fixture.device("d1");
    // Connections that say nothing, one of them in the middle of a request.
    let _silent = [
        TcpStream::connect(("127.0.0.1", mqtt)).unwrap(),
        TcpStream::connect(("127.0.0.1", https)).unwrap(),
    ];
    let _idle = common::Device::open(fixture.info());
    assert_eq!(fixture.owner().get("/devices").status, 200);
    let begun = Instant::now();
    drop(fixture);
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    device.is_closed();
    assert!(!ca.exists());
    Hub::start(Options {
        mqtt_port: mqtt,
        https_port: https,
        ..Options::default()
    })
    .unwrap();
}

#[test]
fn a_query_that_takes_long_is_answered_when_it_stops() {
    // With this many devices and conditions it takes far longer than the test.
    let fixture = start_with(Options {
        devices: (0..20_000).map(|n| format!("n{n}")).collect(),
        ..Options::default()
    });
    let conditions = "CONTAINS(deviceId, 'x') OR ".repeat(300);
    let query =
        json!({"query": format!("SELECT COUNT() AS n FROM devices WHERE {conditions}false")});
    let owner = fixture.owner();
    let asked = std::thread::spawn(move || owner.call("POST", "/devices/query", Some(&query)));
    std::thread::sleep(Duration::from_millis(300));
    // Meanwhile others are served.
    assert_eq!(fixture.owner().get("/devices/d1").status, 200);
    assert!(!asked.is_finished());
    fixture.hub.stop();
    asked.join().unwrap().refused(503, "ServiceUnavailable");
}

#[test]
fn it_can_be_started_and_stopped_inside_another_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        Hub::start(Options {
            devices: vec!["d1".into()],
            state: Some(directory.path().into()),
            ..free()
        })
        .unwrap()
        .stop();
    };
    for mut runtime in [
        tokio::runtime::Builder::new_current_thread(),
        tokio::runtime::Builder::new_multi_thread(),
    ] {
        runtime.build().unwrap().block_on(start());
    }
}

#[test]
fn connections_beyond_the_limit_are_closed_and_it_is_said_what_to_do() {
    let fixture = start_with(Options {
        max_connections: Some(2),
        ..Options::default()
    });
    let first = fixture.device("d1");
    let _second = fixture.device("d2");
    let port = fixture.info().mqtt_port;
    let is_closed = || {
        let mut third = TcpStream::connect(("127.0.0.1", port)).unwrap();
        third
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        third.read(&mut [0]).is_ok()
    };
    assert!(is_closed());
    fixture.refused_because("serves 2 connections, as many as it was started for: start it for more (--max-connections N)");
    drop(first);
    fixture.disconnected_because("");
    // Its place is free a moment after its end was told.
    assert!((0..100).any(|_| !is_closed()));
}

#[test]
fn back_ends_get_in_where_devices_are_too_many() {
    let fixture = start_with(Options {
        max_connections: Some(16),
        ..Options::default()
    });
    let port = fixture.info().mqtt_port;
    let open: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    fixture.refused_because("serves 16 connections");
    let devices = fixture.owner().get("/devices");
    assert_eq!(devices.status, 200);
    drop(open);
}

#[test]
fn more_connections_than_the_system_allows_are_refused_at_the_start() {
    let options = Options {
        max_connections: Some(2_000_000_000),
        ..free()
    };
    let error = Hub::start(options).unwrap_err().to_string();
    assert!(
        error.starts_with("2000000064 open files are needed, and this process may have "),
        "{error}"
    );
    assert!(
        error.contains("ulimit -n 2000000064") && error.contains("--max-connections"),
        "{error}"
    );
}

#[test]
fn a_state_directory_keeps_all_but_connections() {
    let directory = tempfile::tempdir().unwrap();
    let options = || Options {
        state: Some(directory.path().join("state")),
        ..Options::default()
    };
    let fixture = start_with(options());
    let mut device = fixture.device("d1");
    device.subscribe_all();
    device.report(r#"{"a":{"b":1}}"#);
    fixture
        .owner()
        .call("PATCH", "/twins/d1", Some(&json!({"tags": {"t": 1}})));
    fixture.owner().call("DELETE", "/devices/d2", None);
    let before = fixture.owner().get("/twins/d1").body;
    let (info, key) = (fixture.info().clone(), fixture.owner_key());
    drop(fixture);

    let fixture = start_with(options());
    let text = Hub::start(Options {
        mqtt_port: 0,
        https_port: 0,
        ..options()
    })
    .unwrap_err()
    .to_string();
    assert!(text.contains("in use by another hub"), "{text}");
    assert_eq!(fixture.owner_key(), key);
    assert_eq!(fixture.info().ca_pem, info.ca_pem);
    assert_eq!(
        field(&fixture.info().devices["d1"], "SharedAccessKey"),
        field(&info.devices["d1"], "SharedAccessKey")
    );
    let after = fixture.owner().get("/twins/d1").body;
    for part in ["tags", "properties", "etag", "version"] {
        assert_eq!(after[part], before[part]);
    }
    assert!(fixture.device("d1").session_present);
}
