//! Automatic device configurations over REST, and what devices hear of them over MQTT.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

#[path = "../common/mod.rs"]
mod common;
mod resource;
mod settings;

use common::{Response, Rest};
use serde_json::{Value, json};

fn configuration(target: &str, priority: u64, content: Value) -> Value {
    json!({
        "schemaVersion": "1.0",
        "labels": {"l": "x"},
        "content": {"deviceContent": content},
        "targetCondition": target,
        "priority": priority,
    })
}

fn put(owner: &Rest, id: &str, body: &Value) -> Response {
    owner.call("PUT", &format!("/configurations/{id}"), Some(body))
}

fn made(owner: &Rest, id: &str, target: &str, priority: u64, content: Value) -> Value {
    let response = put(owner, id, &configuration(target, priority, content));
    assert_eq!(response.status, 201, "{}", response.body);
    response.body
}

fn deleted(owner: &Rest, id: &str) {
    let response = owner.call_if("DELETE", &format!("/configurations/{id}"), None, "\"*\"");
    assert_eq!(response.status, 204);
}
