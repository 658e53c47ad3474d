//! Who may connect, and what ends a connection.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Connect, Device, packet, start, string, token, unix};
use serde_json::json;
use std::time::{Duration, Instant};

const WRONG_KEY: &str = "d3Jvbmd3cm9uZ3dyb25nd3Jvbmd3cm9uZ3dyb25nISE=";

#[test]
fn both_user_names_both_keys_and_a_policy_are_let_in() {
    let fixture = start();
    let hello = fixture.hello("d1");
    fixture.connect(&hello).unwrap();
    let user = Some("localhost/d1/api-version=2016-11-14&DeviceClientType=x".into());
    fixture
        .connect(&Connect {
            user,
            ..hello.clone()
        })
        .unwrap();
    fixture
        .connect(&Connect {
            user: Some("localhost/d1".into()),
            ..hello.clone()
        })
        .unwrap();

    let secondary =
        fixture.owner().get("/devices/d1").body["authentication"]["symmetricKey"]["secondaryKey"]
            .clone();
    let password = token(
        "localhost/devices/d1",
        secondary.as_str().unwrap(),
        unix() + 60,
        None,
    );
    fixture
        .connect(&Connect {
            password: Some(password),
            ..hello.clone()
        })
        .unwrap();

    // With a port in its name, as the Node SDK has it.
    let password = token(
        "localhost:1/devices/d1",
        &fixture.key("d1"),
        unix() + 60,
        None,
    );
    let user = Some("localhost:1/d1/?api-version=2021-04-12".into());
    fixture
        .connect(&Connect {
            user,
            password: Some(password),
            ..hello.clone()
        })
        .unwrap();

    for resource in ["localhost", "localhost/devices", "localhost/devices/d1"] {
        let password = token(
            resource,
            &fixture.owner_key(),
            unix() + 60,
            Some("iothubowner"),
        );
        fixture
            .connect(&Connect {
                password: Some(password),
                ..hello.clone()
            })
            .unwrap();
    }
}

#[test]
fn all_else_is_refused_with_5_and_the_observer_hears_why() {
    let fixture = start();
    let hello = fixture.hello("d1");
    let key = fixture.key("d1");
    let own = "localhost/devices/d1";
    let with = |password: String| Connect {
        password: Some(password),
        ..hello.clone()
    };
    for (connect, why) in [
        (
            with(token(own, WRONG_KEY, unix() + 60, None)),
            "not signed with a key of the device",
        ),
        (
            with(token(own, &fixture.key("d2"), unix() + 60, None)),
            "not signed with a key of the device",
        ),
        (
            with(token("localhost/devices/d2", &key, unix() + 60, None)),
            "not this device",
        ),
        (
            with(token("elsewhere/devices/d1", &key, unix() + 60, None)),
            "not this device",
        ),
        (
            with(token("localhost", &key, unix() + 60, None)),
            "not this device",
        ),
        (with(token(own, &key, unix() - 1, None)), "expired"),
        (
            with(token(own, WRONG_KEY, unix() + 60, Some("iothubowner"))),
            "key of its policy",
        ),
        (
            with(token(own, WRONG_KEY, unix() + 60, Some("none"))),
            "no such policy",
        ),
        (
            with(token(
                "localhost/devices/d2",
                &fixture.owner_key(),
                unix() + 60,
                Some("iothubowner"),
            )),
            "does not cover",
        ),
        (with("password".into()), "no SharedAccessSignature"),
        (
            Connect {
                password: None,
                ..hello.clone()
            },
            "no password",
        ),
        (
            Connect {
                user: None,
                password: None,
                ..hello.clone()
            },
            "no user name",
        ),
        (
            Connect {
                user: Some("localhost".into()),
                ..hello.clone()
            },
            "user name is not",
        ),
        (
            Connect {
                user: Some("localhost/d2/?api-version=2021-04-12".into()),
                ..hello.clone()
            },
            "client id",
        ),
        (
            Connect {
                user: Some("localhost/d1/module/?api-version=2021-04-12".into()),
                ..hello.clone()
            },
            "module",
        ),
        (
            Connect {
                client_id: "nobody".into(),
                user: Some("localhost/nobody/?api-version=2021-04-12".into()),
                ..hello.clone()
            },
            "no such device",
        ),
    ] {
        fixture.events.lock().unwrap().clear();
        assert_eq!(fixture.connect(&connect).err(), Some(5), "{why}");
        fixture.refused_because(why);
    }
    let told = format!("{:?}", fixture.events.lock().unwrap());
    assert!(!told.contains("sig=") && !told.contains(&key), "{told}");
}

