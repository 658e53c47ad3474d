//! What is remembered of updates: the content of the journal.

use super::{Checkpoint, Key, Outcome, Phase, Request, Stage};
use crate::json;
use alloc::{string::String, vec::Vec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What is remembered between starts, as JSON in the [journal](crate::journal).
///
/// [`Core`] keeps its layout for ever; everything else may grow, and fields of later versions are
/// kept as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The layout: [`Record::FORMAT`]. A newer one is read by its [`Core`] only.
    pub format: u32,
    /// What every version can read.
    pub core: Core,
    /// Wall time of the last save, in milliseconds since 1970; 0 if it was not known.
    #[serde(default)]
    pub saved: u64,
    /// The update that runs, or the last one that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<Update>,
    /// The version of the last update that was confirmed, or that could not be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_version: Option<String>,
    /// The SHA-256 of the last update that was confirmed, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed_sha256: Option<String>,
    /// The journal was lost: what is desired first is not started until it changes.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub lost: bool,
    /// The desired request that is not started because of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_started: Option<Key>,
    /// The last desired request, where somebody at the device has had another image installed since: it is
    /// not started again for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Key>,
    /// The keys of the last rotation, as [`KeySet`](super::trust::KeySet) has them. What a later version
    /// has written and this one cannot read is no reason to lose the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_set: Option<Value>,
    /// The SHA-256 of the document they came in, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_by: Option<String>,
    /// When the newest manifest of a confirmed update was issued, in seconds since 1970; 0 is none.
    #[serde(default)]
    pub manifest_issued: u64,
    /// The installer's own description, so that a rollback needs no configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installer: Option<Value>,
    /// Fields this version does not know.
    #[serde(flatten, skip_deserializing)]
    pub unknown: Map<String, Value>,
}

/// The part of a [`Record`] whose layout never changes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Core {
    /// The last request's key.
    pub last_key: Option<Key>,
    /// How its update ended, in a word; nothing while it runs.
    pub last_outcome: Option<String>,
    /// Starts of the new version that were counted while it has to prove itself.
    pub attempts: u32,
    /// The slot the last update was written to, where there are slots.
    pub slot: Option<String>,
    /// The lowest version that may be installed.
    pub floor: Option<String>,
}

/// One update, running or ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// What was asked for.
    pub request: Request,
    /// Where it stands, or stood when it ended.
    pub phase: Phase,
    /// How it ended; nothing while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// When it reached each step.
    #[serde(default)]
    pub times: Times,
    /// Where its download goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
    /// The image's size in bytes, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The image's SHA-256 in hexadecimal, once it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// What the download has used of its retry budget.
    #[serde(default)]
    pub spent: Spent,
    /// How often applying was started.
    #[serde(default)]
    pub apply_attempts: u32,
    /// The boot in which the restart was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The command that restarts was started; it may be without effect on this process.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub restart_asked: bool,
    /// How often the command that restarts was about to be started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restart_attempts: u32,
    /// Why the old image is being brought back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<super::Failure>,
    /// How often the old image was brought back and a restart was to make it run.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rollbacks: u32,
    /// Starts allowed while the new version has to prove itself.
    #[serde(default)]
    pub starts_allowed: u32,
    /// This start has been counted already, by the guard.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub start_counted: bool,
    /// The user has agreed to this stage, and to those before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<Stage>,
    /// The user wants to be left alone for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deferred: Option<Timer>,
    /// The download begins after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_delay: Option<Timer>,
    /// Paused: the download does not go on by itself.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub paused: bool,
}

/// Wall times in milliseconds since 1970; nothing where the step was not reached, or the time was
/// not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Times {
    /// Accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<u64>,
    /// Download started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloading: Option<u64>,
    /// Downloaded and verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downloaded: Option<u64>,
    /// Applying started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applying: Option<u64>,
    /// The restart was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebooting: Option<u64>,
    /// Completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed: Option<u64>,
}

/// A time to be waited for, over restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    /// The whole of it, in milliseconds.
    pub millis: u64,
    /// The wall time at which it is over, in milliseconds since 1970, where that was known. Where it is
    /// not, a restart begins it anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// What a download has used of its retry budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spent {
    /// Attempts that failed.
    pub attempts: u32,
    /// Milliseconds of trying, pauses included.
    pub millis: u64,
    /// Bytes fetched, those fetched twice included.
    pub bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Default for Record {
    fn default() -> Self {
        Self {
            format: Self::FORMAT,
            core: Core::default(),
            saved: 0,
            update: None,
            confirmed_version: None,
            confirmed_sha256: None,
            lost: false,
            not_started: None,
            desired: None,
            key_set: None,
            rotated_by: None,
            manifest_issued: 0,
            installer: None,
            unknown: Map::new(),
        }
    }
}

