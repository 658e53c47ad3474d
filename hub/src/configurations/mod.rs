//! Automatic device configurations: desired properties for all devices that fulfil a condition.
//!
//! After "Automatic device management for devices at scale"
//! (<https://learn.microsoft.com/azure/iot-hub/iot-hub-automatic-device-management>). What it leaves open is decided here:
//!
//! - Changes take effect at once, where Azure looks every five minutes.
//! - Settings of one path are not mixed: its configuration of the highest priority, or the newest of those, writes all of it.
//!   Where a path of one lies within a path of another, they are merged, the higher priority last.
//! - A configuration is `Applied` when it won a path, else `Targeted`. So is one whose settings do not fit into the twin.
//! - Taking settings back takes what configurations wrote; what an application wrote beside it stays.
//! - A configuration with an empty condition targets nothing.

mod apply;
mod metrics;

use crate::{
    clock,
    error::{Code, Refusal},
    query::{Condition, Query, Source},
};
pub(crate) use apply::{Assignment, apply};
use base64ct::{Base64, Encoding as _};
pub(crate) use metrics::Counter;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use twinflash::twin::limits::{self, Section};

/// How many configurations a hub takes.
pub(crate) const MAX_CONFIGURATIONS: usize = 100;
/// How many metrics of its own a configuration may have.
const MAX_METRICS: usize = 5;

/// What is kept of a configuration.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Definition {
    pub(crate) id: String,
    schema_version: String,
    labels: BTreeMap<String, String>,
    device_content: Map<String, Value>,
    target_condition: String,
    priority: u64,
    /// Each metric's name and query.
    metrics: BTreeMap<String, String>,
    created: String,
    updated: String,
    /// Tells which of two is newer.
    order: u64,
    etag: u64,
}

/// A configuration that can be applied.
pub(crate) struct Configuration {
    pub(crate) definition: Definition,
    /// None: no device.
    condition: Option<Condition>,
    /// Each path below the desired properties, and what is written there.
    settings: Vec<(Vec<String>, Value)>,
    metrics: Vec<(String, Query)>,
}

impl Configuration {
    /// Checks all parts of a definition.
    pub(crate) fn new(definition: Definition) -> Result<Self, Refusal> {
        let condition = condition(&definition.target_condition)
            .map_err(|error| Refusal::new(Code::CONFIGURATION_CONDITION, error))?;
        let settings = settings(&definition.device_content)
            .map_err(|error| Refusal::new(Code::CONFIGURATION_CONTENT, error))?;
        if definition.metrics.len() > MAX_METRICS {
            return Err(Refusal::new(
                Code::CONFIGURATION_METRICS,
                format!("A configuration may have at most {MAX_METRICS} metrics."),
            ));
        }
        let metrics = definition
            .metrics
            .iter()
            .map(|(name, text)| {
                let query = metric(text).map_err(|error| {
                    Refusal::new(
                        Code::CONFIGURATION_METRICS,
                        format!("The query of metric {name:?} is wrong: {error}"),
                    )
                })?;
                Ok((name.clone(), query))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            definition,
            condition,
            settings,
            metrics,
        })
    }

    /// Makes a new configuration from the body of a `PUT /configurations/{id}`.
    pub(crate) fn create(id: &str, body: &Value) -> Result<Self, Refusal> {
        check_id(id)?;
        let now = clock::now();
        let content = content(body)?.ok_or_else(|| {
            Refusal::new(
                Code::CONFIGURATION_CONTENT,
                "content should be {\"deviceContent\": {\"properties.desired.…\": …}}.",
            )
        })?;
        Self::read(
            Definition {
                id: id.into(),
                schema_version: String::new(),
                labels: BTreeMap::new(),
                device_content: content,
                target_condition: String::new(),
                priority: 0,
                metrics: BTreeMap::new(),
                created: now.clone(),
                updated: now,
                order: clock::unix_nanos(),
                etag: 1,
            },
            body,
        )
    }

    /// The configuration with what such a body says in place of what it had; but the content stays.
    pub(crate) fn update(&self, body: &Value) -> Result<Self, Refusal> {
        let mut definition = self.definition.clone();
        if content(body)?.is_some_and(|content| content != definition.device_content) {
            return Err(Refusal::new(
                Code::CONFIGURATION_IMMUTABLE,
                "The content of a configuration cannot be changed: make another one with a higher priority.",
            ));
        }
        definition.updated = clock::now();
        definition.etag += 1;
        Self::read(definition, body)
    }

    fn read(mut definition: Definition, body: &Value) -> Result<Self, Refusal> {
        let given = |name: &str| body.get(name).filter(|value| !value.is_null());
        let text = |name: &str| match given(name) {
            None => Ok(None),
            Some(value) => value
                .as_str()
                .map(|text| Some(text.to_owned()))
                .ok_or_else(|| Refusal::argument(format!("{name} should be a string."))),
        };
        if text("id")?.is_some_and(|id| id != definition.id) {
            return Err(Refusal::argument(
                "id of the body is not the one of the path.",
            ));
        }
        definition.schema_version = text("schemaVersion")?.unwrap_or_else(|| "1.0".into());
        definition.target_condition = text("targetCondition")?.unwrap_or_default();
        definition.labels = texts(given("labels"), "labels")?;
        definition.metrics = texts(body.pointer("/metrics/queries"), "metrics.queries")?;
        definition.priority = given("priority").map_or(Ok(0), |priority| {
            priority
                .as_u64()
                .filter(|priority| *priority <= u64::from(u32::MAX >> 1))
                .ok_or_else(|| {
                    Refusal::argument("priority should be a whole number from 0 to 2147483647.")
                })
        })?;
        Self::new(definition)
    }