#[test]
fn a_disabled_or_deleted_device_is_dropped_and_stays_out() {
    let fixture = start();
    let mut device = fixture.device("d1");
    let owner = fixture.owner();
    let body = json!({"deviceId": "d1", "status": "disabled"});
    assert_eq!(
        owner.call_if("PUT", "/devices/d1", Some(&body), "*").status,
        200
    );
    device.is_closed();
    fixture.disconnected_because("disabled");
    assert_eq!(fixture.connect(&fixture.hello("d1")).err(), Some(5));
    fixture.refused_because("disabled");
    let mut device = fixture.device("d2");
    assert_eq!(
        owner.call_if("DELETE", "/devices/d2", None, "*").status,
        204
    );
    device.is_closed();
}

#[test]
fn when_a_device_was_last_active() {
    let fixture = start();
    let owner = fixture.owner();
    let last = || {
        let twin = owner.get("/twins/d1").body;
        twin["lastActivityTime"].as_str().unwrap().to_owned()
    };
    let call = json!({"methodName": "m"});
    owner.invoke("d1", &call).method_refused(404_103);
    assert_eq!(last(), "0001-01-01T00:00:00Z");
    let mut device = fixture.device("d1");
    let connected = last();
    device.publish(1, "devices/d1/messages/events/", b"x");
    device.until(0x40);
    let sent = last();
    assert!(
        *"0002" < *connected && connected < sent,
        "{connected} {sent}"
    );
}

#[test]
fn a_second_connection_takes_the_place_of_the_first() {
    let fixture = start();
    let mut first = fixture.device("d1");
    let mut second = fixture.device("d1");
    first.is_closed();
    fixture.disconnected_because("took its place");
    second.subscribe_all();
    assert_eq!(second.get_twin()["desired"]["$version"], 1);
    assert_eq!(
        fixture.owner().get("/devices/d1").body["connectionState"],
        "Connected"
    );
    assert!(fixture.hub.disconnect("d1"));
    second.is_closed();
    fixture.disconnected_because("on request");
    assert!(!fixture.hub.disconnect("d1"));
    assert_eq!(
        fixture.owner().get("/devices/d1").body["connectionState"],
        "Disconnected"
    );
}

#[test]
fn an_expired_token_and_silence_end_a_connection() {
    let fixture = start();
    let hello = fixture.hello("d1");
    let password = token("localhost/devices/d1", &fixture.key("d1"), unix() + 2, None);
    let begun = Instant::now();
    let mut device = fixture
        .connect(&Connect {
            password: Some(password),
            ..hello.clone()
        })
        .unwrap();
    device.is_closed();
    assert!((1..6).contains(&begun.elapsed().as_secs()));
    fixture.disconnected_because("token expired");

    let mut device = fixture
        .connect(&Connect {
            keep_alive: 1,
            ..hello
        })
        .unwrap();
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(900));
        device.write(&packet(0xc0, &[]));
        device.until(0xd0);
    }
    let begun = Instant::now();
    device.is_closed();
    let silent = begun.elapsed().as_millis();
    assert!((1300..6000).contains(&silent), "{silent} ms");
    fixture.disconnected_because("keep-alive");
}

#[test]
fn what_the_protocol_forbids_ends_the_connection() {
    let fixture = start();
    let publish = |qos: u8, topic: &str, payload: &[u8]| {
        let id: &[u8] = if qos > 0 { &[0, 1] } else { &[] };
        packet(0x30 | qos << 1, &[&string(topic), id, payload].concat())
    };
    let events = "devices/d1/messages/events/";
    for (bytes, why) in [
        (publish(2, events, b"x"), "QoS 2"),
        (publish(0, "anything/else", b"x"), "anything/else"),
        (publish(0, "devices/d2/messages/events/", b"x"), "d2"),
        (
            publish(0, events, &[b'x'; 256 * 1024 + 1]),
            "more than 262144 bytes",
        ),
        (publish(0, events, &[b'x'; 400 * 1024]), "PacketTooLarge"),
        (fixture_connect_again(&fixture), "ProtocolError"),
        (vec![0xf0, 0], "ProtocolError"),
        (vec![0x82, 1, 0], "MalformedPacket"),
        (vec![0x20, 2, 0, 0], "ProtocolError"),
    ] {
        fixture.events.lock().unwrap().clear();
        let mut device = fixture.connect(&fixture.hello("d1")).unwrap();
        device.write(&bytes);
        device.is_closed();
        fixture.disconnected_because(why);
    }
    // The largest message that is allowed.
    let mut device = fixture.device("d1");
    device.publish(
        1,
        "devices/d1/messages/events/a=b&%24.ct=x",
        &[b'x'; 256 * 1024],
    );
    assert_eq!(device.until(0x40), [0, 1]);
}

fn fixture_connect_again(fixture: &common::Fixture) -> Vec<u8> {
    let hello = fixture.hello("d1");
    let mut body = [string("MQTT"), vec![4, 0xc2, 0, 60]].concat();
    for text in [
        hello.client_id,
        hello.user.unwrap(),
        hello.password.unwrap(),
    ] {
        body.extend(string(&text));
    }
    packet(0x10, &body)
}

