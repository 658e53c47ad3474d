//! `twinflash watch --config`: an update of many devices as it goes.

use crate::{
    cloud::{quoted, text},
    configuration::CONTRACT,
    error::Error,
    screen::{Screen, Tone, parse_time},
    service::{About, Refused, Request, Service},
    update::requested_version,
};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    thread,
    time::{Duration, Instant},
};
use twinflash::contract::{Contract, Follow};

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(2);
/// The width of a bar, in characters.
const BAR: u64 = 30;

/// A rollout being followed.
pub(crate) struct Rollout<'a> {
    service: &'a Service,
    screen: &'a Screen,
    configuration: &'a str,
    follow: Follow,
    /// The version it asks for.
    version: Option<String>,
    /// When the configuration was made: older failures are of other updates.
    since: Option<time::OffsetDateTime>,
    /// Failures that were shown.
    failed: BTreeSet<String>,
    shown: Option<Counts>,
}

/// Where the devices are.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename = "rollout", rename_all = "camelCase")]
struct Counts {
    /// How many devices fulfil the condition.
    targeted: u64,
    /// How many of them got the settings: another configuration may have a higher priority.
    applied: u64,
    /// Devices that have not begun.
    waiting: u64,
    /// Devices under way, by the status they report.
    running: BTreeMap<String, u64>,
    done: u64,
    failed: u64,
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "deviceFailed")]
struct Failed<'a> {
    device: &'a str,
    status: &'a str,
    detail: &'a str,
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "result")]
struct Ended<'a> {
    outcome: &'static str,
    configuration: &'a str,
    done: u64,
    failed: u64,
    seconds: f64,
}

impl<'a> Rollout<'a> {
    /// Looks at the configuration. `contract` is the one its devices follow, where its label does not
    /// say that.
    pub(crate) fn new(
        service: &'a Service,
        screen: &'a Screen,
        configuration: &'a str,
        contract: Option<&str>,
    ) -> Result<Self, Error> {
        let found = look(service, configuration)?;
        let label = text(&found, &format!("/labels/{CONTRACT}"));
        let contract = match (contract, label.as_str()) {
            (Some(name), _) => twinflash::config::contract(name, Path::new(""))?,
            (None, "") => return Err(Error::new(format_args!(
                "configuration \"{configuration}\" does not say which contract its devices follow: add --contract configuration, or --contract devkit"
            ))),
            (None, name) => Contract::built_in(name).map_err(|_| Error::new(format_args!(
                "the devices of configuration \"{configuration}\" follow the contract \"{name}\": add --contract with its file"
            )))?,
        };
        let Some(path) = contract.desired_path() else {
            return Err(Error::new(format_args!(
                "contract {} is asked by a method, not by a configuration",
                contract.name()
            )));
        };
        let content = found.pointer("/content/deviceContent");
        let wanted = content.and_then(|content| content.get(format!("properties.desired.{path}")));
        let Some(wanted) = wanted else {
            return Err(Error::new(format_args!(
                "configuration \"{configuration}\" asks for no update by contract {}: it does not set properties.desired.{path}",
                contract.name()
            )));
        };
        let version = requested_version(&contract, wanted);
        Ok(Self {
            service,
            screen,
            configuration,
            follow: contract.follow().clone(),
            version,
            since: parse_time(&text(&found, "/createdTimeUtc")),
            failed: BTreeSet::new(),
            shown: None,
        })
    }

