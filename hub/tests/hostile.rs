//! Back ends and others who mean no good, or know no better: each gets an error, and the hub goes on.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Fixture, Stream, start, tls};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    time::Duration,
};

const PATH: &str = "/devices/d1?api-version=2021-04-12";

fn token(fixture: &Fixture) -> String {
    let key = fixture.owner_key();
    common::token("localhost", &key, common::unix() + 60, Some("iothubowner"))
}

fn open(fixture: &Fixture) -> impl Stream + use<> {
    tls(fixture.info(), fixture.info().https_port)
}

/// Says something, and hears the first line of what the hub answers; nothing when it just hangs up.
fn say(fixture: &Fixture, bytes: &[u8]) -> String {
    let mut stream = open(fixture);
    // The hub may have closed already.
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        answer.extend(byte);
    }
    String::from_utf8(answer).unwrap().trim().to_owned()
}

#[test]
fn heads_that_are_none() {
    let fixture = start();
    let token = token(&fixture);
    let with = |line: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n{more}\r\n\r\n")
    };
    let get = |more: &str| with(&format!("GET {PATH}"), more);
    let many: String = (0..200).map(|n| format!("X{n}: y\r\n")).collect();
    let chunked = "Transfer-Encoding: chunked";
    for (bytes, status) in [
        (get("X: y"), "200"),
        ("\u{0}\u{1}\u{2} no HTTP at all \r\n\r\n".into(), "400"),
        ("GET /\r\n\r\n".into(), "400"),
        (get(&many), "431"),
        (get(&format!("X: {}", "y".repeat(100_000))), "431"),
        (with(&format!("GET /{}", "x".repeat(70_000)), ""), "431"),
        (get("Content-Length: -1"), "400"),
        (get("Content-Length: 1\r\nContent-Length: 2"), "400"),
        (
            with(&format!("PUT {PATH}"), &format!("{chunked}\r\n\r\nzz")),
            "400",
        ),
        // It is not waited for.
        (
            with(&format!("PUT {PATH}"), "Content-Length: 999999999999"),
            "413",
        ),
        (with(&format!("TRACE {PATH}"), ""), "405"),
        // What is looked at for rights is what is looked at for a route.
        (with("GET /%64evices/d1?api-version=1", ""), "404"),
        (with("GET //devices/d1?api-version=1", ""), "404"),
        (with("GET /x/../devices/d1?api-version=1", ""), "404"),
    ] {
        let answer = say(&fixture, bytes.as_bytes());
        let expected = format!("HTTP/1.1 {status}");
        assert!(
            answer.starts_with(&expected),
            "{answer}: {}",
            &bytes[..60.min(bytes.len())]
        );
    }
    let endless = get(&format!("X: {}", "y".repeat(3_000_000)));
    let answer = say(&fixture, &endless.as_bytes()[..endless.len() - 4]);
    assert!(answer.is_empty() || answer.contains("431"), "{answer}");
    assert_eq!(fixture.owner().get("/devices/d1").status, 200);
}

#[test]
fn bodies_that_are_no_objects_change_nothing() {
    let fixture = start();
    let owner = fixture.owner();
    let tags = json!({"tags": {"a": 1}});
    assert_eq!(owner.call("PATCH", "/twins/d1", Some(&tags)).status, 200);
    let deep = ["[".repeat(100_000), "{\"a\":".repeat(60_000)];
    let requests = [
        ("PUT", "/devices/x"),
        ("PATCH", "/twins/d1"),
        ("PUT", "/twins/d1"),
        ("POST", "/devices/query"),
        ("PUT", "/configurations/c"),
        ("POST", "/configurations/testQueries"),
        ("PUT", "/jobs/v2/j"),
    ];
    for (method, path) in requests {
        let send = |body: &[u8]| {
            let path = format!("{path}?api-version=2021-04-12");
            owner.raw(method, &path, Some(body.to_vec()), &[])
        };
        for body in ["null", "[{}]", "\"x\"", "1"] {
            send(body.as_bytes()).refused(400, "ArgumentInvalid");
        }
        let wrong: [&[u8]; 6] = [
            b"",
            b"{",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":1e999}",
            deep[0].as_bytes(),
            deep[1].as_bytes(),
        ];
        for body in wrong {
            send(body).refused(400, "IotHubFormatError");
        }
    }
    // However much comes, the answer is heard.
    for size in [513 * 1024, 6_000_000] {
        let path = "/twins/d1?api-version=2021-04-12";
        let large = owner.raw("PATCH", path, Some(vec![b' '; size]), &[]);
        large.refused(413, "MessageTooLarge");
    }
    for body in ["null", "[1]", "{\"methodName\":[]}", &deep[0], &deep[1]] {
        let body = Some(body.as_bytes().to_vec());
        let path = "/twins/d1/methods?api-version=2021-04-12";
        let refused = owner.raw("POST", path, body, &[]);
        assert_eq!(
            (refused.status, &refused.body["ExceptionMessage"]),
            (400, &json!(""))
        );
    }
    assert_eq!(owner.get("/twins/d1").body["tags"], tags["tags"]);
    owner.get("/devices/x").refused(404, "DeviceNotFound");
}

