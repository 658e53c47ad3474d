//! The hub: devices' packets, back ends' requests, queries, configurations.

use crate::device::Choices;
use serde_json::{Value, json};
use std::sync::LazyLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use twinflash::{
    iothub::{Key, sas_token},
    twin::limits::{Section, check_patch, check_size},
};
use twinflash_hub::fuzzing::{self, Bench};

const KEY: &str = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0";
/// Stands between parts of an input.
const SEPARATOR: &str = "\n=====\n";
/// More than a few requests can be answered with.
const MOST_OUTPUT: u64 = 8 << 20;

/// Serves one connection that sends these bytes and then, perhaps, ends; what it is sent. Time that
/// nothing happens in goes by at once.
fn talk<F: Future<Output = ()>>(
    bytes: &[u8],
    ends: bool,
    serve: impl FnOnce(DuplexStream) -> F,
) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (near, far) = duplex(64 * 1024);
        let (read, mut write) = tokio::io::split(near);
        let send = async {
            let _ = write.write_all(bytes).await;
            if ends {
                let _ = write.shutdown().await;
            }
        };
        let receive = async {
            let mut output = Vec::new();
            let _ = read.take(MOST_OUTPUT).read_to_end(&mut output).await;
            output
        };
        let ((), (), output) = tokio::join!(serve(far), send, receive);
        assert!((output.len() as u64) < MOST_OUTPUT, "it says too much");
        output
    })
}

fn bench() -> Bench {
    Bench::new(KEY).expect("a hub")
}

/// A device's connection: with choice 0 it is let in and subscribed before the input's packets come,
/// else the input is all there is. What it is sent are whole packets that a device understands.
pub(crate) fn mqtt(data: &[u8]) {
    let (mut choices, packets) = Choices::split(data);
    let mut bytes = Vec::new();
    if choices.below(2) == 0 {
        bytes.extend_from_slice(&HELLO);
    }
    bytes.extend_from_slice(packets);
    let bench = bench();
    let output = talk(&bytes, true, |stream| bench.mqtt(stream));
    let mut rest = output.as_slice();
    while let Some((&first, after)) = rest.split_first() {
        let (length, after) = length(after).expect("a packet's length");
        let (body, after) = after.split_at_checked(length).expect("a whole packet");
        match first >> 4 {
            3 => published(first, body),
            2 | 4 | 9 | 11 | 13 => {}
            kind => panic!("a packet of type {kind}"),
        }
        rest = after;
    }
}

fn published(first: u8, body: &[u8]) {
    assert_eq!(first & 0b110, 0, "it is sent at most once");
    let (length, rest) = body.split_first_chunk().expect("a topic's length");
    let (topic, payload) = rest
        .split_at_checked(usize::from(u16::from_be_bytes(*length)))
        .expect("a topic");
    let topic = str::from_utf8(topic).expect("a topic is text");
    assert!(topic.starts_with("$iothub/"), "{topic}");
    let json = payload.is_empty() || serde_json::from_slice::<Value>(payload).is_ok();
    assert!(json, "{:?}", String::from_utf8_lossy(payload));
}

/// MQTT's length of at most four bytes.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().position(|byte| byte & 0x80 == 0)?;
    let (length, rest) = bytes.split_at(end + 1);
    let digits = length.iter().rev();
    let number = digits.fold(0, |number, digit| number << 7 | usize::from(digit & 0x7f));
    (length.len() <= 4).then_some((number, rest))
}

/// CONNECT of the device, and SUBSCRIBE to all there is.
static HELLO: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let text = |text: &str| [&(text.len() as u16).to_be_bytes(), text.as_bytes()].concat();
    let packet = |first: u8, body: Vec<u8>| {
        let (low, high) = (body.len() & 0x7f, body.len() >> 7);
        let mut bytes = vec![first, low as u8];
        if high > 0 {
            bytes = vec![first, low as u8 | 0x80, high as u8];
        }
        bytes.extend(body);
        bytes
    };
    let key = Key::from_base64(KEY).expect("a key");
    let token = sas_token("localhost/devices/d1", &key, None, 4_102_444_800);
    let connect = [
        text("MQTT"),
        vec![4, 0b1100_0010, 0, 60],
        text("d1"),
        text("localhost/d1/?api-version=2021-04-12"),
        text(&token),
    ];
    let subscribe = [
        vec![0, 1],
        text("$iothub/methods/POST/#"),
        vec![0],
        text("$iothub/twin/res/#"),
        vec![0],
        text("$iothub/twin/PATCH/properties/desired/#"),
        vec![0],
    ];
    [
        packet(0x10, connect.concat()),
        packet(0x82, subscribe.concat()),
    ]
    .concat()
});

/// A response: its status and its body.
type Response = (u16, Vec<u8>);