    /// Follows it until each device is done or has failed; whether all are done.
    pub(crate) fn follow(mut self) -> Result<bool, Error> {
        let start = Instant::now();
        let (mut noted, mut failing) = (false, false);
        let counts = loop {
            match self.count() {
                Ok(counts) => {
                    failing = false;
                    self.show(&counts);
                    if counts.ended() {
                        break counts;
                    }
                    if counts.targeted == 0 && !noted {
                        noted = true;
                        self.screen
                            .note("no device fulfils its condition yet; waiting");
                    }
                }
                Err(refused) if refused.passing => {
                    if !failing {
                        self.screen.note(&format!("{refused}; trying again"));
                    }
                    failing = true;
                }
                Err(refused) => return Err(refused.into()),
            }
            thread::sleep(INTERVAL);
        };
        self.screen.progress_ended();
        let Counts { done, failed, .. } = counts;
        let seconds = start.elapsed().as_secs_f64();
        let (outcome, tone) = match failed {
            0 => ("completed", Tone::Good),
            _ => ("failed", Tone::Bad),
        };
        let text = match failed {
            0 => {
                format!("completed: {done} of {done} devices are up to date, after {seconds:.1} s")
            }
            _ => format!(
                "failed: {failed} of {} devices, after {seconds:.1} s",
                done + failed
            ),
        };
        self.screen.text(&text, tone);
        if self.screen.is_json() {
            self.screen.json(&Ended {
                outcome,
                configuration: self.configuration,
                done,
                failed,
                seconds: (seconds * 1000.0).round() / 1000.0,
            });
        }
        Ok(failed == 0)
    }

    /// Where the devices are now. Failures that are new are shown.
    fn count(&mut self) -> Result<Counts, Refused> {
        let found = look(self.service, self.configuration)?;
        let number = |name: &str| {
            let number = found.pointer(&format!("/systemMetrics/results/{name}"));
            number.and_then(Value::as_u64).unwrap_or_default()
        };
        let applied = format!(
            "configurations.[[{}]].status = 'Applied'",
            self.configuration
        );
        let status = format!("properties.reported.{}", self.follow.status);
        let groups = self.service.rows(&format!(
            "SELECT {status} AS status, COUNT() AS devices FROM devices WHERE {applied} GROUP BY {status}"
        ))?;
        let mut counts = Counts {
            targeted: number("targetedCount"),
            applied: 0,
            waiting: 0,
            running: BTreeMap::new(),
            done: 0,
            failed: 0,
        };
        for group in groups {
            let devices = group
                .get("devices")
                .and_then(Value::as_u64)
                .unwrap_or_default();
            counts.applied += devices;
            match group.get("status").and_then(Value::as_str) {
                Some(status) if self.follow.done.iter().any(|done| done == status) => {
                    counts.waiting += devices;
                }
                Some(status) if self.follow.failed.iter().any(|failed| failed == status) => {
                    counts.waiting += devices;
                }
                Some(status) => *counts.running.entry(status.into()).or_default() += devices,
                None => counts.waiting += devices,
            }
        }
        counts.done = self.done(&applied, &status)?;
        counts.failed = self.failures(&applied, &status)?;
        // The three answers are of three moments.
        let ended = counts.done + counts.failed;
        counts.waiting = counts.waiting.saturating_sub(ended);
        Ok(counts)
    }

    /// How many report a good end, and that the version asked for runs.
    fn done(&self, applied: &str, status: &str) -> Result<u64, Refused> {
        let mut condition = format!("{applied} AND {status} IN {}", list(&self.follow.done));
        if let (Some(path), Some(version)) = (&self.follow.running_version, &self.version) {
            let version = quoted(version);
            condition.push_str(&format!(" AND properties.reported.{path} = {version}"));
        }
        let query = format!("SELECT COUNT() AS devices FROM devices WHERE {condition}");
        let rows = self.service.rows(&query)?;
        let count = rows.first().and_then(|row| row.get("devices"));
        Ok(count.and_then(Value::as_u64).unwrap_or_default())
    }

    /// How many report a failure, and did so since the configuration was made.
    fn failures(&mut self, applied: &str, status: &str) -> Result<u64, Refused> {
        let section = self.follow.status.rsplit_once('.');
        let section = section.map_or(String::new(), |(section, _)| format!("{section}."));
        let detail = self.follow.detail.as_deref().unwrap_or(&self.follow.status);
        let query = format!(
            "SELECT deviceId, {status} AS status, properties.reported.{detail} AS detail, \
             properties.reported.$metadata.{section}$lastUpdated AS updated \
             FROM devices WHERE {applied} AND {status} IN {}",
            list(&self.follow.failed)
        );
        let mut failed = BTreeSet::new();
        for row in self.service.rows(&query)? {
            let updated = parse_time(&text(&row, "/updated"));
            if matches!((updated, self.since), (Some(updated), Some(since)) if updated < since) {
                continue;
            }
            let device = text(&row, "/deviceId");
            if !self.failed.contains(&device) {
                let (status, detail) = (text(&row, "/status"), text(&row, "/detail"));
                let event = Failed {
                    device: &device,
                    status: &status,
                    detail: &detail,
                };
                let text = || format!("{device}: {status}: {detail}");
                self.screen.event(&event, "failed", Tone::Bad, text);
            }
            failed.insert(device);
        }
        // One that starts again and fails again is shown again.
        self.failed = failed;
        Ok(self.failed.len().try_into().unwrap_or(u64::MAX))
    }