#[test]
fn long_conditions_are_refused_or_answered() {
    let fixture = start();
    let owner = fixture.owner();
    for (condition, status) in [
        (format!("{}true", "NOT ".repeat(1900)), 200),
        (format!("{}true", "true AND ".repeat(900)), 200),
        (format!("a{} = 1", ".a".repeat(4000)), 200),
        (format!("a IN [{}1]", "1,".repeat(3900)), 200),
        ("(".repeat(8000), 400),
        ("IS_DEFINED(".repeat(700), 400),
        ("'".repeat(8001), 400),
        ("[[".repeat(4000), 400),
        (format!("'{}", "\\".repeat(8000)), 400),
        ("x".repeat(1_000_000 / 2), 400),
    ] {
        let query = json!({"query": format!("SELECT * FROM devices WHERE {condition}")});
        let found = owner.call("POST", "/devices/query", Some(&query));
        let begin: String = condition.chars().take(20).collect();
        assert_eq!(found.status, status, "{begin}");
    }
}

#[test]
fn configurations_are_so_many_and_no_more() {
    let fixture = start();
    let owner = fixture.owner();
    let queries: Value = (0..5)
        .map(|n| {
            (
                format!("m{n}"),
                "SELECT * FROM devices WHERE tags.a = 1".into(),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into();
    let body = json!({
        "content": {"deviceContent": {"properties.desired.c": "x".repeat(4000)}},
        "targetCondition": "*", "priority": 1, "metrics": {"queries": queries},
    });
    let put = |n: usize| owner.call("PUT", &format!("/configurations/c{n}"), Some(&body));
    for n in 0..100 {
        assert_eq!(put(n).status, 201);
    }
    put(100).refused(400, "ArgumentInvalid");
    let all = owner.get("/configurations").body;
    assert_eq!(all.as_array().unwrap().len(), 100);
}

#[test]
fn many_who_do_not_finish_hold_up_nobody() {
    let fixture = start();
    let half: Vec<_> = (0..150)
        .map(|n| {
            let mut stream = open(&fixture);
            let said: &[u8] = match n % 3 {
                0 => b"",
                1 => b"GET / HTTP/1.1\r\nX: ",
                _ => b"PUT /devices/x HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
            };
            stream.write_all(said).unwrap();
            stream.flush().unwrap();
            stream
        })
        .collect();
    // One that asks and asks, and reads nothing.
    let request = format!(
        "GET /twins/d1?api-version=1 HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n\r\n",
        token(&fixture)
    );
    let tls = tls(fixture.info(), fixture.info().https_port);
    let timeout = Some(Duration::from_millis(200));
    tls.sock.set_write_timeout(timeout).unwrap();
    let mut greedy = tls;
    let mut asked = 0;
    while greedy.write_all(request.as_bytes()).is_ok() {
        asked += 1;
        assert!(asked < 200_000, "the hub takes requests without end");
    }
    assert_eq!(fixture.owner().get("/devices/d1").status, 200);
    fixture.device("d1").subscribe_all();
    fixture.hub.stop();
    drop(half);
}