impl Record {
    /// The layout this version writes.
    pub const FORMAT: u32 = 1;

    /// Reads a record. One of a newer layout is read by its [`Core`]; `None` is no record at all.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct AnyVersion {
            format: u32,
            core: Core,
        }
        let json = json::parse(json).ok()?;
        let any: AnyVersion = json::of(&json).ok()?;
        if any.format <= Self::FORMAT {
            let mut record: Self = json::of(&json).ok()?;
            record.unknown = json::unknown::<Self>(json);
            return Some(record);
        }
        Some(Self {
            core: any.core,
            ..Self::default()
        })
    }

    /// The record as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The update that runs; `None` when none does.
    pub fn running(&self) -> Option<&Update> {
        self.update
            .as_ref()
            .filter(|update| update.outcome.is_none())
    }
}

impl Update {
    /// A new update.
    pub fn new(request: Request) -> Self {
        Self {
            request,
            phase: Phase::Waiting,
            outcome: None,
            times: Times::default(),
            checkpoint: None,
            bytes: None,
            sha256: None,
            spent: Spent::default(),
            apply_attempts: 0,
            boot_id: None,
            restart_asked: false,
            restart_attempts: 0,
            reason: None,
            rollbacks: 0,
            starts_allowed: 0,
            start_counted: false,
            approved: None,
            deferred: None,
            start_delay: None,
            paused: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::tests::as_serde_json_reads;
    use serde_json::json;

    #[test]
    fn a_newer_layout_is_read_by_its_core() {
        let json = json!({"format":9,"core":{"last_key":null,"last_outcome":"completed","attempts":1,"slot":"B","floor":"2.0"},"update":"different"});
        let record = Record::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(record.core.floor.as_deref(), Some("2.0"));
        assert_eq!(record.update, None);
        assert_eq!(Record::from_json(b"{}"), None);
    }

    #[test]
    fn a_record_is_read_as_serde_json_reads_it() {
        let key = "ab".repeat(32);
        let update = |outcome: Value| {
            json!({
            "request": {"key": key, "origin": "method", "uri": "https://x/y", "version": "1", "size": 7,
                "checks": ["crc16:0001", format!("sha256:{key}")], "manifest": "m", "keys": "k",
                "signed": {"issued": 1, "floor": "1", "compression": "zstd", "encryption": "age"}},
            "phase": "downloading", "outcome": outcome,
            "times": {"waiting": 1, "downloading": 2},
            "checkpoint": {"content": "c", "validator": "v", "total": 3, "offset": 1, "packed": 4,
                "sealed": {"header": 1, "key": "k"}, "checks": "s"},
            "bytes": 1, "sha256": key, "spent": {"attempts": 1, "millis": 2, "bytes": 3}, "apply_attempts": 1,
            "boot_id": "b", "restart_asked": true, "restart_attempts": 1,
            "reason": {"code": "hash-mismatch", "message": "m"}, "rollbacks": 1, "starts_allowed": 2,
            "start_counted": true, "approved": "apply", "deferred": {"millis": 1, "until": 2},
            "start_delay": {"millis": 1}, "paused": true})
        };
        let core = json!({"last_key": key, "last_outcome": "completed", "attempts": 2, "slot": "A", "floor": "1"});
        for outcome in [
            json!("completed"),
            json!(null),
            json!({"failed": {"phase": "verifying", "failure": {"code": "storage", "message": ""}}}),
            json!({"rolled-back": {"code": "storage", "message": ""}}),
            json!({"cancelled": "waiting"}),
        ] {
            as_serde_json_reads::<Record>(&json!({"format": 1, "core": core, "saved": 9,
                "update": update(outcome), "confirmed_version": "1", "confirmed_sha256": key, "lost": true,
                "not_started": key, "desired": key, "key_set": {"version": 1}, "rotated_by": key,
                "manifest_issued": 1, "installer": {"kind": "slots"}}));
        }
    }

    #[test]
    fn unknown_fields_are_neither_lost_nor_doubled() {
        let json = json!({"format":1,"core":{"last_key":null,"last_outcome":null,"attempts":2,"slot":null,"floor":null},
            "later":{"a":[1]}, "unknown": {"x": 1}, "lost": true, "installer": null});
        let record = Record::from_json(json.to_string().as_bytes()).unwrap();
        assert_eq!(
            record.unknown.keys().collect::<Vec<_>>(),
            ["later", "unknown"]
        );
        assert_eq!(Record::from_json(&record.to_json()).as_ref(), Some(&record));
    }
}
