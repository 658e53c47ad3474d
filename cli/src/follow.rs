//! Follows an update in the reported properties, by what its contract says of them.

use crate::{error::Error, screen::parse_time};
use serde_json::Value;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use twinflash::contract::{Contract, Follow, at_path};

/// A failed status that a rollback's end may follow is the last one once it has stayed for so long: who looks
/// now and then may have missed that the new image was active…
const STAYS: Duration = Duration::from_secs(3);
/// …and for so long where it was seen to be: the device restarts meanwhile.
const ROLLS_BACK: Duration = Duration::from_secs(15 * 60);

/// Tells what is new in a device's reported properties.
#[derive(Debug)]
pub(crate) struct Follower {
    follow: Follow,
    /// The version asked for: an update is done when it runs.
    version: Option<String>,
    /// How the reported properties were before the update was asked for: what has not changed since
    /// says nothing about it.
    before: Option<Stamp>,
    /// When the earlier update's part was reported last.
    older: Option<OffsetDateTime>,
    last: Option<(String, Option<String>, bool)>,
    /// The new image was seen to be active.
    active: bool,
    /// A failed status that may not be the last one, its detail, and since when it is there.
    failing: Option<(String, Option<String>, Instant)>,
}

/// Tells one state of the contract's part of the reported properties from another.
#[derive(Debug, Clone, PartialEq)]
struct Stamp {
    version: Option<u64>,
    updated: Option<String>,
}

/// A status that was not seen before.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    /// When it was reported.
    pub(crate) at: OffsetDateTime,
    pub(crate) status: String,
    pub(crate) detail: Option<String>,
    pub(crate) end: Option<End>,
}

/// How an update ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum End {
    Done,
    Failed {
        code: Option<String>,
        message: String,
    },
}

impl Seen {
    /// The per cent in the detail, if it is one.
    pub(crate) fn percent(&self) -> Option<u8> {
        let digits = self.detail.as_ref()?.strip_suffix('%')?;
        digits.trim().parse().ok().filter(|percent| *percent <= 100)
    }
}

impl Follower {
    /// Follows from what is there now on.
    pub(crate) fn new(contract: &Contract, version: Option<&str>) -> Self {
        Self {
            follow: contract.follow().clone(),
            version: version.map(Into::into),
            before: None,
            older: None,
            last: None,
            active: false,
            failing: None,
        }
    }

    /// What is there now is of an earlier update.
    pub(crate) fn ignore(&mut self, reported: &Value) {
        let before = self.stamp(reported);
        self.older = before.updated.as_deref().and_then(parse_time);
        self.before = Some(before);
    }

    /// The next update is followed, too.
    pub(crate) fn go_on(&mut self) {
        self.version = None;
        self.active = false;
        self.failing = None;
    }

    /// What is new.
    pub(crate) fn look(&mut self, reported: &Value) -> Option<Seen> {
        if let Some(before) = &self.before {
            let now = self.stamp(reported);
            let untouched = now.updated.is_some() && now.updated == before.updated;
            if now.version == before.version || untouched {
                return None;
            }
            self.before = None;
        }
        let status = text(reported, &self.follow.status)?;
        let detail = self.follow.detail.as_ref();
        let detail = detail.and_then(|path| text(reported, path));
        let end = self.end(reported);
        let end = end.filter(|_| self.is_last(&status, detail.as_ref()));
        let seen = (status.clone(), detail.clone(), end.is_some());
        if self.last.as_ref() == Some(&seen) {
            return None;
        }
        self.last = Some(seen);
        Some(Seen {
            at: self.reported_at(reported),
            status,
            detail,
            end,
        })
    }