    fn show(&mut self, counts: &Counts) {
        if self.shown.as_ref() == Some(counts) {
            return;
        }
        self.shown = Some(counts.clone());
        if !self.screen.block(|| counts.bars()) {
            let text = || counts.line();
            self.screen.event(counts, "rollout", Tone::Normal, text);
        }
    }
}

impl Counts {
    /// Whether nothing more is to come.
    fn ended(&self) -> bool {
        let ended = self.done + self.failed;
        self.targeted > 0 && ended >= self.targeted && self.running.is_empty()
    }

    /// Each part with its number, as far as there is one.
    fn parts(&self) -> Vec<(&str, u64, Tone)> {
        let held = self.targeted.saturating_sub(self.applied);
        let mut parts = vec![
            ("not applied", held, Tone::Dim),
            ("waiting", self.waiting, Tone::Normal),
        ];
        parts.retain(|(name, devices, _)| *devices > 0 || *name == "waiting");
        let running = self.running.iter();
        parts.extend(running.map(|(status, devices)| (status.as_str(), *devices, Tone::Running)));
        parts.push(("done", self.done, Tone::Good));
        parts.push(("failed", self.failed, Tone::Bad));
        parts
    }

    fn line(&self) -> String {
        let mut parts = self.parts();
        parts.retain(|(_, devices, _)| *devices > 0);
        let parts: Vec<_> = parts
            .iter()
            .map(|(name, devices, _)| format!("{devices} {name}"))
            .collect();
        match parts.as_slice() {
            [] => "no devices".into(),
            parts => format!("{} of {}", parts.join(", "), self.targeted),
        }
    }

    /// A bar for each part.
    fn bars(&self) -> Vec<(String, Tone)> {
        let parts = self.parts();
        let bar = |(name, devices, tone): (&str, u64, Tone)| {
            let part = devices.saturating_mul(BAR).checked_div(self.targeted);
            let part = part.unwrap_or_default().min(BAR);
            // Few are not none.
            let part = part.max(u64::from(devices > 0));
            let bar: String = (0..BAR)
                .map(|at| if at < part { '━' } else { '─' })
                .collect();
            (format!("{name:14} {bar} {devices:>6}"), tone)
        };
        parts.into_iter().map(bar).collect()
    }
}

fn look(service: &Service, configuration: &str) -> Result<Value, Refused> {
    let path = ["configurations", configuration];
    let about = About::Configuration(configuration);
    service.ask(Request::new("GET", &path, about))
}

/// A list of texts in a query.
fn list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_in_a_line_and_in_bars() {
        let mut counts = Counts {
            targeted: 1000,
            applied: 998,
            waiting: 500,
            running: [("Applying".to_owned(), 1)].into(),
            done: 496,
            failed: 1,
        };
        assert_eq!(
            counts.line(),
            "2 not applied, 500 waiting, 1 Applying, 496 done, 1 failed of 1000"
        );
        let bars = counts.bars();
        assert_eq!(
            bars[2].0,
            format!("Applying       ━{} {:>6}", "─".repeat(29), 1)
        );
        assert!(!counts.ended());
        (counts.done, counts.applied) = (999, 1000);
        assert!(!counts.ended());
        counts.running.clear();
        assert!(counts.ended());
        (counts.targeted, counts.done, counts.failed) = (0, 0, 0);
        assert!(!counts.ended());
    }
}