#[test]
fn what_is_no_connect_is_cut_off() {
    let fixture = start();
    for (bytes, why) in [
        (
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            "first packet is not CONNECT",
        ),
        (packet(0xc0, &[]), "first packet is not CONNECT"),
        (
            packet(
                0x30,
                &[&string("devices/d1/messages/events/")[..], b"x"].concat(),
            ),
            "first packet is not CONNECT",
        ),
        (packet(0x10, &[0; 20_000]), "no CONNECT within"),
        (vec![0x10, 0xff, 0xff, 0xff, 0x7f, 0], "PacketTooLarge"),
        (
            packet(0x10, &[&string("MQTT")[..], &[5, 2, 0, 0, 0, 0]].concat()),
            "UnsupportedProtocolVersion",
        ),
    ] {
        fixture.events.lock().unwrap().clear();
        let mut device = Device::open(fixture.info());
        device.write(&bytes);
        device.is_closed();
        fixture.refused_because(why);
    }
    // No TLS at all.
    let mut plain = std::net::TcpStream::connect(("127.0.0.1", fixture.info().mqtt_port)).unwrap();
    std::io::Write::write_all(&mut plain, b"\x10\x00 no tls").unwrap();
    fixture.refused_because("TLS handshake failed");
    // And it still serves.
    fixture.device("d1");
}

#[test]
fn only_documented_filters_and_at_most_five() {
    let fixture = start();
    let mut device = fixture.connect(&fixture.hello("d1")).unwrap();
    assert_eq!(
        device.subscribe(&[
            ("#", 0),
            ("devices/d2/messages/devicebound/#", 1),
            ("$iothub/methods/POST/#", 2),
            ("$iothub/twin/res/#", 0),
            ("$iothub/twin/PATCH/properties/desired/#", 1),
            ("devices/d1/messages/devicebound/#", 1),
            ("$iothub/methods/POST/a/#", 1),
            ("$iothub/methods/POST/b/#", 1),
            ("$iothub/twin/res/#", 1),
        ]),
        [0x80, 0x80, 1, 0, 1, 1, 1, 0x80, 1]
    );
    let filter = string("$iothub/methods/POST/a/#");
    device.write(&packet(0xa2, &[&[0, 9], &filter[..]].concat()));
    assert_eq!(device.until(0xb0), [0, 9]);
    assert_eq!(device.subscribe(&[("$iothub/methods/POST/b/#", 1)]), [1]);
}

#[test]
fn subscriptions_outlive_a_connection_without_clean_session() {
    let fixture = start();
    let owner = fixture.owner();
    let call = json!({"methodName": "m", "payload": 1, "responseTimeoutInSeconds": 5});
    let mut device = fixture.device("d1");
    assert!(!device.session_present);
    device.subscribe_all();
    drop(device);

    let mut device = fixture.device("d1");
    assert!(device.session_present);
    let answered = fixture.invoke("d1", call.clone());
    assert_eq!(device.answer(200, "2").payload, b"1");
    assert_eq!(
        answered.join().unwrap().body,
        json!({"status": 200, "payload": 2})
    );
    drop(device);

    // A clean session has none, and leaves none.
    let device = fixture.connect(&fixture.hello("d1")).unwrap();
    assert!(!device.session_present);
    owner.invoke("d1", &call).method_refused(404_103);
    drop(device);
    assert!(!fixture.device("d1").session_present);
    owner.invoke("d1", &call).method_refused(404_103);
}

#[test]
fn many_devices_at_once() {
    let fixture = start();
    let owner = fixture.owner();
    let mut devices = Vec::new();
    for number in 0..60 {
        let id = format!("m{number}");
        let made = owner.call(
            "PUT",
            &format!("/devices/{id}"),
            Some(&json!({"deviceId": id})),
        );
        let key = made.body["authentication"]["symmetricKey"]["primaryKey"]
            .as_str()
            .unwrap()
            .to_owned();
        let connect = Connect {
            client_id: id.clone(),
            user: Some(format!("localhost/{id}/?api-version=2021-04-12")),
            password: Some(token(
                &format!("localhost/devices/{id}"),
                &key,
                unix() + 60,
                None,
            )),
            keep_alive: 60,
            clean: true,
        };
        let mut device = fixture.connect(&connect).unwrap();
        device.subscribe_all();
        devices.push(device);
    }
    for device in &mut devices {
        assert_eq!(
            device.report(r#"{"a":1}"#).topic,
            "$iothub/twin/res/204/?$rid=r&$version=2"
        );
    }
    assert_eq!(
        owner.get("/statistics/service").body["connectedDeviceCount"],
        60
    );
}
