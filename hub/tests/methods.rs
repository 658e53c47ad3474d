//! Direct methods.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::start;
use serde_json::json;
use std::time::{Duration, Instant};
use twinflash_hub::Event;

#[test]
fn payloads_go_through_both_ways() {
    let fixture = start();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    for (body, arrives, answer, returns) in [
        (
            json!({"methodName": "m", "payload": {"b": [1, 2.5, null], "a": "é"}}),
            r#"{"a":"é","b":[1,2.5,null]}"#,
            "{\"x\": 1}",
            json!({"x": 1}),
        ),
        (
            json!({"methodName": "m", "payload": null}),
            "null",
            "null",
            json!(null),
        ),
        (
            json!({"methodName": "m", "payload": ""}),
            "\"\"",
            "\"text\"",
            json!("text"),
        ),
        (json!({"methodName": "m"}), "", "", json!(null)),
    ] {
        let answered = fixture.invoke("d1", body);
        let call = device.answer(201, answer);
        assert!(
            call.topic.starts_with("$iothub/methods/POST/m/?$rid="),
            "{}",
            call.topic
        );
        assert_eq!(String::from_utf8(call.payload).unwrap(), arrives);
        let answered = answered.join().unwrap();
        assert_eq!(
            (answered.status, answered.body),
            (200, json!({"status": 201, "payload": returns}))
        );
    }
    fixture.event(|event| match event {
        Event::MethodAnswered {
            device,
            status: 201,
            ..
        } if device == "d1" => Some(()),
        _ => None,
    });
}

#[test]
fn large_payloads_up_to_128_kb() {
    let fixture = start();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let full = "x".repeat(128 * 1024 - 2);
    let answered = fixture.invoke("d1", json!({"methodName": "m", "payload": full}));
    assert_eq!(
        device.answer(200, &format!("\"{full}\"")).payload.len(),
        128 * 1024
    );
    assert_eq!(answered.join().unwrap().body["payload"], full);
    fixture
        .owner()
        .invoke(
            "d1",
            &json!({"methodName": "m", "payload": format!("{full}x")}),
        )
        .method_refused(413_001);
    let answered = fixture.invoke("d1", json!({"methodName": "m"}));
    device.answer(200, &format!("\"{full}x\""));
    answered.join().unwrap().method_refused(413_001);
}

#[test]
fn who_cannot_be_reached_is_404103() {
    let fixture = start();
    let call = json!({"methodName": "m"});
    let owner = fixture.owner();
    owner.invoke("nobody", &call).method_refused(404_001);
    let inner = owner.invoke("d1", &call).method_refused(404_103);
    assert_eq!(inner["info"], json!({"timeout": "00:00:00"}));
    assert!(
        inner["message"]
            .as_str()
            .unwrap()
            .contains("isn't online or hasn't registered the direct method callback")
    );
    // Connected, but not subscribed.
    let mut device = fixture.connect(&fixture.hello("d1")).unwrap();
    owner.invoke("d1", &call).method_refused(404_103);
    device.subscribe(&[("$iothub/twin/res/#", 0)]);
    owner.invoke("d1", &call).method_refused(404_103);
    let begun = Instant::now();
    let inner = owner
        .invoke(
            "d2",
            &json!({"methodName": "m", "connectTimeoutInSeconds": 1}),
        )
        .method_refused(404_103);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(inner["info"], json!({"timeout": "00:00:01"}));
    fixture.event(|event| match event {
        Event::MethodFailed {
            device,
            code: 404_103,
            ..
        } if device == "d2" => Some(()),
        _ => None,
    });
}

#[test]
fn a_call_waits_for_the_device_to_connect() {
    let fixture = start();
    let answered = fixture.invoke(
        "d1",
        json!({"methodName": "m", "connectTimeoutInSeconds": 10}),
    );
    std::thread::sleep(Duration::from_millis(200));
    let mut device = fixture.device("d1");
    device.subscribe_all();
    device.answer(200, "1");
    assert_eq!(answered.join().unwrap().body["payload"], 1);
}

#[test]
fn no_answer_is_504101_and_a_late_one_harms_nobody() {
    let fixture = start();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let begun = Instant::now();
    let late = fixture.owner().invoke(
        "d1",
        &json!({"methodName": "m", "responseTimeoutInSeconds": 5}),
    );
    late.method_refused(504_101);
    assert!((5..7).contains(&begun.elapsed().as_secs()));
    device.answer(200, "1");
    device.publish(0, "$iothub/methods/res/200/?$rid=99999", b"1");
    let answered = fixture.invoke("d1", json!({"methodName": "m"}));
    device.answer(200, "2");
    assert_eq!(answered.join().unwrap().body["payload"], 2);
}