    /// The etag, without quotes.
    pub(crate) fn etag(&self) -> String {
        Base64::encode_string(self.definition.etag.to_string().as_bytes())
    }

    /// What decides which of two wins: the greater one does.
    fn rank(&self) -> (u64, u64) {
        (self.definition.priority, self.definition.order)
    }
}

/// What `POST /configurations/testQueries` answers.
pub(crate) fn test(body: &Value) -> Result<Value, Refusal> {
    let target = match body.get("targetCondition") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => condition(text).err(),
        Some(_) => return Err(Refusal::argument("targetCondition should be a string.")),
    };
    let errors: Map<String, Value> = texts(body.get("customMetricQueries"), "customMetricQueries")?
        .into_iter()
        .filter_map(|(name, text)| Some((name, metric(&text).err()?.into())))
        .collect();
    Ok(json!({"targetConditionError": target, "customMetricQueryErrors": errors}))
}

/// That a text can be a configuration's id: 1 to 128 characters of those Azure allows.
fn check_id(id: &str) -> Result<(), Refusal> {
    let allowed =
        |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-:+%_#*?!(),=@;'".contains(c);
    if id.is_empty() || id.len() > 128 || !id.chars().all(allowed) {
        return Err(Refusal::argument(format!(
            "{:?} is no id of a configuration: 1 to 128 lower-case ASCII letters, digits and - : + % _ # * ? ! ( ) , = @ ; '",
            id.chars().take(140).collect::<String>()
        )));
    }
    Ok(())
}

/// The device content of a body, if it has any.
fn content(body: &Value) -> Result<Option<Map<String, Value>>, Refusal> {
    let refused = |message: &str| Err(Refusal::new(Code::CONFIGURATION_CONTENT, message));
    let is_nothing =
        |value: &Value| value.is_null() || value.as_object().is_some_and(Map::is_empty);
    let content = match body.get("content") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(content)) => content,
        Some(_) => return refused("content should be an object."),
    };
    if content
        .iter()
        .any(|(name, value)| name != "deviceContent" && !is_nothing(value))
    {
        return refused(
            "This hub has no modules: content may have deviceContent, and nothing else.",
        );
    }
    match content.get("deviceContent") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(content)) => Ok(Some(content.clone())),
        Some(_) => refused("deviceContent should be an object."),
    }
}

/// An object of texts.
fn texts(value: Option<&Value>, what: &str) -> Result<BTreeMap<String, String>, Refusal> {
    let wrong = || Refusal::argument(format!("{what} should be an object of strings."));
    match value {
        None | Some(Value::Null) => Ok(BTreeMap::new()),
        Some(Value::Object(members)) => members
            .iter()
            .map(|(name, value)| Ok((name.clone(), value.as_str().ok_or_else(wrong)?.to_owned())))
            .collect(),
        Some(_) => Err(wrong()),
    }
}

fn condition(text: &str) -> Result<Option<Condition>, String> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let condition = Condition::parse(text)
        .map_err(|error| format!("The target condition is wrong: {error}."))?;
    // Of what a configuration changes itself no condition can be made.
    let allowed = |path: &[String]| match path {
        [first] if first == "deviceId" => true,
        [first, ..] if first == "tags" => true,
        [first, second, ..] => first == "properties" && second == "reported",
        _ => false,
    };
    match condition.paths().into_iter().find(|path| !allowed(path)) {
        Some(path) => Err(format!(
            "The target condition is wrong: {} is not deviceId, in tags or in properties.reported.",
            path.join(".")
        )),
        None => Ok(Some(condition)),
    }
}

fn metric(text: &str) -> Result<Query, String> {
    let query = Query::parse(text).map_err(|error| format!("{error}."))?;
    match query.source() {
        Source::Devices => Ok(query),
        Source::Jobs => Err("a metric counts devices: it should say FROM devices.".into()),
    }
}

/// The settings of a content, each checked as a desired property.
fn settings(content: &Map<String, Value>) -> Result<Vec<(Vec<String>, Value)>, String> {
    if content.is_empty() {
        return Err("deviceContent should have at least one path.".into());
    }
    let mut all = json!({});
    let mut settings = Vec::new();
    for (key, value) in content {
        let names: Option<Vec<String>> = match key.strip_prefix("properties.desired") {
            Some("") if value.is_object() => Some(Vec::new()),
            Some(rest) => rest
                .strip_prefix('.')
                .map(|path| path.split('.').map(str::to_owned).collect()),
            None => None,
        };
        let names = names.ok_or_else(|| {
            format!("{key:?} of deviceContent should be a path below properties.desired, such as \"properties.desired.firmware\".")
        })?;
        if has_null(value) {
            return Err(format!(
                "{key:?} of deviceContent has a null: a configuration sets properties, it cannot remove them."
            ));
        }
        let setting = apply::nested(&names, value.clone());
        limits::check_patch(Section::Desired, &setting).map_err(|error| error.to_string())?;
        twinflash::twin::merge(&mut all, &setting);
        settings.push((names, value.clone()));
    }
    limits::check_size(Section::Desired, &all).map_err(|error| error.to_string())?;
    Ok(settings)
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(members) => members.values().any(has_null),
        _ => false,
    }
}
