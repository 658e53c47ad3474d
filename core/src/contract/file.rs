//! A contract's file: its layout, and what makes it wrong.

use super::{ContractError, Moment, at_path, render};
use crate::{json, update::VersionRule};
use alloc::{collections::BTreeMap, format, string::String, vec::Vec};
use serde::Deserialize;
use serde_json::Value;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct File {
    pub(super) contract: String,
    #[serde(default, rename = "description")]
    _description: String,
    pub(super) asked: Asked,
    pub(super) check: CheckRule,
    #[serde(default)]
    pub(super) check_form: CheckForm,
    pub(super) version: VersionRule,
    #[serde(default)]
    pub(super) refusals: Vec<super::Refusal>,
    #[serde(default)]
    pub(super) answers: BTreeMap<String, Value>,
    #[serde(default)]
    pub(super) reasons: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) times: TimeForm,
    pub(super) reported: Reported,
    pub(super) follow: Follow,
}

/// How an update is asked for.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Asked {
    #[serde(default)]
    pub(super) methods: Vec<String>,
    #[serde(default)]
    pub(super) desired: Option<String>,
    #[serde(default)]
    pub(super) bare_uri: bool,
    pub(super) members: Members,
    #[serde(default)]
    pub(super) needs: Vec<Needed>,
}

/// The names a request's members have.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Members {
    pub(super) uri: String,
    pub(super) version: Option<String>,
    pub(super) check: Option<String>,
    pub(super) size: Option<String>,
    pub(super) manifest: Option<String>,
    pub(super) keys: Option<String>,
}

/// A member a request cannot be without, besides the URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Needed {
    Version,
}

/// Whether a request must carry a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum CheckRule {
    /// A check value.
    Required,
    /// At least the size.
    Size,
    /// It may.
    Offered,
}

/// How a check value is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum CheckForm {
    /// By its length.
    #[default]
    ByLength,
    /// A bare value is CRC-16, however it is written.
    Devkit,
}

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum TimeForm {
    /// `2019-01-31T12:00:00.000Z`
    #[default]
    Milliseconds,
    /// `2019-01-31T12:00:00.0000000Z`
    Ticks,
}

/// What is reported.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reported {
    #[serde(default)]
    pub(super) unset: Value,
    pub(super) always: Value,
    pub(super) moments: BTreeMap<Moment, Value>,
}

/// How a back end follows an update in the reported properties. Paths are names joined by dots.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Follow {
    /// Where the status stands.
    pub status: String,
    /// Where more detail of the status stands.
    #[serde(default)]
    pub detail: Option<String>,
    /// Where a failure's object `{code, message}` stands.
    #[serde(default)]
    pub error: Option<String>,
    /// Where the running version stands. Where there is one, an update is done only when this is
    /// the version that was asked for.
    #[serde(default)]
    pub running_version: Option<String>,
    /// Statuses of an update that succeeded.
    pub done: Vec<String>,
    /// Statuses of an update that failed.
    pub failed: Vec<String>,
    /// Where a failed status may not be the last one.
    #[serde(default)]
    pub rollback: Option<Rollback>,
}

/// A failed status may not be the last one: the old image is still to be brought back.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[non_exhaustive]
pub struct Rollback {
    /// Statuses of an image that is active: one that failed after them is followed by another.
    pub after: Vec<String>,
    /// Those of the failed statuses that end a rollback.
    pub ends: Vec<String>,
}

impl File {
    pub(super) fn read(json: &[u8]) -> Result<Self, ContractError> {
        let file: Self = json::read(json).map_err(|wrong| ContractError {
            path: wrong.path().into(),
            reason: wrong.reason().into(),
        })?;
        file.check_sense()?;
        Ok(file)
    }

    /// What the layout alone does not say.
    fn check_sense(&self) -> Result<(), ContractError> {
        let wrong = |path: &str, reason: &str| {
            Err(ContractError {
                path: path.into(),
                reason: reason.into(),
            })
        };
        if self.contract.is_empty() {
            return wrong("contract", "a name is needed");
        }
        if self.asked.methods.is_empty() == self.asked.desired.is_none() {
            return wrong(
                "asked",
                "an update is asked for either by \"methods\" or by \"desired\"",
            );
        }
        if !self.asked.methods.is_empty() && !self.answers.contains_key("started") {
            return wrong(
                "answers",
                "\"started\" is needed: what an accepted method is answered",
            );
        }
        if self.version != VersionRule::None && self.asked.members.version.is_none() {
            return wrong("asked.members.version", "the version rule needs it");
        }
        match self.check {
            CheckRule::Required if self.asked.members.check.is_none() => {
                return wrong("asked.members.check", "a required check needs it");
            }
            CheckRule::Size if self.asked.members.size.is_none() => {
                return wrong("asked.members.size", "a required size needs it");
            }
            _ => {}
        }
        for moment in Moment::NEEDED {
            if !self.reported.moments.contains_key(moment) {
                return wrong("reported.moments", &format!("\"{moment}\" is needed"));
            }
        }
        render::check_template("reported.always", &self.reported.always)?;
        for (moment, template) in &self.reported.moments {
            render::check_template(&format!("reported.moments.{moment}"), template)?;
        }
        self.check_follow()
    }

    /// A status that is followed but never reported would be waited for for ever.
    fn check_follow(&self) -> Result<(), ContractError> {
        let reported = |status: &str| {
            self.reported
                .moments
                .values()
                .chain([&self.reported.always])
                .any(|template| {
                    at_path(template, &self.follow.status).and_then(Value::as_str) == Some(status)
                })
        };
        let follow = &self.follow;
        let rollback = follow.rollback.as_ref();
        let of_rollback =
            rollback.map(|it| [("rollback.after", &it.after), ("rollback.ends", &it.ends)]);
        let lists = [("done", &follow.done), ("failed", &follow.failed)];
        for (name, statuses) in lists.into_iter().chain(of_rollback.into_iter().flatten()) {
            if statuses.is_empty() {
                return Err(ContractError {
                    path: format!("follow.{name}"),
                    reason: "at least one status is needed".into(),
                });
            }
            if let Some(status) = statuses.iter().find(|status| !reported(status)) {
                return Err(ContractError {
                    path: format!("follow.{name}"),
                    reason: format!("\"{status}\" is never reported at {}", self.follow.status),
                });
            }
        }
        Ok(())
    }
}