#[test]
fn a_device_may_reconnect_before_it_answers_but_no_other_may_answer() {
    let fixture = start();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let answered = fixture.invoke("d1", json!({"methodName": "m"}));
    let call = device.message();
    drop(device);
    let answer = call
        .topic
        .replace("$iothub/methods/POST/m/", "$iothub/methods/res/200/");
    let mut other = fixture.device("d2");
    other.publish(1, &answer, b"\"not yours\"");
    other.until(0x40);
    fixture.device("d1").publish(1, &answer, b"\"mine\"");
    assert_eq!(answered.join().unwrap().body["payload"], "mine");
}

#[test]
fn bad_calls_and_bad_answers_are_refused() {
    let fixture = start();
    let owner = fixture.owner();
    for body in [
        json!({}),
        json!([]),
        json!({"methodName": "a/b"}),
        json!({"methodName": "m", "responseTimeoutInSeconds": 301}),
        json!({"methodName": "m", "connectTimeoutInSeconds": -1}),
    ] {
        owner.invoke("d1", &body).method_refused(400_004);
    }
    let path = "/twins/d1/methods?api-version=2021-04-12";
    owner
        .raw("POST", path, Some(b"{methodName".to_vec()), &[])
        .method_refused(400_006);
    owner
        .raw("POST", path, Some(vec![b' '; 600 * 1024]), &[])
        .method_refused(413_001);
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let answered = fixture.invoke("d1", json!({"methodName": "m"}));
    device.answer(200, "'single quotes'");
    answered.join().unwrap().method_refused(400_012);
}

#[test]
fn stopping_the_hub_answers_what_waits() {
    let fixture = start();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let waiting = fixture.invoke("d1", json!({"methodName": "m"}));
    let unreachable = fixture.invoke(
        "d2",
        json!({"methodName": "m", "connectTimeoutInSeconds": 100}),
    );
    device.message();
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    fixture.hub.stop();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    waiting.join().unwrap().method_refused(503_001);
    unreachable.join().unwrap().method_refused(503_001);
    device.is_closed();
}

/// Azure reads the bodies of direct methods with Newtonsoft's Json.NET; the .NET tutorial's back end depends on it.
#[test]
fn bodies_are_read_leniently_and_the_device_gets_json() {
    let fixture = start();
    let mut device = fixture.device("d1");
    device.subscribe_all();
    let send = |body: String| {
        let owner = fixture.owner();
        let path = "/twins/d1/methods?api-version=2021-04-12";
        std::thread::spawn(move || owner.raw("POST", path, Some(body.into_bytes()), &[]))
    };
    for (payload, arrives) in [
        // Byte for byte what the tutorial's `SetPayloadJson` puts there.
        (
            "{ fwPackageUri : 'https://someurl' }",
            r#"{"fwPackageUri":"https://someurl"}"#,
        ),
        (
            "/* c */ {'it\\'s': [1, 2.5, null,], $a_1: \"x\", // the last\n}",
            r#"{"$a_1":"x","it's":[1,2.5,null]}"#,
        ),
        ("{a: 0x10, b: -.5}", r#"{"a":16,"b":-0.5}"#),
        ("'text'", r#""text""#),
        (
            "{\"u\": \"\\u00e9\", \"n\": 9007199254740993}",
            r#"{"n":9007199254740993,"u":"é"}"#,
        ),
    ] {
        let answered = send(format!(
            "{{\"methodName\":\"firmwareUpdate\",\"payload\":{payload},\"responseTimeoutInSeconds\":30}}"
        ));
        let call = device.answer(200, "true");
        assert_eq!(String::from_utf8(call.payload).unwrap(), arrives);
        assert_eq!(answered.join().unwrap().body["payload"], true);
    }
    // As deep as is taken; the device is away, so that nothing else can fail.
    let nested = |depth| format!("{}1{}", "{a:".repeat(depth), "}".repeat(depth));
    let path = "/twins/d2/methods?api-version=2021-04-12";
    let body = format!("{{methodName:'m',payload:{}}}", nested(500)).into_bytes();
    let answer = fixture.owner().raw("POST", path, Some(body), &[]);
    answer.method_refused(404_103);
    let deep = nested(100_000);
    for (body, says) in [
        ("{methodName: 'm', payload: hello}", "line 1 column"),
        ("{methodName: 'm' payload: 1}", "comma"),
        ("{methodName: 'm', payload: NaN}", "line 1 column"),
        ("{methodName: 'm'} 1", "more than one"),
        ("{methodName: 'm\\q'}", "escape"),
        (&deep, "depth"),
        ("{methodName: 'm'", "line 1"),
    ] {
        let refused = send(body.into()).join().unwrap().method_refused(400_006);
        let message = refused["message"].as_str().unwrap().to_lowercase();
        assert!(message.contains(says), "{message}");
    }
    // Nowhere else: a registry that takes what Azure does not would hide a back end's mistake.
    let lenient = b"{tags: {a: 1}}".to_vec();
    let path = "/twins/d1?api-version=2021-04-12";
    fixture
        .owner()
        .raw("PATCH", path, Some(lenient), &[])
        .refused(400, "IotHubFormatError");
}
