//! Renders the state as the reported properties it should be.

use super::file::TimeForm;
use super::{Contract, ContractError};
use crate::twin;
use crate::update::{Code, Failure, Outcome, Phase, Update, redact};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

/// A step of an update's course that a contract may have words for. One that a contract does not
/// name is reported as the one before it in the [fallback](Moment::fallback) order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Moment {
    /// No update yet: what a device says when it starts.
    Idle,
    /// Accepted.
    Waiting,
    /// Download begins.
    Downloading,
    /// Download goes on; there is a per cent.
    Progress,
    /// Every byte is there.
    Downloaded,
    /// Verification begins.
    Verifying,
    /// Verified.
    Verified,
    /// Applying begins.
    Applying,
    /// Activated.
    Applied,
    /// A restart was asked for.
    Rebooting,
    /// Restarted; the new version has to prove itself.
    Rebooted,
    /// Completed.
    Completed,
    /// What was asked for runs already.
    UpToDate,
    /// Failed up to Verifying.
    Failed,
    /// Failed later.
    ApplyFailed,
    /// Failed after activation; the old image is being brought back.
    RollingBack,
    /// The old image is back.
    RolledBack,
    /// Cancelled.
    Cancelled,
}

impl Moment {
    /// Those every contract has words for.
    pub(super) const NEEDED: &'static [Moment] = &[
        Self::Idle,
        Self::Waiting,
        Self::Downloading,
        Self::Applying,
        Self::Completed,
        Self::Failed,
    ];

    /// What is reported where a contract has no words for this one.
    pub const fn fallback(self) -> Option<Moment> {
        Some(match self {
            Self::Progress | Self::Downloaded => Self::Downloading,
            Self::Verifying => Self::Downloaded,
            Self::Verified => Self::Verifying,
            Self::Applied => Self::Applying,
            Self::Rebooting => Self::Applied,
            Self::Rebooted => Self::Rebooting,
            Self::UpToDate => Self::Completed,
            Self::ApplyFailed | Self::Cancelled => Self::Failed,
            Self::RollingBack => Self::ApplyFailed,
            Self::RolledBack => Self::RollingBack,
            Self::Idle
            | Self::Waiting
            | Self::Downloading
            | Self::Applying
            | Self::Completed
            | Self::Failed => return None,
        })
    }

    /// The moment an update stands in, as far as its record says.
    pub fn of(update: Option<&Update>) -> Self {
        let Some(update) = update else {
            return Self::Idle;
        };
        match &update.outcome {
            None => match update.phase {
                Phase::Waiting => Self::Waiting,
                Phase::Downloading => Self::Downloading,
                Phase::Verifying if update.bytes.is_some() => Self::Verified,
                Phase::Verifying => Self::Verifying,
                Phase::Applying => Self::Applying,
                Phase::Rebooting => Self::Rebooting,
                Phase::Confirming => Self::Rebooted,
                Phase::RollingBack => Self::RollingBack,
            },
            Some(Outcome::Completed) => Self::Completed,
            Some(Outcome::UpToDate) => Self::UpToDate,
            Some(Outcome::RolledBack(_)) => Self::RolledBack,
            Some(Outcome::Cancelled(_) | Outcome::Superseded) => Self::Cancelled,
            Some(Outcome::Failed { phase, .. }) if *phase > Phase::Verifying => Self::ApplyFailed,
            Some(Outcome::Failed { .. }) => Self::Failed,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Waiting => "waiting",
            Self::Downloading => "downloading",
            Self::Progress => "progress",
            Self::Downloaded => "downloaded",
            Self::Verifying => "verifying",
            Self::Verified => "verified",
            Self::Applying => "applying",
            Self::Applied => "applied",
            Self::Rebooting => "rebooting",
            Self::Rebooted => "rebooted",
            Self::Completed => "completed",
            Self::UpToDate => "upToDate",
            Self::Failed => "failed",
            Self::ApplyFailed => "applyFailed",
            Self::RollingBack => "rollingBack",
            Self::RolledBack => "rolledBack",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state a contract renders.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The version that runs now.
    pub running: Option<&'a str>,
    /// The update that runs or ran last.
    pub update: Option<&'a Update>,
    /// How much of the image is there.
    pub percent: Option<u8>,
    /// When the device started, in milliseconds since 1970.
    pub started: Option<u64>,
}

/// Every placeholder a template may hold.
const PLACEHOLDERS: &[&str] = &[
    "running",
    "version",
    "uri",
    "percent",
    "reason",
    "error",
    "time.started",
    "time.waiting",
    "time.downloading",
    "time.downloaded",
    "time.applying",
    "time.rebooting",
    "time.completed",
];

impl Contract {
    /// The contract's reported properties at a moment: all of them, as they should be in the twin.
    pub fn render(&self, moment: Moment, view: View<'_>) -> Value {
        let reported = &self.file.reported;
        let mut template = reported.always.clone();
        if let Some(words) = self.words(moment, view.update) {
            overlay(&mut template, words);
        }
        let mut rendered = self.fill(&template, view).unwrap_or_default();
        if !rendered.is_object() {
            rendered = Value::Object(Map::new());
        }
        rendered
    }

    /// The part of a twin's reported properties that the contract owns.
    pub fn owned(&self, reported: &Value) -> Value {
        let mut kept = Value::Object(Map::new());
        for template in self.templates() {
            let part = select(reported, template);
            twin::merge(&mut kept, &part);
        }
        kept
    }

    /// A patch that makes the contract's part of the reported properties into `rendered` whatever
    /// it was before.
    pub fn whole_patch(&self, rendered: &Value) -> Value {
        let mut patch = Value::Object(Map::new());
        for template in self.templates() {
            overlay(&mut patch, &nulls(template));
        }
        overlay(&mut patch, rendered);
        patch
    }

    fn templates(&self) -> impl Iterator<Item = &Value> {
        let reported = &self.file.reported;
        core::iter::once(&reported.always).chain(reported.moments.values())
    }

    /// The contract's words for a moment, or for what it falls back to.
    fn words(&self, moment: Moment, update: Option<&Update>) -> Option<&Value> {
        let moments = &self.file.reported.moments;
        let mut moment = moment;
        loop {
            if let Some(words) = moments.get(&moment) {
                return Some(words);
            }
            moment = match (moment, update.map(|update| update.phase)) {
                (Moment::Cancelled, Some(phase)) if phase > Phase::Verifying => Moment::ApplyFailed,
                _ => moment.fallback()?,
            };
        }
    }

    fn fill(&self, template: &Value, view: View<'_>) -> Option<Value> {
        match template {
            Value::Object(members) => {
                Some(object(members.iter().filter_map(|(name, value)| {
                    Some((name.clone(), self.fill(value, view)?))
                })))
            }
            Value::String(text) => self.fill_text(text, view).or_else(|| self.unset()),
            Value::Null => self.unset(),
            other => Some(other.clone()),
        }
    }

    fn unset(&self) -> Option<Value> {
        let unset = &self.file.reported.unset;
        (!unset.is_null()).then(|| unset.clone())
    }

    fn fill_text(&self, text: &str, view: View<'_>) -> Option<Value> {
        let pieces = pieces(text).ok()?;
        if let [Piece::Placeholder(name)] = pieces.as_slice() {
            return self.value_of(name, view);
        }
        let mut filled = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => filled.push_str(literal),
                Piece::Placeholder(name) => match self.value_of(name, view) {
                    Some(Value::String(text)) => filled.push_str(&text),
                    Some(other) => filled.push_str(&other.to_string()),
                    None => {}
                },
            }
        }
        Some(Value::String(filled))
    }

    fn value_of(&self, name: &str, view: View<'_>) -> Option<Value> {
        let update = view.update;
        let time =
            |millis: Option<u64>| millis.and_then(|millis| self.time(millis)).map(Value::from);
        let times = update.map(|update| &update.times);
        match name {
            "running" => view.running.map(Value::from),
            "version" => update?.request.version.as_deref().map(Value::from),
            "uri" => Some(redact(&update?.request.uri).into()).filter(|uri| uri != ""),
            "percent" => view.percent.map(Value::from),
            "reason" => Some(self.reason(&failure_of(update?)?).into()),
            "error" => {
                let failure = failure_of(update?)?;
                Some(json!({"code": failure.code, "message": failure.message}))
            }
            "time.started" => time(view.started),
            "time.waiting" => time(times?.waiting),
            "time.downloading" => time(times?.downloading),
            "time.downloaded" => time(times?.downloaded),
            "time.applying" => time(times?.applying),
            "time.rebooting" => time(times?.rebooting),
            "time.completed" => time(times?.completed),
            _ => None,
        }
    }

    fn time(&self, millis: u64) -> Option<String> {
        let time = iso(millis)?;
        Some(match self.file.times {
            TimeForm::Milliseconds => time,
            TimeForm::Ticks => format!("{}0000Z", time.trim_end_matches('Z')),
        })
    }
}