/// Sends requests over one connection.
fn ask(bench: &Bench, bytes: &[u8], ends: bool) -> Vec<Response> {
    let output = talk(bytes, ends, |stream| bench.https(stream));
    let mut rest = output.as_slice();
    let mut responses = Vec::new();
    while !rest.is_empty() {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n");
        let (head, body) = rest.split_at(end.expect("a whole head") + 4);
        let head = str::from_utf8(head)
            .expect("a head is text")
            .to_ascii_lowercase();
        let status = head.strip_prefix("http/1.").and_then(|rest| rest.get(2..5));
        let status: u16 = status.and_then(|status| status.parse().ok()).expect(&head);
        if status == 101 {
            // From here on it is a WebSocket.
            break;
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        // The answer to HEAD tells a length, and has no body.
        let (body, after) = match body.split_at_checked(length) {
            Some((_, after)) if !after.is_empty() && !after.starts_with(b"HTTP/1.") => {
                (&b""[..], body)
            }
            Some(parts) => parts,
            None => (&b""[..], body),
        };
        assert!(status != 500, "{head}{}", String::from_utf8_lossy(body));
        if head.contains("content-type: application/json") && !body.is_empty() {
            let json: Result<Value, _> = serde_json::from_slice(body);
            assert!(json.is_ok(), "{}", String::from_utf8_lossy(body));
        }
        responses.push((status, body.to_vec()));
        rest = after;
    }
    responses
}

/// A request with everything it needs, and further lines of a head.
fn request(line: &str, lines: &str, body: &[u8], token: &str) -> Vec<u8> {
    let length = body.len();
    let mut bytes = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n{lines}Content-Length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A back end's connection. With choice 0 the input is requests, each a line `METHOD PATH`, lines of
/// a head, an empty line and a body; `{token}` is a good token, and what every request needs is
/// added. Else it is sent as it is. No answer is 500, and what says it is JSON is.
pub(crate) fn rest(data: &[u8]) {
    let (mut choices, input) = Choices::split(data);
    let bench = bench();
    let token = bench.service_token();
    if choices.below(2) == 1 {
        let text = String::from_utf8_lossy(input).replace("{token}", &token);
        ask(&bench, text.as_bytes(), true);
        return;
    }
    let text = String::from_utf8_lossy(input);
    let mut bytes = request(TAGS.0, "", TAGS.1, &token);
    for part in text.split(SEPARATOR).take(16) {
        let (head, body) = part.split_once("\n\n").unwrap_or((part, ""));
        let (line, lines) = head.split_once('\n').unwrap_or((head, ""));
        let lines: String = lines.lines().map(|line| format!("{line}\r\n")).collect();
        bytes.extend(request(line, &lines, body.as_bytes(), &token));
    }
    bytes.extend(request(LAST, "Connection: close\r\n", b"", &token));
    ask(&bench, &bytes, false);
}

/// After it the hub closes.
const LAST: &str = "GET /twins/d1?api-version=2021-04-12";

/// What the device is known by.
const TAGS: (&str, &[u8]) = (
    "PATCH /twins/d1?api-version=2021-04-12",
    br#"{"tags":{"site":"a","floor":3}}"#,
);

static DOCUMENTS: LazyLock<[Value; 3]> = LazyLock::new(|| {
    [
        json!({
            "deviceId": "d1", "status": "enabled", "tags": {"site": "a", "floor": 3, "no": null, "yes": true},
            "properties": {
                "desired": {"n": 60, "$version": 2, "$metadata": {"$lastUpdated": "2026-11-20T09:00:00Z"}},
                "reported": {"n": 60.5, "list": [1, [2]], "firmware": {"version": "1.0.1", "status": "current"}},
            },
            "configurations": {"c-1": {"status": "Applied"}},
        }),
        json!({"deviceId": "d2", "tags": {}, "properties": {"desired": {}, "reported": {}}}),
        json!({}),
    ]
});

/// A query over three twins. One that is refused is told where it is wrong; one that is taken gives
/// no more rows than there are twins.
pub(crate) fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match fuzzing::query(&text, &*DOCUMENTS) {
        Ok(rows) => {
            assert!(rows.len() <= DOCUMENTS.len(), "{rows:?}");
            assert!(rows.iter().all(Value::is_object), "{rows:?}");
            let again = fuzzing::query(&text, &*DOCUMENTS);
            assert_eq!(again.ok(), Some(rows));
        }
        Err(error) => assert!(
            error.contains("line ") && error.contains("column "),
            "{error}"
        ),
    }
}

/// Two configurations. With them the twin keeps its limits; without them nothing of them is left.
pub(crate) fn configuration(data: &[u8]) {
    let bench = bench();
    let token = bench.service_token();
    let text = String::from_utf8_lossy(data);
    let (a, b) = text.split_once(SEPARATOR).unwrap_or((&text, "{}"));
    let bodies = [a, b, "{", b, "", "", ""];
    let lines = [
        "PUT /configurations/a?api-version=2021-04-12",
        "PUT /configurations/b?api-version=2021-04-12",
        "PUT /configurations/b?api-version=2021-04-12",
        "POST /configurations/testQueries?api-version=2021-04-12",
        "GET /twins/d1?api-version=2021-04-12",
        "DELETE /configurations/a?api-version=2021-04-12",
        "DELETE /configurations/b?api-version=2021-04-12",
    ];
    let mut bytes = request(TAGS.0, "", TAGS.1, &token);
    for (line, body) in lines.into_iter().zip(bodies) {
        bytes.extend(request(line, "", body.as_bytes(), &token));
    }
    bytes.extend(request(LAST, "Connection: close\r\n", b"", &token));
    let responses = ask(&bench, &bytes, false);
    let shown = || {
        let shown =
            |(status, body): &Response| format!("{status} {}", String::from_utf8_lossy(body));
        responses.iter().map(shown).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(responses.len(), lines.len() + 2, "{}", shown());
    let [configured, cleared] = [5, 8].map(|at: usize| {
        let (status, body) = &responses[at];
        assert_eq!(*status, 200);
        let twin: Value = serde_json::from_slice(body).expect("a twin");
        let mut desired = twin["properties"]["desired"].clone();
        let members = desired.as_object_mut().expect("desired properties");
        members.retain(|name, _| !name.starts_with('$'));
        desired
    });
    check_patch(Section::Desired, &configured).expect("a twin within its limits");
    check_size(Section::Desired, &configured).expect("a twin within its limits");
    assert_eq!(
        cleared,
        json!({}),
        "configurations are gone; their settings are not"
    );
}