    /// Whether nothing is to follow this status, where an update ends with it.
    fn is_last(&mut self, status: &str, detail: Option<&String>) -> bool {
        let Some(rollback) = &self.follow.rollback else {
            return true;
        };
        let is_of = |statuses: &[String]| statuses.iter().any(|of| of == status);
        self.active |= is_of(&rollback.after);
        if !is_of(&self.follow.failed) || is_of(&rollback.ends) {
            self.failing = None;
            return true;
        }
        let limit = if self.active { ROLLS_BACK } else { STAYS };
        match &self.failing {
            Some((of, with, since)) if of == status && with.as_ref() == detail => {
                since.elapsed() >= limit
            }
            // It says more now: the rollback has failed, too.
            Some(_) => true,
            None => {
                self.failing = Some((status.into(), detail.cloned(), Instant::now()));
                false
            }
        }
    }

    /// How the update that is reported ended; `None` while it runs.
    pub(crate) fn end(&self, reported: &Value) -> Option<End> {
        let Follow {
            done,
            failed,
            error,
            detail,
            running_version,
            ..
        } = &self.follow;
        let status = text(reported, &self.follow.status)?;
        if failed.contains(&status) {
            let error = error.as_ref().and_then(|path| at_path(reported, path));
            let member = |name: &str| text(error?, name);
            let detail = || text(reported, detail.as_ref()?);
            return Some(End::Failed {
                code: member("code"),
                message: member("message").or_else(detail).unwrap_or(status),
            });
        }
        let running = running_version
            .as_ref()
            .map(|path| text(reported, path).unwrap_or_default());
        let runs = match (running, &self.version) {
            (Some(running), Some(version)) => running == *version,
            _ => true,
        };
        (done.contains(&status) && runs).then_some(End::Done)
    }

    /// The part of the reported properties the status stands in.
    fn section(&self) -> &str {
        let status = &self.follow.status;
        status.rsplit_once('.').map_or("", |(section, _)| section)
    }

    fn stamp(&self, reported: &Value) -> Stamp {
        Stamp {
            version: reported.get("$version").and_then(Value::as_u64),
            updated: last_updated(reported, self.section()),
        }
    }

    /// When the hub got what is new; now, where it does not say that.
    fn reported_at(&self, reported: &Value) -> OffsetDateTime {
        let paths = [Some(&self.follow.status), self.follow.detail.as_ref()];
        let at = |path: &str| parse_time(&last_updated(reported, path)?);
        paths
            .into_iter()
            .flatten()
            .filter_map(|path| at(path))
            .max()
            // A status that was the same before is not reported again; what belongs to it is.
            .filter(|time| self.older.is_none_or(|older| *time > older))
            .or_else(|| at(self.section()))
            .unwrap_or_else(OffsetDateTime::now_utc)
    }
}

/// Looks at what `next` gives until the update has ended; `on` is told what is new.
pub(crate) fn follow(
    follower: &mut Follower,
    next: &mut dyn FnMut() -> Result<Value, Error>,
    on: &mut dyn FnMut(Seen),
) -> Result<End, Error> {
    let mut shown = None;
    loop {
        if let Some(seen) = follower.look(&next()?) {
            let end = seen.end.clone();
            let words = Some((seen.status.clone(), seen.detail.clone()));
            // What was told when it was not yet known to be the end.
            let told = matches!(end, Some(End::Failed { .. })) && shown == words;
            shown = words;
            if !told {
                on(seen);
            }
            if let Some(end) = end {
                return Ok(end);
            }
        }
    }
}