/// A wall time as ISO 8601 has it, UTC: `2019-01-31T12:00:00.000Z`. `None` after the year 9999.
pub(crate) fn iso(millis: u64) -> Option<String> {
    let nanos = i128::from(millis) * 1_000_000;
    let at = OffsetDateTime::from_unix_timestamp_nanos(nanos).ok()?;
    Some(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    ))
}

/// What went wrong, if something did.
fn failure_of(update: &Update) -> Option<Failure> {
    match &update.outcome {
        Some(Outcome::Cancelled(_)) => Some(Failure::new(Code::Cancelled, "Cancelled")),
        Some(Outcome::Superseded) => {
            Some(Failure::new(Code::Superseded, "A newer request took over"))
        }
        Some(outcome) => outcome.failure().cloned(),
        None => update.reason.clone(),
    }
}

/// Lays one document over another, member by member; unlike in a merge patch `null` stays.
fn overlay(under: &mut Value, over: &Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                overlay(under.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// Put in one by one: collecting would bring a sort along, which a board has better uses for its flash than.
fn object(members: impl Iterator<Item = (String, Value)>) -> Value {
    let mut object = Map::new();
    for (name, value) in members {
        object.insert(name, value);
    }
    Value::Object(object)
}

/// A template's shape with `null` at every leaf.
fn nulls(template: &Value) -> Value {
    match template {
        Value::Object(members) => object(
            members
                .iter()
                .map(|(name, value)| (name.clone(), nulls(value))),
        ),
        _ => Value::Null,
    }
}

/// The part of a document that has a template's shape.
fn select(document: &Value, template: &Value) -> Value {
    let (Value::Object(document), Value::Object(template)) = (document, template) else {
        return document.clone();
    };
    object(
        template
            .iter()
            .filter_map(|(name, shape)| Some((name.clone(), select(document.get(name)?, shape)))),
    )
}

enum Piece<'a> {
    Literal(&'a str),
    Placeholder(&'a str),
}

/// Takes a text apart; the error is the brace or name that is wrong.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some((literal, after)) = rest.split_once('{') else {
            if rest.contains('}') {
                return Err("a } without its {".into());
            }
            pieces.push(Piece::Literal(rest));
            break;
        };
        let Some((name, after)) = after.split_once('}') else {
            return Err("a { without its }".into());
        };
        if !PLACEHOLDERS.contains(&name) {
            return Err(format!(
                "{{{name}}} is no placeholder; there are {{{}}}",
                PLACEHOLDERS.join("}, {")
            ));
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        pieces.push(Piece::Placeholder(name));
        rest = after;
    }
    Ok(pieces)
}

/// Checks a template: an object, no arrays, only known placeholders.
pub(super) fn check_template(path: &str, template: &Value) -> Result<(), ContractError> {
    let wrong = |reason: String| {
        Err(ContractError {
            path: path.into(),
            reason,
        })
    };
    let Value::Object(members) = template else {
        return wrong("an object is needed".into());
    };
    for (name, value) in members {
        let path = format!("{path}.{name}");
        let reason = match value {
            Value::Object(_) => {
                check_template(&path, value)?;
                continue;
            }
            Value::Array(_) => "arrays are not for statuses".into(),
            Value::String(text) => match pieces(text) {
                Ok(_) => continue,
                Err(reason) => reason,
            },
            _ => continue,
        };
        return Err(ContractError { path, reason });
    }
    Ok(())
}

/// Puts a message where an answer's template says `{message}`.
pub(super) fn fill_message(template: &Value, message: &str) -> Value {
    match template {
        Value::String(text) => Value::String(text.replace("{message}", message)),
        Value::Object(members) => object(
            members
                .iter()
                .map(|(name, value)| (name.clone(), fill_message(value, message))),
        ),
        other => other.clone(),
    }
}
