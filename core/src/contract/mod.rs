//! The cloud contracts: how a back end asks for an update and what it is told of its course.
//!
//! A contract is data: a JSON file of literals and a fixed set of placeholders (see
//! [`Contract::from_json`]). Those of Azure's tutorials are [built in](Contract::built_in); a user
//! can bring another one.

mod file;
mod judge;
mod render;

pub use file::{CheckRule, Follow, Rollback};
pub use judge::{Refusal, Verdict};
pub(crate) use render::iso;
pub use render::{Moment, View};

#[cfg(test)]
mod tests;

#[cfg(test)]
use crate::twin;
use crate::update::{Code, Failure};
use alloc::{format, string::String, vec::Vec};
use core::fmt;
use serde_json::{Value, json};

#[cfg(not(target_has_atomic = "ptr"))]
use alloc::rc::Rc as Shared;
#[cfg(target_has_atomic = "ptr")]
use alloc::sync::Arc as Shared;

/// A contract, loaded and checked. Cheap to clone: many engines may have the same.
#[derive(Debug, Clone)]
pub struct Contract {
    file: Shared<file::File>,
}

/// A contract's file is wrong; says where in it, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContractError {
    /// The path in the file, such as `reported.moments.waiting.status`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

impl fmt::Display for ContractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "contract: {}", self.reason)
        } else {
            write!(f, "contract, at {}: {}", self.path, self.reason)
        }
    }
}

impl core::error::Error for ContractError {}

/// The built-in contracts, by name.
const BUILT_IN: &[(&str, &str)] = &[
    (
        "node-direct-method",
        include_str!("../../contracts/node-direct-method.json"),
    ),
    ("iothub-dm", include_str!("../../contracts/iothub-dm.json")),
    (
        "python-firmware-status",
        include_str!("../../contracts/python-firmware-status.json"),
    ),
    (
        "configuration",
        include_str!("../../contracts/configuration.json"),
    ),
    ("devkit", include_str!("../../contracts/devkit.json")),
];

impl Contract {
    /// The names of the built-in contracts.
    pub fn names() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// A built-in contract by its name.
    ///
    /// # Errors
    /// There is none of that name; the message lists those there are.
    ///
    /// ```
    /// use twinflash::contract::Contract;
    /// assert_eq!(Contract::built_in("iothub-dm").unwrap().name(), "iothub-dm");
    /// assert!(Contract::built_in("iothub").unwrap_err().reason.contains("configuration"));
    /// ```
    pub fn built_in(name: &str) -> Result<Self, ContractError> {
        match BUILT_IN.iter().find(|(known, _)| *known == name) {
            Some((_, json)) => Self::from_json(json.as_bytes()),
            None => Err(ContractError {
                path: String::new(),
                reason: format!(
                    "there is none named \"{name}\"; built in are {}",
                    Self::names().collect::<Vec<_>>().join(", ")
                ),
            }),
        }
    }

    /// Reads a contract from its JSON.
    ///
    /// # Errors
    /// Names the path in the file and what is wrong there.
    pub fn from_json(json: &[u8]) -> Result<Self, ContractError> {
        let file = file::File::read(json)?.into();
        Ok(Self { file })
    }

    /// The contract's name.
    pub fn name(&self) -> &str {
        &self.file.contract
    }

    /// The direct methods that start an update; none where it is asked for by desired properties.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.file.asked.methods.iter().map(String::as_str)
    }

    /// Whether a direct method of this name starts an update.
    pub fn takes_method(&self, name: &str) -> bool {
        self.methods().any(|method| method == name)
    }

    /// How a back end follows an update in the reported properties.
    pub fn follow(&self) -> &Follow {
        &self.file.follow
    }

    /// The path in the desired properties under which an update is asked for.
    pub fn desired_path(&self) -> Option<&str> {
        self.file.asked.desired.as_deref()
    }

    /// What is desired: the object at the contract's path in the desired properties.
    pub fn desired<'a>(&self, desired: &'a Value) -> Option<&'a Value> {
        let path = self.file.asked.desired.as_deref()?;
        let found = at_path(desired, path)?;
        found.is_object().then_some(found)
    }

    /// What a back end sends to ask for an update: a method's payload, or the object at
    /// [`desired_path`](Self::desired_path). `manifest` is a signed one's text.
    pub fn ask(
        &self,
        uri: &str,
        version: Option<&str>,
        check: Option<&str>,
        size: Option<u64>,
        manifest: Option<&str>,
    ) -> Value {
        let members = &self.file.asked.members;
        let mut object = serde_json::Map::new();
        object.insert(members.uri.clone(), json!(uri));
        for (name, value) in [
            (&members.version, version.map(Value::from)),
            (&members.check, check.map(Value::from)),
            (&members.size, size.map(Value::from)),
            (&members.manifest, manifest.map(Value::from)),
        ] {
            if let (Some(name), Some(value)) = (name, value) {
                object.insert(name.clone(), value);
            }
        }
        Value::Object(object)
    }

    /// The answer's payload to a method that started an update, or to a repetition of it.
    pub fn started(&self) -> Value {
        self.file
            .answers
            .get("started")
            .cloned()
            .unwrap_or_default()
    }

    /// The answer's payload to a method that was refused: the contract's own words where it has
    /// them, else the message.
    pub fn refused(&self, failure: &Failure) -> Value {
        let answers = &self.file.answers;
        match answers.get(failure.code.as_str()).or(answers.get("*")) {
            Some(template) => render::fill_message(template, &failure.message),
            None => Value::from(failure.message.clone()),
        }
    }

    /// The reason of a failure in the contract's words, else the message.
    fn reason(&self, failure: &Failure) -> String {
        let reasons = &self.file.reasons;
        reasons
            .get(failure.code.as_str())
            .or(reasons.get("*"))
            .unwrap_or(&failure.message)
            .clone()
    }
}

/// The value at a path of names joined by dots.
pub fn at_path<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(value, |value, name| value.get(name))
}

/// A failure of a request.
fn refuse(code: Code, message: impl fmt::Display) -> Failure {
    Failure::new(code, message)
}