/// A text that is not empty.
fn text(value: &Value, path: &str) -> Option<String> {
    let text = at_path(value, path)?.as_str()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn last_updated(reported: &Value, path: &str) -> Option<String> {
    let metadata = reported.get("$metadata")?;
    let of = match path {
        "" => metadata,
        path => at_path(metadata, path)?,
    };
    of.get("$lastUpdated")?.as_str().map(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn reported(version: u64, updated: &str, firmware: Value) -> Value {
        let time = format!("2026-11-20T10:00:{updated}.0000000Z");
        json!({
            "firmware": firmware,
            "$version": version,
            "$metadata": {"firmware": {"$lastUpdated": time, "fwUpdateStatus": {"$lastUpdated": time}}},
        })
    }

    fn configuration() -> Follower {
        let contract = Contract::built_in("configuration").unwrap();
        Follower::new(&contract, Some("1.0.1"))
    }

    #[test]
    fn what_was_there_before_is_ignored() {
        let old = json!({"fwUpdateStatus": "error", "fwUpdateSubstatus": "of the last update"});
        let mut follower = configuration();
        follower.ignore(&reported(7, "01", old.clone()));
        assert_eq!(follower.look(&reported(7, "01", old.clone())), None);
        // Another part of the twin changed.
        assert_eq!(follower.look(&reported(8, "01", old.clone())), None);
        // The same words, reported anew; it is the end once they have stayed.
        let mut anew = reported(9, "02", old);
        anew["$metadata"]["firmware"]["fwUpdateStatus"]["$lastUpdated"] =
            "2026-11-20T10:00:01Z".into();
        let seen = follower.look(&anew).unwrap();
        assert_eq!(seen.end, None);
        assert_eq!(follower.look(&anew), None);
        follower.failing.as_mut().unwrap().2 -= STAYS;
        let seen = follower.look(&anew).unwrap();
        assert_eq!(seen.end, failed("of the last update"));
        assert_eq!(Some(seen.at), parse_time("2026-11-20T10:00:02Z"));
    }

    fn failed(message: &str) -> Option<End> {
        let message = message.into();
        Some(End::Failed {
            code: None,
            message,
        })
    }

    #[test]
    fn a_rollback_is_followed_to_its_end() {
        let state = |status: &str, detail: &str| {
            let state = json!({"fwUpdateStatus": status, "fwUpdateSubstatus": detail});
            reported(1, "01", state)
        };
        let back = state("rolledback", "Rolled back to: 1.0.0; why");
        let failed_too = state("error", "why; and the old image could not be brought back");
        for (last, message) in [
            (back, "Rolled back to: 1.0.0; why"),
            (
                failed_too,
                "why; and the old image could not be brought back",
            ),
        ] {
            let mut follower = configuration();
            let states = [
                state("rebooting", "Finished reboot"),
                state("error", "why"),
                last,
            ];
            let mut next = states.into_iter();
            let mut told = Vec::new();
            let end = follow(
                &mut follower,
                &mut || Ok(next.next().unwrap()),
                &mut |seen| told.push(seen.status),
            );
            assert_eq!(end.ok(), failed(message));
            assert_eq!(told[..2], ["rebooting", "error"]);
            assert_eq!(told.len(), 3);
        }
    }

    #[test]
    fn done_is_done_when_the_version_runs() {
        let mut follower = configuration();
        let mut state = json!({"fwUpdateStatus": "current", "currentFwVersion": "1.0.0"});
        let seen = follower.look(&reported(1, "01", state.clone())).unwrap();
        assert_eq!(seen.end, None);
        assert_eq!(follower.look(&reported(2, "02", state.clone())), None);
        state["currentFwVersion"] = "1.0.1".into();
        let seen = follower.look(&reported(3, "03", state)).unwrap();
        assert_eq!(seen.end, Some(End::Done));
    }

    #[test]
    fn each_detail_is_new_and_a_percent_is_known() {
        let mut follower = configuration();
        for (detail, percent) in [("Start downloading", None), ("10%", Some(10)), ("x%", None)] {
            let state = json!({"fwUpdateStatus": "downloading", "fwUpdateSubstatus": detail});
            let seen = follower.look(&reported(1, "01", state)).unwrap();
            assert_eq!(seen.percent(), percent);
        }
    }

    #[test]
    fn the_error_is_code_and_message() {
        let contract = Contract::built_in("iothub-dm").unwrap();
        let mut follower = Follower::new(&contract, None);
        let update = json!({
            "status": "downloadFailed",
            "error": {"code": "http-status", "message": "404"},
        });
        let seen = follower
            .look(&json!({"iothubDM": {"firmwareUpdate": update}}))
            .unwrap();
        assert_eq!(
            seen.end,
            Some(End::Failed {
                code: Some("http-status".into()),
                message: "404".into()
            })
        );
    }
}
